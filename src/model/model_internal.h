/* model_internal.h - what the files of src/model share. */
#ifndef ESPALIER_MODEL_INTERNAL_H
#define ESPALIER_MODEL_INTERNAL_H

#include <espalier/network.h>

/** The stages of a block, in the order in which it computes them. A layer joins the block before
 *  it when its stage comes later than all stages that the block has; else it opens the next. */
enum block_stage { STAGE_EMPTY, STAGE_CONNECT, STAGE_LINEAR, STAGE_POOL, STAGE_DROPOUT };

enum block_stage layer_stage(enum layer_kind kind);

/** Add a layer to a block whose input and output are set: fills its part of the description and
 *  updates the output shape. ST_SHAPE when the layer does not fit its input. */
enum status layer_apply(const struct layer_settings *layer, struct block *block);

/** A block that passes its input on. */
void block_open(struct block *block, struct shape input, uint32_t index);

/** The block before a block, NULL for the first. */
static inline const struct block *block_before(const struct network *network, int index) {
    return index > 0 ? &network->blocks[index - 1] : NULL;
}

/** Channels of a block's output that are kept, or have another fate. */
size_t reduction_count(const struct block *block, enum channel_fate fate);

static inline bool block_is_reduced(const struct block *block) {
    return block->reduced.output.channels < block->desc.output.channels;
}

/* ---- constants.c: constant channels of one block, folded into the bias of the next ---- */

/** The constant channels that a block reads, as two small plans: `source` has them as dense units
 *  without inputs that count, a sample for each place where a weight meets them; their outputs are
 *  the one sample that `reader` has, a block like the one that reads them, on these channels alone
 *  and without an activation. Its output is the bias that the other weights go with. */
struct constants {
    size_t channels, places;
    struct block_desc desc; /* of the reader */
    struct block_plan *source, *reader;
    uint32_t *indices;            /* device [channels]: which of the block before these are */
    float *zeros;                 /* device [channels + places]: the source's weights and inputs */
    float *source_bias, *discard; /* device [channels]: the biases; what no weight takes */
    float *source_bias_gradient;  /* device [channels] */
    float *values, *dvalues;      /* device [places][channels] */
    float *bias, *bias_gradient;  /* device [channels of the reader]: with the constants in it */
    const float *weights;         /* of the reader, in its form */
    float *weight_gradient;
};

/** Those of the block before `index`; the block's `reduced` must have been set. */
enum status constants_create(const struct network *network, int index,
                             struct constants **constants);
void constants_destroy(struct backend *backend, struct constants *constants);

/** Bring `bias` (device, of the block's kept channels) and the constants' activations together. */
enum status constants_fold(const struct network *network, int index, const float *bias);

/** The gradients of weights and biases of the constants, and of `bias`, from that of the sum. */
enum status constants_backward(const struct network *network, int index, float *dbias);

/* ---- placement.c: where survivors are in what a block computes with ---- */

/** Give a block's weight its places and arrays, and tell its plan and its constants' which weights
 *  are left. `reduced`, `reduction` and `constants` must have been set. */
enum status placement_apply(struct network *network, int index);

#endif
