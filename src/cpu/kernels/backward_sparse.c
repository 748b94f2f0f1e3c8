/* Convolution backward over lists of the gradients that are not zero (kernels.h).
 *
 * A filter's taps on one slab are a grid of vectors. Patches of it, as large as the registers hold,
 * stay in registers while a list is walked: sums of the weight gradient, or the weights that are
 * scattered into the input gradient. */
#include "isa.h"

#include <string.h>

enum { PATCH_SIDE = 5, PATCH_VECTORS = REGISTERS - 4 };

#define INLINE static inline __attribute__((always_inline))

/* A patch of all filters' taps, and the slab moved to where it sees it: what is only read, and what
 * is added to, each with floats to its next row; and the taps of a filter. */
struct patch {
    const float *from;
    float *to;
    size_t from_row, to_row, taps;
};

INLINE void load_patch(int rows, int columns, const float *from, size_t row,
                       vec patch[PATCH_SIDE][PATCH_SIDE]) {
#pragma GCC unroll 5
    for (int i = 0; i < rows; i++, from += row)
#pragma GCC unroll 5
        for (int j = 0; j < columns; j++)
            patch[i][j] = vec_load(from + j * LANES);
}

/* Taps' gradient += sum over the list of value * what the taps see. */
INLINE void sum_patch(int rows, int columns, const struct sparse_entry *entry,
                      const struct sparse_entry *end, struct patch p) {
    vec sum[PATCH_SIDE][PATCH_SIDE];
    load_patch(rows, columns, p.to, p.to_row, sum);
    for (; entry < end; entry++) {
        const float *seen = p.from + entry->offset;
        const vec value = vec_set(entry->value);
#pragma GCC unroll 5
        for (int i = 0; i < rows; i++, seen += p.from_row)
#pragma GCC unroll 5
            for (int j = 0; j < columns; j++)
                sum[i][j] = vec_fma(value, vec_load(seen + j * LANES), sum[i][j]);
    }
#pragma GCC unroll 5
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 5
        for (int j = 0; j < columns; j++)
            vec_store(p.to + (size_t)i * p.to_row + j * LANES, sum[i][j]);
}

/* What the taps see += value * weights, for each entry of the list. */
INLINE void spread_patch(int rows, int columns, const struct sparse_entry *entry,
                         const struct sparse_entry *end, struct patch p) {
    vec weights[PATCH_SIDE][PATCH_SIDE];
    load_patch(rows, columns, p.from, p.from_row, weights);
    for (; entry < end; entry++) {
        float *seen = p.to + entry->offset;
        const vec value = vec_set(entry->value);
#pragma GCC unroll 5
        for (int i = 0; i < rows; i++, seen += p.to_row)
#pragma GCC unroll 5
            for (int j = 0; j < columns; j++)
                vec_store(seen + j * LANES,
                          vec_fma(value, weights[i][j], vec_load(seen + j * LANES)));
    }
}

/* One function a size; sizes that the registers do not hold are never asked for, and empty. */
#define DEFINE_PATCH(verb, moving, rows, columns)                                                  \
    static void verb##_##rows##_##columns(const struct sparse_lists *lists, struct patch p) {      \
        const struct sparse_entry *list = lists->entries;                                          \
        if (rows * columns > PATCH_VECTORS)                                                        \
            return;                                                                                \
        for (int f = 0; f < lists->filters; f++, list += lists->capacity, p.moving += p.taps)      \
            verb##_patch(rows, columns, list, list + lists->counts[f], p);                         \
    }
#define DEFINE_PATCHES(verb, moving, rows)                                                         \
    DEFINE_PATCH(verb, moving, rows, 1)                                                            \
    DEFINE_PATCH(verb, moving, rows, 2)                                                            \
    DEFINE_PATCH(verb, moving, rows, 3)                                                            \
    DEFINE_PATCH(verb, moving, rows, 4)                                                            \
    DEFINE_PATCH(verb, moving, rows, 5)
