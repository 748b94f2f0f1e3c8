/* Convolution backward over lists of the gradients that are not zero (kernels.h).
 *
 * A filter's taps on one slab are a grid of vectors. Patches of it, as large as the registers hold,
 * stay in registers while a list is walked: sums of the weight gradient, or the weights that are
 * scattered into the input gradient. */
#include "isa.h"

#include <string.h>

enum { PATCH_ROWS = 5, PATCH_COLUMNS = 6, PATCH_VECTORS = REGISTERS - 4 };

#define INLINE static inline __attribute__((always_inline))

/* A filter's list. */
struct list {
    const float *values;
    const uint32_t *offsets;
    int count;
};

/* A patch of all filters' taps, and the slab moved to where it sees it: what is only read, and what
 * is added to, each with floats to its next row; and the taps of a filter. */
struct patch {
    const float *from;
    float *to;
    size_t from_row, to_row, taps;
};

INLINE void load_patch(int rows, int columns, const float *from, size_t row,
                       vec patch[PATCH_ROWS][PATCH_COLUMNS]) {
#pragma GCC unroll 5
    for (int i = 0; i < rows; i++, from += row)
#pragma GCC unroll 6
        for (int j = 0; j < columns; j++)
            patch[i][j] = vec_load(from + j * LANES);
}

/* Taps' gradient += sum over the list of value * what the taps see. */
INLINE void sum_patch(int rows, int columns, struct list list, struct patch p) {
    vec sum[PATCH_ROWS][PATCH_COLUMNS];
    load_patch(rows, columns, p.to, p.to_row, sum);
    for (int e = 0; e < list.count; e++) {
        const float *seen = p.from + list.offsets[e];
        const vec value = vec_set(list.values[e]);
#pragma GCC unroll 5
        for (int i = 0; i < rows; i++, seen += p.from_row)
#pragma GCC unroll 6
            for (int j = 0; j < columns; j++)
                sum[i][j] = vec_fma(value, vec_load(seen + j * LANES), sum[i][j]);
    }
#pragma GCC unroll 5
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
        for (int j = 0; j < columns; j++)
            vec_store(p.to + (size_t)i * p.to_row + j * LANES, sum[i][j]);
}

/* What the taps see += value * weights, for each entry of the list. */
INLINE void spread_patch(int rows, int columns, struct list list, struct patch p) {
    vec weights[PATCH_ROWS][PATCH_COLUMNS];
    load_patch(rows, columns, p.from, p.from_row, weights);
    for (int e = 0; e < list.count; e++) {
        float *seen = p.to + list.offsets[e];
        const vec value = vec_set(list.values[e]);
#pragma GCC unroll 5
        for (int i = 0; i < rows; i++, seen += p.to_row)
#pragma GCC unroll 6
            for (int j = 0; j < columns; j++)
                vec_store(seen + j * LANES,
                          vec_fma(value, weights[i][j], vec_load(seen + j * LANES)));
    }
}

/* One function a size; sizes that the registers do not hold are never asked for, and empty. */
#define DEFINE_PATCH(verb, moving, rows, columns)                                                  \
    static void verb##_##rows##_##columns(const struct sparse_lists *lists, struct patch p) {      \
        struct list list = {lists->values, lists->offsets, 0};                                     \
        if (rows * columns > PATCH_VECTORS)                                                        \
            return;                                                                                \
        for (int f = 0; f < lists->filters; f++, p.moving += p.taps) {                             \
            list.count = lists->counts[f];                                                         \
            verb##_patch(rows, columns, list, p);                                                  \
            list.values += lists->capacity;                                                        \
            list.offsets += lists->capacity;                                                       \
        }                                                                                          \
    }
#define DEFINE_PATCHES(verb, moving, rows)                                                         \
    DEFINE_PATCH(verb, moving, rows, 1)                                                            \
    DEFINE_PATCH(verb, moving, rows, 2)                                                            \
    DEFINE_PATCH(verb, moving, rows, 3)                                                            \
    DEFINE_PATCH(verb, moving, rows, 4)                                                            \
    DEFINE_PATCH(verb, moving, rows, 5)                                                            \
    DEFINE_PATCH(verb, moving, rows, 6)
