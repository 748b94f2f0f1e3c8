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
static inline vec vec_keep(vec v) {
    __asm__("" : "+v"(v));
    return v;
}
static inline vec vec_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
static inline unsigned vec_mask_bits(vec_mask m) {
    return m;
}
static inline vec_mask vec_mask_of(unsigned bits) {
    return (vec_mask)bits;
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
static inline vec vec_pairs_low(vec a, vec b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
static inline vec vec_pairs_high(vec a, vec b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
static inline float vec_sum(vec v) {
    return _mm512_reduce_add_ps(v);
}
/* First within the tiles of 4 x 4, which stay where they are, then the tiles. */
static inline void vec_transpose(vec row[LANES]) {
    vec tile[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) {
        const vec ab0 = _mm512_unpacklo_ps(row[i], row[i + 1]);
        const vec ab2 = _mm512_unpackhi_ps(row[i], row[i + 1]);
        const vec cd0 = _mm512_unpacklo_ps(row[i + 2], row[i + 3]);
        const vec cd2 = _mm512_unpackhi_ps(row[i + 2], row[i + 3]);
        tile[i] = vec_pairs_low(ab0, cd0);
        tile[i + 1] = vec_pairs_high(ab0, cd0);
        tile[i + 2] = vec_pairs_low(ab2, cd2);
        tile[i + 3] = vec_pairs_high(ab2, cd2);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const vec even0 = _mm512_shuffle_f32x4(tile[j], tile[4 + j], 0x88);
        const vec even8 = _mm512_shuffle_f32x4(tile[8 + j], tile[12 + j], 0x88);
        const vec odd0 = _mm512_shuffle_f32x4(tile[j], tile[4 + j], 0xdd);
        const vec odd8 = _mm512_shuffle_f32x4(tile[8 + j], tile[12 + j], 0xdd);
        row[j] = _mm512_shuffle_f32x4(even0, even8, 0x88);
        row[4 + j] = _mm512_shuffle_f32x4(odd0, odd8, 0x88);
        row[8 + j] = _mm512_shuffle_f32x4(even0, even8, 0xdd);
        row[12 + j] = _mm512_shuffle_f32x4(odd0, odd8, 0xdd);
    }
}

static inline void vec_store_bytes(uint8_t *to, vec v, int count) {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v));
    if (count == LANES)
        _mm_storeu_si128((__m128i *)to, bytes);
    else
        _mm_mask_storeu_epi8(to, (__mmask16)((1U << count) - 1), bytes);
}

static inline int vec_pack(vec v, unsigned bits, float *values) {
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps((__mmask16)bits, v));
    return __builtin_popcount(bits);
}

static inline void vec_pack_lanes(unsigned bits, uint32_t first, uint32_t *numbers) {
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i number = _mm512_add_epi32(_mm512_set1_epi32((int)first), count);
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32((__mmask16)bits, number));
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
