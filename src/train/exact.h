/* exact.h - sums that do not depend on their order.
 *
 * Values are rounded to multiples of a fixed quantum; as long as sums stay in range, adding
 * multiples in double precision is exact, and so any grouping over passes and ranks gives the same
 * bits. Not collective. */
#ifndef ESPALIER_TRAIN_EXACT_H
#define ESPALIER_TRAIN_EXACT_H

#include <stdbool.h>
#include <stddef.h>

/** Gradients: multiples of 2^-40, below 2^11 each, below 2^12 in sum. What is lost, 5e-13 at most
 * of a mean over the batch, is far below what moves a weight. */
#define EXACT_GRADIENT_LIMIT 2048.0F

/** sums[i] = values[i] (`first`) or += values[i], each rounded; false when one is not below the
 *  limit (or no number). */
bool exact_add(const float *values, size_t count, bool first, double *sums, int threads);

/** values[i] = sums[i], rounded once. */
void exact_get(const double *sums, size_t count, float *values, int threads);

/** A sum of losses, rounded to a multiple of 2^-26: exact in sums below 2^27. */
double exact_loss(double loss);

#endif
