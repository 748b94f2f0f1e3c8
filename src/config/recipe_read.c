#include "reading.h"
#include <espalier/nearest.h>
#include <string.h>

struct source *reading_source(struct reading *reading, const char *key) {
    return &reading->given[recipe_key(key) - recipe_keys];
}

static struct source source_of(const struct reading *reading, const config_setting_t *setting) {
    return (struct source){.path = reading->recipe->path,
                           .line = config_setting_source_line(setting)};
}

void layer_automatic_name(const struct recipe *recipe, int layer, char name[RECIPE_NAME_MAX]) {
    enum layer_kind type = recipe->layers[layer].type;
    int number = 0;
    for (int i = 0; i <= layer; i++)
        number += recipe->layers[i].type == type;
    snprintf(name, RECIPE_NAME_MAX, "%s%d", layer_kind_names[type], number);
}

void layer_key_label(const struct recipe *recipe, int layer, const struct key *key,
                     char label[LABEL_MAX]) {
    snprintf(label, LABEL_MAX, "network.%s.%s", recipe->layers[layer].name, key->name);
}

enum status layer_key_find(const struct recipe *recipe, int layer, const char *name,
                           const struct source *source, const struct key **key) {
    const struct layer_settings *settings = &recipe->layers[layer];
    const char *names[KEYS_MAX];
    char known[HINT_MAX];
    *key = layer_key(name);
    if (*key != NULL && key_is_for(*key, (int)settings->type))
        return ST_OK;
    if (*key == NULL)
        return unknown_layer_key_fail(recipe, layer, name, source);
    names_join(names, layer_key_names(settings->type, names), ", ", known, sizeof known);
    return source_fail(source, "network.%s.%s: a %s layer has no key '%s', only %s", settings->name,
                       name, layer_kind_names[settings->type], name, known);
}

/* Read the member `name`, if the layer has it; *given says whether. */
static enum status read_head(struct reading *reading, const config_setting_t *entry, int layer,
                             const char *name, bool *given) {
    struct recipe *recipe = reading->recipe;
    const config_setting_t *setting = config_setting_get_member(entry, name);
    *given = setting != NULL;
    if (!*given)
        return ST_OK;
    struct value value;
    struct source source = source_of(reading, setting);
    char label[LABEL_MAX];
    snprintf(label, sizeof label, "%s of layer %d of network", name, layer + 1);
    TRY(value_from_setting(setting, recipe->arena, &value));
    return value_store(layer_key(name), &value, recipe->arena, &recipe->layers[layer], &source,
                       label);
}

/* Type and name come first: the others' keys and messages need them. */
static enum status read_type_and_name(struct reading *reading, const config_setting_t *entry,
                                      int layer) {
    bool given;
    char expected[EXPECTATION_MAX];
    TRY(read_head(reading, entry, layer, "type", &given));
    if (!given) {
        key_expectation(layer_key("type"), expected);
        return source_fail(&reading->layers[layer],
                           "layer %d of network has no key 'type'; expected %s", layer + 1,
                           expected);
    }
    layer_automatic_name(reading->recipe, layer, reading->recipe->layers[layer].name);
    return read_head(reading, entry, layer, "name", &given);
}

/* Give each key of the layer's type its default, refuse a layer that lacks a required one. */
static enum status set_layer_defaults(struct reading *reading, const config_setting_t *entry,
                                      int layer) {
    struct layer_settings *settings = &reading->recipe->layers[layer];
    char expected[EXPECTATION_MAX];
    for (int i = LAYER_HEAD_KEYS; i < layer_keys_count; i++) {
        const struct key *key = &layer_keys[i];
        if (!key_is_for(key, (int)settings->type))
            continue;
        if (!key->required) {
            struct value value = value_default(key);
            value_put(key, &value, settings);
            continue;
        }
        key_expectation(key, expected);
        if (config_setting_get_member(entry, key->name) == NULL)
            return source_fail(&reading->layers[layer],
                               "network.%s: a %s layer needs the key '%s': %s", settings->name,
                               layer_kind_names[settings->type], key->name, expected);
    }
    return ST_OK;
}

