/* recipe.h - what to train: a libconfig file, resolved into typed settings.
 *
 * The key table in src/config/keys.c is the only list of keys; parser, errors,
 * help and dump follow from it. A recipe owns its strings (in an arena). Every
 * rank reads the recipe by itself. Nothing here is collective. */
#ifndef ESPALIER_RECIPE_H
#define ESPALIER_RECIPE_H

#include <espalier/kinds.h>
#include <espalier/status.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { RECIPE_NAME_MAX = 48, RECIPE_LAYERS_MAX = 64 };

/** One entry of `network`. Keys that its type does not have are refused. */
struct layer_settings {
    enum layer_kind type;
    char name[RECIPE_NAME_MAX]; /* given, or conv1, conv2, dense1, maxpool1, dropout1, ... */
    int filters, kernel, stride, padding; /* conv; stride 1 and padding 0 unless given */
    int units;                            /* dense */
    int size;                             /* maxpool: window and stride */
    double rate;                          /* dropout, dropconnect: fraction dropped, [0, 1) */
    enum inference inference;             /* dropconnect */
    int samples;                          /* dropconnect: Gaussian draws of each unit */
    double momentum, epsilon;             /* batchnorm */
    enum activation activation;           /* conv, dense; none unless given */
    enum initializer initializer;         /* conv, dense; glorot_uniform unless given */
};

struct data_settings {
    char *dir;       /* data/mnist; $ESPALIER_MNIST where the recipe and -s do not say */
    int train_limit; /* first so many images only; 0: all */
    int test_limit;
    int validation; /* images at the end of the training set that are held out */
};

struct optimizer_settings {
    enum optimizer_kind kind;
    double learning_rate;
    double momentum;     /* sgd */
    bool nesterov;       /* sgd */
    double rho;          /* adadelta */
    double epsilon;      /* adadelta, adam */
    double beta1, beta2; /* adam */
};

struct train_settings {
    int epochs;
    int steps; /* stop after so many updates; 0: epochs alone decide */
    int batch; /* the global batch */
    uint64_t seed;
    enum backend_choice backend;
    bool tf32; /* of an accelerator: backend_options */
    bool cudnn_autotune;
    int threads; /* of each rank; 0: its share of the cores */
    double hang_seconds;
    bool reproducible; /* on any number of ranks */
    int log_every;     /* updates that one `step` event covers */
    double l1, l2;     /* of the weights, added to the loss: l1 sum |w| + l2 / 2 sum w^2 */
    struct optimizer_settings optimizer;
};

struct checkpoint_settings {
    int every;      /* updates; 0: off */
    double seconds; /* 0: off */
    int keep;       /* the newest ones */
};

struct prune_settings {
    char **layers; /* names, in the recipe's order */
    int layers_count;
    enum prune_scope scope;
    enum distribution distribution; /* scope layer */
    bool normalise;                 /* scope global: rank by magnitude over the layer's norm */
    double min_keep; /* of each layer, whatever the schedule says: as keep, a fraction or a count */
    enum deletion deletion;
    enum schedule_kind schedule;
    enum schedule_unit unit; /* of begin and end, and of every where it is epochs */
    double rate;             /* linear, geometric: fraction that an event removes */
    double mu;               /* fsa */
    int every;               /* units between events */
    int64_t begin;           /* event e follows unit begin + e * every, e = 1, 2, ... */
    int64_t end;             /* no event after this; 0: as the schedule has it (schedule.h) */
    double keep;         /* never fewer survivors than this: a fraction in [0, 1), else a count */
    double sparse_below; /* density below which layers go into sparse form; negative: measured */
};

struct recipe {
    char *path; /* for messages */
    char *name; /* file name without directory and .cfg */
    struct layer_settings layers[RECIPE_LAYERS_MAX];
    int layers_count;
    struct data_settings data;
    struct train_settings train;
    struct checkpoint_settings checkpoint;
    struct prune_settings prune;
    struct arena *arena;
};

/** Read a recipe file, then apply `overrides` ("KEY=VALUE" each; blanks around either are cut off,
 *  a list is [a,b] or ["a","b"]).
 *
 *  Errors (ST_INPUT; ST_USAGE for an override) name file and line, or the override, the full
 *  dotted key, what was found and what was expected; an unknown key names the known one that is
 *  near, else the keys that its section has. An override that changes the optimizer drops what the
 * file says for its own, the learning rate too. @include is refused. Checks types, bounds, and that
 * prune.layers name conv or dense layers. Whether the shapes fit is checked when a network is
 * built.
 *
 *  recipe  filled; recipe_destroy frees it (legal on a zeroed recipe, and after failure). */
enum status recipe_load(const char *path, const char *const *overrides, int overrides_count,
                        struct recipe *recipe);

/** As recipe_load, from text; `path` only names it in messages. */
enum status recipe_parse(const char *path, const char *text, const char *const *overrides,
                         int overrides_count, struct recipe *recipe);

void recipe_destroy(struct recipe *recipe);

/** Write the resolved recipe, complete: reading it back gives the same settings, bit for bit.
 *  ST_IO when writing fails. */
enum status recipe_write(const struct recipe *recipe, FILE *file);

/** The resolved recipe as text, allocated with malloc; the caller frees it. */
enum status recipe_text(const struct recipe *recipe, char **text);

/** How two resolved recipes differ, as one line with keys and both values; "" where they differ in
 *  nothing that a run could not change half way (epochs, logging, threads, checkpoint.*, where the
 *  data lie). Allocated with malloc; the caller frees it. */
enum status recipe_differences(const struct recipe *now, const struct recipe *then, char **text);

/** Write the table of keys (name, type, default, bounds, meaning), for --help. */
void recipe_write_keys(FILE *file);

#endif
