/* emulated_device.h - the device's language on the host, for g++ in place of nvcc.
 *
 * A block's threads are fibers of one thread of the host. They run one after the other, each up
 * to its next barrier, in either order. Vendors' headers come first: the names of the device
 * become macros here. */
#ifndef ESPALIER_TESTS_EMULATED_DEVICE_H
#define ESPALIER_TESTS_EMULATED_DEVICE_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>

#include <cuda_runtime_api.h>
#include <vector_functions.h>

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

namespace emulation {

/* A place in the source that can be left out: barrier@FILE:LINE or block@FILE:KERNEL. */
struct site {
    const char *kernel, *file;
    int line;
    bool known, dropped;
};

struct thread_place {
    dim3 grid, block;
    uint3 block_index, thread_index;
    unsigned lane, warp;
};

extern thread_place current;

void sync_block(site &here);
void sync_warp(site &here, unsigned mask);
/* Counts the threads of the block whose predicate is not 0, with a barrier before and after. */
int count_block(site &here, int predicate);
/* The value of lane `source`, of 8 bytes; all lanes of the mask take part. */
uint64_t exchange(unsigned mask, uint64_t value, unsigned source);
/* A bit for each lane of the mask. */
unsigned vote(unsigned mask, bool mine);
/* This block's memory for the array that `key` stands for, the same for all its threads. */
void *shared_memory(const void *key, size_t bytes);
void *dynamic_shared();
void check_argument(const site &here, const void *pointer);
void launch_kernel(site &here, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   std::function<void()> thread);

template <class T> void check(const site &, const T &) {
}
template <class T> void check(const site &here, T *const &pointer) {
    check_argument(here, pointer);
}

template <class... P, class... A>
void launch(site &here, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            void (*kernel)(P...), A &&...arguments) {
    std::tuple<std::decay_t<P>...> values(static_cast<P>(arguments)...);
    std::apply([&](const auto &...value) { (check(here, value), ...); }, values);
    launch_kernel(here, grid, block, shared_bytes, stream,
                  [kernel, values] { std::apply(kernel, values); });
}

struct warp_barrier {
    site &here;
    void operator()(unsigned mask = ~0U) const {
        sync_warp(here, mask);
    }
};

template <class T> T exchange_value(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace emulation

#define threadIdx (emulation::current.thread_index)
#define blockIdx (emulation::current.block_index)
#define blockDim (emulation::current.block)
#define gridDim (emulation::current.grid)
#define warpSize 32

#define EMULATED_SITE(kernel)                                                                      \
    ([]() -> emulation::site & {                                                                   \
        static emulation::site here = {kernel, __FILE__, __LINE__, false, false};                  \
        return here;                                                                               \
    }())

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    emulation::launch(EMULATED_SITE(#kernel), dim3(grid), dim3(block), shared_bytes, stream,       \
                      kernel, ##__VA_ARGS__)

/* Static shared memory: SHARED(float, tile, [16][17]); and what the launch asked for. */
#define SHARED(type, name, extents)                                                                \
    typedef type name##_array extents;                                                             \
    static const char name##_key = 0;                                                              \
    name##_array &name =                                                                           \
        *static_cast<name##_array *>(emulation::shared_memory(&name##_key, sizeof(name##_array)))
#define SHARED_BYTES(type, name) type *name = static_cast<type *>(emulation::dynamic_shared())

#define __syncthreads() emulation::sync_block(EMULATED_SITE(nullptr))
#define __syncthreads_count(p) emulation::count_block(EMULATED_SITE(nullptr), p)
#define __syncthreads_or(p) (__syncthreads_count(p) != 0)
#define __syncthreads_and(p) (__syncthreads_count(!(p)) == 0)
#define __syncwarp                                                                                 \
    emulation::warp_barrier {                                                                      \
        EMULATED_SITE(nullptr)                                                                     \
    }

/* ---- warps: lanes beyond the segment of `width` lanes keep their own value ---- */

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    unsigned mine = emulation::current.lane, first = mine & ~(unsigned)(width - 1);
    return emulation::exchange_value(mask, value, first | ((unsigned)lane & (unsigned)(width - 1)));
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    unsigned mine = emulation::current.lane, in = (mine & (unsigned)(width - 1)) + delta;
    return emulation::exchange_value(mask, value, in < (unsigned)width ? mine + delta : mine);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    unsigned mine = emulation::current.lane;
    bool inside = (mine & (unsigned)(width - 1)) >= delta;
    return emulation::exchange_value(mask, value, inside ? mine - delta : mine);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    unsigned mine = emulation::current.lane, other = mine ^ (unsigned)bits;
    bool inside = (other & ~(unsigned)(width - 1)) <= (mine & ~(unsigned)(width - 1));
    return emulation::exchange_value(mask, value, inside ? other : mine);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return emulation::vote(mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, !predicate) == 0;
}

/* ---- memory: threads take turns, so that nothing comes between ---- */

template <class T> T __ldg(const T *from) {
    return *from;
}
#define EMULATED_ATOMIC(name, expression)                                                          \
    template <class T> T name(T *to, typename std::common_type<T>::type value) {                   \
        static_assert(std::is_integral<T>::value, "float atomics give other bits each time");      \
        T old = *to;                                                                               \
        *to = expression;                                                                          \
        return old;                                                                                \
    }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicSub, old - value)
EMULATED_ATOMIC(atomicMax, old > value ? old : value)
EMULATED_ATOMIC(atomicMin, old < value ? old : value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicAnd, old &value)
EMULATED_ATOMIC(atomicXor, old ^ value)
EMULATED_ATOMIC(atomicExch, value)
template <class T>
T atomicCAS(T *to, typename std::common_type<T>::type expected,
            typename std::common_type<T>::type value) {
    T old = *to;
    if (old == expected)
        *to = value;
    return old;
}
inline void __threadfence() {
}
inline void __threadfence_block() {
}

/* ---- numbers ---- */

template <class To, class From> To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline unsigned __float_as_uint(float x) {
    return emulated_bits<unsigned>(x);
}
inline int __float_as_int(float x) {
    return emulated_bits<int>(x);
}
inline float __uint_as_float(unsigned x) {
    return emulated_bits<float>(x);
}
inline float __int_as_float(int x) {
    return emulated_bits<float>(x);
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}
inline unsigned __brev(unsigned x) {
    unsigned result = 0;
    for (int bit = 0; bit < 32; bit++)
        result |= (x >> bit & 1) << (31 - bit);
    return result;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
/* One rounding each: the compiler must not fuse them, and this build does not (-ffp-contract). */
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fsub_rn(float a, float b) {
    return a - b;
}
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fsqrt_rn(float a) {
    return sqrtf(a);
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
inline float cospif(float x) {
    return static_cast<float>(cos(3.14159265358979323846 * (double)x));
}
inline float sinpif(float x) {
    return static_cast<float>(sin(3.14159265358979323846 * (double)x));
}
inline float rsqrtf(float x) {
    return 1.0F / sqrtf(x);
}
template <class T> T min(T a, typename std::common_type<T>::type b) {
    return b < a ? b : a;
}
template <class T> T max(T a, typename std::common_type<T>::type b) {
    return a < b ? b : a;
}

#endif
