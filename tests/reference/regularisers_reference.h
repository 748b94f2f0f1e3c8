/* regularisers_reference.h - batch normalisation and DropConnect of backend.h in double precision.
 *
 * Host memory in backend.h's layouts; pure functions but for the statistics. */
#ifndef ESPALIER_TESTS_REGULARISERS_REFERENCE_H
#define ESPALIER_TESTS_REGULARISERS_REFERENCE_H

#include <espalier/backend.h>

/** Mean and variance of each channel that a pass normalises by, both [channels]. */
struct reference_statistics {
    double *mean, *variance;
    double count; /* values of a channel; 0 where the statistics were given */
};

/** Those of a BLOCK_NORM's pass: of the batch of all ranks while training, which moves `running`
 *  (float [2][channels]); else the running ones. Free both with free(). */
enum status reference_statistics_of(const struct block_desc *desc, const struct block_pass *pass,
                                    const double *x, float *running,
                                    struct reference_statistics *statistics);

/** z of x, both [samples][input]. */
void reference_norm_forward(const struct block_desc *desc, int samples,
                            const struct reference_statistics *statistics, const double *weights,
                            const double *bias, const double *x, double *z);

/** Gradients at dz; dx may be NULL. The sums that dx depends on go over all ranks. */
enum status reference_norm_backward(const struct block_desc *desc, const struct block_pass *pass,
                                    const struct reference_statistics *statistics,
                                    const double *weights, const double *x, const double *dz,
                                    double *dweights, double *dbias, double *dx);

/** 1 where sample `sample` keeps the connection (or bias) of this unit number, 0 where not; in
 *  evaluation the mean of both. */
double reference_connect_factor(const struct block_desc *desc, const struct block_pass *pass,
                                int sample, size_t unit);

/** What a DropConnect block in evaluation makes of x: activations [samples][units]. */
void reference_connect_evaluate(const struct block_desc *desc, const struct block_pass *pass,
                                const double *weights, const double *bias, const double *x,
                                double *y);

#endif
