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
