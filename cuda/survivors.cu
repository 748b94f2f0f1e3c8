/* Renumbering survivors, and the choice of them: all by integers, so that every bit is exact. */
#include "device.cuh"

enum { ROUNDS = SURVIVOR_CHUNK / THREADS, BINS = 256 };

static __device__ bool bit_is_set(const uint64_t *mask, size_t bit) {
    return mask[bit / 64] >> (bit % 64) & 1;
}

/* The element that this thread has in a round of its block's chunk. */
static __device__ size_t chunk_element(int round) {
    return (size_t)blockIdx.x * SURVIVOR_CHUNK + round * THREADS + threadIdx.x;
}

/* ---- what comes before a chunk ---- */

static __global__ void count_bits(const uint64_t *mask, size_t first_bit, size_t count,
                                  uint32_t *counts) {
    int set = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t i = chunk_element(round);
        set += i < count && bit_is_set(mask, first_bit + i);
    }
    set = block_sum(set);
    if (threadIdx.x == 0)
        counts[blockIdx.x] = (uint32_t)set;
}

/* In place, by one block: each entry becomes the sum of those before it, the last that of all. */
static __global__ void sum_before(uint32_t *counts, size_t chunks) {
    SHARED(uint32_t, sums, [THREADS]);
    uint32_t before = 0;
    for (size_t base = 0; base < chunks; base += THREADS) {
        const size_t i = base + threadIdx.x;
        const uint32_t own = i < chunks ? counts[i] : 0;
        sums[threadIdx.x] = own;
        for (unsigned distance = 1; distance < THREADS; distance *= 2) {
            __syncthreads();
            const uint32_t left = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;
            __syncthreads();
            sums[threadIdx.x] += left;
        }
        if (i < chunks)
            counts[i] = before + sums[threadIdx.x] - own;
        __syncthreads();
        before += sums[THREADS - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        counts[chunks] = before;
}

cudaError_t kernel_count_bits(const uint64_t *mask, size_t first_bit, size_t count,
                              uint32_t *counts, cudaStream_t stream) {
    const size_t chunks = survivor_chunks(count);
    if (count > 0)
        LAUNCH(count_bits, (unsigned)chunks, THREADS, 0, stream, mask, first_bit, count, counts);
    LAUNCH(sum_before, 1, THREADS, 0, stream, counts, chunks);
    return cudaGetLastError();
}

/* ---- compaction ---- */

static __global__ void compact(const uint32_t *words, const uint64_t *mask, size_t first_bit,
                               size_t count, const uint32_t *counts, uint32_t *kept) {
    size_t to = counts[blockIdx.x];
    for (int round = 0; round < ROUNDS; round++) {
        const size_t i = chunk_element(round);
        const bool keeps = i < count && bit_is_set(mask, first_bit + i);
        unsigned total;
        const unsigned rank = block_rank(keeps, &total);
        if (keeps)
            kept[to + rank] = words[i];
        to += total;
    }
}

cudaError_t kernel_compact(const uint32_t *words, const uint64_t *mask, size_t first_bit,
                           size_t count, const uint32_t *counts, uint32_t *kept,
                           cudaStream_t stream) {
    if (count > 0)
        LAUNCH(compact, (unsigned)survivor_chunks(count), THREADS, 0, stream, words, mask,
               first_bit, count, counts, kept);
    return cudaGetLastError();
}

static __global__ void copy_counted(const uint32_t *words, const uint32_t *count, uint32_t *to) {
    for (size_t i = first_element(); i < *count; i += stride())
        to[i] = words[i];
}

cudaError_t kernel_copy_counted(const uint32_t *words, const uint32_t *count, size_t most,
                                uint32_t *to, cudaStream_t stream) {
    if (most > 0)
        LAUNCH(copy_counted, blocks_for(most), THREADS, 0, stream, words, count, to);
    return cudaGetLastError();
}

/* ---- hash ---- */

static __device__ unsigned long long mixed(unsigned long long x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static __global__ void hash(const uint32_t *words, size_t count, unsigned long long *sum) {
    unsigned long long own = 0;
    for (size_t i = first_element(); i < count; i += stride())
        own += mixed((unsigned long long)i << 32 | words[i]);
    own = block_sum(own);
    if (threadIdx.x == 0)
        atomicAdd(sum, own);
}

cudaError_t kernel_hash(const uint32_t *words, size_t count, unsigned long long *sum,
                        cudaStream_t stream) {
    if (count > 0)
        LAUNCH(hash, blocks_for(count), THREADS, 0, stream, words, count, sum);
    return cudaGetLastError();
}

/* ---- selection ---- */

static __global__ void select_begin(struct selection *s, size_t keep) {
    s->bins[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        s->not_finite = ~0ULL;
        s->wanted = keep;
        s->threshold = 0;
    }
}

cudaError_t kernel_select_begin(struct selection *s, size_t keep, cudaStream_t stream) {
    LAUNCH(select_begin, 1, BINS, 0, stream, s, keep);
    return cudaGetLastError();
}

/* Without its sign, a float's bits order as its magnitude does; from 0x7f800000 on it is none. */
static __global__ void magnitudes(const float *values, size_t count, size_t first,
                                  uint32_t *magnitude, struct selection *s) {
    for (size_t i = first_element(); i < count; i += stride()) {
        const uint32_t bits = __float_as_uint(values[i]) & 0x7fffffffU;
        magnitude[first + i] = bits;
        if (bits >= 0x7f800000U)
            atomicMin(&s->not_finite, (unsigned long long)(first + i));
    }
}

cudaError_t kernel_magnitudes(const float *values, size_t count, size_t first, uint32_t *magnitude,
                              struct selection *s, cudaStream_t stream) {
    if (count > 0)
        LAUNCH(magnitudes, blocks_for(count), THREADS, 0, stream, values, count, first, magnitude,
               s);
    return cudaGetLastError();
}

/* Counts the digits at `shift` of what begins like the threshold. */
static __global__ void count_digits(const uint32_t *magnitude, size_t count, int shift,
                                    struct selection *s) {
    SHARED(unsigned, bins, [BINS]);
    bins[threadIdx.x] = 0;
    __syncthreads();
    const uint64_t above = (uint64_t)s->threshold >> (shift + 8);
    for (size_t i = first_element(); i < count; i += stride())
        if ((uint64_t)magnitude[i] >> (shift + 8) == above)
            atomicAdd(&bins[magnitude[i] >> shift & (BINS - 1)], 1U);
    __syncthreads();
    if (bins[threadIdx.x] > 0)
        atomicAdd(&s->bins[threadIdx.x], bins[threadIdx.x]);
}

/* The digit at which the wanted ones, taken from the largest down, are reached. */
static __global__ void take_digit(int shift, struct selection *s) {
    unsigned long long wanted = s->wanted;
    int digit = BINS - 1;
    for (; digit > 0 && s->bins[digit] < wanted; digit--)
        wanted -= s->bins[digit];
    s->wanted = wanted;
    s->threshold |= (uint32_t)digit << shift;
    for (int i = 0; i < BINS; i++)
        s->bins[i] = 0;
}

cudaError_t kernel_select_digit(const uint32_t *magnitude, size_t count, int shift,
                                struct selection *s, cudaStream_t stream) {
    if (count > 0)
        LAUNCH(count_digits, blocks_for(count), THREADS, 0, stream, magnitude, count, shift, s);
    LAUNCH(take_digit, 1, 1, 0, stream, shift, s);
    return cudaGetLastError();
}

static __global__ void count_ties(const uint32_t *magnitude, size_t count,
                                  const struct selection *s, uint32_t *counts) {
    int ties = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const size_t i = chunk_element(round);
        ties += i < count && magnitude[i] == s->threshold;
    }
    ties = block_sum(ties);
    if (threadIdx.x == 0)
        counts[blockIdx.x] = (uint32_t)ties;
}

/* A warp writes half a word of the mask. */
static __global__ void mark(const uint32_t *magnitude, size_t count, const struct selection *s,
                            const uint32_t *counts, uint32_t *halves) {
    unsigned long long before = counts[blockIdx.x];
    for (int round = 0; round < ROUNDS; round++) {
        const size_t i = chunk_element(round);
        const uint32_t own = i < count ? magnitude[i] : 0;
        const bool ties = i < count && own == s->threshold;
        unsigned total;
        const unsigned rank = block_rank(ties, &total);
        const bool kept = i < count && (own > s->threshold || (ties && before + rank < s->wanted));
        const unsigned bits = __ballot_sync(0xffffffffU, kept);
        if (threadIdx.x % WARP == 0 && i / 64 < (count + 63) / 64)
            halves[i / WARP] = bits;
        before += total;
    }
}

cudaError_t kernel_select_mark(const uint32_t *magnitude, size_t count, const struct selection *s,
                               uint32_t *counts, uint64_t *mask, cudaStream_t stream) {
    const size_t chunks = survivor_chunks(count);
    if (count == 0)
        return cudaGetLastError();
    LAUNCH(count_ties, (unsigned)chunks, THREADS, 0, stream, magnitude, count, s, counts);
    LAUNCH(sum_before, 1, THREADS, 0, stream, counts, chunks);
    LAUNCH(mark, (unsigned)chunks, THREADS, 0, stream, magnitude, count, s, counts,
           (uint32_t *)mask);
    return cudaGetLastError();
}
