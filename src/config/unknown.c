/* What to say about a key that there is not. */
#include "reading.h"
#include <espalier/nearest.h>
#include <string.h>

const char *hint_at(const char *const *names, int count, const char *name, const char *listed,
                    char hint[HINT_MAX]) {
    const char *nearest = name_nearest(names, count, name);
    char all[HINT_MAX / 2];
    names_join(names, count, ", ", all, sizeof all);
    if (nearest != NULL)
        snprintf(hint, HINT_MAX, "nearest: '%s'", nearest);
    else
        snprintf(hint, HINT_MAX, "%s: %s", listed, all);
    return hint;
}

int layer_key_names(enum layer_kind type, const char *names[KEYS_MAX]) {
    int count = 0;
    for (int i = 0; i < layer_keys_count; i++)
        if (key_is_for(&layer_keys[i], (int)type))
            names[count++] = layer_keys[i].name;
    return count;
}

/* The keys of a group without its name: "epochs" of "train.epochs". All groups' keys for NULL. */
static int group_key_names(const char *group, const char *names[KEYS_MAX]) {
    int count = 0;
    for (int i = 0; i < recipe_keys_count; i++) {
        const char *dot = strchr(recipe_keys[i].name, '.');
        size_t size = (size_t)(dot - recipe_keys[i].name);
        if (group == NULL ||
            (strncmp(group, recipe_keys[i].name, size) == 0 && group[size] == '\0'))
            names[count++] = dot + 1;
    }
    return count;
}

static const char *group_nearest(const char *name, bool network) {
    const char *names[8];
    int count = 0;
    while (recipe_groups[count] != NULL)
        names[count] = recipe_groups[count], count++;
    if (network)
        names[count++] = "network";
    return name_nearest(names, count, name);
}

/* A key of any group that has this name, or one near to it. */
static const struct key *key_of_any_group(const char *name, bool near) {
    const char *names[KEYS_MAX];
    const char *wanted = near ? name_nearest(names, group_key_names(NULL, names), name) : name;
    for (int i = 0; wanted != NULL && i < recipe_keys_count; i++)
        if (strcmp(strchr(recipe_keys[i].name, '.') + 1, wanted) == 0)
            return &recipe_keys[i];
    return NULL;
}

static enum status unknown_fail(const struct source *source, const char *name, const char *prefix,
                                const char *nearest) {
    char quoted[QUOTE_MAX];
    return source_fail(source, "unknown key '%s'; nearest known key: '%s%s%s'", quote(name, quoted),
                       prefix, *prefix == '\0' ? "" : ".", nearest);
}

static enum status unlisted_fail(const struct source *source, const char *name, const char *section,
                                 const char *const *names, int count) {
    char quoted[QUOTE_MAX], keys[HINT_MAX];
    names_join(names, count, ", ", keys, sizeof keys);
    return source_fail(source, "unknown key '%s'; keys of %s: %s", quote(name, quoted), section,
                       keys);
}

/* `name` is the whole of what is unknown, `tail` its part behind "network.NAME.". */
static enum status unknown_in_layer(const struct recipe *recipe, int layer, const char *name,
                                    const char *tail, const struct source *source) {
    const char *names[KEYS_MAX];
    char section[LABEL_MAX];
    int count = layer_key_names(recipe->layers[layer].type, names);
    const char *nearest = name_nearest(names, count, tail);
    snprintf(section, sizeof section, "network.%s", recipe->layers[layer].name);
    if (nearest != NULL)
        return unknown_fail(source, name, section, nearest);
    return unlisted_fail(source, name, section, names, count);
}

enum status unknown_layer_key_fail(const struct recipe *recipe, int layer, const char *name,
                                   const struct source *source) {
    char whole[LABEL_MAX + QUOTE_MAX];
    snprintf(whole, sizeof whole, "network.%s.%s", recipe->layers[layer].name, name);
    return unknown_in_layer(recipe, layer, whole, name, source);
}

static enum status unknown_in_group(const char *group, const char *name, const char *tail,
                                    const struct source *source) {
    const char *names[KEYS_MAX];
    int count = group_key_names(group, names);
    const char *nearest = name_nearest(names, count, tail);
    if (nearest != NULL)
        return unknown_fail(source, name, group, nearest);
    if (key_of_any_group(tail, false) != NULL)
        return unknown_fail(source, name, "", key_of_any_group(tail, false)->name);
    return unlisted_fail(source, name, group, names, count);
}

static int find_layer(const struct recipe *recipe, const char *name) {
    for (int i = 0; i < recipe->layers_count; i++)
        if (strcmp(recipe->layers[i].name, name) == 0)
            return i;
    return -1;
}

/* A name without a dot: a group's, a key's without its group, or a layer's. */
static enum status unknown_word_fail(const struct recipe *recipe, const char *name,
                                     const struct source *source) {
    char quoted[QUOTE_MAX];
    const char *group = group_nearest(name, source->override == NULL);
    const struct key *key = key_of_any_group(name, true);
    if (kind_find(recipe_groups, name) >= 0)
        return unknown_in_group(name, name, "", source);
    if (source->override != NULL && find_layer(recipe, name) >= 0)
        return unknown_in_layer(recipe, find_layer(recipe, name), name, "", source);
    if (group != NULL)
        return unknown_fail(source, name, "", group);
    if (key != NULL)
        return unknown_fail(source, name, "", key->name);
    return source_fail(source, "unknown key '%s'; 'espalier train --help' lists the keys",
                       quote(name, quoted));
}

enum status unknown_key_fail(const struct recipe *recipe, const char *name,
                             const struct source *source) {
    char section[QUOTE_MAX], quoted[QUOTE_MAX];
    const char *dot = strchr(name, '.');
    if (dot == NULL)
        return unknown_word_fail(recipe, name, source);
    snprintf(section, sizeof section, "%.*s", (int)(dot - name), name);
    const char *group = group_nearest(section, false);
    if (kind_find(recipe_groups, section) < 0 && find_layer(recipe, section) >= 0)
        return unknown_in_layer(recipe, find_layer(recipe, section), name, dot + 1, source);
    if (group != NULL)
        return unknown_in_group(group, name, dot + 1, source);
    if (key_of_any_group(dot + 1, false) != NULL)
        return unknown_fail(source, name, "", key_of_any_group(dot + 1, false)->name);
    return source_fail(source, "unknown key '%s'; 'espalier train --help' lists the keys",
                       quote(name, quoted));
}
