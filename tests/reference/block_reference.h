/* block_reference.h - the mathematics of backend.h in double precision: plain loops, no tricks.
 *
 * Pure functions of their arguments. The linear map, the pointwise parts and the whole block are
 * apart, so that tests can run the linear map over absolute values and derive error bounds.
 * Arrays are host memory in backend.h's layouts. Nothing here can fail but for want of memory,
 * which aborts. */
#ifndef ESPALIER_TESTS_BLOCK_REFERENCE_H
#define ESPALIER_TESTS_BLOCK_REFERENCE_H

#include <espalier/backend.h>

/** An array of `count` NaNs, so that what is read before it is written shows; free with free(). */
double *reference_array(size_t count);

/** z [samples][linear] of x [samples][input], of any kind but BLOCK_NORM; under DropConnect that of
 *  the pass's masks, or of their mean. Weights and bias are not read for BLOCK_PASS. */
void reference_linear_forward(const struct block_desc *desc, const struct block_pass *pass,
                              const double *weights, const double *bias, const double *x,
                              double *z);

/** Its adjoint at dz [samples][linear]: sums over samples; dx per sample. dweights, dbias and dx
 *  are overwritten; each may be NULL. */
void reference_linear_backward(const struct block_desc *desc, const struct block_pass *pass,
                               const double *weights, const double *x, const double *dz,
                               double *dweights, double *dbias, double *dx);

double reference_activate(enum activation activation, double z);

/** The derivative where the activation's value is a; 0 at relu's kink. */
double reference_slope(enum activation activation, double a);

/** The index, into one sample's linear output, of the first maximum of the window that feeds
 *  unit `unit` of the block's output. */
size_t reference_winner(const struct block_desc *desc, const double *activated, size_t unit);

/** keep / (1 - dropout) of a unit while training; 1 otherwise. */
double reference_dropout_factor(const struct block_desc *desc, const struct block_pass *pass,
                                int sample, size_t unit);

/** Pooling and dropout: activated [samples][linear] -> y [samples][output]. */
void reference_pool(const struct block_desc *desc, const struct block_pass *pass,
                    const double *activated, double *y);

/** y [samples][output], of any block but BLOCK_NORM; pass->sample_ids is host memory. */
void reference_block_forward_double(const struct block_desc *desc, const struct block_pass *pass,
                                    const double *weights, const double *bias, const double *x,
                                    double *y);

/** dz [samples][linear] of dy [samples][output], given activated = activation(z). */
void reference_pointwise_backward(const struct block_desc *desc, const struct block_pass *pass,
                                  const double *activated, const double *dy, double *dz);

/** Its gradient; dx may be NULL. */
void reference_block_backward_double(const struct block_desc *desc, const struct block_pass *pass,
                                     const double *weights, const double *bias, const double *x,
                                     const double *dy, double *dweights, double *dbias, double *dx);

/** -ln p(label) of one sample; dlogits [classes] = p - [k = label], may be NULL. */
double reference_cross_entropy_double(const double *logits, int classes, int label,
                                      double *dlogits);

#endif
