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
/** A bit for each lane of a mask, the first the lowest; and back. */
static inline unsigned vec_mask_bits(vec_mask m) {
    return (unsigned)((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8));
}
static inline vec_mask vec_mask_of(unsigned bits) {
    const vec_mask lane = {1, 2, 4, 8},
                   all = {(int32_t)bits, (int32_t)bits, (int32_t)bits, (int32_t)bits};
    return (all & lane) != 0;
}
static inline vec_mask vec_equal(vec a, vec b) {
    return (vec_mask)(a == b);
}
static inline vec_mask vec_greater(vec a, vec b) {
    return (vec_mask)(a > b);
}
/** v, in a register, where it meets several others: the compiler would load it for each of them. */
static inline vec vec_keep(vec v) {
    return v;
}
/** The larger; b where either is a NaN. */
static inline vec vec_max(vec a, vec b) {
    return vec_select(vec_greater(a, b), a, b);
}
/** The sum of the lanes. */
static inline float vec_sum(vec v) {
    return (v[0] + v[2]) + (v[1] + v[3]);
}
/** Rows become columns. */
static inline void vec_transpose(vec row[LANES]) {
    const vec a = row[0], b = row[1], c = row[2], d = row[3];
    const vec ab0 = {a[0], b[0], a[1], b[1]}, ab2 = {a[2], b[2], a[3], b[3]};
    const vec cd0 = {c[0], d[0], c[1], d[1]}, cd2 = {c[2], d[2], c[3], d[3]};
    row[0] = (vec){ab0[0], ab0[1], cd0[0], cd0[1]};
    row[1] = (vec){ab0[2], ab0[3], cd0[2], cd0[3]};
    row[2] = (vec){ab2[0], ab2[1], cd2[0], cd2[1]};
    row[3] = (vec){ab2[2], ab2[3], cd2[2], cd2[3]};
}

/** The first `count` lanes, integers below 256, as bytes. */
static inline void vec_store_bytes(uint8_t *to, vec v, int count) {
    for (int i = 0; i < count; i++)
        to[i] = (uint8_t)v[i];
}

/** The lanes whose bit is set to the front of `values`, of which LANES are overwritten; returns how
 *  many. */
static inline int vec_pack(vec v, unsigned bits, float *values) {
    int count = 0;
    for (int i = 0; i < LANES; i++) {
        values[count] = v[i];
        count += bits >> i & 1;
    }
    return count;
}

/** The numbers of those lanes, counted from `first`, to the front of `numbers`, likewise. */
static inline void vec_pack_lanes(unsigned bits, uint32_t first, uint32_t *numbers) {
    for (int i = 0, count = 0; i < LANES; i++) {
        numbers[count] = first + (uint32_t)i;
        count += bits >> i & 1;
    }
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
