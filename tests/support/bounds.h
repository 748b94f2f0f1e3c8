/* bounds.h - how far a float computation of a block may be from the exact one.
 *
 * Standard forward analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
 * section 3.1): a sum of n products, in any order, fused or not, is off by at most
 * gamma_n * sum |terms|, gamma_n = n u / (1 - n u), u = 2^-24. The sums of absolute terms come
 * from the reference's linear map over absolute values. What the parts add:
 *
 *   activation  is 1-Lipschitz; sigmoid and tanh are computed within 8 u (values are within 1)
 *   maximum     moves by no more than its largest candidate does
 *   dropout     1 - p, its reciprocal, the product: 3 roundings; one more to store
 *   slope       of relu and none: exact away from the kink; of sigmoid a(1-a) and tanh 1-a^2:
 *               1- and 2-Lipschitz in a, and a may be recovered from the block's output, by
 *               which it has up to 8 roundings
 *
 * Outputs whose relu or maximum may decide otherwise under these bounds are found, so that a test
 * can give them no gradient; everything else must then be within its bound. */
#ifndef ESPALIER_TESTS_BOUNDS_H
#define ESPALIER_TESTS_BOUNDS_H

#include <espalier/backend.h>

/** n u / (1 - n u). */
double bound_gamma(double roundings);

/** One row's exact values and bounds; all arrays double, owned. Shapes per sample in brackets. */
struct block_bounds {
    struct block_desc desc;
    struct block_pass pass; /* of training; sample_ids on the host, borrowed */
    bool winograd;          /* the forward pass is Winograd's: bounds_winograd.h */
    double *weights, *bias, *x;
    double *z, *z_error;                 /* [linear] */
    double *activated, *activated_error; /* [linear] */
    double *y, *y_error;                 /* [output] while training */
    double *y_evaluated, *y_evaluated_error;
    double *dweights, *dweights_error;
    double *dbias, *dbias_error;
    double *dx, *dx_error; /* [input] */
    size_t ambiguous;      /* outputs that were given no gradient */
};

/** Widen the inputs and compute the forward passes, training and evaluation, with their bounds:
 *  those of sums of products, or of Winograd's algorithm. */
void bounds_create(struct block_bounds *bounds, const struct block_desc *desc,
                   const struct block_pass *pass, bool winograd, const float *weights,
                   const float *bias, const float *x);

/** Set dy [samples][output] to 0 where a decision is within rounding of another, then compute the
 *  backward pass at dy with its bounds. */
void bounds_backward(struct block_bounds *bounds, float *dy);

void bounds_destroy(struct block_bounds *bounds);

/** One sample's linear outputs and activations with their errors, all [linear]. */
struct decision {
    const double *z, *z_error, *activated, *activated_error;
};

/** True when the gradient of output unit `unit` takes one way for certain: its window has one
 *  possible maximum, on one side of relu's kink; or relu is off in all of the window. */
bool bound_is_decided(const struct block_desc *desc, struct decision sample, size_t unit);

#endif
