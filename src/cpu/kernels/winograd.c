/* Winograd's convolution F(4x4, 3x3): Lavin and Gray, Fast Algorithms for Convolutional Neural
 * Networks (2016), equation 14 and section 4.3, with the points 0, 1, -1, 2, -2 and infinity.
 *
 *    y = A' ((G g G') * (B' d B)) A    g: 3 x 3 of the weights, d: 6 x 6 pixels, y: 4 x 4 pixels
 *
 * For each channel that a tile sees, 36 products take the place of 9 for each of its 16 pixels:
 * four times fewer. The lanes of a vector are channels. */
#include "isa.h"

#define INLINE static inline __attribute__((always_inline)) /* so that what is constant is so */

enum { SEEN = 6, MADE = 4, KERNEL = 3, POINTS = SEEN * SEEN };

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* ---- weights ---- */

/* G g, of three values next to each other: multiples of 6 stay exact under 1/6. */
INLINE void spread_weights(const vec g[KERNEL], vec u[SEEN]) {
    const vec sixth = vec_set(1.0F / 6), quarter = vec_set(0.25F), half = vec_set(0.5F);
    const vec near = vec_add(g[0], g[2]), far = vec_fma(quarter, g[0], g[2]);
    const vec middle = vec_mul(half, g[1]);
    u[0] = vec_mul(quarter, g[0]);
    u[1] = vec_mul(vec_add(near, g[1]), vec_sub(vec_zero(), sixth));
    u[2] = vec_mul(vec_sub(g[1], near), sixth);
    u[3] = vec_mul(vec_add(far, middle), sixth);
    u[4] = vec_mul(vec_sub(far, middle), sixth);
    u[5] = g[2];
}

