#include <espalier/rng.h>

enum { ROUNDS = 10 };

/* Salmon et al. 2011, table 2 and section 4.3: multipliers, and Weyl constants of the key. */
static const uint32_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
static const uint32_t weyl0 = 0x9E3779B9u, weyl1 = 0xBB67AE85u;

void rng_philox(uint64_t seed, struct rng_counter counter, uint32_t words[4]) {
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    uint32_t c0 = counter.group, c1 = counter.sample, c2 = counter.time, c3 = counter.stream;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t product0 = (uint64_t)multiplier0 * c0, product1 = (uint64_t)multiplier1 * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ key0;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)product1;
        c3 = (uint32_t)product0;
        key0 += weyl0;
        key1 += weyl1;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/* One word after the other out of the shuffle's stream of an epoch. */
struct word_stream {
    uint64_t seed;
    struct rng_counter counter;
    uint32_t words[4];
    unsigned used;
};

static uint32_t next_word(struct word_stream *s) {
    if (s->used == 4) {
        rng_philox(s->seed, s->counter, s->words);
        s->counter.group++;
        s->used = 0;
    }
    return s->words[s->used++];
}

/* Uniform in 0..bound-1: the high half of word * bound, rejecting the low halves that would favour
 * some (Lemire: Fast random integer generation in an interval, 2019, algorithm 5). */
static uint32_t next_below(struct word_stream *s, uint32_t bound) {
    uint32_t threshold = (0u - bound) % bound;
    for (;;) {
        uint64_t product = (uint64_t)next_word(s) * bound;
        if ((uint32_t)product >= threshold)
            return (uint32_t)(product >> 32);
    }
}

void rng_permutation(uint64_t seed, uint32_t epoch, uint32_t *permutation, uint32_t count) {
    struct word_stream stream = {
        .seed = seed, .counter = {.time = epoch, .stream = rng_stream(RNG_SHUFFLE, 0)}, .used = 4};
    for (uint32_t i = 0; i < count; i++)
        permutation[i] = i;
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = next_below(&stream, i);
        uint32_t swapped = permutation[i - 1];
        permutation[i - 1] = permutation[j];
        permutation[j] = swapped;
    }
}
