/* vector_avx2.h - eight floats, AVX2 and FMA. The operations are those of vector_generic.h. */
#ifndef ESPALIER_VECTOR_H
#define ESPALIER_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

enum { LANES = 8, REGISTERS = 16 };
typedef __m256 vec;
typedef __m256 vec_mask;

static inline vec vec_zero(void) {
    return _mm256_setzero_ps();
}
static inline vec vec_set(float x) {
    return _mm256_set1_ps(x);
}
static inline vec vec_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void vec_store(float *p, vec v) {
    _mm256_storeu_ps(p, v);
}
static inline __m256i vec_first(int n) {
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), index);
}
static inline vec vec_load_first(const float *p, int n) {
    return n < LANES ? _mm256_maskload_ps(p, vec_first(n)) : vec_load(p);
}
static inline void vec_store_first(float *p, vec v, int n) {
    if (n < LANES)
        _mm256_maskstore_ps(p, vec_first(n), v);
    else
        vec_store(p, v); /* masked stores are slow on some processors */
}
static inline vec vec_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vec vec_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
static inline vec_mask vec_equal(vec a, vec b) {
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}
static inline vec_mask vec_greater(vec a, vec b) {
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
static inline vec vec_select(vec_mask m, vec a, vec b) {
    return _mm256_blendv_ps(b, a, m);
}

enum { HALF_LANES = LANES / 2 };
typedef uint64_t wide __attribute__((vector_size(sizeof(vec))));

static inline wide wide_set(uint64_t x) {
    return x - (wide){0};
}
static inline wide wide_count(uint64_t x) {
    return x + (wide){0, 1, 2, 3};
}
static inline wide wide_multiply(wide a, wide b) {
    return (wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}

#endif
