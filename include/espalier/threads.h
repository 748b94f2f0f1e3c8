/* threads.h - how many threads a rank computes with. Not collective. */
#ifndef ESPALIER_THREADS_H
#define ESPALIER_THREADS_H

#include <stdint.h>

/** Cores that a set can name. */
enum { CORES_MAX = 4096, CORES_BYTES = CORES_MAX / 8 };

/** A set of cores: core c is bit c % 8 of byte c / 8. */
struct cores {
    uint8_t bits[CORES_BYTES];
};

/** The cores that this process may run on (its launcher may have bound it). */
void cores_allowed(struct cores *cores);

/** Rank `rank`'s share of the cores of a node, given what each of its `ranks` ranks may run on: a
 *  core that n ranks may use counts 1/n for each of them; rounded down, at least 1. */
int cores_share(const struct cores *sets, int ranks, int rank);

/** How many cores a set holds. */
int cores_count(const struct cores *set);

/** The index-th core of a set, which holds more than that. */
int cores_nth(const struct cores *set, int index);

/** The cores that rank `rank` of a node can have for itself: its whole set, where no other rank may
 *  run on any of it; its part, cores_share long, where all ranks may run on the same ones and there
 *  is one for each; else none. */
void cores_place(const struct cores *sets, int ranks, int rank, struct cores *place);

/** `wanted` where it is positive; else `share`, capped by OMP_NUM_THREADS. At least 1. */
int threads_default(int wanted, int share);

#endif
