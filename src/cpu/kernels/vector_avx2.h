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
static inline vec vec_keep(vec v) {
    __asm__("" : "+x"(v));
    return v;
}
static inline vec vec_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
static inline unsigned vec_mask_bits(vec_mask m) {
    return (unsigned)_mm256_movemask_ps(m);
}
static inline vec_mask vec_mask_of(unsigned bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane));
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
static inline vec vec_pairs_low(vec a, vec b) {
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
static inline vec vec_pairs_high(vec a, vec b) {
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}
static inline float vec_sum(vec v) {
    const __m128 halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
}
/* First within the quarters of 4 x 4, which stay where they are, then the quarters. */
static inline void vec_transpose(vec row[LANES]) {
    vec quarter[LANES];
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += 4) {
        const vec ab0 = _mm256_unpacklo_ps(row[i], row[i + 1]);
        const vec ab2 = _mm256_unpackhi_ps(row[i], row[i + 1]);
        const vec cd0 = _mm256_unpacklo_ps(row[i + 2], row[i + 3]);
        const vec cd2 = _mm256_unpackhi_ps(row[i + 2], row[i + 3]);
        quarter[i] = vec_pairs_low(ab0, cd0);
        quarter[i + 1] = vec_pairs_high(ab0, cd0);
        quarter[i + 2] = vec_pairs_low(ab2, cd2);
        quarter[i + 3] = vec_pairs_high(ab2, cd2);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        row[j] = _mm256_permute2f128_ps(quarter[j], quarter[4 + j], 0x20);
        row[4 + j] = _mm256_permute2f128_ps(quarter[j], quarter[4 + j], 0x31);
    }
}

static inline void vec_store_bytes(uint8_t *to, vec v, int count) {
    const __m256i lanes = _mm256_cvttps_epi32(v);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    if (count == LANES)
        _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
    else
        for (int i = 0; i < count; i++, bytes >>= 8)
            to[i] = (uint8_t)bytes;
}

/* The numbers of the lanes whose bit is set, at the front. */
static inline __m256i vec_packed_lanes(unsigned lanes) {
    /* A byte for each lane, of which those of the lanes in question go to the front. */
    const uint64_t bytes = _pdep_u64(lanes, 0x0101010101010101) * 0xff;
    const uint64_t order = _pext_u64(0x0706050403020100, bytes);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order));
}

static inline int vec_pack(vec v, unsigned bits, float *values) {
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(v, vec_packed_lanes(bits)));
    return __builtin_popcount(bits);
}

static inline void vec_pack_lanes(unsigned bits, uint32_t first, uint32_t *numbers) {
    const __m256i front = vec_packed_lanes(bits);
    _mm256_storeu_si256((__m256i *)numbers, _mm256_add_epi32(front, _mm256_set1_epi32((int)first)));
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
