/* reading.h - a recipe while it is read: which of its settings were given, and where. */
#ifndef ESPALIER_CONFIG_READING_H
#define ESPALIER_CONFIG_READING_H

#include "value.h"

struct reading {
    struct recipe *recipe;                   /* borrowed */
    struct source given[KEYS_MAX];           /* of each key; zero for a default */
    struct source layers[RECIPE_LAYERS_MAX]; /* of each layer; its last override */
};

/** The source of a recipe's key, by its name in the table. */
struct source *reading_source(struct reading *reading, const char *key);

/** Read a libconfig tree into the recipe: every layer, every key that is given. */
enum status reading_read_tree(struct reading *reading, const config_setting_t *root);

/** Apply one "KEY=VALUE", where KEY may be network.NAME.KEY. */
enum status reading_override(struct reading *reading, const char *override);

/** The row of a layer's key: ST_INPUT or ST_USAGE at `source` when its type has none such. */
enum status layer_key_find(const struct recipe *recipe, int layer, const char *name,
                           const struct source *source, const struct key **key);

/** "network.NAME.KEY". */
enum { LABEL_MAX = RECIPE_NAME_MAX + 64 };
void layer_key_label(const struct recipe *recipe, int layer, const struct key *key,
                     char label[LABEL_MAX]);

/** The names of a layer type's keys; returns how many. */
int layer_key_names(enum layer_kind type, const char *names[KEYS_MAX]);

/** Fail at `source` for a key that is not in the table, with the known one that may have been
 *  meant, else the keys of its section, else where all keys are listed. */
enum status unknown_key_fail(const struct recipe *recipe, const char *name,
                             const struct source *source);
enum status unknown_layer_key_fail(const struct recipe *recipe, int layer, const char *name,
                                   const struct source *source);

/** "nearest: 'NAME'" where one of the names is near, else "LISTED: " and all of them. */
enum { HINT_MAX = 320 };
const char *hint_at(const char *const *names, int count, const char *name, const char *listed,
                    char hint[HINT_MAX]);

/** Refuse names that two layers share, or that are another layer's automatic one. */
enum status reading_check_names(const struct reading *reading);

/** Refuse settings of another optimizer than the recipe's. */
enum status reading_check_optimizer(const struct reading *reading);

/** Refuse what no key can tell by itself: keys that do not fit each other. */
enum status reading_check(struct reading *reading);

/** conv1, conv2, dense1, ...: the type and the layer's number among its type. */
void layer_automatic_name(const struct recipe *recipe, int layer, char name[RECIPE_NAME_MAX]);

#endif