#define PATCHES(verb, rows)                                                                        \
    {                                                                                              \
        verb##_##rows##_1, verb##_##rows##_2, verb##_##rows##_3, verb##_##rows##_4,                \
            verb##_##rows##_5                                                                      \
    }
#define DEFINE_TABLE(verb, moving)                                                                 \
    DEFINE_PATCHES(verb, moving, 1)                                                                \
    DEFINE_PATCHES(verb, moving, 2)                                                                \
    DEFINE_PATCHES(verb, moving, 3)                                                                \
    DEFINE_PATCHES(verb, moving, 4)                                                                \
    DEFINE_PATCHES(verb, moving, 5)                                                                \
    static const patch_table verb##_table = {PATCHES(verb, 1), PATCHES(verb, 2), PATCHES(verb, 3), \
                                             PATCHES(verb, 4), PATCHES(verb, 5)};

typedef void (*patch_table[PATCH_SIDE][PATCH_SIDE])(const struct sparse_lists *lists,
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
        columns = next_part(s->vectors - j, PATCH_SIDE);
        const int fit = PATCH_VECTORS / columns, limit = fit < PATCH_SIDE ? fit : PATCH_SIDE;
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

/* The share of the window `at` in what lies ahead. */
static inline void fetch_ahead(const struct sparse_windows *w, size_t at) {
    enum { LINE = 16 }; /* floats of a cache line */
    const size_t windows = (size_t)w->rows * (size_t)w->columns;
    const size_t share = (w->ahead_floats / windows + LINE) / LINE * LINE;
    const size_t end = (at + 1) * share;
    for (size_t i = at * share; i < end && i < w->ahead_floats; i += LINE)
        for (int a = 0; a < 2; a++)
            if (w->ahead[a] != NULL)
                __builtin_prefetch(w->ahead[a] + i, 0, 2);
}

/* Every gradient is written; the end of the list moves on behind those that are not zero. */
static inline void list_window(int32_t corner, const struct sparse_windows *w, const float *g,
                               const uint8_t *state, const struct sparse_lists *lists) {
    struct sparse_entry *list = lists->entries;
    for (int f = 0; f < lists->filters; f++, list += lists->capacity) {
        uint32_t bits;
        memcpy(&bits, g + f, sizeof bits);
        list[lists->counts[f]] = (struct sparse_entry){corner + w->places[state[f]], g[f]};
        lists->counts[f] += bits << 1 != 0; /* -0 is zero, a NaN is not */
    }
}

static void list_windows(const struct sparse_windows *w, const float *g, const uint8_t *state,
                         const struct sparse_lists *lists) {
    const size_t filters = (size_t)lists->filters;
    memset(lists->counts, 0, filters * sizeof *lists->counts);
    size_t at = 0;
    for (int y = 0; y < w->rows; y++)
        for (int x = 0; x < w->columns; x++, at++) {
            fetch_ahead(w, at);
            list_window(w->first + y * w->row_step + x * w->column_step, w, g + at * filters,
                        state + at * filters, lists);
        }
}

/* ---- slabs ---- */

static void fill_row(const struct sparse_slab *s, int channels, const float *x, float *row) {
    if (s->pixel == s->channels) { /* pixels follow each other in both */
        memcpy(row, x, (size_t)s->width * (size_t)channels * sizeof *row);
        return;
    }
    for (int p = 0; p < s->width; p++, x += s->channels, row += LANES)
        vec_store(row, channels == LANES ? vec_load(x) : vec_load_first(x, channels));
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

static void drain_slab(const struct sparse_slab *s, int channels, const float *slab, float *dx) {
    slab += (size_t)s->padding * (s->row + LANES);
    for (int y = 0; y < s->height; y++, slab += s->row)
        for (int p = 0; p < s->width; p++, dx += s->channels) {
            const vec v = vec_load(slab + p * LANES);
            if (channels == LANES)
                vec_store(dx, v);
            else
                vec_store_first(dx, v, channels);
        }
}

const struct sparse_kernels ISA_NAME(sparse_kernels) = {list_windows, fill_slab, weight_gradient,
                                                        input_gradient, drain_slab};
