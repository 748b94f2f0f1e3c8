/* conv_direct.cuh - what the kernels of convolutions share. */
#ifndef ESPALIER_CUDA_CONV_DIRECT_CUH
#define ESPALIER_CUDA_CONV_DIRECT_CUH

#include "device.cuh"

/** Weights lie as [chunks of channels][taps][CHUNK][filters], both rounded up with zeros. */
enum { CHUNK = 8, FILTERS = 32 };

/** Images of one channel, that a kernel of their own takes. */
bool convolution_has_planes(const struct convolution *c);
void convolution_launch_planes(const struct convolution *c, int samples, const float *x,
                               const float *weights, float *y, cudaStream_t stream);

/** Moved as one. */
struct __align__(16) four {
    float at[4];
};

static __host__ __device__ inline int round_up(int count, int step) {
    return (count + step - 1) / step * step;
}

/** Four filters of a pixel, through bias and activation. */
static __device__ inline void store(const struct convolution *c, int filter, const float *sums,
                                    float *y) {
    struct four values;
#pragma unroll
    for (int f = 0; f < 4; f++) {
        const bool biased = c->bias != NULL && filter + f < c->filters;
        values.at[f] = activate(c->activation, biased ? sums[f] + c->bias[filter + f] : sums[f]);
    }
    if (c->filters % 4 == 0) {
        if (filter < c->filters)
            *(struct four *)y = values;
        return;
    }
#pragma unroll
    for (int f = 0; f < 4; f++)
        if (filter + f < c->filters)
            y[f] = values.at[f];
}

#endif
