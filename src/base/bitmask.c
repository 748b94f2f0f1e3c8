#include <espalier/bitmask.h>
#include <stdlib.h>

enum status bitmask_create(size_t count, struct bitmask *mask) {
    mask->count = count;
    mask->words = calloc(bitmask_words(count) + 1, sizeof *mask->words);
    if (mask->words == NULL)
        FAIL(ST_MEMORY, "out of memory: a mask of %zu bits", count);
    return ST_OK;
}

void bitmask_destroy(struct bitmask *mask) {
    free(mask->words);
    mask->words = NULL;
    mask->count = 0;
}

/* Set bits of word w at positions first..last-1. */
static size_t count_word(uint64_t word, size_t first, size_t last) {
    word >>= first;
    if (last - first < 64)
        word &= ((uint64_t)1 << (last - first)) - 1;
    return (size_t)__builtin_popcountll(word);
}

size_t bitmask_count_range(const uint64_t *words, size_t first, size_t count) {
    size_t set = 0, end = first + count;
    while (first < end) {
        size_t in_word = first % 64, last = in_word + (end - first);
        if (last > 64)
            last = 64;
        set += count_word(words[first / 64], in_word, last);
        first += last - in_word;
    }
    return set;
}

/* The lower `count` bits, count in 1 .. 64. */
static uint64_t low_bits(size_t count) {
    return UINT64_MAX >> (64 - count);
}

/* Bits first .. first + count - 1 as a word, count in 1 .. 64. */
static uint64_t read_bits(const uint64_t *words, size_t first, size_t count) {
    size_t word = first / 64, shift = first % 64;
    uint64_t bits = words[word] >> shift;
    if (shift + count > 64)
        bits |= words[word + 1] << (64 - shift);
    return bits & low_bits(count);
}

/* Make bits first .. first + count - 1 those of `bits`. */
static void write_bits(uint64_t *words, size_t first, size_t count, uint64_t bits) {
    size_t word = first / 64, shift = first % 64;
    words[word] = (words[word] & ~(low_bits(count) << shift)) | bits << shift;
    if (shift + count > 64)
        words[word + 1] = (words[word + 1] & ~low_bits(shift + count - 64)) | bits >> (64 - shift);
}

void bitmask_fill(uint64_t *words, size_t first, size_t count) {
    for (size_t done = 0; done < count; done += 64) {
        size_t part = count - done < 64 ? count - done : 64;
        write_bits(words, first + done, part, low_bits(part));
    }
}

void bitmask_copy(const uint64_t *from, size_t from_first, uint64_t *to, size_t to_first,
                  size_t count) {
    for (size_t done = 0; done < count; done += 64) {
        size_t part = count - done < 64 ? count - done : 64;
        write_bits(to, to_first + done, part, read_bits(from, from_first + done, part));
    }
}
