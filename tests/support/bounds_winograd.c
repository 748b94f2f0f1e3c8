#include "bounds_winograd.h"
#include "block_reference.h"
#include "bounds.h"
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEEN = 6, MADE = 4, KERNEL = 3, ROUNDINGS = 19 };

/* Absolute values of Lavin and Gray's matrices. */
static const double input_matrix[SEEN][SEEN] = {{4, 0, 5, 0, 1, 0}, {0, 4, 4, 1, 1, 0},
                                                {0, 4, 4, 1, 1, 0}, {0, 2, 1, 2, 1, 0},
                                                {0, 2, 1, 2, 1, 0}, {0, 4, 0, 5, 0, 1}};
static const double weight_matrix[SEEN][KERNEL] = {
    {1.0 / 4, 0, 0},
    {1.0 / 6, 1.0 / 6, 1.0 / 6},
    {1.0 / 6, 1.0 / 6, 1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6},
    {0, 0, 1},
};
static const double output_matrix[MADE][SEEN] = {
    {1, 1, 1, 1, 1, 0}, {0, 1, 1, 2, 2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, 1, 8, 8, 1}};

/* result [rows][rows] = matrix values matrix', matrix [rows][columns], values [columns][columns].
 */
static void transform(int rows, int columns, const double *matrix, const double *values,
                      double *result) {
    double half[SEEN * SEEN] = {0}; /* matrix values, [rows][columns] */
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < columns; k++)
            for (int j = 0; j < columns; j++)
                half[i * columns + j] += matrix[i * columns + k] * values[k * columns + j];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            result[i * rows + j] = 0;
            for (int k = 0; k < columns; k++)
                result[i * rows + j] += half[i * columns + k] * matrix[j * columns + k];
        }
}

/* What the tile at (top, left) of the output sees of channel c, absolute; 0 outside. */
static void patch_of(const struct block_desc *d, const double *x, int top, int left, int c,
                     double patch[SEEN * SEEN]) {
    for (int i = 0; i < SEEN; i++)
        for (int j = 0; j < SEEN; j++) {
            int row = top + i - d->padding, column = left + j - d->padding;
            bool inside =
                row >= 0 && row < d->input.height && column >= 0 && column < d->input.width;
            int at = inside ? (row * d->input.width + column) * d->input.channels + c : 0;
            patch[i * SEEN + j] = inside ? fabs(x[at]) : 0;
        }
}

static double *spread_weights(const struct block_desc *d, const double *weights) {
    size_t kernels = (size_t)d->linear.channels * (size_t)d->input.channels;
    double *spread = reference_array(kernels * SEEN * SEEN);
    for (size_t i = 0; i < kernels; i++) {
        double g[KERNEL * KERNEL];
        for (size_t j = 0; j < KERNEL * KERNEL; j++)
            g[j] = fabs(weights[i * KERNEL * KERNEL + j]);
        transform(SEEN, KERNEL, weight_matrix[0], g, spread + i * SEEN * SEEN);
    }
    return spread;
}

static double *spread_tile(const struct block_desc *d, const double *x, int top, int left) {
    double *spread = reference_array((size_t)d->input.channels * SEEN * SEEN);
    for (int c = 0; c < d->input.channels; c++) {
        double patch[SEEN * SEEN];
        patch_of(d, x, top, left, c, patch);
        transform(SEEN, SEEN, input_matrix[0], patch, spread + (size_t)c * SEEN * SEEN);
    }
    return spread;
}

static void store_tile(const struct block_desc *d, const double made[MADE * MADE], int top,
                       int left, int filter, double *z) {
    for (int i = 0; i < MADE && top + i < d->linear.height; i++)
        for (int j = 0; j < MADE && left + j < d->linear.width; j++)
            z[((top + i) * d->linear.width + left + j) * d->linear.channels + filter] =
                made[i * MADE + j];
}

static void magnitudes_of_tile(const struct block_desc *d, const double *u, const double *x,
                               int top, int left, double *z) {
    double *v = spread_tile(d, x, top, left);
    for (int k = 0; k < d->linear.channels; k++) {
        double sums[SEEN * SEEN] = {0}, made[MADE * MADE];
        for (int c = 0; c < d->input.channels; c++)
            for (int p = 0; p < SEEN * SEEN; p++)
                sums[p] +=
                    u[(k * d->input.channels + c) * SEEN * SEEN + p] * v[c * SEEN * SEEN + p];
        transform(MADE, SEEN, output_matrix[0], sums, made);
        store_tile(d, made, top, left, k, z);
    }
    free(v);
}

double *winograd_magnitudes(const struct block_desc *d, int samples, const double *weights,
                            const double *x) {
    size_t inputs = shape_size(d->input), outputs = shape_size(d->linear);
    double *u = spread_weights(d, weights), *z = reference_array((size_t)samples * outputs);
    for (size_t n = 0; n < (size_t)samples; n++)
        for (int top = 0; top < d->linear.height; top += MADE)
            for (int left = 0; left < d->linear.width; left += MADE)
                magnitudes_of_tile(d, u, x + n * inputs, top, left, z + n * outputs);
    free(u);
    return z;
}

/* A product that underflows loses FLT_MIN: one of a weight is multiplied by at most 100, the
 * largest sum of a row of |B'| squared, and all by at most 361, that of |A'|. */
static double underflow(const struct block_desc *d) {
    return d->input.channels * (double)(SEEN * SEEN) * 361 * (1 + 4 * 100) * (double)FLT_MIN;
}

double *winograd_errors(const struct block_desc *d, int samples, const double *weights,
                        const double *bias, const double *x) {
    double *errors = winograd_magnitudes(d, samples, weights, x);
    double gamma = bound_gamma(d->input.channels + ROUNDINGS);
    for (size_t i = 0; i < (size_t)samples * shape_size(d->linear); i++)
        errors[i] = gamma * (errors[i] + fabs(bias[i % (size_t)d->linear.channels])) + underflow(d);
    return errors;
}

bool winograd_is_used(struct backend *backend, const struct block_desc *desc) {
    struct block_plan *plan;
    const char *forward, *backward;
    assert_ok(backend->block_plan_create(backend, desc, 0, true, &plan));
    backend->block_plan_algorithms(plan, &forward, &backward);
    const bool is_used = strcmp(forward, "winograd") == 0;
    backend->block_plan_destroy(plan);
    return is_used;
}
