/* dense.h - what the two files of dense layers share.
 *
 * X [samples][inputs], W and dW [units][inputs], Z and dZ [samples][units]. Products come in tiles,
 * which the threads of a team share; each element is summed in one order, however the tiles fall.
 * Functions here are called by all threads of a team; their loops end without a barrier. */
#ifndef ESPALIER_CPU_DENSE_H
#define ESPALIER_CPU_DENSE_H

#include "cpu.h"
#include "nonzeros.h"

/** The two directions of a plan have one. */
struct dense {
    int inputs, units;
    struct nonzeros x, x_transposed; /* of the last pass where it is sparse */
    struct nonzeros dz, dz_transposed;
    bool x_is_sparse;   /* in the last forward pass */
    float *weights;     /* W^T in panels of units: [panels][inputs][panel] */
    bool weights_stale; /* they are not the loaded ones yet */
};

static inline struct dense *dense_of(const struct block_plan *plan) {
    return plan->forward;
}

static inline int smaller(int a, int b) {
    return a < b ? a : b;
}

enum status dense_nonzero_create(struct block_plan *plan, size_t *scratch_floats);

/** W^T from the loaded weights, and the lists of X; a barrier must follow. */
void dense_prepare_forward(struct block_plan *plan, const float *x);

/** Z = X W^T by the lists of X. */
void dense_forward_nonzero(const struct block_plan *plan, float *z);

/** The lists by input, or by unit; a barrier must follow. */
void dense_transpose_x(struct block_plan *plan, const float *x);
void dense_transpose_dz(struct block_plan *plan, const float *dz);

/** dW = dZ^T X by the lists of X by input, or of dZ by unit. */
void dense_weight_gradient_by_x(const struct block_plan *plan, const float *dz,
                                const struct backward_args *args);
void dense_weight_gradient_by_dz(const struct block_plan *plan, const struct backward_args *args);

/** dX = dZ W by the lists of dZ. */
void dense_input_gradient_by_dz(const struct block_plan *plan, const struct backward_args *args);

#endif
