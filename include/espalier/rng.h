/* rng.h - counter-based random numbers: Philox4x32-10.
 *
 * Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3
 * (SC 2011). A number is a pure function of (seed, purpose, counter), so
 * that it is the same on every rank, thread and backend, whatever else was
 * drawn before. Nothing here has state; nothing is collective. */
#ifndef ESPALIER_RNG_H
#define ESPALIER_RNG_H

#include <stddef.h>
#include <stdint.h>

/** What a random number is for; keeps the streams apart. Stored values: never renumber. */
enum rng_purpose {
    RNG_INITIALIZER = 1,
    RNG_SHUFFLE = 2,
    RNG_DROPOUT = 3,
    RNG_DROPCONNECT = 4,
    RNG_DROPCONNECT_DRAWS = 5,
    RNG_SYNTHETIC = 6
};

/** The counter of one draw of four numbers.
 *
 *  group   index of the unit / 4 (its place within the draw is index % 4)
 *  sample  data-set index of the sample, 0 where there is none
 *  time    update or epoch, 0 where there is none
 *  stream  rng_stream(purpose, layer) */
struct rng_counter {
    uint32_t group, sample, time, stream;
};

/** Purpose in the upper 8 bits, layer in the lower 24. */
static inline uint32_t rng_stream(enum rng_purpose purpose, uint32_t layer) {
    return (uint32_t)purpose << 24 | layer;
}

/** Four 32-bit words of Philox4x32-10 under key = seed (low word first). */
void rng_philox(uint64_t seed, struct rng_counter counter, uint32_t words[4]);

/** A word as a uniform float in [0, 1): its upper 24 bits times 2^-24, exactly. */
static inline float rng_uniform(uint32_t word) {
    return (float)(word >> 8) * 0x1p-24F;
}

/** Fill permutation[count] with a uniform permutation of 0..count-1.
 *
 *  Fisher-Yates from the top with unbiased bounded integers (multiply and
 *  reject); draws are Philox words of (seed, RNG_SHUFFLE, time = epoch). */
void rng_permutation(uint64_t seed, uint32_t epoch, uint32_t *permutation, uint32_t count);

#endif
