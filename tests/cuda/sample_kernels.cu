#include "emulated_device.h"
#include "sample_kernels.h"

static unsigned blocks_for(int count) {
    return ((unsigned)count + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
}

static __global__ void block_sums(const int *x, int count, int *out) {
    SHARED(int, part, [128]);
    int t = (int)threadIdx.x, i = (int)(blockIdx.x * SAMPLE_BLOCK) + t;
    part[t] = i < count ? x[i] : 0;
    if (t < 128 - SAMPLE_BLOCK)
        part[SAMPLE_BLOCK + t] = 0;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half)
            part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = part[0];
}

cudaError_t sample_block_sums(const int *x, int count, int *out, cudaStream_t stream) {
    LAUNCH(block_sums, blocks_for(count), SAMPLE_BLOCK, 0, stream, x, count, out);
    return cudaGetLastError();
}

static __global__ void scan(const int *x, int count, int *out) {
    SHARED(int, warp_sums, [SAMPLE_BLOCK / 32]);
    int t = (int)threadIdx.x, i = (int)(blockIdx.x * SAMPLE_BLOCK) + t, lane = t % 32;
    int sum = i < count ? x[i] : 0;
    for (int by = 1; by < 32; by *= 2) {
        int lower = __shfl_up_sync(~0U, sum, (unsigned)by);
        if (lane >= by)
            sum += lower;
    }
    if (lane == 31)
        warp_sums[t / 32] = sum;
    __syncthreads();
    for (int w = 0; w < t / 32; w++)
        sum += warp_sums[w];
    if (i < count)
        out[i] = sum;
}

cudaError_t sample_scan(const int *x, int count, int *out, cudaStream_t stream) {
    LAUNCH(scan, blocks_for(count), SAMPLE_BLOCK, 0, stream, x, count, out);
    return cudaGetLastError();
}

template <int SIDE>
static __global__ void transpose(const float *x, int rows, int columns, float *out) {
    SHARED(float, tile, [SIDE][SIDE + 1]);
    int row = (int)(blockIdx.y * SIDE + threadIdx.y),
        column = (int)(blockIdx.x * SIDE + threadIdx.x);
    if (row < rows && column < columns)
        tile[threadIdx.y][threadIdx.x] = x[row * columns + column];
    __syncthreads();
    row = (int)(blockIdx.y * SIDE + threadIdx.x), column = (int)(blockIdx.x * SIDE + threadIdx.y);
    if (row < rows && column < columns)
        out[column * rows + row] = tile[threadIdx.x][threadIdx.y];
}

cudaError_t sample_transpose(const float *x, int rows, int columns, float *out,
                             cudaStream_t stream) {
    dim3 grid((unsigned)(columns + 7) / 8, (unsigned)(rows + 7) / 8);
    LAUNCH((transpose<8>), grid, dim3(8, 8), 0, stream, x, rows, columns, out);
    return cudaGetLastError();
}

static __global__ void histogram(const int *x, int count, int *counts, int values) {
    SHARED_BYTES(int, bins);
    for (int v = (int)threadIdx.x; v < values; v += SAMPLE_BLOCK)
        bins[v] = 0;
    __syncthreads();
    for (int i = (int)(blockIdx.x * SAMPLE_BLOCK + threadIdx.x); i < count;
         i += (int)(gridDim.x * SAMPLE_BLOCK))
        atomicAdd(&bins[x[i]], 1);
    __syncthreads();
    for (int v = (int)threadIdx.x; v < values; v += SAMPLE_BLOCK)
        atomicAdd(&counts[v], bins[v]);
}

cudaError_t sample_histogram(const int *x, int count, int *counts, int values,
                             cudaStream_t stream) {
    cudaError_t error = cudaMemsetAsync(counts, 0, (size_t)values * sizeof *counts, stream);
    if (error != cudaSuccess)
        return error;
    LAUNCH(histogram, 2, SAMPLE_BLOCK, (size_t)values * sizeof *counts, stream, x, count, counts,
           values);
    return cudaGetLastError();
}

/* A barrier of the warp keeps the count that all read from the count that one writes. */
static __global__ void keep_odd(const int *x, int count, int *out, int *kept) {
    SHARED(int, total, [1]);
    unsigned lane = threadIdx.x;
    if (lane == 0)
        total[0] = 0;
    for (int first = 0; first < count; first += 32) {
        int i = first + (int)lane;
        bool odd = i < count && x[i] % 2 != 0;
        unsigned votes = __ballot_sync(~0U, odd);
        int before = total[0] + __popc(votes & ((1U << lane) - 1));
        if (odd)
            out[before] = x[i];
        __syncwarp();
        if (lane == 0)
            total[0] += __popc(votes);
    }
    if (lane == 0)
        *kept = total[0];
}

cudaError_t sample_keep_odd(const int *x, int count, int *out, int *kept, cudaStream_t stream) {
    LAUNCH(keep_odd, 1, 32, 0, stream, x, count, out, kept);
    return cudaGetLastError();
}

static __global__ void step(int *x, int count, int scale) {
    int i = (int)(blockIdx.x * SAMPLE_BLOCK + threadIdx.x);
    if (i < count)
        x[i] = scale * x[i] + 1;
}

cudaError_t sample_step(int *x, int count, int scale, cudaStream_t stream) {
    LAUNCH(step, blocks_for(count), SAMPLE_BLOCK, 0, stream, x, count, scale);
    return cudaGetLastError();
}

static __global__ void diverge() {
    if (threadIdx.x < SAMPLE_BLOCK / 2)
        __syncthreads();
}

cudaError_t sample_diverge(cudaStream_t stream) {
    LAUNCH(diverge, 1, SAMPLE_BLOCK, 0, stream);
    return cudaGetLastError();
}

static __global__ void two_barriers() {
    if (threadIdx.x % 2 == 0)
        __syncthreads();
    else
        __syncthreads();
}

cudaError_t sample_two_barriers(cudaStream_t stream) {
    LAUNCH(two_barriers, 1, SAMPLE_BLOCK, 0, stream);
    return cudaGetLastError();
}

static __global__ void overrun(int *x, int count) {
    x[count] = 1;
}

cudaError_t sample_overrun(int *x, int count, cudaStream_t stream) {
    LAUNCH(overrun, 1, 1, 0, stream, x, count);
    return cudaGetLastError();
}

static __global__ void shared_overrun() {
    SHARED(int, values, [4]);
    int volatile last = 4;
    values[last] = 1;
}

cudaError_t sample_shared_overrun(cudaStream_t stream) {
    LAUNCH(shared_overrun, 1, 1, 0, stream);
    return cudaGetLastError();
}

static __global__ void wrong_mask() {
    if (threadIdx.x < 16)
        __shfl_down_sync(0xFFFFU, 1, 8);
}

cudaError_t sample_wrong_mask(cudaStream_t stream) {
    LAUNCH(wrong_mask, 1, 32, 0, stream);
    return cudaGetLastError();
}

static __global__ void nothing() {
}

cudaError_t sample_launch(unsigned grid, unsigned block, size_t shared_bytes, cudaStream_t stream) {
    LAUNCH(nothing, grid, block, shared_bytes, stream);
    return cudaGetLastError();
}
