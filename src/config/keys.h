/* keys.h - the tables of keys, from which parser, errors, help and dump follow.
 *
 * A row says what a key is called, what it may hold and where in the settings it goes. Rows of
 * `recipe_keys` point into struct recipe, rows of `layer_keys` into struct layer_settings. */
#ifndef ESPALIER_CONFIG_KEYS_H
#define ESPALIER_CONFIG_KEYS_H

#include <espalier/number.h>
#include <espalier/recipe.h>

enum key_type {
    KEY_INTEGER, /* int or int64_t, by the size of its target */
    KEY_REAL,
    KEY_BOOLEAN,
    KEY_TEXT,
    KEY_NAME,  /* a layer's name, char[RECIPE_NAME_MAX] */
    KEY_NAMES, /* a list of text, char **, and an int that counts it */
    KEY_KIND,  /* an enum, given by its name */
    KEY_TYPE_COUNT
};

struct interval {
    double low, high;
    bool low_open, high_open; /* an open end is not in the interval */
};

struct key {
    const char *name; /* dotted: "train.epochs"; in a layer: "filters" */
    enum key_type type;
    size_t offset, size;
    struct {
        int64_t value, low, high; /* default and bounds, both inclusive; of a KEY_KIND: default */
    } integer;
    struct {
        double value;
        struct interval bounds;
        const double *by_optimizer; /* the default where the optimizer decides it, else NULL */
    } real;
    const char *text;         /* default of a KEY_TEXT */
    size_t count_offset;      /* KEY_NAMES: where its count goes */
    const char *const *kinds; /* KEY_KIND: the names */
    unsigned users;           /* bit per layer type or optimizer that has this key; 0: every one */
    bool required;            /* a layer that has this key cannot do without */
    bool harmless;            /* a run that is resumed may change it */
    const char *meaning;
};

enum {
    KEYS_MAX = 48,
    KEY_TEXT_MAX = 4096,
    EXPECTATION_MAX = 160,
    LAYER_HEAD_KEYS = 2 /* type and name, the first rows, which only the file can say */
};

extern const struct key recipe_keys[];
extern const int recipe_keys_count;
extern const struct key layer_keys[];
extern const int layer_keys_count;
extern const char *const recipe_groups[]; /* "data", "train", ...; NULL-terminated */

/** The row of that name, NULL when there is none. */
const struct key *recipe_key(const char *name);
const struct key *layer_key(const char *name);

/** Whether a layer type or optimizer of this number has the key. */
bool key_is_for(const struct key *key, int user);

/** Say what the key may hold: "an integer from 1 to 64". */
void key_expectation(const struct key *key, char expectation[EXPECTATION_MAX]);

#endif