#define PATCHES(verb, rows)                                                                        \
    {                                                                                              \
        verb##_##rows##_1, verb##_##rows##_2, verb##_##rows##_3, verb##_##rows##_4,                \
            verb##_##rows##_5, verb##_##rows##_6                                                   \
    }
#define DEFINE_TABLE(verb, moving)                                                                 \
    DEFINE_PATCHES(verb, moving, 1)                                                                \
    DEFINE_PATCHES(verb, moving, 2)                                                                \
    DEFINE_PATCHES(verb, moving, 3)                                                                \
    DEFINE_PATCHES(verb, moving, 4)                                                                \
    DEFINE_PATCHES(verb, moving, 5)                                                                \
    static const patch_table verb##_table = {PATCHES(verb, 1), PATCHES(verb, 2), PATCHES(verb, 3), \
                                             PATCHES(verb, 4), PATCHES(verb, 5)};

typedef void (*patch_table[PATCH_ROWS][PATCH_COLUMNS])(const struct sparse_lists *lists,
                                                       struct patch p);
DEFINE_TABLE(sum, to)
DEFINE_TABLE(spread, from)

/* The next of as few parts as `limit` allows, of nearly equal size. */
static int next_part(int left, int limit) {
    const int parts = (left + limit - 1) / limit;
    return (left + parts - 1) / parts;
}

/* Walk all lists for each patch of the filters' taps, `whole`. */
static void each_patch(const patch_table table, const struct sparse_slab *s,
                       const struct sparse_lists *lists, struct patch whole) {
    for (int j = 0, columns; j < s->vectors; j += columns) {
        columns = next_part(s->vectors - j, PATCH_COLUMNS);
        const int fit = PATCH_VECTORS / columns, limit = fit < PATCH_ROWS ? fit : PATCH_ROWS;
        for (int i = 0, rows; i < s->kernel; i += rows) {
            struct patch p = whole;
            p.from += (size_t)i * p.from_row + (size_t)(j * LANES);
            p.to += (size_t)i * p.to_row + (size_t)(j * LANES);
            rows = next_part(s->kernel - i, limit);
            table[rows - 1][columns - 1](lists, p);
        }
    }
}

static void weight_gradient(const struct sparse_slab *s, const struct sparse_lists *lists,
                            const float *slab, float *gradient) {
    const size_t row = (size_t)s->vectors * LANES, taps = (size_t)s->kernel * row;
    each_patch(sum_table, s, lists, (struct patch){slab, gradient, s->row, row, taps});
}

static void input_gradient(const struct sparse_slab *s, const struct sparse_lists *lists,
                           const float *weights, float *slab) {
    const size_t row = (size_t)s->vectors * LANES, taps = (size_t)s->kernel * row;
    each_patch(spread_table, s, lists, (struct patch){weights, slab, row, s->row, taps});
}

/* ---- lists ---- */

/* Some windows' gradients of some filters, up to a vector of each: `first` is the first window, g
 * and the lists' values those of the first filter. */
INLINE void list_tile(int windows, int filters, uint32_t first, const float *g,
                      const struct sparse_lists *lists, vec *sum) {
    vec tile[LANES];
#pragma GCC unroll 16
    for (int w = 0; w < LANES; w++) {
        const float *row = g + (size_t)w * (size_t)lists->filters;
        if (w >= windows)
            tile[w] = vec_zero();
        else {
            tile[w] = filters == LANES ? vec_load(row) : vec_load_first(row, filters);
            *sum = vec_add(*sum, tile[w]);
        }
    }
    vec_transpose(tile);
#pragma GCC unroll 16
    for (int f = 0; f < LANES; f++)
        if (f < filters) {
            const size_t end = (size_t)(f * lists->capacity + lists->counts[f]);
            const unsigned nonzero = vec_nonzero_bits(tile[f]);
            vec_pack_lanes(nonzero, first, lists->offsets + end);
            lists->counts[f] += vec_pack(tile[f], nonzero, lists->values + end);
        }
}

/* The lists of up to a vector of filters, whose first g, state and lists point to; offsets are the
 * windows' numbers. */
INLINE void list_filters(const struct sparse_windows *w, int filters, const float *g,
                         const struct sparse_lists *lists, float *bias) {
    vec sum = vec_load_first(bias, filters);
    int first = 0;
    for (; first + LANES <= w->count; first += LANES)
        list_tile(LANES, filters, (uint32_t)first, g + (size_t)first * (size_t)lists->filters,
                  lists, &sum);
    if (first < w->count)
        list_tile(w->count - first, filters, (uint32_t)first,
                  g + (size_t)first * (size_t)lists->filters, lists, &sum);
    vec_store_first(bias, sum, filters);
}

