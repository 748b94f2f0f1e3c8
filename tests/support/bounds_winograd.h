/* bounds_winograd.h - how far Winograd's convolution F(4x4, 3x3) may be from the exact one.
 *
 *    y = A' (sum over channels of (G g G') * (B' d B)) A    in tiles of 4 x 4 from the corner on
 *
 * Each of the terms that make up an output, A' G g G' B' d B A multiplied out, passes through no
 * more than this many roundings:
 *
 *   weights   4 in each of two directions: two sums, the constant 1/6, the product with it
 *   input     2 in each of two directions; its factors 2 and 4 are exact, 5 is made of 4 and 1
 *   products  1 for each channel, fused or not: the first sum is with 0
 *   output    3 in each of two directions; its factors are exact
 *   bias      1
 *
 * so that the error is at most gamma_{channels + 19} times the sum of the absolute terms. */
#ifndef ESPALIER_TESTS_BOUNDS_WINOGRAD_H
#define ESPALIER_TESTS_BOUNDS_WINOGRAD_H

#include <espalier/backend.h>

/** The sums of absolute terms, without the bias: |A'| (sum |G| |g| |G'| * |B'| |d| |B|) |A|,
 *  [samples][linear], of weights and x as backend.h has them. Freed by free(). No partial result
 *  of the algorithm that counts is larger than the largest of them. */
double *winograd_magnitudes(const struct block_desc *desc, int samples, const double *weights,
                            const double *x);

/** The bound [samples][linear]; freed by free(). Inputs are within 1. */
double *winograd_errors(const struct block_desc *desc, int samples, const double *weights,
                        const double *bias, const double *x);

/** True when the backend computes the block's forward pass by Winograd's algorithm. */
bool winograd_is_used(struct backend *backend, const struct block_desc *desc);

#endif
