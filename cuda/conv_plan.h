/* conv_plan.h - one pass of one convolution as an execution plan of cuDNN's graph API.
 *
 * Owns its descriptors; conv_plan_destroy(NULL) is legal. Tensors are [n][h][w][c], weights
 * [filters][kernel][kernel][channels]. */
#ifndef ESPALIER_CUDA_CONV_PLAN_H
#define ESPALIER_CUDA_CONV_PLAN_H

#include "conv_graph.h"

/** What plans are made for: the handle's device, or with a handle of NULL the device that
 *  `properties` describes, whether there is one or not. */
struct conv_target {
    cudnnHandle_t handle;
    const char *properties; /* cuDNN's JSON */
    bool tf32;              /* tensor cores may round the factors */
};

struct conv_plan;

/** The first plan of the heuristics' that is deterministic and as exact as sums of products of
 *  floats are, but for TF32 where that is allowed. ST_UNAVAILABLE where there is none. */
enum status conv_plan_create(const struct conv_target *target, enum conv_pass pass,
                             const struct block_desc *desc, int samples, struct conv_plan **plan);
/** The same, but NULL where there is none. */
enum status conv_plan_find(const struct conv_target *target, enum conv_pass pass,
                           const struct block_desc *desc, int samples, struct conv_plan **plan);
void conv_plan_destroy(struct conv_plan *plan);

size_t conv_plan_workspace(const struct conv_plan *plan); /* bytes */

/** Input, weights and output of a pass, or their gradients, of which it overwrites one; the bias of
 *  CONV_FORWARD_RELU, NULL in others. 16-byte aligned. */
struct conv_arguments {
    const void *x, *w, *y, *bias;
};

/** Queue it on the handle's stream. */
enum status conv_plan_run(struct conv_plan *plan, cudnnHandle_t handle,
                          const struct conv_arguments *arguments, void *workspace);

#endif
