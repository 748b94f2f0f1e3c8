/* Products with a sparse matrix. Each of its entries meets a stretch of contiguous floats: the
 * samples of a batch for one input, or the pixels of a channel. */
#include "isa.h"

#define INLINE static inline __attribute__((always_inline)) /* so that what is constant is so */

enum { MOST_VECTORS = 8, TWO_CHAINS = 4 };

/* ---- combine ---- */

INLINE void add_entry(const struct survivor_rows *rows, uint32_t e, const float *in,
                      const int vectors, vec sum[MOST_VECTORS]) {
    const float *from = in + rows->offsets[e];
    const vec value = vec_set(rows->values[e]);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        sum[v] = vec_fma(value, vec_load(from + v * LANES), sum[v]);
}

/* Short stretches go in two sums, since one would wait for its own last addition. */
INLINE void combine_row(const struct survivor_rows *rows, int r, const float *in, const int vectors,
                        bool add, float *out) {
    const uint32_t end = rows->end[r];
    uint32_t e = rows->begin[r];
    vec sum[MOST_VECTORS], other[MOST_VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        sum[v] = add ? vec_load(out + v * LANES) : vec_zero();
        other[v] = vec_zero();
    }
    for (; vectors <= TWO_CHAINS && e + 1 < end; e += 2) {
        add_entry(rows, e, in, vectors, sum);
        add_entry(rows, e + 1, in, vectors, other);
    }
    for (; e < end; e++)
        add_entry(rows, e, in, vectors, sum);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
        vec_store(out + v * LANES, vectors <= TWO_CHAINS ? vec_add(sum[v], other[v]) : sum[v]);
}

INLINE void combine_rows(const struct survivor_rows *rows, const float *in, const int vectors,
                         bool add, float *out, size_t stride) {
    for (int r = 0; r < rows->count; r++, out += stride)
        if (!add || rows->begin[r] < rows->end[r])
            combine_row(rows, r, in, vectors, add, out);
}

static void combine(const struct survivor_rows *rows, const float *in, int vectors, bool add,
                    float *out, size_t stride) {
    switch (vectors) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        combine_rows(rows, in, n, add, out, stride);                                               \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
        CASE(MOST_VECTORS)
#undef CASE
    }
}

/* ---- correlate ---- */

/* Entries at once: as many as there are registers for their addresses; where fewer than LANES are
 * left, fewer. */
enum { AT_ONCE = LANES < 8 ? LANES : 8, FEW = 4 };

/* The sums of `count` entries, each in a vector of its own; those from `last` on are its copies. */
INLINE void correlate_entries(const struct survivor_factors *f, const float *left,
                              const int32_t *offsets, const int count, int last, vec sum[AT_ONCE]) {
    const float *right[AT_ONCE];
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        right[i] = f->right + offsets[i < last ? i : last];
        sum[i] = vec_zero();
    }
    for (int piece = 0; piece < f->pieces; piece++) {
        for (int t = 0; t < f->vectors * LANES; t += LANES) {
            const vec x = vec_load(left + t);
#pragma GCC unroll 8
            for (int i = 0; i < count; i++)
                sum[i] = vec_fma(x, vec_load(right[i] + t), sum[i]);
        }
        left += f->left_step;
#pragma GCC unroll 8
        for (int i = 0; i < count; i++)
            right[i] += f->right_step;
    }
}

/* The sum of each vector's lanes, as one vector. */
static inline vec sum_each(vec sum[LANES]) {
    vec_transpose(sum);
#pragma GCC unroll 4
    for (int width = LANES / 2; width > 0; width /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < width; i++)
            sum[i] = vec_add(sum[i], sum[i + width]);
    return sum[0];
}

static void correlate_lanes(const struct survivor_factors *f, const float *left,
                            const int32_t *offsets, bool add, float *out) {
    vec sum[LANES];
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += AT_ONCE)
        correlate_entries(f, left, offsets + i, AT_ONCE, AT_ONCE - 1, sum + i);
    const vec sums = sum_each(sum);
    vec_store(out, add ? vec_add(vec_load(out), sums) : sums);
}

/* More than FEW, and fewer than LANES. */
static void correlate_most(const struct survivor_factors *f, const float *left,
                           const int32_t *offsets, int count, bool add, float *out) {
    vec sum[LANES] = {vec_zero()}; /* and so the others */
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += AT_ONCE)
        if (i < count)
            correlate_entries(f, left, offsets + i, AT_ONCE,
                              count - i < AT_ONCE ? count - i - 1 : AT_ONCE - 1, sum + i);
    const vec sums = sum_each(sum);
    vec_store_first(out, add ? vec_add(vec_load_first(out, count), sums) : sums, count);
}

static void correlate_few(const struct survivor_factors *f, const float *left,
                          const int32_t *offsets, int count, bool add, float *out) {
    vec sum[AT_ONCE];
    correlate_entries(f, left, offsets, FEW, count - 1, sum);
    for (int i = 0; i < count; i++)
        out[i] = vec_sum(sum[i]) + (add ? out[i] : 0.0F);
}

static void correlate(const struct survivor_rows *rows, const struct survivor_factors *factors,
                      bool add, float *out) {
    for (int r = 0; r < rows->count; r++) {
        const float *left = factors->left + (size_t)r * factors->row_step;
        const uint32_t end = rows->end[r];
        uint32_t e = rows->begin[r];
        for (; e + LANES <= end; e += LANES)
            correlate_lanes(factors, left, rows->offsets + e, add, out + e);
        if ((int)LANES > FEW && end - e > FEW) {
            correlate_most(factors, left, rows->offsets + e, (int)(end - e), add, out + e);
            continue;
        }
        for (; e < end; e += FEW)
            correlate_few(factors, left, rows->offsets + e, end - e < FEW ? (int)(end - e) : FEW,
                          add, out + e);
    }
}

const struct survivor_kernels ISA_NAME(survivor_kernels) = {
    .most_vectors = MOST_VECTORS,
    .combine = combine,
    .correlate = correlate,
};
