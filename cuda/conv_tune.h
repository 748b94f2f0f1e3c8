/* conv_tune.h - which of cuDNN's configurations and the backend's own kernels is the fastest, by
 * trying them on the device. */
#ifndef ESPALIER_CUDA_CONV_TUNE_H
#define ESPALIER_CUDA_CONV_TUNE_H

#include "backend_cuda.h"
#include "conv_plan.h"

/** Run the candidates for a pass of so many samples, a few times each: *choice is the one that took
 *  least, *milliseconds that time. One that cannot be run is passed over; CONV_HEURISTICS and an
 *  infinite time when none is left. What has been found is remembered. */
enum status conv_tune(struct cuda_backend *cuda, enum conv_pass pass, const struct block_desc *desc,
                      int samples, uint32_t *choice, float *milliseconds);

/** The time of bias and activation as a kernel of their own. */
enum status conv_tune_epilogue(struct cuda_backend *cuda, const struct block_desc *desc,
                               int samples, float *milliseconds);

/** Forget what has been found. */
void conv_tune_forget(struct cuda_backend *cuda);

#endif
