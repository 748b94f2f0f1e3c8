/* Direct convolution: sums of products that stay in registers from their first term to their last.
 *
 * A tile is PIXELS pixels of one row of the output by one or two vectors of its channels. Each tap
 * costs a load for each vector of weights and a broadcast for each pixel, shared by all products of
 * the tile. For the gradient of the weights, a tile is some taps by one or two vectors of channels,
 * and the sum runs over the pixels. */
#include "isa.h"

#define INLINE static inline __attribute__((always_inline))

/* The most pixels, or taps, of a tile of two vectors of channels and of one: the registers hold the
 * sums, two weights, a broadcast and a product in the making. */
enum { TILE = (REGISTERS - 4) / 2, LONG_TILE = TILE > 7 ? 14 : 2 * TILE };

INLINE int longest(int vectors) {
    return vectors == 2 ? TILE : LONG_TILE;
}

static int parts_of(int count, int most) {
    return (count + most - 1) / most;
}

static size_t row_step(const struct direct_layer *layer) {
    return (size_t)layer->stride * layer->kernel_step;
}

/* ---- forward ---- */

/* What all tiles of some channels share. */
struct strip {
    const struct direct_layer *layer;
    const float *weights, *bias; /* of these channels */
    vec floor;
    int last;       /* channels in the last vector */
    int first, end; /* rows of the kernel that see something, layer->dilation apart */
};

/* Those rows at row y of the output. */
static void see(struct strip *strip, int y) {
    const struct direct_layer *layer = strip->layer;
    const int at = y * layer->stride, left = layer->bottom - at, above = layer->top - at;
    const int gap = layer->dilation;
    strip->first = above >= 0 ? above : (gap + above % gap) % gap;
    strip->end = left < layer->rows ? left : layer->rows;
}

INLINE void store(float *z, vec v, const struct strip *strip, bool last) {
    const vec floored = vec_max(strip->floor, v);
    if (last && strip->last < LANES)
        vec_store_first(z, floored, strip->last);
    else
        vec_store(z, floored);
}

