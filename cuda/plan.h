/* plan.h - what the kinds of blocks of the CUDA backend share.
 *
 * A plan is the part that all blocks have (bias, activation, pooling and dropout: the epilogue, in
 * one kernel each way) and a linear part, one of a table of kinds. */
#ifndef ESPALIER_CUDA_PLAN_H
#define ESPALIER_CUDA_PLAN_H

#include "backend_cuda.h"

struct block_plan {
    struct cuda_backend *cuda;
    const struct linear_kind *kind;
    struct block_desc desc;
    int max_samples;
    bool first;
    const float *weights, *bias; /* as loaded: the caller's */
    float *statistics;           /* likewise; of a BLOCK_NORM */
    float *z;                    /* [max_samples][linear], where y or dy have no room for it */
    uint8_t *state;              /* [max_samples][output]: the forward pass's choices */
    double *columns;             /* scratch of sums over samples and pixels */
    void *linear;                /* the kind's own */
};

/** What a backward pass writes, and reads beside dz; dbias is there already where a kind is biased.
 */
struct gradients {
    const float *x;
    float *dweights, *dbias, *dx; /* dx: NULL for a first block */
};

/** How the linear part of a block is computed. Passes of 0 samples come too. */
struct linear_kind {
    const char *name;
    bool in_place; /* z is x, and dz dx: there is no product */
    bool biased;   /* the gradient of its biases is the sum of dz, which the epilogue's is given */
    enum status (*create)(struct block_plan *plan);
    void (*destroy)(struct block_plan *plan);
    /** block_plan_choose, and what has been chosen; NULL: there is nothing to choose. */
    enum status (*choose)(struct block_plan *plan, int samples, bool measure,
                          uint32_t choices[BLOCK_CHOICES]);
    void (*algorithms)(const struct block_plan *plan, const char **forward, const char **backward);
    /** block_plan_sparse_below, of a kind in sparse form, which may not be in use. */
    double (*sparse_below)(const struct block_plan *plan);
    /** Which weights are left, of a kind in sparse form; NULL: a dense one, that takes no notice.
     */
    enum status (*set_survivors)(struct block_plan *plan, const struct block_survivors *survivors);
    /** The weights have changed; NULL: they are used as they lie. */
    enum status (*load)(struct block_plan *plan);
    /** Computes y and the state with all that the epilogue says, or nothing and not `done`; NULL:
     *  never. */
    enum status (*forward_whole)(struct block_plan *plan, const struct block_pass *pass,
                                 const float *x, float *y, const struct epilogue *epilogue,
                                 bool *done);
    /** Computes z in `room` and changes what is to follow it. */
    enum status (*forward)(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue);
    enum status (*backward)(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to);
};

extern const struct linear_kind linear_conv, linear_dense, linear_sparse_conv, linear_sparse_dense,
    linear_connect, linear_pass, linear_norm;

/** Pixels of a pass's z: the rows that biases are summed over. */
static inline size_t plan_rows(const struct block_plan *plan, int samples) {
    return (size_t)samples * (size_t)plan->desc.linear.height * (size_t)plan->desc.linear.width;
}

/** Device memory of a plan's, not zeroed. */
#define PLAN_ARRAY(count, pointer) cuda_allocate((count) * sizeof **(pointer), (void **)(pointer))

/** dense.c: z = w x, without bias. */
enum status dense_product(const struct block_plan *plan, int samples, const float *x, float *z);

#endif
