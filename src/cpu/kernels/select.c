/* Selection by magnitude and keeping what was selected: passes over the values.
 *
 * Magnitudes of finite floats order as the integers of their 31 lower bits, their keys. */
#include "isa.h"

#include <math.h>
#include <string.h>

static uint32_t key_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffffu;
}

static uint32_t largest_key(const float *values, size_t count) {
    uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < count; i++) {
        const uint32_t key = key_of(values[i]);
        largest = key > largest ? key : largest;
    }
    return largest;
}

/* Four tables in turn: neighbours of one digit do not wait for each other's increment. */
static void count_digits(const float *values, size_t count, int shift,
                         uint32_t bins[4][SELECT_BINS]) {
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int lane = 0; lane < 4; lane++)
            bins[lane][key_of(values[i + (size_t)lane]) >> shift & (SELECT_BINS - 1)]++;
    for (; i < count; i++)
        bins[0][key_of(values[i]) >> shift & (SELECT_BINS - 1)]++;
}

static vec magnitude(vec v) {
    return vec_max(v, vec_sub(vec_zero(), v));
}

static size_t collect(const float *values, size_t count, float low, float high, float *collected) {
    const vec floor = vec_set(low), ceiling = vec_set(high);
    size_t found = 0, i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec v = vec_load(values + i), size = magnitude(v);
        const unsigned in =
            vec_mask_bits(vec_greater(ceiling, size)) & ~vec_mask_bits(vec_greater(floor, size));
        if (in != 0)
            found += (size_t)vec_pack(v, in, collected + found);
    }
    for (; i < count; i++) {
        const float v = values[i], size = fabsf(v);
        if (size >= low && size < high)
            collected[found++] = v;
    }
    return found;
}

static void compare(const float *values, int count, float threshold, uint64_t *above,
                    uint64_t *equal) {
    const vec limit = vec_set(threshold);
    uint64_t larger = 0, same = 0;
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        const vec size = magnitude(vec_load(values + i));
        larger |= (uint64_t)vec_mask_bits(vec_greater(size, limit)) << i;
        same |= (uint64_t)vec_mask_bits(vec_equal(size, limit)) << i;
    }
    for (; i < count; i++) {
        const float size = fabsf(values[i]);
        larger |= (uint64_t)(size > threshold) << i;
        same |= (uint64_t)(size == threshold) << i;
    }
    *above = larger;
    *equal = same;
}

static size_t compact(const float *values, uint64_t bits, float *kept) {
    float *const begin = kept;
    for (int i = 0; i < 64; i += LANES) {
        const unsigned lanes = (unsigned)(bits >> i) & ((1U << LANES) - 1);
        kept += vec_pack(vec_load(values + i), lanes, kept);
    }
    return (size_t)(kept - begin);
}

const struct select_kernels ISA_NAME(select_kernels) = {largest_key, count_digits, collect, compare,
                                                        compact};
