/* Batch normalisation: sums over pixels in double, so that a variance is not lost beside a mean. */
#include "isa.h"

static void add_moments(size_t pixels, size_t channels, const float *restrict x,
                        double *restrict sums, double *restrict squares) {
    for (size_t p = 0; p < pixels; p++, x += channels)
#pragma omp simd
        for (size_t k = 0; k < channels; k++) {
            sums[k] += (double)x[k];
            squares[k] += (double)x[k] * (double)x[k];
        }
}

static void normalise(size_t pixels, size_t channels, const float *restrict mean,
                      const float *restrict scale, const float *restrict x, float *restrict z) {
    for (size_t p = 0; p < pixels; p++, x += channels, z += channels)
#pragma omp simd
        for (size_t k = 0; k < channels; k++)
            z[k] = (x[k] - mean[k]) * scale[k];
}

static void add_gradients(size_t pixels, size_t channels, const float *restrict mean,
                          const float *restrict x, const float *restrict dz, double *restrict sums,
                          double *restrict products) {
    for (size_t p = 0; p < pixels; p++, x += channels, dz += channels)
#pragma omp simd
        for (size_t k = 0; k < channels; k++) {
            sums[k] += (double)dz[k];
            products[k] += (double)dz[k] * (double)(x[k] - mean[k]);
        }
}

static void input_gradient(size_t pixels, size_t channels, const float *mean, const float *scale,
                           const float *shift, const float *slope, const float *x, const float *dz,
                           float *dx) {
    for (size_t p = 0; p < pixels; p++, x += channels, dz += channels, dx += channels)
#pragma omp simd
        for (size_t k = 0; k < channels; k++)
            dx[k] = scale[k] * (dz[k] - shift[k] - (x[k] - mean[k]) * slope[k]);
}

const struct norm_kernels ISA_NAME(norm_kernels) = {add_moments, normalise, add_gradients,
                                                    input_gradient};