INLINE void tile(const struct strip *strip, const float *x, float *z, int pixels, int vectors) {
    const struct direct_layer *layer = strip->layer;
    const size_t pixel = layer->pixel_step, channels = (size_t)layer->channels;
    const size_t row = (size_t)layer->taps * (size_t)(vectors * LANES);
    vec sums[LONG_TILE][2];
#pragma GCC unroll 16
    for (int j = 0; j < pixels; j++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[j][v] = vec_load(strip->bias + v * LANES);
    for (int r = strip->first; r < strip->end; r += layer->dilation) {
        const float *seen = x + (size_t)r * layer->kernel_step;
        const float *w = strip->weights + (size_t)r * row;
        for (int t = 0; t < layer->taps; t++, w += vectors * LANES) {
            const vec first = vec_load(w), second = vec_load(w + (vectors - 1) * LANES);
#pragma GCC unroll 16
            for (int j = 0; j < pixels; j++) {
                const vec value = vec_set(seen[(size_t)j * pixel + (size_t)t]);
                sums[j][0] = vec_fma(value, first, sums[j][0]);
                if (vectors == 2)
                    sums[j][1] = vec_fma(value, second, sums[j][1]);
            }
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < pixels; j++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            store(z + (size_t)j * channels + v * LANES, sums[j][v], strip, v == vectors - 1);
}

/* One function for each size of a tile that the registers hold. */
#define FOR_PIXELS(count)                                                                          \
    case count:                                                                                    \
        if (count <= longest(vectors))                                                             \
            tile(strip, x, z, count, vectors);                                                     \
        break;

INLINE void tile_of(const struct strip *strip, const float *x, float *z, size_t pixels,
                    int vectors) {
    switch (pixels) {
        FOR_PIXELS(1)
        FOR_PIXELS(2)
        FOR_PIXELS(3)
        FOR_PIXELS(4)
        FOR_PIXELS(5)
        FOR_PIXELS(6)
        FOR_PIXELS(7)
        FOR_PIXELS(8)
        FOR_PIXELS(9)
        FOR_PIXELS(10)
        FOR_PIXELS(11)
        FOR_PIXELS(12)
        FOR_PIXELS(13)
        FOR_PIXELS(14)
    }
}

/* A row of the output, cut into tiles as equal as can be. */
INLINE void row_of(const struct strip *strip, const float *x, float *z, int vectors) {
    const struct direct_layer *layer = strip->layer;
    const int parts = parts_of(layer->width, longest(vectors));
    const int pixels = layer->width / parts, longer = layer->width % parts;
    for (int part = 0; part < parts; part++) {
        const size_t count = (size_t)(pixels + (part < longer));
        tile_of(strip, x, z, count, vectors);
        x += count * layer->pixel_step;
        z += count * (size_t)layer->channels;
    }
}

/* The whole image, some of its channels. */
INLINE void channels_of(struct strip *strip, const float *x, float *z, int vectors) {
    const struct direct_layer *layer = strip->layer;
    const size_t row = (size_t)layer->width * (size_t)layer->channels;
    for (int y = 0; y < layer->height; y++, x += row_step(layer), z += row) {
        see(strip, y);
        row_of(strip, x, z, vectors);
    }
}

static void one_vector(struct strip *strip, const float *x, float *z) {
    channels_of(strip, x, z, 1);
}

static void two_vectors(struct strip *strip, const float *x, float *z) {
    channels_of(strip, x, z, 2);
}

static void forward(const struct direct_layer *layer, const float *x, const float *weights,
                    const float *bias, float floor, float *z) {
    struct strip strip = {
        .layer = layer, .weights = weights, .bias = bias, .floor = vec_set(floor)};
    const size_t taps = (size_t)layer->rows * (size_t)layer->taps;
    for (int k = 0; k < layer->channels; k += 2 * LANES) {
        const int left = layer->channels - k;
        strip.last = left >= 2 * LANES ? LANES : left - (left > LANES ? LANES : 0);
        if (left > LANES)
            two_vectors(&strip, x, z + k);
        else
            one_vector(&strip, x, z + k);
        strip.weights += taps * 2 * LANES;
        strip.bias += 2 * LANES;
    }
}

/* ---- gradients of weights and bias ---- */

/* Some taps of the kernel, by one or two vectors of channels. */
struct corner {
    const struct direct_layer *layer;
    const float *x, *dz; /* of the first pixel: at the first tap, at the first channel */
    float *dweights;
    size_t channels; /* from one tap of dweights to the next */
};

INLINE void add_taps(const struct corner *corner, int rows, int taps, int vectors) {
    const struct direct_layer *layer = corner->layer;
    const size_t dz_step = (size_t)layer->channels, kernel = layer->kernel_step;
    const size_t row = (size_t)layer->taps * corner->channels;
    const float *dz = corner->dz;
    vec sums[LONG_TILE][2];
#pragma GCC unroll 16
    for (int j = 0; j < rows * taps; j++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[j][v] = vec_load(corner->dweights + (size_t)(j / taps) * row +
                                  (size_t)(j % taps) * corner->channels + v * LANES);
    for (int y = 0; y < layer->height; y++) {
        const float *x = corner->x + (size_t)y * row_step(layer);
        for (int i = 0; i < layer->width; i++, x += layer->pixel_step, dz += dz_step) {
            const vec first = vec_load(dz), second = vec_load(dz + (vectors - 1) * LANES);
#pragma GCC unroll 16
            for (int j = 0; j < rows * taps; j++) {
                const vec value = vec_set(x[(size_t)(j / taps) * kernel + (size_t)(j % taps)]);
                sums[j][0] = vec_fma(value, first, sums[j][0]);
                if (vectors == 2)
                    sums[j][1] = vec_fma(value, second, sums[j][1]);
            }
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < rows * taps; j++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            vec_store(corner->dweights + (size_t)(j / taps) * row +
                          (size_t)(j % taps) * corner->channels + v * LANES,
                      sums[j][v]);
}

/* One function for each corner that the registers hold; several rows where a row has few taps. */
#define FOR_TAPS(rows, taps)                                                                       \
    case 16 * (rows) + (taps):                                                                     \
        if ((rows) * (taps) <= longest(vectors))                                                   \
            add_taps(corner, rows, taps, vectors);                                                 \
        break;

INLINE void add_corner(const struct corner *corner, size_t rows, size_t taps, int vectors) {
    switch (16 * rows + taps) {
        FOR_TAPS(1, 1)
        FOR_TAPS(1, 2)
        FOR_TAPS(1, 3)
        FOR_TAPS(1, 4)
        FOR_TAPS(1, 5)
        FOR_TAPS(1, 6)
        FOR_TAPS(1, 7)
        FOR_TAPS(1, 8)
        FOR_TAPS(1, 9)
        FOR_TAPS(1, 10)
        FOR_TAPS(1, 11)
        FOR_TAPS(1, 12)
        FOR_TAPS(1, 13)
        FOR_TAPS(1, 14)
        FOR_TAPS(2, 1)
        FOR_TAPS(2, 2)
        FOR_TAPS(2, 3)
        FOR_TAPS(2, 4)
        FOR_TAPS(2, 5)
        FOR_TAPS(2, 6)
        FOR_TAPS(2, 7)
        FOR_TAPS(3, 1)
        FOR_TAPS(3, 2)
        FOR_TAPS(3, 3)
        FOR_TAPS(3, 4)
    }
}

/* Rows of the kernel that one corner takes, where a row has few taps. */
static int rows_at_once(const struct direct_layer *layer, int most) {
    const int fit = most / layer->taps;
    const int rows = fit < 1 ? 1 : fit > 3 ? 3 : fit;
    return rows < layer->rows ? rows : layer->rows;
}

/* Some rows of the kernel from row r on, for the channels of `first`, the corner of the first tap;
 * a row's taps are cut into corners as equal as can be. */
INLINE void add_rows(const struct corner *first, int r, int rows, int vectors) {
    const struct direct_layer *layer = first->layer;
    const int parts = parts_of(layer->taps, longest(vectors));
    const int taps = layer->taps / parts, longer = layer->taps % parts;
    struct corner corner = *first;
    corner.x += (size_t)r * layer->kernel_step;
    corner.dweights += (size_t)r * (size_t)layer->taps * first->channels;
    for (int part = 0; part < parts; part++) {
        const size_t count = (size_t)(taps + (part < longer));
        add_corner(&corner, (size_t)rows, count, vectors);
        corner.x += count;
        corner.dweights += count * first->channels;
    }
}

INLINE void add_channels(const struct corner *first, int vectors) {
    const struct direct_layer *layer = first->layer;
    const int step = rows_at_once(layer, longest(vectors));
    for (int r = 0; r < layer->rows; r += step)
        add_rows(first, r, layer->rows - r < step ? layer->rows - r : step, vectors);
}

static void add_one_vector(const struct corner *first) {
    add_channels(first, 1);
}

static void add_two_vectors(const struct corner *first) {
    add_channels(first, 2);
}

static void gradients(const struct direct_layer *layer, const float *x, const float *dz,
                      float *dweights) {
    const size_t channels = ((size_t)layer->channels + LANES - 1) / LANES * LANES;
    for (int k = 0; k < layer->channels; k += 2 * LANES) {
        const struct corner first = {layer, x, dz + k, dweights + k, channels};
        if (layer->channels - k > LANES)
            add_two_vectors(&first);
        else
            add_one_vector(&first);
    }
}

INLINE vec load_some(const float *from, int count) {
    return count == LANES ? vec_load(from) : vec_load_first(from, count);
}

/* Up to a vector of channels; four sums, so that an addition need not await the last. */
INLINE void sum_some(size_t pixels, size_t channels, const float *z, int count, float *sum) {
    vec sums[4] = {load_some(sum, count), vec_zero(), vec_zero(), vec_zero()};
    size_t p = 0;
    for (; p + 4 <= pixels; p += 4)
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++)
            sums[j] = vec_add(sums[j], load_some(z + (p + j) * channels, count));
    for (; p < pixels; p++)
        sums[0] = vec_add(sums[0], load_some(z + p * channels, count));
    vec_store_first(sum, vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3])), count);
}

static void sum_pixels(size_t pixels, size_t channels, const float *z, float *sums) {
    size_t k = 0;
    for (; k + LANES <= channels; k += LANES)
        sum_some(pixels, channels, z + k, LANES, sums + k);
    if (k < channels)
        sum_some(pixels, channels, z + k, (int)(channels - k), sums + k);
}

static void backward(const struct direct_layer *layer, const float *x, const float *dz,
                     float *dweights, float *dbias) {
    const size_t pixels = (size_t)layer->height * (size_t)layer->width;
    gradients(layer, x, dz, dweights);
    sum_pixels(pixels, (size_t)layer->channels, dz, dbias);
}

static void relu_backward(size_t count, const float *y, const float *dy, float *dz) {
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        vec_store(dz + i, vec_select(vec_greater(vec_load(y + i), vec_zero()), vec_load(dy + i),
                                     vec_zero()));
    for (; i < count; i++)
        dz[i] = y[i] > 0.0F ? dy[i] : 0.0F;
}

const struct direct_kernels ISA_NAME(direct_kernels) = {forward, backward, relu_backward,
                                                        sum_pixels};
