/* vector_avx512.h - sixteen floats, AVX-512. The operations are those of vector_generic.h. */
#ifndef ESPALIER_VECTOR_H
#define ESPALIER_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

enum { LANES = 16, REGISTERS = 32 };
typedef __m512 vec;
typedef __mmask16 vec_mask;

static inline vec vec_zero(void) {
    return _mm512_setzero_ps();
}
static inline vec vec_set(float x) {
    return _mm512_set1_ps(x);
}
static inline vec vec_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec v) {
    _mm512_storeu_ps(p, v);
}
static inline __mmask16 vec_first(int n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1 << n) - 1);
}
static inline vec vec_load_first(const float *p, int n) {
    return _mm512_maskz_loadu_ps(vec_first(n), p);
}
static inline void vec_store_first(float *p, vec v, int n) {
    _mm512_mask_storeu_ps(p, vec_first(n), v);
}
static inline vec vec_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vec vec_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
static inline vec_mask vec_equal(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline vec_mask vec_greater(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline vec vec_select(vec_mask m, vec a, vec b) {
    return _mm512_mask_blend_ps(m, b, a);
}

enum { HALF_LANES = LANES / 2 };
typedef uint64_t wide __attribute__((vector_size(sizeof(vec))));

static inline wide wide_set(uint64_t x) {
    return x - (wide){0};
}
static inline wide wide_count(uint64_t x) {
    return x + (wide){0, 1, 2, 3, 4, 5, 6, 7};
}
static inline wide wide_multiply(wide a, wide b) {
    return (wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}

#endif