static enum status read_layer_member(struct reading *reading, const config_setting_t *setting,
                                     int layer) {
    struct recipe *recipe = reading->recipe;
    struct source source = source_of(reading, setting);
    const struct key *key;
    struct value value;
    char label[LABEL_MAX];
    TRY(layer_key_find(recipe, layer, config_setting_name(setting), &source, &key));
    layer_key_label(recipe, layer, key, label);
    TRY(value_from_setting(setting, recipe->arena, &value));
    return value_store(key, &value, recipe->arena, &recipe->layers[layer], &source, label);
}

static enum status read_layer(struct reading *reading, const config_setting_t *entry, int layer) {
    reading->layers[layer] = source_of(reading, entry);
    reading->recipe->layers_count = layer + 1;
    if (!config_setting_is_group(entry))
        return source_fail(&reading->layers[layer],
                           "layer %d of network is not a group; expected { type = \"...\"; ... }",
                           layer + 1);
    TRY(read_type_and_name(reading, entry, layer));
    TRY(set_layer_defaults(reading, entry, layer));
    for (int i = 0; i < config_setting_length(entry); i++)
        TRY(read_layer_member(reading, config_setting_get_elem(entry, (unsigned)i), layer));
    return ST_OK;
}

static enum status read_network(struct reading *reading, const config_setting_t *network) {
    struct source source = source_of(reading, network);
    int count = config_setting_length(network);
    if (!config_setting_is_list(network))
        return source_fail(&source,
                           "network: expected a list of layers: ( { type = \"...\"; ... }, ... )");
    if (count < 1 || count > RECIPE_LAYERS_MAX)
        return source_fail(&source, "network: found %d layers, expected 1 to %d", count,
                           RECIPE_LAYERS_MAX);
    for (int i = 0; i < count; i++)
        TRY(read_layer(reading, config_setting_get_elem(network, (unsigned)i), i));
    return ST_OK;
}

static enum status read_member(struct reading *reading, const config_setting_t *setting,
                               const char *group) {
    struct recipe *recipe = reading->recipe;
    struct source source = source_of(reading, setting);
    char name[LABEL_MAX];
    snprintf(name, sizeof name, "%s.%s", group, config_setting_name(setting));
    const struct key *key = recipe_key(name);
    if (key == NULL)
        return unknown_key_fail(recipe, name, &source);
    struct value value;
    TRY(value_from_setting(setting, recipe->arena, &value));
    reading->given[key - recipe_keys] = source;
    return value_store(key, &value, recipe->arena, recipe, &source, name);
}

static enum status read_group(struct reading *reading, const config_setting_t *group) {
    struct source source = source_of(reading, group);
    const char *name = config_setting_name(group);
    char found[SHOWN_MAX];
    if (kind_find(recipe_groups, name) < 0)
        return unknown_key_fail(reading->recipe, name, &source);
    if (!config_setting_is_group(group)) {
        struct value value;
        TRY(value_from_setting(group, reading->recipe->arena, &value));
        value_show(&value, found);
        return source_fail(&source, "%s: found %s, expected a group of keys", name, found);
    }
    for (int i = 0; i < config_setting_length(group); i++)
        TRY(read_member(reading, config_setting_get_elem(group, (unsigned)i), name));
    return ST_OK;
}

enum status reading_read_tree(struct reading *reading, const config_setting_t *root) {
    for (int i = 0; i < config_setting_length(root); i++) {
        const config_setting_t *setting = config_setting_get_elem(root, (unsigned)i);
        if (strcmp(config_setting_name(setting), "network") == 0)
            TRY(read_network(reading, setting));
        else
            TRY(read_group(reading, setting));
    }
    if (reading->recipe->layers_count == 0)
        FAIL(ST_INPUT, "%s: no network; expected network = ( { type = \"...\"; ... }, ... );",
             reading->recipe->path);
    return ST_OK;
}
