/* isa.h - names and vectors of the instruction set that a kernel file is being compiled for.
 *
 * The build defines ISA (baseline, avx2, avx512) and VECTOR_HEADER. Every vector header offers the
 * same: LANES floats in a `vec`, REGISTERS of them, and the operations below it. */
#ifndef ESPALIER_CPU_KERNELS_ISA_H
#define ESPALIER_CPU_KERNELS_ISA_H

#include "../kernels.h"

#include VECTOR_HEADER

#define ISA_JOIN(name, isa) name##_##isa
#define ISA_EXPAND(name, isa) ISA_JOIN(name, isa)
/** `name`_avx2 where ISA is avx2. */
#define ISA_NAME(name) ISA_EXPAND(name, ISA)

/** A bit for each lane that is not 0; a NaN is not. */
static inline unsigned vec_nonzero_bits(vec v) {
    return vec_mask_bits(vec_equal(v, vec_zero())) ^ ((1U << LANES) - 1);
}

#endif
