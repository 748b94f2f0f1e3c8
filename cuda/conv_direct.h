/* conv_direct.h - passes of convolutions by the backend's own kernels, in FP32. */
#ifndef ESPALIER_CUDA_CONV_DIRECT_H
#define ESPALIER_CUDA_CONV_DIRECT_H

#include "backend_cuda.h"
#include "conv_plan.h"

/** Such a pass's choice, beside those of cuDNN's configurations; and its name. */
#define CONV_DIRECT (UINT32_MAX - 1)

/** $ESPALIER_CUDA_CONV: ST_USAGE where it names nothing. */
enum status conv_direct_wish(enum conv_wish *wish);

/** Whether there is a kernel for the pass, over up to so many samples. */
bool conv_direct_takes(const struct block_desc *desc, enum conv_pass pass, int samples);

/** Reserve the workspace that the pass needs for up to so many samples. */
enum status conv_direct_prepare(struct cuda_backend *cuda, const struct block_desc *desc,
                                enum conv_pass pass, int samples);

/** Floats of the weights in the order of a pass that reads them. */
size_t conv_direct_weights(const struct block_desc *desc, enum conv_pass pass);
/** Weights [filters][channels][kernel][kernel] in the orders of the passes forward and backward;
 * NULL where they are not wanted. */
enum status conv_direct_load(struct cuda_backend *cuda, const struct block_desc *desc,
                             const float *weights, float *forward, float *backward);

/** Queue a pass, prepared for its samples: arguments as conv_plan_run's, weights in the pass's
 * order, their gradient as the trainer has it, [filters][channels][kernel][kernel]. What is given a
 * bias goes through the activation too. */
enum status conv_direct_run(struct cuda_backend *cuda, const struct block_desc *desc,
                            enum conv_pass pass, int samples,
                            const struct conv_arguments *arguments);

/** The forward pass with all that follows, or nothing and not `done`; weights in the pass's order.
 */
enum status conv_direct_block(struct cuda_backend *cuda, const struct block_desc *desc, int samples,
                              const struct conv_arguments *arguments,
                              const struct epilogue *epilogue, uint8_t *state, bool *done);

#endif
