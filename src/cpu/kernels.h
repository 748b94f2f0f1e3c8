/* kernels.h - the loops that are compiled once for each instruction set.
 *
 * Every file in kernels/ is compiled for each set that the compiler's target has, with the set's
 * vector header (vector_*.h) and options, and defines one table of functions. A kernel works on one
 * image, or on a range, in the calling thread; teams, tiles and order are the callers' matter.
 * Memory may be unaligned unless said otherwise. */
#ifndef ESPALIER_CPU_KERNELS_H
#define ESPALIER_CPU_KERNELS_H

#include <espalier/backend.h>

/** The vectors of one update. */
struct update_vectors {
    float *restrict beta;
    const float *restrict gradient;
    float *restrict state0, *restrict state1;
};

/** Updates of elements 0..count-1, by backend.h's formulas. */
struct update_kernels {
    void (*update)(const struct update_args *args, struct update_vectors vectors, size_t count);
};

/** All kernels of one instruction set. */
struct kernels {
    const char *isa;
    int lanes; /* floats in a vector */
    const struct update_kernels *update;
};

/** The best set that this machine has, or the one that $ESPALIER_ISA names: ST_USAGE when there is
 *  no such set in this build, ST_UNAVAILABLE when the machine lacks it. */
enum status kernels_choose(const struct kernels **kernels);

/** Names of the sets that this machine has, best first, NULL-terminated. */
const char *const *kernels_available(void);

#endif
