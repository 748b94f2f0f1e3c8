#include "cases.h"

#include <espalier/rng.h>
#include <stdio.h>
#include <stdlib.h>

#define NONE ACTIVATION_NONE
#define RELU ACTIVATION_RELU
#define SIGMOID ACTIVATION_SIGMOID
#define TANH ACTIVATION_TANH

#define CONV(group, h, w, c, filters, kernel, stride, padding, activation, pool, dropout, samples) \
    {                                                                                              \
        GROUP_##group, BLOCK_CONV, {h, w, c}, filters, kernel, stride, padding, activation, pool,  \
            dropout, samples, 0                                                                    \
    }
#define DENSE(group, h, w, c, units, activation, dropout, samples)                                 \
    { GROUP_##group, BLOCK_DENSE, {h, w, c}, units, 0, 0, 0, activation, 1, dropout, samples, 0 }
#define PASS(group, h, w, c, pool, dropout, samples)                                               \
    { GROUP_##group, BLOCK_PASS, {h, w, c}, 0, 0, 0, 0, NONE, pool, dropout, samples, 0 }
#define CONNECT(group, h, w, c, units, activation, dropconnect, dropout, samples)                  \
    {                                                                                              \
        GROUP_##group, BLOCK_DENSE, {h, w, c}, units, 0, 0, 0, activation, 1, dropout, samples,    \
            dropconnect                                                                            \
    }

/* clang-format off */
const struct block_case block_cases[] = {
    /*                 h   w   c   k  kernel stride pad activation pool dropout samples */
    CONV(CONV_KERNEL,  6,  6,  3,  4, 1, 1, 0, RELU,    1, 0,     3),
    CONV(CONV_KERNEL,  1,  1,  1,  1, 1, 1, 0, NONE,    1, 0,     1),
    CONV(CONV_KERNEL,  8,  8,  2,  5, 3, 1, 0, RELU,    1, 0,     3),
    CONV(CONV_KERNEL,  9,  9,  3,  8, 5, 1, 0, RELU,    1, 0,     3),
    CONV(CONV_KERNEL,  5,  5,  3,  6, 5, 1, 0, NONE,    1, 0,     3), /* kernel = image */
    CONV(CONV_KERNEL,  7,  7,  2,  3, 2, 1, 0, RELU,    1, 0,     3), /* even kernel */
    CONV(CONV_KERNEL, 12,  7,  3,  8, 3, 1, 0, RELU,    1, 0,     3), /* not square */
    CONV(CONV_KERNEL,  4, 31,  1,  4, 3, 1, 0, TANH,    1, 0,     3),

    CONV(CONV_STRIDE,  9,  9,  3,  4, 3, 2, 0, RELU,    1, 0,     3),
    CONV(CONV_STRIDE, 10, 11,  2,  5, 3, 3, 0, NONE,    1, 0,     3), /* last column left over */
    CONV(CONV_STRIDE,  8,  8,  4,  8, 1, 2, 0, RELU,    1, 0,     3), /* stride > kernel */
    CONV(CONV_STRIDE, 13, 10,  3,  7, 5, 2, 2, RELU,    2, 0,     3),
    CONV(CONV_STRIDE, 11,  8,  1,  3, 2, 3, 1, SIGMOID, 1, 0,     3),

    CONV(CONV_PADDING, 6,  6,  3,  4, 3, 1, 1, RELU,    1, 0,     3), /* same size */
    CONV(CONV_PADDING, 7,  5,  2,  6, 5, 1, 2, NONE,    1, 0,     3),
    CONV(CONV_PADDING, 3,  3,  2,  4, 5, 1, 1, RELU,    1, 0,     3), /* kernel > image */
    CONV(CONV_PADDING, 4,  4,  1,  2, 3, 1, 3, TANH,    1, 0,     3), /* windows of padding only */
    CONV(CONV_PADDING, 8,  9,  5,  8, 3, 2, 1, RELU,    2, 0.25F, 3),

    CONV(CONV_CHANNELS, 8,  8,  1,  1, 3, 1, 0, RELU,   1, 0,     3),
    CONV(CONV_CHANNELS, 8,  8,  1, 32, 3, 1, 0, RELU,   1, 0,     3),
    CONV(CONV_CHANNELS, 7,  7,  5,  7, 3, 1, 0, RELU,   1, 0,     3),
    CONV(CONV_CHANNELS, 6,  6, 13, 19, 3, 1, 0, NONE,   2, 0,     3),
    CONV(CONV_CHANNELS, 6,  6, 16,  9, 3, 1, 0, RELU,   2, 0,     3),
    CONV(CONV_CHANNELS, 5,  6, 33, 24, 3, 1, 0, TANH,   1, 0,     3),
    CONV(CONV_CHANNELS, 4,  5,  2, 257, 3, 1, 0, RELU,  1, 0,     2), /* more than a block's threads */

    CONV(CONV_POOL,   10, 10,  3,  8, 3, 1, 0, RELU,    2, 0,     3),
    CONV(CONV_POOL,    9,  9,  3,  8, 3, 1, 0, RELU,    2, 0,     3), /* 7 x 7 by 2 */
    CONV(CONV_POOL,   12, 13,  2,  5, 3, 1, 0, RELU,    3, 0,     3), /* 10 x 11 by 3 */
    CONV(CONV_POOL,   10,  8,  3,  4, 3, 1, 0, NONE,    4, 0,     3), /* 8 x 6 by 4 */
    CONV(CONV_POOL,    8,  8,  2,  6, 3, 1, 0, NONE,    6, 0,     3), /* one window */
    CONV(CONV_POOL,   17, 17,  1,  3, 3, 1, 0, RELU,   15, 0,     3), /* the largest pool */

    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, NONE,    2, 0.25F, 3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, SIGMOID, 1, 0,     3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, SIGMOID, 2, 0,     3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, SIGMOID, 2, 0.5F,  3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, TANH,    1, 0.25F, 3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, TANH,    2, 0,     3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, TANH,    3, 0.25F, 3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 6, 3, 1, 0, RELU,    2, 0.5F,  3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 8, 3, 1, 0, TANH,    2, 0.25F, 3),
    CONV(CONV_ACTIVATION, 7, 8, 3, 8, 3, 1, 0, SIGMOID, 1, 0.5F,  3),

    /* What is left over when outputs, 3 x 3 kernels' above all, are computed in tiles. */
    CONV(CONV_TILES,   6,  6,  1,  1, 3, 1, 0, NONE,    1, 0,     1), /* 4 x 4 */
    CONV(CONV_TILES,   7,  7,  3, 15, 3, 1, 0, RELU,    1, 0.25F, 3), /* 5 x 5 */
    CONV(CONV_TILES,  11, 15,  5, 17, 3, 1, 0, RELU,    2, 0.25F, 3), /* 9 x 13, by 2 */
    CONV(CONV_TILES,   6,  6, 15, 33, 3, 1, 1, RELU,    2, 0,     3),
    CONV(CONV_TILES,  10, 12, 17,  3, 3, 1, 2, NONE,    2, 0,     3),
    CONV(CONV_TILES,   8, 10,  3, 18, 3, 1, 1, TANH,    2, 0.25F, 3),
    CONV(CONV_TILES,   5, 30, 33,  5, 3, 1, 5, NONE,    1, 0.5F,  2), /* tiles of padding only */
    CONV(CONV_TILES,   7,  9,  2, 16, 3, 1, 1, SIGMOID, 3, 0,     3),
    CONV(CONV_TILES,  31, 29,  2,  4, 3, 1, 1, RELU,    2, 0,     2), /* more than one block */
    CONV(CONV_TILES,   9,  9, 64, 40, 3, 1, 1, SIGMOID, 1, 0.5F,  3),
    CONV(CONV_TILES,  10, 26,  4, 33, 3, 1, 0, RELU,    2, 0.5F,  2), /* 8 x 24 by 2, 12 x 16 by 4: */
    CONV(CONV_TILES,  14, 18,  3,  5, 3, 1, 0, NONE,    4, 0,     3), /* tiles are whole windows */

    /* What is left over when rows are cut into tiles and channels into vectors: of one image that
     * is wide, of one with few taps to a row, of filters and channels beside multiples of 4, 8 and
     * 16; with zeros between and around the pixels of the gradient; by strips of rows. */
    CONV(CONV_DIRECT,  6, 20,  1, 50, 5, 1, 0, RELU,    1, 0,     1), /* 2 x 16 */
    CONV(CONV_DIRECT,  3, 33,  3, 17, 5, 1, 2, NONE,    1, 0,     1), /* 3 x 33 */
    CONV(CONV_DIRECT,  4, 23,  1,  9, 3, 1, 0, RELU,    1, 0,     3), /* 2 x 21 */
    CONV(CONV_DIRECT,  9, 11, 17, 33, 4, 3, 2, RELU,    1, 0,     1),
    CONV(CONV_DIRECT,  5,  6, 33,  3, 2, 2, 1, TANH,    1, 0,     3),
    CONV(CONV_DIRECT,  6,  5, 15, 15, 1, 1, 0, RELU,    1, 0.25F, 3),
    CONV(CONV_DIRECT, 12,  9,  3, 20, 7, 2, 3, RELU,    1, 0,     1),
    CONV(CONV_DIRECT,  7,  4,  2,  5, 2, 4, 1, RELU,    1, 0,     3), /* stride > kernel */
    CONV(CONV_DIRECT, 37, 15,  1, 12, 2, 1, 0, RELU,    1, 0,     5), /* 36 x 14: two strips */
    CONV(CONV_DIRECT,  4, 73,  1, 120, 2, 2, 0, RELU,   1, 0,     1), /* 2 x 36: a row is a strip */

    /* Lists of what pooling leaves: windows that are cut off, one-channel images, channels beside
     * and on multiples of 4, 8 and 16, taps that fill the registers more than once, bands. */
    CONV(CONV_SPARSE, 13, 11,  1,  5, 5, 1, 0, RELU,    2, 0,     3), /* 9 x 7 by 2 */
    CONV(CONV_SPARSE, 12, 10,  1,  3, 3, 1, 1, SIGMOID, 2, 0.25F, 3),
    CONV(CONV_SPARSE,  6,  7,  3,  4, 1, 1, 0, TANH,    2, 0,     3),
    CONV(CONV_SPARSE,  9, 10,  5,  7, 5, 1, 2, RELU,    3, 0,     2), /* 9 x 10 by 3 */
    CONV(CONV_SPARSE,  8,  9, 17,  6, 3, 1, 1, NONE,    2, 0.5F,  2),
    CONV(CONV_SPARSE,  7,  8, 33,  5, 5, 1, 1, RELU,    2, 0.25F, 1),
    CONV(CONV_SPARSE, 12, 12,  4,  3, 4, 1, 0, RELU,    2, 0,     3), /* a slab as it lies */
    CONV(CONV_SPARSE, 10, 11,  8,  9, 6, 1, 0, RELU,    2, 0.25F, 2),
    CONV(CONV_SPARSE,  9,  8, 16,  4, 3, 1, 0, RELU,    2, 0.25F, 6), /* two grains */
    CONV(CONV_SPARSE, 11, 12, 16,  4, 7, 2, 3, RELU,    2, 0,     2),
    CONV(CONV_SPARSE, 17,  9,  3,  2, 11, 1, 2, NONE,   3, 0,     2),
    CONV(CONV_SPARSE, 14, 13,  2,  3, 2, 3, 1, RELU,    2, 0,     5), /* stride > kernel */
    CONV(CONV_SPARSE, 85, 41,  1,  2, 3, 1, 0, RELU,    2, 0,     1), /* more than one band */
    CONV(CONV_SPARSE, 30, 14, 33, 17, 3, 1, 1, RELU,    2, 0.25F, 1),
    CONV(CONV_SPARSE,  6, 44, 60,  3, 3, 1, 0, RELU,    2, 0,     1), /* more than one slab */
    CONV(CONV_SPARSE,  8,  9, 32,  4, 3, 1, 0, RELU,    2, 0.25F, 2), /* two or more vectors */

    /* Tiles of 4 x 4: one pixel, one tile, tiles that are cut off; padding on all sides and beyond;
     * channels beside and on multiples of 4, 8 and 16; blocks of tiles; windows across tiles. */
    CONV(CONV_WINOGRAD,  3,  3,  1,  1, 3, 1, 0, NONE,    1, 0,     3),
    CONV(CONV_WINOGRAD,  6,  8,  1,  3, 3, 1, 0, SIGMOID, 2, 0.25F, 3),
    CONV(CONV_WINOGRAD,  6,  6,  8,  8, 3, 1, 0, TANH,    1, 0,     3),
    CONV(CONV_WINOGRAD,  7,  9,  6,  5, 3, 1, 0, RELU,    2, 0,     3), /* 5 x 7 by 2 */
    CONV(CONV_WINOGRAD,  8,  8, 16, 16, 3, 1, 1, RELU,    2, 0.25F, 3),
    CONV(CONV_WINOGRAD,  7,  8, 17, 19, 3, 1, 2, NONE,    2, 0,     1),
    CONV(CONV_WINOGRAD,  5,  4,  9,  7, 3, 1, 3, RELU,    1, 0,     3), /* tiles of padding only */
    CONV(CONV_WINOGRAD,  6, 34,  8, 40, 3, 1, 0, RELU,    1, 0.5F,  1),
    CONV(CONV_WINOGRAD,  9, 13, 12, 10, 3, 1, 1, RELU,    2, 0,     3),
    CONV(CONV_WINOGRAD, 10, 18, 131, 2, 3, 1, 0, NONE,    1, 0,     1), /* several blocks */
    CONV(CONV_WINOGRAD,  6, 30,  6,  3, 3, 1, 0, RELU,    1, 0,     1), /* 7 tiles, 15 tiles: */
    CONV(CONV_WINOGRAD, 14, 22,  6,  3, 3, 1, 0, RELU,    2, 0,     1), /* parts not equal */
    CONV(CONV_WINOGRAD, 11, 13,  7, 12, 3, 1, 1, RELU,    3, 0.25F, 3), /* 11 x 13 by 3 */
    CONV(CONV_WINOGRAD, 30,  8,  6,  4, 3, 1, 0, RELU,    3, 0,     2), /* bands of 12 rows */
    CONV(CONV_WINOGRAD, 12, 12,  8,  6, 3, 1, 0, NONE,    4, 0,     2),
    CONV(CONV_WINOGRAD, 26,  9,  6, 17, 3, 1, 1, NONE,    5, 0.5F,  1), /* bands of 20 rows */

    DENSE(DENSE,       1,  1,  1,  1, NONE,    0,     3),
    DENSE(DENSE,       1,  1, 17,  1, SIGMOID, 0,     3), /* one unit */
    DENSE(DENSE,       1,  1,  1, 13, TANH,    0,     3), /* one input */
    DENSE(DENSE,       1,  1, 31, 29, RELU,    0,     3),
    DENSE(DENSE,       3,  5,  7, 11, RELU,    0.5F,  3), /* flattens (h, w, c) */
    DENSE(DENSE,      28, 28,  1, 10, NONE,    0,    17),
    DENSE(DENSE,       1,  1, 33, 10, TANH,    0.25F, 17),
    DENSE(DENSE,       1,  1, 20, 15, SIGMOID, 0.5F,  3),

    PASS(PASS,         8,  8,  3, 2, 0,     3),
    PASS(PASS,         7,  9,  5, 2, 0,     3),
    PASS(PASS,        10, 11,  1, 3, 0.25F, 3),
    PASS(PASS,         5,  4,  6, 1, 0,     3), /* nothing at all */
    PASS(PASS,         1,  1, 37, 1, 0.5F,  3),
    PASS(PASS,         7,  9,  4, 2, 0.25F, 3), /* cut off, by four channels */
    PASS(PASS,         9,  5, 33, 4, 0.5F,  3),
    PASS(PASS,        11,  8, 12, 3, 0.25F, 3),
    PASS(PASS,         5,  6,  1, 2, 0.5F,  3),

    CONV(DROPOUT,      6,  6,  2,  8, 3, 1, 0, RELU,    1, 0.5F,  3),
    CONV(DROPOUT,      7,  7,  1,  5, 3, 1, 0, RELU,    2, 0.1F,  3),
    DENSE(DROPOUT,     1,  1,  9, 21, RELU,    0.5F,  17),
    DENSE(DROPOUT,     1,  1,  9, 21, RELU,    0.9F,  17),
    DENSE(DROPOUT,     1,  1,  9, 10, NONE,    0.99F, 17),
    PASS(DROPOUT,      4,  4,  3, 2, 0.25F, 17),

    /* Rows of bits that end within a word and a vector, and begin within a draw. */
    CONNECT(DROPCONNECT, 1, 1,  1,  1, NONE,   0.5F,  0,     17),
    CONNECT(DROPCONNECT, 1, 1, 31, 29, RELU,   0.5F,  0,     3),
    CONNECT(DROPCONNECT, 3, 5,  7, 11, RELU,   0.25F, 0.5F,  3),
    CONNECT(DROPCONNECT, 1, 1, 64, 33, TANH,   0.1F,  0,     17),
    CONNECT(DROPCONNECT, 1, 1, 130, 7, SIGMOID, 0.75F, 0.25F, 5),
    CONNECT(DROPCONNECT, 28, 28, 1, 10, NONE,  0.5F,  0,     17),
    CONNECT(DROPCONNECT, 1, 1, 24, 12, RELU,   0.5F,  0,     0),

    CONV(BATCH_SIZE,   6,  6,  1,  4, 3, 1, 0, RELU,    2, 0.25F, 1),
    CONV(BATCH_SIZE,   6,  6,  1,  4, 3, 1, 0, RELU,    2, 0.25F, 17),
    CONV(BATCH_SIZE,   6,  6,  1,  4, 3, 1, 0, RELU,    2, 0.25F, 128),
    DENSE(BATCH_SIZE,  1,  1, 24, 12, RELU,    0.5F,  1),
    DENSE(BATCH_SIZE,  1,  1, 24, 12, RELU,    0.5F,  17),
    DENSE(BATCH_SIZE,  1,  1, 24, 12, RELU,    0.5F,  128),
    DENSE(BATCH_SIZE,  1,  1,  5,  6, RELU,    0.5F,  1100), /* biases' sums in parts */
    DENSE(BATCH_SIZE,  1,  1,  5,  8, NONE,    0,     1100),
    PASS(BATCH_SIZE,   4,  4,  2, 2, 0.25F, 1),
    PASS(BATCH_SIZE,   4,  4,  2, 2, 0.25F, 128),
    PASS(BATCH_SIZE,  23, 12,  1, 1, 0.25F, 1030), /* more than blocks side by side */

    CONV(EMPTY_BATCH,  8,  8,  2,  4, 3, 1, 0, RELU,    2, 0.25F, 0),
    CONV(EMPTY_BATCH, 10, 10,  8,  8, 3, 1, 0, RELU,    2, 0.25F, 0),
    DENSE(EMPTY_BATCH, 1,  1, 24, 12, TANH,    0.5F,  0),
    PASS(EMPTY_BATCH,  4,  4,  2, 2, 0.25F, 0),

    CONV(POSTER,      28, 28,  1, 32, 3, 1, 0, RELU,    1, 0,     3),
    CONV(POSTER,      26, 26, 32, 32, 3, 1, 0, RELU,    2, 0.25F, 1),
    DENSE(POSTER,     12, 12, 32, 128, RELU,   0.5F,  3),
    DENSE(POSTER,      1,  1, 128, 10, NONE,   0,     128),
};
/* clang-format on */

const int block_cases_count = sizeof block_cases / sizeof block_cases[0];

struct block_desc case_desc(const struct block_case *row, uint32_t layer) {
    struct block_desc desc = {.kind = row->kind,
                              .input = row->input,
                              .linear = row->input,
                              .kernel = row->kernel,
                              .stride = row->stride,
                              .padding = row->padding,
                              .activation = row->activation,
                              .pool = row->pool,
                              .dropout = row->dropout,
                              .dropconnect = row->dropconnect,
                              .layer = layer};
    int room = 2 * row->padding - row->kernel;
    if (row->kind == BLOCK_CONV)
        desc.linear = (struct shape){(row->input.height + room) / row->stride + 1,
                                     (row->input.width + room) / row->stride + 1, row->units};
    if (row->kind == BLOCK_DENSE)
        desc.linear = (struct shape){1, 1, row->units};
    desc.output = (struct shape){desc.linear.height / row->pool, desc.linear.width / row->pool,
                                 desc.linear.channels};
    return desc;
}

const char *case_text(const struct block_case *row) {
    static char text[192];
    static const char *const kinds[] = {"conv", "dense", "pass"};
    snprintf(text, sizeof text,
             "%s of %dx%dx%d, %d units, kernel %d, stride %d, padding %d, %s, pool %d, "
             "dropout %.2f, dropconnect %.2f, %d samples",
             kinds[row->kind], row->input.height, row->input.width, row->input.channels, row->units,
             row->kernel, row->stride, row->padding, activation_names[row->activation], row->pool,
             (double)row->dropout, (double)row->dropconnect, row->samples);
    return text;
}

static float *allocate(size_t count) {
    float *values = malloc((count + 1) * sizeof *values);
    if (values == NULL)
        abort();
    return values;
}

/* Uniform in [0, 1). Purpose 0 is nobody's: independent of what the program draws. */
static float *uniforms(uint64_t seed, uint32_t stream, size_t count) {
    float *values = allocate(count);
    uint32_t words[4];
    for (size_t i = 0; i < count; i++) {
        if (i % 4 == 0)
            rng_philox(seed, (struct rng_counter){.group = (uint32_t)(i / 4), .stream = stream},
                       words);
        values[i] = rng_uniform(words[i % 4]);
    }
    return values;
}

float *case_floats(uint64_t seed, uint32_t stream, size_t count) {
    float *values = uniforms(seed, stream, count);
    for (size_t i = 0; i < count; i++)
        values[i] = 2 * values[i] - 1;
    return values;
}

float *case_integers(uint64_t seed, uint32_t stream, size_t count) {
    float *values = uniforms(seed, stream, count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(values[i] * 7) - 3);
    return values;
}

uint32_t case_sample_id(int i) {
    return (uint32_t)((7919L * i + 12345L) % 60000);
}

struct case_inputs case_inputs_create(const struct block_desc *desc, int samples, uint64_t seed,
                                      fill_values *fill) {
    const size_t n = (size_t)samples;
    struct case_inputs in = {.weights = fill(seed, 1, block_weights(desc)),
                             .bias = fill(seed, 2, block_biases(desc)),
                             .x = fill(seed, 3, n * shape_size(desc->input)),
                             .dy = fill(seed, 4, n * shape_size(desc->output)),
                             .ids = malloc((n + 1) * sizeof *in.ids)};
    if (in.ids == NULL)
        abort();
    for (int i = 0; i < samples; i++)
        in.ids[i] = case_sample_id(i);
    return in;
}

void case_inputs_destroy(struct case_inputs *in) {
    free(in->weights);
    free(in->bias);
    free(in->x);
    free(in->dy);
    free(in->ids);
    free(in->left.indices);
}
