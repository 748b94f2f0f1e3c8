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

#endif
