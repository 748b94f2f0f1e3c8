/* elementary.h - exp, its siblings and Philox without branches or calls, for loops that the
 * compiler is to turn into vectors. */
#ifndef ESPALIER_CPU_KERNELS_ELEMENTARY_H
#define ESPALIER_CPU_KERNELS_ELEMENTARY_H

#include <stdint.h>
#include <string.h>

/** e^x = power * (1 + rest): `power` is 2^n for the integer n nearest to x / ln 2, and `rest` is
 *  e^(x - n ln 2) - 1 to a relative error of 2 ulp, however small. */
struct exponential {
    float power, rest;
};

/* |x| <= 87, so that 2^n is a normal number; a NaN gives rest = NaN. */
static inline struct exponential exponential_of(float x) {
    const float to_integer = 0x1.8p23F; /* a sum with it has its last bit at 1 */
    const float shifted = x * 1.44269504F + to_integer, n = shifted - to_integer;
    /* ln 2 in two parts: n times the first is exact. */
    const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
    /* Taylor: |r| <= ln 2 / 2, where the first term left out is below 2^-27 of r. */
    float p = 1.0F / 5040;
    p = p * r + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 1.0F / 2;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + (127U << 23); /* n, from the low end of `shifted`, as an exponent */
    struct exponential e = {.rest = p * r * r + r};
    memcpy(&e.power, &bits, sizeof bits);
    return e;
}

static inline float clamp(float x, float low, float high) { /* a NaN stays one */
    x = x < low ? low : x;
    return x > high ? high : x;
}

/** e^x to 2 ulp; 0 below -87, e^87 above 87: neither it nor its inverse is denormal. */
static inline float elementary_exp(float x) {
    const struct exponential e = exponential_of(clamp(x, -87.0F, 87.0F));
    return x < -87.0F ? 0.0F : e.power * e.rest + e.power;
}

static inline float elementary_sigmoid(float x) {
    return 1.0F / (1.0F + elementary_exp(-x));
}

/** By e^2x - 1, which keeps the relative precision near 0; beyond 20 it is 1 to float's precision.
 */
static inline float elementary_tanh(float x) {
    const struct exponential e = exponential_of(2.0F * clamp(x, -20.0F, 20.0F));
    const float m = e.power * e.rest + (e.power - 1.0F);
    return m / (m + 2.0F);
}

#endif
