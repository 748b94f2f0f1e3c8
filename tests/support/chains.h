/* chains.h - convolutions in a row on a backend, joined or one by one, for tests. */
#ifndef ESPALIER_TESTS_CHAINS_H
#define ESPALIER_TESTS_CHAINS_H

#include "cases.h"

enum { MOST_BLOCKS = 3, SPARE_SAMPLES = 3 };

/* Convolutions in a row: filters, kernel, stride, padding, activation, pool, dropout. */
struct chain {
    struct shape input;
    int samples, blocks;
    struct block_case rows[MOST_BLOCKS];
    unsigned sparse; /* bit i: block i is in sparse form, with every fifth weight */
};

#define CONV(filters, side, step, border, follows, window, drops)                                  \
    {                                                                                              \
        .kind = BLOCK_CONV, .units = filters, .kernel = side, .stride = step, .padding = border,   \
        .activation = follows, .pool = window, .dropout = drops                                    \
    }

/** One of them with its memory on the backend. */
struct link {
    struct block_desc desc;
    struct block_plan *plan;
    size_t weights, biases;
    float *w, *b, *y, *dy, *dweights, *dbias; /* dy NULL where the link is joined to the next */
};

/** Floats of so many samples. */
size_t chain_floats(struct shape shape, int samples);

/** Plans for chain->samples + SPARE_SAMPLES samples with weights and biases of `fill`, joined where
 *  `join` says so, which must succeed. */
void chain_create(struct backend *b, const struct chain *chain, bool join, fill_values *fill,
                  struct link *links);
void chain_destroy(struct backend *b, int count, struct link *links);

/** The forward passes of the blocks up to `last`. */
void chain_forward(struct backend *b, const struct block_pass *pass, int last, const float *x,
                   const struct link *links);

/** Both passes in training at a gradient of `fill`; ids on the device. */
void chain_train(struct backend *b, const struct chain *chain, int samples, const uint32_t *ids,
                 const float *x, fill_values *fill, struct link *links);

/** The same bits in device memory. */
void assert_same_bits(struct backend *b, const float *one, const float *other, size_t count);

#endif
