/* Each layer's shape and meaning, once: what it contributes to its block. */
#include "model_internal.h"

#include <string.h>

/* Positions of a window of `window` with `stride` in `size` padded items; 0 when none fits. */
static int positions(int size, int window, int stride, int padding) {
    int padded = size + 2 * padding;
    return padded < window ? 0 : (padded - window) / stride + 1;
}

static enum status apply_conv(const struct layer_settings *layer, struct block *block) {
    struct block_desc *desc = &block->desc;
    struct shape in = desc->input;
    int height = positions(in.height, layer->kernel, layer->stride, layer->padding);
    int width = positions(in.width, layer->kernel, layer->stride, layer->padding);
    if (height == 0 || width == 0)
        FAIL(ST_SHAPE, "a %dx%d kernel (padding %d) does not fit its %dx%dx%d input", layer->kernel,
             layer->kernel, layer->padding, in.height, in.width, in.channels);
    desc->kind = BLOCK_CONV;
    desc->kernel = layer->kernel;
    desc->stride = layer->stride;
    desc->padding = layer->padding;
    desc->activation = layer->activation;
    desc->linear = desc->output = (struct shape){height, width, layer->filters};
    return ST_OK;
}

static enum status apply_dense(const struct layer_settings *layer, struct block *block) {
    struct block_desc *desc = &block->desc;
    desc->kind = BLOCK_DENSE;
    desc->activation = layer->activation;
    desc->linear = desc->output = (struct shape){1, 1, layer->units};
    return ST_OK;
}

static enum status apply_maxpool(const struct layer_settings *layer, struct block *block) {
    struct block_desc *desc = &block->desc;
    struct shape in = desc->output;
    int height = positions(in.height, layer->size, layer->size, 0);
    int width = positions(in.width, layer->size, layer->size, 0);
    if (height == 0 || width == 0)
        FAIL(ST_SHAPE, "a %dx%d pool does not fit its %dx%dx%d input", layer->size, layer->size,
             in.height, in.width, in.channels);
    desc->pool = layer->size;
    desc->output = (struct shape){height, width, in.channels};
    return ST_OK;
}

static enum status apply_dropout(const struct layer_settings *layer, struct block *block) {
    block->desc.dropout = (float)layer->rate;
    return ST_OK;
}

/* Drops connections of the dense layer that must follow (network_describe sees to it). */
static enum status apply_dropconnect(const struct layer_settings *layer, struct block *block) {
    block->desc.dropconnect = (float)layer->rate;
    block->desc.dropconnect_draws = layer->inference == INFERENCE_SAMPLE ? layer->samples : 0;
    return ST_OK;
}

static enum status apply_batchnorm(const struct layer_settings *layer, struct block *block) {
    struct block_desc *desc = &block->desc;
    desc->kind = BLOCK_NORM;
    desc->activation = layer->activation;
    desc->norm_epsilon = (float)layer->epsilon;
    desc->norm_momentum = (float)layer->momentum;
    return ST_OK;
}

static const struct {
    enum block_stage stage;
    enum status (*apply)(const struct layer_settings *, struct block *);
} layers[LAYER_KIND_COUNT] = {
    [LAYER_CONV] = {STAGE_LINEAR, apply_conv},
    [LAYER_DENSE] = {STAGE_LINEAR, apply_dense},
    [LAYER_MAXPOOL] = {STAGE_POOL, apply_maxpool},
    [LAYER_DROPOUT] = {STAGE_DROPOUT, apply_dropout},
    [LAYER_DROPCONNECT] = {STAGE_CONNECT, apply_dropconnect},
    [LAYER_BATCHNORM] = {STAGE_LINEAR, apply_batchnorm},
};

enum block_stage layer_stage(enum layer_kind kind) {
    return layers[kind].stage;
}

enum status layer_apply(const struct layer_settings *layer, struct block *block) {
    TRY(layers[layer->type].apply(layer, block));
    bool linear = layers[layer->type].stage == STAGE_LINEAR;
    if (linear || block->name[0] == '\0')
        memcpy(block->name, layer->name, sizeof block->name);
    if (linear)
        block->initializer = layer->initializer;
    return ST_OK;
}
