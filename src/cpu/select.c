/* Selection by magnitude: the threshold by digits, then one pass that sets the bits.
 *
 * Keys (kernels.h) order as magnitudes. The threshold is the keep-th largest key: a histogram of
 * the upper 11 bits tells which bin holds it, the values of that bin are copied out, at most one
 * more vector of memory, and two more digits are found among them. O(n) whatever the values. */
#include "cpu.h"

#include <espalier/bitmask.h>
#include <stdlib.h>
#include <string.h>

static const int digit_shifts[] = {20, 10, 0}; /* of 11, 10 and 10 bits */
enum { DIGITS = sizeof digit_shifts / sizeof digit_shifts[0], LOWER_BINS = 1 << 10, ROOM = 64 };

static const uint32_t infinity_key = 0x7f800000u;

/* What is left of a search: the digits found so far, and how many keys of them are wanted. */
struct search {
    const struct select_kernels *kernels;
    uint32_t prefix; /* the threshold's bits so far, down to 0 */
    size_t wanted;   /* of the keys that begin like it, the largest so many */
    size_t found;    /* keys that begin like it */
    uint32_t bins[4][SELECT_BINS];
};

static enum status name_invalid(const struct segment *segment, int s,
                                const struct select_kernels *kernels) {
    for (size_t i = 0; i < segment->count; i++)
        if (kernels->largest_key(segment->values + i, 1) >= infinity_key)
            FAIL(ST_NUMERIC, "selection: segment %d, index %zu holds %g, expected a finite number",
                 s, i, (double)segment->values[i]);
    return ST_OK;
}

static enum status check_finite(const struct select_kernels *kernels,
                                const struct segment *segments, int count, size_t *total) {
    *total = 0;
    for (int s = 0; s < count; s++) {
        if (kernels->largest_key(segments[s].values, segments[s].count) >= infinity_key)
            TRY(name_invalid(&segments[s], s, kernels));
        *total += segments[s].count;
    }
    return ST_OK;
}

static float value_of(uint32_t key) {
    float value;
    memcpy(&value, &key, sizeof value);
    return value;
}

/* Copy out what begins like the prefix down to `shift`. The range ends at infinity at most. */
static size_t collect(const struct search *search, const float *values, size_t count, int shift,
                      float *collected) {
    const uint32_t last = search->prefix + ((uint32_t)1 << shift);
    return search->kernels->collect(values, count, value_of(search->prefix),
                                    value_of(last < infinity_key ? last : infinity_key), collected);
}

/* Find the digit at `shift` in the histogram; `bins` are those that it can have. */
static void take_digit(struct search *search, int shift, int bins) {
    int digit = bins;
    do {
        digit--;
        search->found = 0;
        for (int lane = 0; lane < 4; lane++) /* the bits above the digit are the same in all */
            for (int bin = digit; bin < SELECT_BINS; bin += bins)
                search->found += search->bins[lane][bin];
        if (search->found >= search->wanted)
            break;
        search->wanted -= search->found;
    } while (digit > 0);
    search->prefix |= (uint32_t)digit << shift;
    memset(search->bins, 0, sizeof search->bins);
}

/* The digits below the first, among `values` that begin like the prefix; overwrites them. */
static void search_among(struct search *search, float *values, size_t count) {
    for (int d = 1; d < DIGITS; d++) {
        const int shift = digit_shifts[d];
        search->kernels->count_digits(values, count, shift, search->bins);
        take_digit(search, shift, LOWER_BINS);
        if (shift > 0)
            count = collect(search, values, count, shift, values);
    }
}

static enum status find_threshold(struct search *search, const struct segment *segments,
                                  int count) {
    const int shift = digit_shifts[0];
    for (int s = 0; s < count; s++)
        search->kernels->count_digits(segments[s].values, segments[s].count, shift, search->bins);
    take_digit(search, shift, SELECT_BINS);
    float *values = malloc((search->found + ROOM) * sizeof *values);
    if (values == NULL)
        FAIL(ST_MEMORY, "selection: out of memory: %zu values", search->found);
    size_t collected = 0;
    for (int s = 0; s < count; s++)
        collected +=
            collect(search, segments[s].values, segments[s].count, shift, values + collected);
    search_among(search, values, collected);
    free(values);
    return ST_OK;
}

/* The lowest `count` set bits. */
static uint64_t lowest_bits(uint64_t bits, size_t count) {
    uint64_t rest = bits;
    for (size_t i = 0; i < count; i++)
        rest &= rest - 1;
    return bits ^ rest;
}

/* Set the bits of what is above the threshold, and of the first `wanted` that are equal to it. */
static void set_bits(const struct search *search, const struct segment *segments, int count,
                     uint64_t *mask) {
    size_t bit = 0, ties = search->wanted;
    for (int s = 0; s < count; s++)
        for (size_t i = 0; i < segments[s].count; i += 64) {
            const size_t left = segments[s].count - i, part = left < 64 ? left : 64;
            uint64_t above, equal;
            search->kernels->compare(segments[s].values + i, (int)part, value_of(search->prefix),
                                     &above, &equal);
            const size_t tied = (size_t)__builtin_popcountll(equal);
            above |= tied <= ties ? equal : lowest_bits(equal, ties);
            ties -= tied <= ties ? tied : ties;
            bitmask_copy(&above, 0, mask, bit, part);
            bit += part;
        }
}

enum status cpu_select_largest(struct backend *backend, const struct segment *segments, int count,
                               size_t keep, uint64_t *mask) {
    /* One thread: it runs once in many updates, and the order decides ties. */
    struct search search = {.kernels = cpu_kernels(backend)->select, .wanted = keep};
    size_t total;
    TRY(check_finite(search.kernels, segments, count, &total));
    if (keep > total)
        FAIL(ST_SHAPE, "selection: keep %zu of %zu values", keep, total);
    if (total > 0)
        memset(mask, 0, bitmask_words(total) * sizeof *mask);
    if (keep > 0) {
        TRY(find_threshold(&search, segments, count));
        set_bits(&search, segments, count, mask);
    }
    return ST_OK;
}
