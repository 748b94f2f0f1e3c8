/* pruned_network.h - networks of several kinds on 14 x 14 images, of which a pattern of connections
 * is left. */
#ifndef ESPALIER_TESTS_PRUNED_NETWORK_H
#define ESPALIER_TESTS_PRUNED_NETWORK_H

#include "on_backends.h"

#include <espalier/deletion.h>
#include <espalier/recipe.h>
#include <espalier/rng.h>
#include <espalier/survivors.h>
#include <stdio.h>
#include <string.h>

enum { SIDE = 14, PIXELS = SIDE * SIDE, SAMPLES = 5, CLASSES = 10, MOST_VALUES = 40000 };

#define CONV(filters, more) "{ type = \"conv\"; filters = " #filters "; kernel = 3; " more " }, "
#define DENSE(units, more) "{ type = \"dense\"; units = " #units "; " more " }, "
#define RELU "activation = \"relu\";"
#define POOL "{ type = \"maxpool\"; size = 2; }, "
#define DROPOUT "{ type = \"dropout\"; rate = 0.5; }, "
#define LAST "{ type = \"dense\"; units = 10; } "

/* Pools that begin a block, strides and padding, dropout of all kinds of blocks. */
static const char *const networks[] = {
    CONV(8, RELU) CONV(16, RELU) POOL DENSE(24, RELU) LAST,
    CONV(8, RELU) DROPOUT POOL CONV(16, RELU) DROPOUT DENSE(24, RELU) DROPOUT LAST,
    CONV(8, RELU "padding = 1; stride = 2;") CONV(16, RELU "padding = 1;") POOL LAST,
    CONV(8, RELU) CONV(6, "stride = 2;") CONV(16, RELU) LAST,
    POOL CONV(8, RELU) CONV(16, RELU) LAST,
    DENSE(40, RELU) DENSE(24, RELU) LAST,
    CONV(8, RELU) POOL DROPOUT POOL
    "{ type = \"dropconnect\"; rate = 0.5; inference = \"mean\"; }, " DENSE(24, RELU) LAST,
};

static const char *const normalised = CONV(8, RELU)
    CONV(16, "") "{ type = \"batchnorm\"; }, " POOL DROPOUT DENSE(24, "activation = \"tanh\";")
        LAST;

/* A weight of an output and an input channel; `in` counts through kernels and pixels too. */
struct place {
    int layer, out, channel, in;
    bool first, last; /* layer */
};

typedef bool is_left(const struct place *place);

struct side {
    struct backend *backend; /* borrowed */
    struct recipe recipe;
    struct network *network;
};

static inline void side_create(struct side *s, struct backend *backend, const char *layers,
                               bool masked, double sparse_below) {
    char text[2048];
    *s = (struct side){.backend = backend};
    snprintf(text, sizeof text, "network = ( %s );\nprune = { deletion = \"%s\"; };", layers,
             masked ? "mask" : "delete");
    assert_ok(recipe_parse("r.cfg", text, NULL, 0, &s->recipe));
    assert_ok(
        network_create(&s->recipe, (struct shape){SIDE, SIDE, 1}, SAMPLES, backend, &s->network));
    assert_true(s->network->original_count <= MOST_VALUES);
    if (!masked)
        deletion_set_threshold(s->network, sparse_below);
}

static inline void side_destroy(struct side *s) {
    network_destroy(s->network);
    recipe_destroy(&s->recipe);
}

typedef float value_of(uint32_t word, bool is_weight);

static inline float fraction(uint32_t word, bool is_weight) {
    return (is_weight ? 0.3F : 1.0F) * (rng_uniform(word) - 0.5F);
}

static inline void set_values(struct side *s, value_of *value) {
    float values[MOST_VALUES];
    for (int p = 0; p < s->network->parameters_count; p++) {
        const struct parameter *parameter = &s->network->parameters[p];
        const bool is_variance = strstr(parameter->name, "running_var") != NULL;
        for (size_t i = 0; i < parameter->original_count; i++) {
            uint32_t words[4];
            rng_philox(23, (struct rng_counter){(uint32_t)i, (uint32_t)p, 0, 0}, words);
            values[i] = is_variance ? 1 : value(words[0], parameter->is_weight);
        }
        assert_ok(network_set_parameter(s->network, p, values));
    }
    assert_ok(network_materialize(s->network));
}

static inline struct place place_of(const struct network *network, int parameter, size_t index) {
    const struct parameter *p = &network->parameters[parameter];
    const struct block_desc *desc = &network->blocks[p->block].desc;
    const size_t columns = p->original_count / p->size[0], taps = desc->kind == BLOCK_CONV ? 9 : 1;
    const size_t column = index % columns;
    return (struct place){.layer = parameter,
                          .out = (int)(index / columns),
                          .channel = (int)(column / taps) % desc->input.channels,
                          .in = (int)column,
                          .first = p->block == 0,
                          .last = p->block == network->blocks_count - 1};
}

static inline struct survivors_scope all_weights(const struct network *network) {
    struct survivors_scope scope = {0};
    for (int p = 0; p < network->parameters_count; p++)
        if (network->parameters[p].is_weight)
            scope.parameters[scope.count++] = p;
    return scope;
}

static inline void indices_of(const struct side *s, int parameter, uint32_t *indices) {
    const struct parameter *p = &s->network->parameters[parameter];
    for (size_t e = 0; e < p->count; e++)
        indices[e] = (uint32_t)e;
    if (p->indices != NULL)
        assert_ok(
            s->backend->download(s->backend, indices, p->indices, p->count * sizeof *indices));
}

/* Keep what either of two patterns leaves. */
static inline void keep(struct side *s, is_left *left, is_left *or_left) {
    static uint32_t indices[MOST_VALUES];
    const struct survivors_scope scope = all_weights(s->network);
    struct bitmask mask;
    size_t bit = 0;
    assert_ok(bitmask_create(survivors_count(s->network, &scope), &mask));
    for (int i = 0; i < scope.count; i++) {
        indices_of(s, scope.parameters[i], indices);
        for (size_t e = 0; e < s->network->parameters[scope.parameters[i]].count; e++, bit++) {
            const struct place place = place_of(s->network, scope.parameters[i], indices[e]);
            if (left(&place) || or_left(&place))
                bitmask_set(mask.words, bit);
        }
    }
    assert_ok(survivors_keep(s->network, &scope, &mask, NULL, 0));
    bitmask_destroy(&mask);
}

#endif
