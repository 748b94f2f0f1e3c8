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
    struct nonzeros x, x_transposed, dz, dz_transposed;
    bool x_is_listed;   /* by the last forward pass */
    float *weights;     /* W^T in panels of units: [panels][inputs][panel] */
    bool weights_stale; /* they are not the loaded ones yet */
};

static inline struct dense *dense_of(const struct block_plan *plan) {
    return plan->forward;
}

static inline int smaller(int a, int b) {
    return a < b ? a : b;
}

enum status dense_products_create(struct block_plan *plan, size_t *scratch_floats);

/** W^T from the loaded weights; a barrier must follow. */
void dense_transpose_weights(const struct block_plan *plan);

/** List the rows of a matrix, or of the matrix that is given transposed; a barrier must follow. */
void dense_list(const struct block_plan *plan, struct nonzeros *lists, const float *matrix);
void dense_list_transposed(const struct block_plan *plan, struct nonzeros *lists,
                           const float *transpose);

/** Z = X W^T. X is listed, or `listed` is false. */
void dense_forward_product(const struct block_plan *plan, int samples, const float *x, bool listed,
                           float *z);

/** dW = dZ^T X, with dZ in args->dy; the columns of dZ are listed, or `listed` is false. */
void dense_weight_gradient(const struct block_plan *plan, int samples, bool listed,
                           const struct backward_args *args);

/** The same by the lists of the columns of X. */
void dense_weight_gradient_by_x(const struct block_plan *plan, const struct backward_args *args);

/** dX = dZ W; dZ is listed, or `listed` is false. */
void dense_input_gradient(const struct block_plan *plan, int samples, bool listed,
                          const struct backward_args *args);

#endif
