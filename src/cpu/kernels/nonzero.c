/* Products of matrices that skip the zeros of one factor: a row of the product is a sum of those
 * rows of the other factor that the non-zero values name. Of the other factor comes a panel at a
 * time, which is to stay in the first cache. */
#include "isa.h"

enum { VECTORS = 4, PANEL = VECTORS * LANES };

static int collect(const float *row, int columns, float *values, uint32_t *indices) {
    int count = 0, i = 0;
    for (; i + LANES <= columns; i += LANES)
        count += vec_pack_nonzero(vec_load(row + i), (uint32_t)i, values + count, indices + count);
    for (; i < columns; i++)
        if (row[i] != 0.0F) {
            values[count] = row[i];
            indices[count++] = (uint32_t)i;
        }
    return count;
}

static size_t count_nonzero(const float *values, size_t count) {
    size_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++)
        sum += values[i] != 0.0F;
    return sum;
}

/* Values first .. end - 1 of the lists. `vectors` is a constant where it is called, so that the
 * sums are registers. Two strands, for a sum must wait for the one before it. */
static inline void gather_row(const struct nonzero_rows *rows, uint32_t first, uint32_t end,
                              const float *panel, const int vectors, vec sum[VECTORS]) {
    const uint32_t *indices = rows->indices;
    const float *values = rows->values;
    vec other[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        other[v] = vec_zero();
    for (; first + 1 < end; first += 2) {
        const float *a = panel + (size_t)indices[first] * PANEL;
        const float *b = panel + (size_t)indices[first + 1] * PANEL;
        const vec x = vec_set(values[first]), y = vec_set(values[first + 1]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            sum[v] = vec_fma(x, vec_load(a + v * LANES), sum[v]);
            other[v] = vec_fma(y, vec_load(b + v * LANES), other[v]);
        }
    }
    if (first < end) {
        const float *a = panel + (size_t)indices[first] * PANEL;
        const vec x = vec_set(values[first]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[v] = vec_fma(x, vec_load(a + v * LANES), sum[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
        sum[v] = vec_add(sum[v], other[v]);
}

static inline void load_row(const float *row, const int vectors, int in_last, vec v[VECTORS]) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors - 1; i++)
        v[i] = vec_load(row + i * LANES);
    v[vectors - 1] = vec_load_first(row + (vectors - 1) * LANES, in_last);
}

static inline void store_row(float *row, const int vectors, int in_last, const vec v[VECTORS]) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors - 1; i++)
        vec_store(row + i * LANES, v[i]);
    vec_store_first(row + (vectors - 1) * LANES, v[vectors - 1], in_last);
}

static inline void gather_rows(const struct nonzero_rows *rows, const float *panel,
                               const int vectors, int in_last, bool add, float *out,
                               size_t stride) {
    for (int r = 0; r < rows->count; r++, out += stride) {
        vec sum[VECTORS] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
        if (add)
            load_row(out, vectors, in_last, sum);
        gather_row(rows, rows->start[r], rows->start[r + 1], panel, vectors, sum);
        store_row(out, vectors, in_last, sum);
    }
}

static void gather(const struct nonzero_rows *rows, const float *panel, int width, bool add,
                   float *out, size_t stride) {
    const int vectors = (width + LANES - 1) / LANES, in_last = width - (vectors - 1) * LANES;
    if (vectors == 1)
        gather_rows(rows, panel, 1, in_last, add, out, stride);
    else if (vectors == 2)
        gather_rows(rows, panel, 2, in_last, add, out, stride);
    else if (vectors == 3)
        gather_rows(rows, panel, 3, in_last, add, out, stride);
    else
        gather_rows(rows, panel, 4, in_last, add, out, stride);
}

static void copy(int rows, int width, const float *from, size_t stride, float *panel) {
    for (int r = 0; r < rows; r++, from += stride, panel += PANEL)
        for (int j = 0; j < width; j += LANES)
            vec_store(panel + j, vec_load_first(from + j, width - j < LANES ? width - j : LANES));
}

/* Up to LANES rows and columns. */
static inline void transpose_lanes(int rows, int columns, const float *from, size_t from_stride,
                                   float *to, size_t to_stride) {
    vec row[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        row[i] = i < rows ? vec_load_first(from + (size_t)i * from_stride, columns) : vec_zero();
    vec_transpose(row);
#pragma GCC unroll 16
    for (int j = 0; j < LANES; j++)
        if (j < columns)
            vec_store_first(to + (size_t)j * to_stride, row[j], rows);
}

static void transpose(int rows, int columns, const float *from, size_t from_stride, float *to,
                      size_t to_stride) {
    for (int i = 0; i < rows; i += LANES)
        for (int j = 0; j < columns; j += LANES) {
            const float *f = from + (size_t)i * from_stride + j;
            float *t = to + (size_t)j * to_stride + i;
            if (i + LANES <= rows && j + LANES <= columns)
                transpose_lanes(LANES, LANES, f, from_stride, t, to_stride);
            else
                transpose_lanes(rows - i < LANES ? rows - i : LANES,
                                columns - j < LANES ? columns - j : LANES, f, from_stride, t,
                                to_stride);
        }
}

const struct nonzero_kernels ISA_NAME(nonzero_kernels) = {
    .panel = PANEL,
    .count = count_nonzero,
    .collect = collect,
    .gather = gather,
    .copy = copy,
    .transpose = transpose,
};
