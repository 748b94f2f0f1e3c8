/* device.cuh - what kernels are written with, for nvcc and for the tests' emulation of a device.
 *
 *    LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *    SHARED(type, name, extents)   static memory of a block: SHARED(float, tile, [16][17])
 *    SHARED_BYTES(type, name)      what the launch gives it: SHARED_BYTES(float, tile) */
#ifndef ESPALIER_CUDA_DEVICE_CUH
#define ESPALIER_CUDA_DEVICE_CUH

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define SHARED(type, name, extents) __shared__ type name extents
#define SHARED_BYTES(type, name)                                                                   \
    extern __shared__ __align__(16) unsigned char name##_bytes[];                                  \
    type *name = (type *)name##_bytes
#else
#include <emulated_device.h>
#endif

extern "C" {
#include "kernels.h"
}

enum { THREADS = 256, WARP = 32, WARPS = THREADS / WARP, MOST_BLOCKS = 8192 };

/** The grid of a kernel of THREADS threads a block that takes `count` elements in strides. */
static inline unsigned blocks_for(size_t count) {
    const size_t blocks = (count + THREADS - 1) / THREADS, most = MOST_BLOCKS;
    return (unsigned)(blocks < most ? blocks : most);
}

/** This thread's elements: for (size_t i = first_element(); i < count; i += stride()). */
static __device__ inline size_t first_element() {
    return blockIdx.x * (size_t)blockDim.x + threadIdx.x;
}
static __device__ inline size_t stride() {
    return gridDim.x * (size_t)blockDim.x;
}

/** The same, where an int counts them and each has a thread of its own. */
static __device__ inline int own_element() {
    return (int)first_element();
}

/** WIDE neighbours that are moved as one, where they are aligned to as many. */
template <class T, int WIDE> struct alignas(sizeof(T) * WIDE) pack { T at[WIDE]; };
template <int WIDE, class T> static __device__ inline pack<T, WIDE> load(const T *from) {
    return *(const pack<T, WIDE> *)from;
}
template <class T, int WIDE> static __device__ inline void store(T *to, const pack<T, WIDE> &from) {
    *(pack<T, WIDE> *)to = from;
}

/** Whether all packs of an array are, where the first is. */
template <int WIDE, class T> static inline bool is_aligned(const T *array) {
    return (uintptr_t)array % sizeof(pack<T, WIDE>) == 0;
}

/** Queue a copy of 4 or 16 bytes, aligned to as many, to the block's shared memory; zeros where
 * there is nothing to copy, `from` being a valid address all the same. A thread's copies are there
 * after its copies_wait(), for other threads after a barrier behind that. */
template <int BYTES>
static __device__ inline void copy_queue(float *to, const float *from, bool something) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "n"(BYTES), "r"(something ? BYTES : 0)
                 : "memory");
#else
    for (int i = 0; i < BYTES / (int)sizeof *to; i++)
        to[i] = something ? from[i] : 0;
#endif
}
static __device__ inline void copies_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/** The values of the step under way. */
static __device__ inline struct step_values values_of(struct step_source source) {
    return source.device != NULL ? *source.device : source.given;
}

/** A draw of Philox4x32-10 (rng.h): word w is that of unit 4 `group` + w. */
static __device__ inline void philox_draw(uint64_t seed, uint32_t group, uint32_t sample,
                                          uint32_t time, uint32_t stream, uint32_t (&words)[4]) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = group, c1 = sample, c2 = time, c3 = stream;
    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = (uint64_t)0xD2511F53U * c0, product1 = (uint64_t)0xCD9E8D57U * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ key0;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        key0 += 0x9E3779B9U;
        key1 += 0xBB67AE85U;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/** One word: word `unit` % 4 of the draw of group `unit` / 4. */
static __device__ inline uint32_t philox_word(uint64_t seed, size_t unit, uint32_t sample,
                                              uint32_t time, uint32_t stream) {
    uint32_t words[4];
    philox_draw(seed, (uint32_t)(unit / 4), sample, time, stream, words);
    const uint32_t upper = unit & 1 ? words[3] : words[2], lower = unit & 1 ? words[1] : words[0];
    return unit & 2 ? upper : lower;
}

/** In [0, 1): the word's upper 24 bits times 2^-24. */
static __device__ inline float uniform_of(uint32_t word) {
    return (float)(word >> 8) * 5.9604644775390625e-8F;
}

static __device__ inline float activate(int activation, float z) {
    if (activation == ACTIVATION_RELU)
        return z < 0 ? 0 : z; /* a NaN stays one */
    if (activation == ACTIVATION_SIGMOID)
        return 1 / (1 + expf(-z));
    return activation == ACTIVATION_TANH ? tanhf(z) : z;
}

/** The derivative where the activation's value is a. */
static __device__ inline float slope(int activation, float a) {
    if (activation == ACTIVATION_RELU)
        return a > 0 ? 1 : 0;
    if (activation == ACTIVATION_SIGMOID)
        return a * (1 - a);
    return activation == ACTIVATION_TANH ? 1 - a * a : 1;
}

/** The sum over a block of THREADS threads, the same bits each time; valid in thread 0. */
template <class T> static __device__ T block_sum(T value) {
    SHARED(T, parts, [WARPS]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_down_sync(0xffffffffU, value, distance);
    __syncthreads(); /* the parts of a sum before this one have been read */
    if (lane == 0)
        parts[warp] = value;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < WARPS; i++)
        sum += parts[i];
    return sum;
}

/** How many threads of the block before this one have their flag set; *total: in all. */
static __device__ inline unsigned block_rank(bool flag, unsigned *total) {
    SHARED(unsigned, parts, [WARPS]);
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const unsigned bits = __ballot_sync(0xffffffffU, flag);
    __syncthreads();
    if (lane == 0)
        parts[warp] = __popc(bits);
    __syncthreads();
    unsigned rank = __popc(bits & ((1U << lane) - 1));
    *total = 0;
    for (unsigned i = 0; i < WARPS; i++) {
        rank += i < warp ? parts[i] : 0;
        *total += parts[i];
    }
    return rank;
}

#endif
