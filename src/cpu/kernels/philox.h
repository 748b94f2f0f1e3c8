/* philox.h - Philox4x32-10 (rng.h) in vectors, for kernels that draw many words. */
#ifndef ESPALIER_CPU_KERNELS_PHILOX_H
#define ESPALIER_CPU_KERNELS_PHILOX_H

#include "isa.h"

#include <string.h>

/* HALF_LANES counters, one in each 64-bit lane; only the low halves count, since a multiplication
 * takes no other. */
struct philox {
    wide c0, c1, c2, c3;
};

enum { UNITS_AT_ONCE = 4 * HALF_LANES, STRANDS = 2, DRAWS = STRANDS * UNITS_AT_ONCE };
_Static_assert((int)DRAWS <= (int)PHILOX_DRAWS_MOST, "kernels.h promises less");

static inline struct philox philox_round(struct philox p, uint32_t key0, uint32_t key1) {
    const wide product0 = wide_multiply(p.c0, wide_set(0xD2511F53U));
    const wide product1 = wide_multiply(p.c2, wide_set(0xCD9E8D57U));
    return (struct philox){.c0 = (product1 >> 32) ^ p.c1 ^ wide_set(key0),
                           .c1 = product1,
                           .c2 = (product0 >> 32) ^ p.c3 ^ wide_set(key1),
                           .c3 = product0};
}

static inline void philox_store(struct philox p, uint32_t words[UNITS_AT_ONCE]) {
    const wide low = wide_set(UINT32_MAX);
    const wide first = (p.c0 & low) | p.c1 << 32, second = (p.c2 & low) | p.c3 << 32;
    for (int lane = 0; lane < HALF_LANES; lane++) {
        const uint64_t four[] = {first[lane], second[lane]};
        memcpy(words + 4 * lane, four, sizeof four);
    }
}

/** The words of the groups that follow counter.group; several strands, since a round must wait for
 *  the one before. */
static inline void philox_draw(uint64_t seed, struct rng_counter counter, uint32_t words[DRAWS]) {
    struct philox strands[STRANDS];
    uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
    for (int s = 0; s < STRANDS; s++)
        strands[s] = (struct philox){wide_count(counter.group + (uint32_t)s * HALF_LANES),
                                     wide_set(counter.sample), wide_set(counter.time),
                                     wide_set(counter.stream)};
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9U, key1 += 0xBB67AE85U)
#pragma GCC unroll 4
        for (int s = 0; s < STRANDS; s++)
            strands[s] = philox_round(strands[s], key0, key1);
    for (int s = 0; s < STRANDS; s++)
        philox_store(strands[s], words + s * UNITS_AT_ONCE);
}

#endif
