/* Selection by magnitude: a radix search for the threshold, then one pass that sets the bits.
 *
 * Magnitudes of finite floats order as the integers of their 31 lower bits, so the threshold, the
 * keep-th largest of these keys, is found digit by digit from the top: a histogram of the digit
 * over the keys that agree in the digits above tells which bin holds it. O(n), no copy. */
#include "cpu.h"

#include <espalier/bitmask.h>
#include <string.h>

enum { DIGIT_BITS = 11, BINS = 1 << DIGIT_BITS };

static const int digit_shifts[] = {20, 10, 0}; /* of 11, 10 and 10 bits */
static const uint32_t infinity_key = 0x7f800000u;

static uint32_t magnitude_key(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffffu;
}

static enum status check_finite(const struct segment *segments, int count, size_t *total) {
    *total = 0;
    for (int s = 0; s < count; s++) {
        for (size_t i = 0; i < segments[s].count; i++)
            if (magnitude_key(segments[s].values[i]) >= infinity_key)
                FAIL(ST_NUMERIC,
                     "selection: segment %d, index %zu holds %g, expected a finite number", s, i,
                     (double)segments[s].values[i]);
        *total += segments[s].count;
    }
    return ST_OK;
}

/* Histogram of the digit at `shift` over the keys that equal `prefix` from bit `above` up. */
static void count_digits(const struct segment *segments, int count, uint32_t prefix, int above,
                         int shift, size_t bins[BINS]) {
    const uint32_t digit_mask = ((uint32_t)1 << (above - shift)) - 1;
    memset(bins, 0, BINS * sizeof *bins);
    for (int s = 0; s < count; s++)
        for (size_t i = 0; i < segments[s].count; i++) {
            const uint32_t key = magnitude_key(segments[s].values[i]);
            if (key >> above == prefix >> above)
                bins[key >> shift & digit_mask]++;
        }
}

/* The keep-th largest key (keep >= 1), and how many keys equal to it are wanted. */
static uint32_t find_threshold(const struct segment *segments, int count, size_t keep,
                               size_t *ties) {
    size_t bins[BINS];
    uint32_t prefix = 0;
    int above = 31;
    for (size_t d = 0; d < sizeof digit_shifts / sizeof digit_shifts[0]; d++) {
        count_digits(segments, count, prefix, above, digit_shifts[d], bins);
        above = digit_shifts[d];
        uint32_t digit = BINS - 1;
        for (; bins[digit] < keep; digit--)
            keep -= bins[digit];
        prefix |= digit << above;
    }
    *ties = keep;
    return prefix;
}

static void set_bits(const struct segment *segments, int count, uint32_t threshold, size_t ties,
                     uint64_t *mask) {
    size_t bit = 0;
    for (int s = 0; s < count; s++)
        for (size_t i = 0; i < segments[s].count; i++, bit++) {
            const uint32_t key = magnitude_key(segments[s].values[i]);
            const bool tied = key == threshold && ties > 0;
            ties -= tied;
            if (key > threshold || tied)
                bitmask_set(mask, bit);
        }
}

enum status cpu_select_largest(struct backend *backend, const struct segment *segments, int count,
                               size_t keep, uint64_t *mask) {
    (void)backend; /* one thread: it runs once in many updates, and the order decides ties */
    size_t total, ties;
    TRY(check_finite(segments, count, &total));
    if (keep > total)
        FAIL(ST_SHAPE, "selection: keep %zu of %zu values", keep, total);
    if (total > 0)
        memset(mask, 0, bitmask_words(total) * sizeof *mask);
    if (keep > 0) {
        const uint32_t threshold = find_threshold(segments, count, keep, &ties);
        set_bits(segments, count, threshold, ties, mask);
    }
    return ST_OK;
}
