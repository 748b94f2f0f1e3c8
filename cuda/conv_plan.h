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
    uint32_t choice;        /* CONV_HEURISTICS, or one that conv_plan_candidates told */
};

/** A configuration of an engine is named by the engine and its place among those of the engine, as
 *  the heuristics list them; or it is the first of all that will do. */
enum { CONV_HEURISTICS = 0, CONV_CANDIDATES = 64 };

struct conv_plan;

/** The chosen plan, or the first of the heuristics' that will do: that is deterministic, and as
 *  exact as sums of products of floats are, but for TF32 where that is allowed. Of an engine that
 *  is listed for these samples in fewer configurations, the first; of one that is not, the
 *  heuristics'. ST_UNAVAILABLE where there is none.
 *
 *  CONV_FORWARD_RELU wants an engine that says that its relu keeps a NaN, or a NaN would not be
 *  found for as long as it lasts: where the heuristics put another first, there is none. */
enum status conv_plan_create(const struct conv_target *target, enum conv_pass pass,
                             const struct block_desc *desc, int samples, struct conv_plan **plan);
/** The same, but NULL where there is none. */
enum status conv_plan_find(const struct conv_target *target, enum conv_pass pass,
                           const struct block_desc *desc, int samples, struct conv_plan **plan);
void conv_plan_destroy(struct conv_plan *plan);

/** Names of the configurations that will do, if they can be finalised. */
enum status conv_plan_candidates(const struct conv_target *target, enum conv_pass pass,
                                 const struct block_desc *desc, int samples,
                                 uint32_t choices[CONV_CANDIDATES], int *count);

enum conv_pass conv_plan_pass(const struct conv_plan *plan);
uint32_t conv_plan_name(const struct conv_plan *plan);    /* of its configuration */
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
