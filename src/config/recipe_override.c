#include "reading.h"
#include <string.h>

enum { LAYER_PREFIX = sizeof "network." - 1 };

static enum status find_layer(const struct recipe *recipe, const char *name,
                              const struct source *source, int *layer) {
    const char *names[RECIPE_LAYERS_MAX];
    char quoted[QUOTE_MAX], hint[HINT_MAX];
    for (int i = 0; i < recipe->layers_count; i++)
        names[i] = recipe->layers[i].name;
    for (*layer = 0; *layer < recipe->layers_count; ++*layer)
        if (strcmp(names[*layer], name) == 0)
            return ST_OK;
    return source_fail(source, "the network has no layer '%s'; %s", quote(name, quoted),
                       hint_at(names, recipe->layers_count, name, "its layers", hint));
}

/* path: "NAME.KEY", cut at its dot */
static enum status override_layer(struct reading *reading, char *path, const char *text,
                                  const struct source *source) {
    struct recipe *recipe = reading->recipe;
    int layer;
    const struct key *key;
    struct value value;
    char label[LABEL_MAX];
    char *dot = strchr(path, '.');
    if (dot == NULL)
        return source_fail(source, "expected network.NAME.KEY, such as network.%s.%s",
                           recipe->layers[0].name, layer_keys[LAYER_HEAD_KEYS].name);
    *dot = '\0';
    TRY(find_layer(recipe, path, source, &layer));
    TRY(layer_key_find(recipe, layer, dot + 1, source, &key));
    layer_key_label(recipe, layer, key, label);
    if (key - layer_keys < LAYER_HEAD_KEYS)
        return source_fail(source, "%s: the file alone decides a layer's type and name", label);
    TRY(value_from_text(key, text, recipe->arena, &value));
    reading->layers[layer] = *source;
    return value_store(key, &value, recipe->arena, &recipe->layers[layer], source, label);
}

static enum status override_key(struct reading *reading, const char *name, const char *text,
                                const struct source *source) {
    struct recipe *recipe = reading->recipe;
    struct value value;
    const struct key *key = recipe_key(name);
    if (key == NULL)
        return unknown_key_fail(recipe, name, source);
    TRY(value_from_text(key, text, recipe->arena, &value));
    reading->given[key - recipe_keys] = *source;
    return value_store(key, &value, recipe->arena, recipe, source, name);
}

enum status reading_override(struct reading *reading, const char *override) {
    struct source source = {.override = override};
    char *name;
    TRY(arena_strdup(reading->recipe->arena, override, &name));
    char *equals = strchr(name, '=');
    if (equals == NULL)
        return source_fail(&source, "expected KEY=VALUE");
    *equals = '\0';
    name = trim(name);
    const char *text = trim(equals + 1);
    if (name[0] == '\0')
        return source_fail(&source, "expected KEY=VALUE");
    if (strcmp(name, "network") == 0)
        return source_fail(&source, "the file alone lists the layers; expected network.NAME.KEY");
    if (strncmp(name, "network.", LAYER_PREFIX) == 0)
        return override_layer(reading, name + LAYER_PREFIX, text, &source);
    return override_key(reading, name, text, &source);
}
