/* Products of dense layers of few units, which leave a library's tiles empty: each a sum in a fixed
 * order. */
#include "device.cuh"

/* A warp computes one unit of one sample. */
static __global__ void small_forward(struct small_product p, int samples, const float *x,
                                     const float *weights, float *y) {
    const int lane = threadIdx.x % WARP, unit = (int)blockIdx.y;
    const int sample = (int)(blockIdx.x * WARPS + threadIdx.x / WARP);
    if (sample >= samples)
        return;
    const float *row = weights + (size_t)unit * p.inputs, *in = x + (size_t)sample * p.inputs;
    float sum = 0;
#pragma unroll 4
    for (int i = lane; i < p.inputs; i += WARP)
        sum += row[i] * in[i];
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        sum += __shfl_down_sync(0xffffffffU, sum, distance);
    if (lane == 0)
        y[(size_t)sample * p.units + unit] =
            activate(p.activation, p.bias == NULL ? sum : sum + p.bias[unit]);
}

cudaError_t kernel_small_forward(const struct small_product *p, int samples, const float *x,
                                 const float *weights, float *y, cudaStream_t stream) {
    const dim3 grid((unsigned)(samples + WARPS - 1) / WARPS, (unsigned)p->units);
    if (samples > 0)
        LAUNCH(small_forward, grid, THREADS, 0, stream, *p, samples, x, weights, y);
    return cudaGetLastError();
}

/* A block computes one unit's gradients for WARP inputs; its warps divide the samples. */
static __global__ void small_weights(struct small_product p, int samples, const float *x,
                                     const float *dz, float *dweights) {
    SHARED(float, found, [WARPS][WARP]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, unit = (int)blockIdx.y;
    const int input = (int)blockIdx.x * WARP + lane;
    float sum = 0;
    const int count = input < p.inputs ? samples : 0;
#pragma unroll 8
    for (int i = warp; i < count; i += WARPS)
        sum += dz[(size_t)i * p.units + unit] * x[(size_t)i * p.inputs + input];
    found[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || input >= p.inputs)
        return;
    sum = 0;
    for (int k = 0; k < WARPS; k++)
        sum += found[k][lane];
    dweights[(size_t)unit * p.inputs + input] = sum;
}

cudaError_t kernel_small_weights(const struct small_product *p, int samples, const float *x,
                                 const float *dz, float *dweights, cudaStream_t stream) {
    const dim3 grid((unsigned)(p->inputs + WARP - 1) / WARP, (unsigned)p->units);
    LAUNCH(small_weights, grid, THREADS, 0, stream, *p, samples, x, dz, dweights);
    return cudaGetLastError();
}

/* A thread computes one input of one sample. */
static __global__ void small_inputs(struct small_product p, size_t count, const float *weights,
                                    const float *dz, float *dx) {
    for (size_t i = first_element(); i < count; i += stride()) {
        const size_t sample = i / p.inputs, input = i % p.inputs;
        float sum = 0;
#pragma unroll 8
        for (int unit = 0; unit < p.units; unit++)
            sum += dz[sample * p.units + unit] * weights[(size_t)unit * p.inputs + input];
        dx[i] = sum;
    }
}

cudaError_t kernel_small_inputs(const struct small_product *p, int samples, const float *weights,
                                const float *dz, float *dx, cudaStream_t stream) {
    const size_t count = (size_t)samples * p->inputs;
    if (count > 0)
        LAUNCH(small_inputs, blocks_for(count), THREADS, 0, stream, *p, count, weights, dz, dx);
    return cudaGetLastError();
}