/* The offsets of one filter's list from the windows' numbers. */
static void locate(const struct sparse_windows *w, const uint8_t *state, size_t filters, int count,
                   uint32_t *offsets) {
    for (int e = 0; e < count; e++) {
        const uint32_t window = offsets[e];
        offsets[e] = w->first + w->corners[window] + w->places[state[window * filters]];
    }
}

/* The share of a filter in what lies ahead. */
static void fetch_ahead(const struct sparse_windows *w, int filter, int filters) {
    enum { LINE = 16 }; /* floats of a cache line */
    const size_t lines = (w->ahead_floats + LINE - 1) / LINE;
    const size_t first = lines * (size_t)filter / (size_t)filters;
    const size_t end = lines * (size_t)(filter + 1) / (size_t)filters;
    for (size_t line = first; line < end; line++)
        __builtin_prefetch(w->ahead + line * LINE, 0, 2);
}

static void list_windows(const struct sparse_windows *w, const float *g, const uint8_t *state,
                         const struct sparse_lists *lists, float *bias) {
    const int filters = lists->filters;
    memset(lists->counts, 0, (size_t)filters * sizeof *lists->counts);
    for (int f = 0; f < filters; f += LANES) {
        struct sparse_lists some = *lists;
        some.values += (size_t)f * (size_t)lists->capacity;
        some.offsets += (size_t)f * (size_t)lists->capacity;
        some.counts += f;
        if (f + LANES <= filters)
            list_filters(w, LANES, g + f, &some, bias + f);
        else
            list_filters(w, filters - f, g + f, &some, bias + f);
    }
    for (int f = 0; f < filters; f++) {
        fetch_ahead(w, f, filters);
        locate(w, state + f, (size_t)filters, lists->counts[f],
               lists->offsets + (size_t)f * (size_t)lists->capacity);
    }
}

/* ---- slabs ---- */

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static void fill_row(const struct sparse_slab *s, int channels, const float *x, float *row) {
    if (s->pixel == s->channels) { /* pixels follow each other in both */
        memcpy(row, x, (size_t)s->width * (size_t)channels * sizeof *row);
        return;
    }
    for (int p = 0; p < s->width; p++, x += s->channels)
        for (int c = 0; c < s->pixel; c += LANES, row += LANES)
            vec_store(row, channels - c >= LANES
                               ? vec_load(x + c)
                               : vec_load_first(x + c, channels > c ? channels - c : 0));
}

static void fill_slab(const struct sparse_slab *s, int channels, const float *x, float *slab) {
    const size_t border = (size_t)(s->padding * s->pixel), edge = (size_t)s->padding * s->row;
    memset(slab, 0, edge * sizeof *slab);
    slab += edge;
    for (int y = 0; y < s->height; y++, slab += s->row) {
        memset(slab, 0, border * sizeof *slab);
        fill_row(s, channels, x + (size_t)y * (size_t)s->width * (size_t)s->channels,
                 slab + border);
        memset(slab + s->row - border, 0, border * sizeof *slab);
    }
    memset(slab, 0, edge * sizeof *slab);
}

static void drain_row(const struct sparse_slab *s, int channels, const float *row, float *dx) {
    if (s->pixel == s->channels) {
        memcpy(dx, row, (size_t)s->width * (size_t)channels * sizeof *dx);
        return;
    }
    for (int p = 0; p < s->width; p++, row += s->pixel, dx += s->channels)
        for (int c = 0; c < channels; c += LANES)
            vec_store_first(dx + c, vec_load(row + c), smaller(channels - c, LANES));
}

static void drain_slab(const struct sparse_slab *s, int channels, const float *slab, float *dx) {
    slab += (size_t)s->padding * (s->row + (size_t)s->pixel);
    for (int y = 0; y < s->height; y++, slab += s->row)
        drain_row(s, channels, slab, dx + (size_t)y * (size_t)s->width * (size_t)s->channels);
}

const struct sparse_kernels ISA_NAME(sparse_kernels) = {list_windows, fill_slab, weight_gradient,
                                                        input_gradient, drain_slab};
