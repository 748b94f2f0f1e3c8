/* Joining a recipe's layers into blocks. */
#include "model_internal.h"

#include <string.h>

size_t block_weights(const struct block_desc *desc) {
    switch (desc->kind) {
    case BLOCK_CONV:
        return (size_t)desc->linear.channels * (size_t)desc->input.channels * (size_t)desc->kernel *
               (size_t)desc->kernel;
    case BLOCK_DENSE:
        return (size_t)desc->linear.channels * shape_size(desc->input);
    case BLOCK_NORM:
        return (size_t)desc->linear.channels;
    case BLOCK_PASS:
        break;
    }
    return 0;
}

size_t block_biases(const struct block_desc *desc) {
    return desc->kind == BLOCK_PASS ? 0 : (size_t)desc->linear.channels;
}

void block_open(struct block *block, struct shape input, uint32_t index) {
    memset(block, 0, sizeof *block);
    block->desc = (struct block_desc){.kind = BLOCK_PASS,
                                      .input = input,
                                      .linear = input,
                                      .output = input,
                                      .activation = ACTIVATION_NONE,
                                      .kernel = 1,
                                      .stride = 1,
                                      .pool = 1,
                                      .layer = index};
    block->weight = block->bias = block->statistics = -1;
}

/* Parameters are indexed by 32 bits, and activations must stay addressable. */
static enum status check_size(const struct block_desc *desc) {
    const size_t most = INT32_MAX;
    if (block_weights(desc) > most || shape_size(desc->linear) > most)
        FAIL(ST_SHAPE, "%zu weights and %zu outputs a sample: expected at most %zu",
             block_weights(desc), shape_size(desc->linear), most);
    return ST_OK;
}

/* The network's outputs are logits: a dense layer without activation and with nothing after it. */
static enum status check_last(const struct recipe *recipe) {
    const struct layer_settings *last = &recipe->layers[recipe->layers_count - 1];
    if (last->type != LAYER_DENSE)
        FAIL(ST_SHAPE, "%s: last layer '%s' is of type %s: expected dense, one unit a class",
             recipe->path, last->name, layer_kind_names[last->type]);
    if (last->activation != ACTIVATION_NONE)
        FAIL(ST_SHAPE,
             "%s: last layer '%s' has activation %s: expected none (its outputs are the logits of "
             "a softmax)",
             recipe->path, last->name, activation_names[last->activation]);
    if (last->units < 2 || last->units > 256)
        FAIL(ST_SHAPE, "%s: last layer '%s' has %d units: expected 2 to 256, one a class",
             recipe->path, last->name, last->units);
    return ST_OK;
}

/* A dropconnect layer drops connections of the layer after it, which has some. */
static enum status check_dropconnect(const struct recipe *recipe) {
    for (int i = 0; i < recipe->layers_count; i++) {
        const struct layer_settings *layer = &recipe->layers[i], *next = layer + 1;
        if (layer->type == LAYER_DROPCONNECT && next->type != LAYER_DENSE)
            FAIL(ST_SHAPE, "%s: layer %d (dropconnect '%s') is followed by %s '%s': expected dense",
                 recipe->path, i + 1, layer->name, layer_kind_names[next->type], next->name);
    }
    return ST_OK;
}

enum status network_describe(const struct recipe *recipe, struct shape input,
                             struct block blocks[RECIPE_LAYERS_MAX], int *count) {
    enum block_stage stage = STAGE_DROPOUT; /* so that the first layer opens a block */
    int opened = 0;
    for (int i = 0; i < recipe->layers_count; i++) {
        const struct layer_settings *layer = &recipe->layers[i];
        if (layer_stage(layer->type) <= stage) {
            struct shape from = opened == 0 ? input : blocks[opened - 1].desc.output;
            block_open(&blocks[opened], from, (uint32_t)opened);
            opened++;
        }
        stage = layer_stage(layer->type);
        struct block *block = &blocks[opened - 1];
        enum status status = layer_apply(layer, block);
        if (status == ST_OK)
            status = check_size(&block->desc);
        if (status != ST_OK)
            FAIL(status, "%s: layer %d (%s '%s'): %s", recipe->path, i + 1,
                 layer_kind_names[layer->type], layer->name, status_message());
    }
    *count = opened;
    TRY(check_last(recipe));
    return check_dropconnect(recipe);
}
