/* Products over the connections that DropConnect keeps, for one sample and one unit. */
#include "isa.h"
#include "philox.h"

enum { WORD_BITS = 32 };

/* keep[i] = 1 where word i keeps its connection, as floats: 0 or 1. */
static void decide(const uint32_t *restrict words, float rate, size_t count, uint32_t *bits) {
    for (size_t i = 0; i < count; i += WORD_BITS) {
        uint32_t word = 0;
        for (int j = 0; j < WORD_BITS; j += LANES) {
            float uniform[LANES];
#pragma omp simd
            for (int lane = 0; lane < LANES; lane++)
                uniform[lane] = rng_uniform(words[i + (size_t)(j + lane)]);
            const unsigned dropped = vec_mask_bits(vec_greater(vec_set(rate), vec_load(uniform)));
            word |= (~dropped & ((1U << LANES) - 1)) << j;
        }
        bits[i / WORD_BITS] = word;
    }
}

static void draw(uint64_t seed, struct rng_counter counter, uint32_t first, float rate,
                 size_t count, uint32_t *words, uint32_t *bits) {
    const size_t skipped = first % 4;
    counter.group = first / 4;
    for (size_t drawn = 0; drawn < skipped + count; drawn += DRAWS, counter.group += DRAWS / 4)
        philox_draw(seed, counter, words + drawn);
    decide(words + skipped, rate, count, bits);
}

/* The mask of connections i .. i + LANES - 1, i a multiple of LANES. */
static inline vec_mask kept(const uint32_t *bits, size_t i) {
    return vec_mask_of(bits[i / WORD_BITS] >> i % WORD_BITS & (uint32_t)((1ULL << LANES) - 1));
}

static float lanes_sum(vec v) {
    float lanes[LANES], sum = 0.0F;
    vec_store(lanes, v);
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

static float dot(size_t count, const uint32_t *bits, const float *w, const float *x) {
    vec sum = vec_zero();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        sum = vec_fma(vec_select(kept(bits, i), vec_load(w + i), vec_zero()), vec_load(x + i), sum);
    if (i < count) {
        const int left = (int)(count - i);
        const vec rest = vec_select(kept(bits, i), vec_load_first(w + i, left), vec_zero());
        sum = vec_fma(rest, vec_load_first(x + i, left), sum);
    }
    return lanes_sum(sum);
}

static void add(size_t count, const uint32_t *bits, float factor, const float *x, float *out) {
    const vec f = vec_set(factor);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec values = vec_select(kept(bits, i), vec_load(x + i), vec_zero());
        vec_store(out + i, vec_fma(f, values, vec_load(out + i)));
    }
    if (i < count) {
        const int left = (int)(count - i);
        const vec values = vec_select(kept(bits, i), vec_load_first(x + i, left), vec_zero());
        vec_store_first(out + i, vec_fma(f, values, vec_load_first(out + i, left)), left);
    }
}

static void moments(size_t count, const float *w, const float *x, float *sum, float *squares) {
    vec first = vec_zero(), second = vec_zero();
    for (size_t i = 0; i < count; i += LANES) {
        const int left = count - i < LANES ? (int)(count - i) : LANES;
        const vec product = vec_mul(vec_load_first(w + i, left), vec_load_first(x + i, left));
        first = vec_add(first, product);
        second = vec_fma(product, product, second);
    }
    *sum = lanes_sum(first);
    *squares = lanes_sum(second);
}

const struct connect_kernels ISA_NAME(connect_kernels) = {draw, dot, add, moments};
