/* Products of matrices, a panel of the right factor at a time, which is to stay in the first cache:
 * all values of the left factor, or those that are not zero. */
#include "isa.h"

#define INLINE static inline __attribute__((always_inline)) /* so that what is constant is so */

enum { VECTORS = 4, PANEL = VECTORS * LANES };

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* `vectors` is a constant wherever these are called, so that sums are registers; the last of them
 * has in_last columns. */

INLINE void start_row(const float *row, const int vectors, int in_last, bool add, vec v[VECTORS]) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++)
        v[i] = vec_zero();
    if (!add)
        return;
#pragma GCC unroll 4
    for (int i = 0; i < vectors - 1; i++)
        v[i] = vec_load(row + i * LANES);
    v[vectors - 1] = vec_load_first(row + (vectors - 1) * LANES, in_last);
}

INLINE void store_row(float *row, const int vectors, int in_last, const vec v[VECTORS]) {
#pragma GCC unroll 4
    for (int i = 0; i < vectors - 1; i++)
        vec_store(row + i * LANES, v[i]);
    vec_store_first(row + (vectors - 1) * LANES, v[vectors - 1], in_last);
}

/* ---- all values ---- */

/* Rows of sums at once, and vectors of each: as many as registers hold, with what they are made of.
 */
enum { ROWS = 4, NARROW_ROWS = 8, AT_ONCE = REGISTERS >= 32 ? 4 : 2 };

INLINE void multiply_rows(const struct matrix_rows *left, const float *first, const int rows,
                          const float *panel, const int vectors, int in_last, bool add, float *out,
                          size_t stride) {
    vec sum[NARROW_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        start_row(out + (size_t)r * stride, vectors, in_last, add, sum[r]);
    for (int k = 0; k < left->columns; k++, first += left->column_step, panel += PANEL)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const vec x = vec_set(first[(size_t)r * left->row_step]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] = vec_fma(x, vec_load(panel + v * LANES), sum[r][v]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        store_row(out + (size_t)r * stride, vectors, in_last, sum[r]);
}

INLINE void multiply_all_rows(const struct matrix_rows *left, const float *panel, const int vectors,
                              int in_last, bool add, float *out, size_t stride) {
    const int at_once = vectors == 1 ? NARROW_ROWS : ROWS;
    const float *first = left->values;
    int r = 0;
    for (; r + at_once <= left->count; r += at_once) {
        multiply_rows(left, first, at_once, panel, vectors, in_last, add, out, stride);
        first += (size_t)at_once * left->row_step;
        out += (size_t)at_once * stride;
    }
    for (; r < left->count; r++, first += left->row_step, out += stride)
        multiply_rows(left, first, 1, panel, vectors, in_last, add, out, stride);
}

static void multiply(const struct matrix_rows *left, const float *panel, int width, bool add,
                     float *out, size_t stride) {
    for (; width > 0; width -= AT_ONCE * LANES, panel += AT_ONCE * LANES, out += AT_ONCE * LANES) {
        const int vectors = smaller((width + LANES - 1) / LANES, AT_ONCE);
        const int in_last = smaller(width - (vectors - 1) * LANES, LANES);
        if (vectors == 1)
            multiply_all_rows(left, panel, 1, in_last, add, out, stride);
        else if (vectors == 2)
            multiply_all_rows(left, panel, 2, in_last, add, out, stride);
        else if (vectors == 3)
            multiply_all_rows(left, panel, 3, in_last, add, out, stride);
        else
            multiply_all_rows(left, panel, 4, in_last, add, out, stride);
    }
}

/* ---- values that are not zero ---- */

static int collect(const float *rows[2], int columns, float *values[2], uint32_t *indices) {
    int count = 0, i = 0;
    for (; i + LANES <= columns; i += LANES) {
        const vec first = vec_load(rows[0] + i), second = vec_load(rows[1] + i);
        const unsigned either = vec_nonzero_bits(first) | vec_nonzero_bits(second);
        vec_pack_lanes(either, (uint32_t)i, indices + count);
        vec_pack(first, either, values[0] + count);
        count += vec_pack(second, either, values[1] + count);
    }
    for (; i < columns; i++)
        if (rows[0][i] != 0.0F || rows[1][i] != 0.0F) {
            values[0][count] = rows[0][i];
            values[1][count] = rows[1][i];
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

/* How many entries of a list at once, for a sum must wait for the one before it. */
enum { STRANDS = REGISTERS >= 32 ? 2 : 1 };

/* One entry of a pair's list. */
INLINE void add_entry(const struct nonzero_rows *rows, uint32_t entry, const float *panel,
                      const int vectors, vec sum[2][VECTORS]) {
    const float *right = panel + (size_t)rows->indices[entry] * PANEL;
    const vec first = vec_set(rows->values[0][entry]), second = vec_set(rows->values[1][entry]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        const vec met = vec_keep(vec_load(right + v * LANES));
        sum[0][v] = vec_fma(first, met, sum[0][v]);
        sum[1][v] = vec_fma(second, met, sum[1][v]);
    }
}

/* Two rows of sums; both may be the same one. */
INLINE void nonzero_pair(const struct nonzero_rows *rows, uint32_t entry, uint32_t end,
                         const float *panel, const int vectors, int in_last, bool add, float *out,
                         float *second) {
    vec sum[2][VECTORS], other[2][VECTORS];
    start_row(out, vectors, in_last, add, sum[0]);
    start_row(second, vectors, in_last, add, sum[1]);
    if (STRANDS == 2) {
        start_row(out, vectors, in_last, false, other[0]);
        start_row(out, vectors, in_last, false, other[1]);
        for (; entry + 1 < end; entry += 2) {
            add_entry(rows, entry, panel, vectors, sum);
            add_entry(rows, entry + 1, panel, vectors, other);
        }
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            sum[0][v] = vec_add(sum[0][v], other[0][v]);
            sum[1][v] = vec_add(sum[1][v], other[1][v]);
        }
    }
    for (; entry < end; entry++)
        add_entry(rows, entry, panel, vectors, sum);
    store_row(second, vectors, in_last, sum[1]);
    store_row(out, vectors, in_last, sum[0]);
}

/* Of the last pair, of an odd number of rows, both are the same. */
INLINE void nonzero_rows(const struct nonzero_rows *rows, const float *panel, const int vectors,
                         int in_last, bool add, float *out, size_t stride) {
    for (int r = 0; r < rows->count; r += 2, out += 2 * stride) {
        const uint32_t *start = rows->start + r / 2;
        nonzero_pair(rows, start[0], start[1], panel, vectors, in_last, add, out,
                     r + 1 < rows->count ? out + stride : out);
    }
}

static void multiply_nonzero(const struct nonzero_rows *rows, const float *panel, int width,
                             bool add, float *out, size_t stride) {
    const int vectors = (width + LANES - 1) / LANES, in_last = width - (vectors - 1) * LANES;
    if (vectors == 1)
        nonzero_rows(rows, panel, 1, in_last, add, out, stride);
    else if (vectors == 2)
        nonzero_rows(rows, panel, 2, in_last, add, out, stride);
    else if (vectors == 3)
        nonzero_rows(rows, panel, 3, in_last, add, out, stride);
    else
        nonzero_rows(rows, panel, 4, in_last, add, out, stride);
}

/* ---- panels ---- */

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

const struct product_kernels ISA_NAME(product_kernels) = {
    .panel = PANEL,
    .count_nonzero = count_nonzero,
    .collect = collect,
    .multiply = multiply,
    .multiply_nonzero = multiply_nonzero,
    .copy = copy,
    .transpose = transpose,
};
