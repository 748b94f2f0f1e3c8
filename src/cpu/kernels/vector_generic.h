/* vector_generic.h - four floats in the compiler's vector type: SSE2, NEON, or plain code. */
#ifndef ESPALIER_VECTOR_H
#define ESPALIER_VECTOR_H

#include <stdint.h>
#include <string.h>

enum { LANES = 4, REGISTERS = 16 };
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_mask __attribute__((vector_size(16))); /* all bits of a lane, or none */

static inline vec vec_zero(void) {
    return (vec){0, 0, 0, 0};
}
/** All lanes x. */
static inline vec vec_set(float x) {
    return (vec){x, x, x, x};
}
/** p[0 .. LANES - 1], p unaligned. */
static inline vec vec_load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vec_store(float *p, vec v) {
    memcpy(p, &v, sizeof v);
}
/** p[0 .. n - 1], zeros above; memory above n is not touched. 0 <= n <= LANES. */
static inline vec vec_load_first(const float *p, int n) {
    vec v = vec_zero();
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
/** Stores n lanes; memory above n is not touched. */
static inline void vec_store_first(float *p, vec v, int n) {
    memcpy(p, &v, (size_t)n * sizeof *p);
}
static inline vec vec_add(vec a, vec b) {
    return a + b;
}
static inline vec vec_sub(vec a, vec b) {
    return a - b;
}
static inline vec vec_mul(vec a, vec b) {
    return a * b;
}
/** a * b + c, with one rounding where the set has it. */
static inline vec vec_fma(vec a, vec b, vec c) {
    return a * b + c;
}
/** Lane by lane a where m, else b. */
static inline vec vec_select(vec_mask m, vec a, vec b) {
    return (vec)((m & (vec_mask)a) | (~m & (vec_mask)b));
}
static inline vec_mask vec_equal(vec a, vec b) {
    return (vec_mask)(a == b);
}
static inline vec_mask vec_greater(vec a, vec b) {
    return (vec_mask)(a > b);
}
/** The larger; b where either is a NaN. */
static inline vec vec_max(vec a, vec b) {
    return vec_select(vec_greater(a, b), a, b);
}

/** HALF_LANES numbers of 64 bits; the compiler's operators apply. */
enum { HALF_LANES = LANES / 2 };
typedef uint64_t wide __attribute__((vector_size(sizeof(vec))));

static inline wide wide_set(uint64_t x) {
    return x - (wide){0};
}
/** x, x + 1, x + 2, ... */
static inline wide wide_count(uint64_t x) {
    return x + (wide){0, 1};
}
/** The products of the lanes' low 32 bits. */
static inline wide wide_multiply(wide a, wide b) {
    return (a & UINT32_MAX) * (b & UINT32_MAX);
}

#endif
