/* run_block.h - run one block on a backend, all from and to host memory. */
#ifndef ESPALIER_TESTS_RUN_BLOCK_H
#define ESPALIER_TESTS_RUN_BLOCK_H

#include <espalier/backend.h>

/** Host inputs of a run; weights and bias may be NULL for BLOCK_PASS. */
struct block_inputs {
    const float *weights, *bias, *x;
};

/** The block's output [samples][output], freed by free(); pass->sample_ids is host memory. */
float *run_block_forward(struct backend *backend, const struct block_desc *desc,
                         const struct block_pass *pass, struct block_inputs in);

/** The gradient with respect to the input [samples][input] at dy, freed by free(). */
float *run_block_backward(struct backend *backend, const struct block_desc *desc,
                          const struct block_pass *pass, struct block_inputs in, const float *dy);

#endif
