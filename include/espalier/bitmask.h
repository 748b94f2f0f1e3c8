/* bitmask.h - packed bits, 64 to a word, bit i in word i/64 at position i%64.
 *
 * A bitmask owns its words. Bits past `count` in the last word are zero. */
#ifndef ESPALIER_BITMASK_H
#define ESPALIER_BITMASK_H

#include <espalier/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmask {
    size_t count; /* bits */
    uint64_t *words;
};

/** Words that `count` bits need. */
static inline size_t bitmask_words(size_t count) {
    return (count + 63) / 64;
}

static inline bool bitmask_get(const uint64_t *words, size_t i) {
    return words[i / 64] >> (i % 64) & 1;
}

static inline void bitmask_set(uint64_t *words, size_t i) {
    words[i / 64] |= (uint64_t)1 << (i % 64);
}

/** A mask of `count` zero bits. */
enum status bitmask_create(size_t count, struct bitmask *mask);

/** Free the words; legal on a zeroed mask. */
void bitmask_destroy(struct bitmask *mask);

/** Set `count` bits from `first` on. */
void bitmask_fill(uint64_t *words, size_t first, size_t count);

/** Copy `count` bits from bit `from_first` of `from` on to bit `to_first` of `to` on. The two do
 * not overlap. */
void bitmask_copy(const uint64_t *from, size_t from_first, uint64_t *to, size_t to_first,
                  size_t count);

/** Number of set bits among bits first .. first + count - 1. */
size_t bitmask_count_range(const uint64_t *words, size_t first, size_t count);

#endif