INLINE void weights_of_channel(const float *taps, float *packed, size_t step) {
    vec columns[KERNEL][SEEN];
#pragma GCC unroll 3
    for (int j = 0; j < KERNEL; j++) {
        vec g[KERNEL];
#pragma GCC unroll 3
        for (int i = 0; i < KERNEL; i++)
            g[i] = vec_load(taps + (i * KERNEL + j) * LANES);
        spread_weights(g, columns[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < SEEN; i++) {
        const vec g[KERNEL] = {columns[0][i], columns[1][i], columns[2][i]};
        vec u[SEEN];
        spread_weights(g, u);
#pragma GCC unroll 6
        for (int j = 0; j < SEEN; j++)
            vec_store(packed + (size_t)(i * SEEN + j) * step, u[j]);
    }
}

static void transform_weights(int channels, int width, const float *taps, float *packed) {
    for (int c = 0; c < channels; c++, taps += KERNEL * KERNEL * LANES, packed += width)
        weights_of_channel(taps, packed, (size_t)channels * (size_t)width);
}

/* ---- input ---- */

/* B' d. */
INLINE void spread_input(const vec d[SEEN], vec v[SEEN]) {
    const vec two = vec_set(2), four = vec_set(4);
    const vec even = vec_fma(vec_set(-4), d[2], d[4]), odd = vec_fma(vec_set(-4), d[1], d[3]);
    const vec even_step = vec_sub(d[4], d[2]), odd_step = vec_sub(d[3], d[1]);
    v[0] = vec_fma(four, vec_sub(d[0], d[2]), even_step);
    v[1] = vec_add(even, odd);
    v[2] = vec_sub(even, odd);
    v[3] = vec_fma(two, odd_step, even_step);
    v[4] = vec_fma(vec_set(-2), odd_step, even_step);
    v[5] = vec_fma(vec_set(-4), odd_step, vec_sub(d[5], d[3]));
}

/* Up to LANES channels of one tile whose pixels are `row` and `pixel` floats apart. */
INLINE void input_lanes(const float *x, size_t row, size_t pixel, int lanes, float *seen) {
    vec columns[SEEN][SEEN];
#pragma GCC unroll 6
    for (int j = 0; j < SEEN; j++) {
        vec d[SEEN];
#pragma GCC unroll 6
        for (int i = 0; i < SEEN; i++) {
            const float *here = x + (size_t)i * row + (size_t)j * pixel;
            d[i] = lanes == LANES ? vec_load(here) : vec_load_first(here, lanes);
        }
        spread_input(d, columns[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < SEEN; i++) {
        vec d[SEEN], v[SEEN];
#pragma GCC unroll 6
        for (int j = 0; j < SEEN; j++)
            d[j] = columns[j][i];
        spread_input(d, v);
#pragma GCC unroll 6
        for (int j = 0; j < SEEN; j++)
            vec_store(seen + (i * SEEN + j) * LANES, v[j]);
    }
}

static void input_whole(const float *x, size_t row, size_t pixel, float *seen) {
    input_lanes(x, row, pixel, LANES, seen);
}

static void input_part(const float *x, size_t row, size_t pixel, int lanes, float *seen) {
    input_lanes(x, row, pixel, lanes, seen);
}

/* Up to LANES channels of the tile at (top, left), with zeros outside of the image. */
static void fill_patch(const struct winograd_layer *layer, const float *x, int top, int left,
                       int lanes, float patch[POINTS * LANES]) {
    for (int i = 0; i < SEEN; i++)
        for (int j = 0; j < SEEN; j++) {
            const int y = top + i, column = left + j;
            const bool inside = y >= 0 && y < layer->height && column >= 0 && column < layer->width;
            const size_t at = (size_t)(inside ? y * layer->width + column : 0);
            vec_store(patch + (i * SEEN + j) * LANES,
                      inside ? vec_load_first(x + at * (size_t)layer->channels, lanes)
                             : vec_zero());
        }
}

/* All channels of the tile at (top, left); those of a vector are `vector` floats from the next. */
static void input_tile(const struct winograd_layer *layer, const float *x, int top, int left,
                       float *seen, size_t vector) {
    const size_t pixel = (size_t)layer->channels, row = (size_t)layer->width * pixel;
    const bool inside =
        top >= 0 && left >= 0 && top + SEEN <= layer->height && left + SEEN <= layer->width;
    const ptrdiff_t origin = ((ptrdiff_t)top * layer->width + left) * layer->channels;
    for (int c = 0; c < layer->channels; c += LANES, seen += vector) {
        const int lanes = smaller(layer->channels - c, LANES);
        if (inside && lanes == LANES) {
            input_whole(x + origin + c, row, pixel, seen);
        } else if (inside) {
            input_part(x + origin + c, row, pixel, lanes, seen);
        } else {
            float patch[POINTS * LANES];
            fill_patch(layer, x + c, top, left, lanes, patch);
            input_whole(patch, SEEN * LANES, LANES, seen);
        }
    }
}

static void transform_input(const struct winograd_layer *layer, struct winograd_tiles tiles,
                            const float *x, float *seen) {
    const size_t vector = (size_t)tiles.count * POINTS * LANES;
    for (int t = 0; t < tiles.count; t++, seen += POINTS * LANES) {
        const int tile = tiles.numbers[t];
        input_tile(layer, x, tile / layer->columns * MADE - layer->padding,
                   tile % layer->columns * MADE - layer->padding, seen, vector);
    }
}

/* ---- products ---- */

/* Tiles at once: the registers hold their sums, two weights, a broadcast and a product in the
 * making. */
enum { TILES = (REGISTERS - 4) / 2, LINE = 64 };

/* What some tiles see, by one or two vectors of filters, at one point. */
INLINE void multiply_tiles(int channels, size_t vector, const float *seen, const float *weights,
                           float *sums, const int tiles, const int vectors) {
    vec sum[TILES][2];
#pragma GCC unroll 16
    for (int t = 0; t < tiles; t++)
        sum[t][0] = sum[t][1] = vec_zero();
    for (int left = channels; left > 0; left -= LANES, seen += vector)
        for (int c = 0; c < smaller(left, LANES); c++, weights += vectors * LANES) {
            const vec first = vec_load(weights), second = vec_load(weights + (vectors - 1) * LANES);
#pragma GCC unroll 16
            for (int t = 0; t < tiles; t++) {
                const vec value = vec_set(seen[t * POINTS * LANES + c]);
                sum[t][0] = vec_fma(value, first, sum[t][0]);
                if (vectors == 2)
                    sum[t][1] = vec_fma(value, second, sum[t][1]);
            }
        }
#pragma GCC unroll 16
    for (int t = 0; t < tiles; t++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            vec_store(sums + (t * vectors + v) * LANES, sum[t][v]);
}

/* One function for each number of tiles that the registers hold. */
#define FOR_TILES(count)                                                                           \
    case count:                                                                                    \
        if (count <= TILES)                                                                        \
            multiply_tiles(channels, vector, seen, weights, sums, count, vectors);                 \
        break;

INLINE void multiply_some(int channels, size_t vector, const float *seen, const float *weights,
                          float *sums, int tiles, const int vectors) {
    switch (tiles) {
        FOR_TILES(1)
        FOR_TILES(2)
        FOR_TILES(3)
        FOR_TILES(4)
        FOR_TILES(5)
        FOR_TILES(6)
        FOR_TILES(7)
        FOR_TILES(8)
        FOR_TILES(9)
        FOR_TILES(10)
        FOR_TILES(11)
        FOR_TILES(12)
        FOR_TILES(13)
        FOR_TILES(14)
    }
}

/* One of the parts of what lies ahead that the points share out. */
static void fetch(const struct winograd_ahead ahead[WINOGRAD_AHEAD], size_t part) {
    for (int i = 0; i < WINOGRAD_AHEAD; i++) {
        const size_t end = ahead[i].bytes * (part + 1) / POINTS;
        for (size_t at = ahead[i].bytes * part / POINTS; at < end; at += LINE)
            __builtin_prefetch(ahead[i].memory + at, 0, 2);
    }
}

/* All points, the tiles in parts as equal as can be. */
INLINE void multiply_all(int channels, int tiles, const float *seen, const float *weights,
                         const struct winograd_ahead *ahead, float *sums, const int vectors) {
    const int parts = (tiles + TILES - 1) / TILES, part = tiles / parts, longer = tiles % parts;
    const size_t vector = (size_t)tiles * POINTS * LANES;
    for (int point = 0; point < POINTS; point++, seen += LANES) {
        const float *here = seen;
        fetch(ahead, (size_t)point);
        for (int i = 0; i < parts; i++) {
            const int count = part + (i < longer);
            multiply_some(channels, vector, here, weights, sums, count, vectors);
            here += count * POINTS * LANES;
            sums += count * vectors * LANES;
        }
        weights += channels * vectors * LANES;
    }
}

static void multiply(int channels, int vectors, int tiles, const float *seen, const float *weights,
                     const struct winograd_ahead *ahead, float *sums) {
    if (vectors == 2)
        multiply_all(channels, tiles, seen, weights, ahead, sums, 2);
    else
        multiply_all(channels, tiles, seen, weights, ahead, sums, 1);
}

/* ---- output ---- */

/* A' m. */
INLINE void gather_output(const vec m[SEEN], vec y[MADE]) {
    const vec near = vec_add(m[1], m[2]), near_step = vec_sub(m[1], m[2]);
    const vec far = vec_add(m[3], m[4]), far_step = vec_sub(m[3], m[4]);
    y[0] = vec_add(vec_add(m[0], near), far);
    y[1] = vec_fma(vec_set(2), far_step, near_step);
    y[2] = vec_fma(vec_set(4), far, near);
    y[3] = vec_add(vec_fma(vec_set(8), far_step, near_step), m[5]);
}

INLINE void output_lanes(const float *sums, size_t step, vec z[MADE][MADE]) {
    vec columns[SEEN][MADE];
#pragma GCC unroll 6
    for (int j = 0; j < SEEN; j++) {
        vec m[SEEN];
#pragma GCC unroll 6
        for (int i = 0; i < SEEN; i++)
            m[i] = vec_load(sums + (size_t)(i * SEEN + j) * step);
        gather_output(m, columns[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < MADE; i++) {
        const vec m[SEEN] = {columns[0][i], columns[1][i], columns[2][i],
                             columns[3][i], columns[4][i], columns[5][i]};
        gather_output(m, z[i]);
    }
}

/* Where up to LANES channels of one tile go: pixels that are in y. */
struct corner {
    const struct winograd_output *out;
    float *y;
    uint8_t *state;
    int rows, columns, lanes;
    vec bias;
};

INLINE void store_value(const struct corner *corner, size_t at, vec z) {
    const vec value = vec_max(vec_set(corner->out->floor), vec_add(z, corner->bias));
    if (corner->lanes == LANES)
        vec_store(corner->y + at, value);
    else
        vec_store_first(corner->y + at, value, corner->lanes);
}

INLINE size_t place_of(const struct winograd_output *out, int i, int j) {
    return (size_t)(i * out->width + j) * (size_t)out->channels;
}

INLINE void store_pixels(const struct corner *corner, const vec z[MADE][MADE]) {
#pragma GCC unroll 4
    for (int i = 0; i < MADE; i++)
#pragma GCC unroll 4
        for (int j = 0; j < MADE; j++)
            if (i < corner->rows && j < corner->columns)
                store_value(corner, place_of(corner->out, i, j), z[i][j]);
}

/* The maximum of a window of 2 x 2 and its place: the first of equals; a NaN only in the first
 * place. Bias and floor do not change which is larger. */
INLINE void store_window(const struct corner *corner, size_t at, const vec first[2],
                         const vec second[2]) {
    const vec candidates[3] = {first[1], second[0], second[1]};
    vec best = first[0], place = vec_zero();
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
        const vec_mask larger = vec_greater(candidates[i], best);
        best = vec_select(larger, candidates[i], best);
        place = vec_select(larger, vec_set((float)(i + 1)), place);
    }
    store_value(corner, at, best);
    vec_store_bytes(corner->state + at, place, corner->lanes);
}

INLINE void store_windows(const struct corner *corner, const vec z[MADE][MADE]) {
#pragma GCC unroll 2
    for (int i = 0; i < MADE / 2; i++)
#pragma GCC unroll 2
        for (int j = 0; j < MADE / 2; j++)
            if (i < corner->rows && j < corner->columns)
                store_window(corner, place_of(corner->out, i, j), z[2 * i] + 2 * j,
                             z[2 * i + 1] + 2 * j);
}

/* Up to LANES channels from `channel` on of all tiles; `made` pixels of y, of a side, for each. */
INLINE void output_channels(const struct winograd_output *out, struct winograd_tiles tiles,
                            const float *sums, size_t step, int channel, const int pool) {
    const int made = MADE / pool, lanes = smaller(out->channels - channel, LANES);
    const vec bias = vec_load_first(out->bias + channel, lanes);
    const size_t next = step / (size_t)tiles.count;
    for (int t = 0; t < tiles.count; t++, sums += next) {
        const int tile = tiles.numbers[t];
        const int row = (tile / out->columns - out->row) * made,
                  column = tile % out->columns * made;
        const size_t at = place_of(out, row, column) + (size_t)channel;
        const struct corner corner = {.out = out,
                                      .y = out->y + at,
                                      .state = pool == 2 ? out->state + at : NULL,
                                      .rows = out->height - row,
                                      .columns = out->width - column,
                                      .lanes = lanes,
                                      .bias = bias};
        vec z[MADE][MADE];
        output_lanes(sums, step, z);
        if (pool == 2)
            store_windows(&corner, (const vec(*)[MADE])z);
        else
            store_pixels(&corner, (const vec(*)[MADE])z);
    }
}

static void transform_output(const struct winograd_output *out, struct winograd_tiles tiles,
                             int channel, int vectors, const float *sums) {
    const size_t step = (size_t)(tiles.count * vectors) * LANES;
    for (int v = 0; v < vectors; v++, channel += LANES, sums += LANES)
        if (out->pool == 2)
            output_channels(out, tiles, sums, step, channel, 2);
        else
            output_channels(out, tiles, sums, step, channel, 1);
}

const struct winograd_kernels ISA_NAME(winograd_kernels) = {
    .weights = transform_weights,
    .input = transform_input,
    .multiply = multiply,
    .output = transform_output,
};
