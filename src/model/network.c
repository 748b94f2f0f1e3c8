#include "model_internal.h"

#include <espalier/initializer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

/* Append a parameter of the block; beta grows by its size. */
static int add_parameter(struct network *network, int block, const char *kind, int dimensions,
                         const uint32_t *size) {
    struct parameter *p = &network->parameters[network->parameters_count];
    snprintf(p->name, sizeof p->name, "%s.%s", network->blocks[block].name, kind);
    p->block = block;
    p->is_weight = dimensions > 1;
    p->dimensions = dimensions;
    p->original_count = 1;
    for (int i = 0; i < dimensions; i++) {
        p->size[i] = size[i];
        p->original_count *= size[i];
    }
    p->offset = network->count;
    p->count = p->stored = p->original_count;
    network->count += p->stored;
    return network->parameters_count++;
}

static int weight_dimensions(enum block_kind kind) {
    return kind == BLOCK_CONV ? 4 : kind == BLOCK_DENSE ? 2 : 1;
}

static void add_block_parameters(struct network *network, int index) {
    struct block *block = &network->blocks[index];
    const struct block_desc *desc = &block->desc;
    if (desc->kind == BLOCK_PASS)
        return;
    uint32_t out = (uint32_t)desc->linear.channels, kernel = (uint32_t)desc->kernel;
    uint32_t in = desc->kind == BLOCK_CONV ? (uint32_t)desc->input.channels
                                           : (uint32_t)shape_size(desc->input);
    const uint32_t size[] = {out, in, kernel, kernel};
    block->weight = add_parameter(network, index, "weight", weight_dimensions(desc->kind), size);
    block->bias = add_parameter(network, index, "bias", 1, size);
    if (desc->kind == BLOCK_NORM) {
        block->statistics = add_parameter(network, index, "running_mean", 1, size);
        add_parameter(network, index, "running_var", 1, size);
    }
}

enum status network_describe_parameters(const struct recipe *recipe, struct shape input,
                                        struct parameter parameters[NETWORK_PARAMETERS_MAX],
                                        int *count) {
    struct block blocks[RECIPE_LAYERS_MAX];
    struct network network = {.blocks = blocks, .parameters = parameters};
    TRY(network_describe(recipe, input, blocks, &network.blocks_count));
    memset(parameters, 0, NETWORK_PARAMETERS_MAX * sizeof *parameters);
    for (int i = 0; i < network.blocks_count; i++)
        add_block_parameters(&network, i);
    *count = network.parameters_count;
    return ST_OK;
}

static enum status allocate_block(struct network *network, int index) {
    struct backend *backend = network->backend;
    struct block *block = &network->blocks[index];
    size_t bytes = (size_t)network->max_samples * shape_size(block->desc.output) * sizeof(float);
    TRY(backend->block_plan_create(backend, &block->desc, network->max_samples, index == 0,
                                   &block->plan));
    block->sparse_below = backend->block_plan_sparse_below(block->plan);
    block->planned = block_weights(&block->desc);
    const size_t channels = (size_t)block->desc.linear.channels;
    block->unused = calloc(channels, sizeof *block->unused);
    if (block->unused == NULL)
        FAIL(ST_MEMORY, "out of memory: block %d", index);
    TRY(backend->alloc(backend, channels, (void **)&block->device_unused));
    return backend->alloc(backend, bytes, (void **)&block->output);
}

enum status network_part(struct network *network, int index) {
    struct backend *backend = network->backend;
    if (index < 0 || network->blocks[index].output_gradient != NULL)
        return ST_OK;
    struct block *block = &network->blocks[index];
    size_t bytes = (size_t)network->max_samples * shape_size(block->desc.output) * sizeof(float);
    TRY(backend->alloc(backend, bytes, (void **)&block->output_gradient));
    if (index + 1 < network->blocks_count)
        backend->block_plan_part(block->plan, network->blocks[index + 1].plan);
    return ST_OK;
}

enum status network_join(struct network *network, int index) {
    struct backend *backend = network->backend;
    bool joined = false;
    if (index < 0 || index + 1 >= network->blocks_count ||
        network->blocks[index].output_gradient == NULL) /* they are joined already */
        return ST_OK;
    struct block *block = &network->blocks[index];
    TRY(backend->block_plan_join(block->plan, network->blocks[index + 1].plan, &joined));
    if (joined) {
        backend->release(backend, block->output_gradient);
        block->output_gradient = NULL;
    }
    return ST_OK;
}

/* Gradients of outputs; not where the backend joins a block to the next one. */
static enum status allocate_gradient(struct network *network, int index) {
    TRY(network_part(network, index));
    return network_join(network, index);
}

static enum status build(struct network *network, const struct recipe *recipe) {
    struct block blocks[RECIPE_LAYERS_MAX];
    TRY(network_describe(recipe, network->input, blocks, &network->blocks_count));
    size_t count = (size_t)network->blocks_count;
    network->blocks = calloc(count, sizeof *network->blocks);
    network->parameters = calloc(4 * count, sizeof *network->parameters);
    if (network->blocks == NULL || network->parameters == NULL)
        FAIL(ST_MEMORY, "out of memory: a network of %zu blocks", count);
    memcpy(network->blocks, blocks, count * sizeof *blocks);
    for (int i = 0; i < network->blocks_count; i++) {
        add_block_parameters(network, i);
        TRY(allocate_block(network, i));
    }
    for (int i = 0; i < network->blocks_count; i++)
        TRY(allocate_gradient(network, i));
    network->classes = network->blocks[count - 1].desc.output.channels;
    network->original_count = network->count;
    struct backend *backend = network->backend;
    TRY(backend->alloc(backend, network->count * sizeof(float), (void **)&network->beta));
    TRY(backend->alloc(backend, network->count * sizeof(float), (void **)&network->gradient));
    return network_materialize(network);
}

enum status network_create(const struct recipe *recipe, struct shape input, int max_samples,
                           struct backend *backend, struct network **network) {
    *network = calloc(1, sizeof **network);
    if (*network == NULL)
        FAIL(ST_MEMORY, "out of memory");
    (*network)->backend = backend;
    (*network)->input = input;
    (*network)->masked = recipe->prune.deletion == DELETION_MASK;
    (*network)->max_samples = max_samples > 0 ? max_samples : 1;
    enum status status = build(*network, recipe);
    if (status != ST_OK) {
        network_destroy(*network);
        *network = NULL;
    }
    return status;
}

static void release_vectors(struct network *network) {
    if (network->vectors_are_lent)
        return;
    network->backend->release(network->backend, network->beta);
    network->backend->release(network->backend, network->gradient);
}

void network_destroy(struct network *network) {
    if (network == NULL)
        return;
    struct backend *backend = network->backend;
    for (int i = 0; network->blocks != NULL && i < network->blocks_count; i++) {
        backend->block_plan_destroy(network->blocks[i].plan);
        backend->release(backend, network->blocks[i].output);
        backend->release(backend, network->blocks[i].output_gradient);
        backend->release(backend, network->blocks[i].device_unused);
        free(network->blocks[i].unused);
    }
    for (int i = 0; i < network->parameters_count; i++) {
        backend->release(backend, network->parameters[i].indices);
        backend->release(backend, network->parameters[i].dense);
        backend->release(backend, network->parameters[i].dense_gradient);
    }
    release_vectors(network);
    free(network->parameters);
    free(network->blocks);
    free(network);
}

enum status network_move_vectors(struct network *network, float *beta, float *gradient) {
    struct backend *backend = network->backend;
    size_t bytes = network->count * sizeof *beta;
    TRY(backend->copy(backend, beta, network->beta, bytes));
    TRY(backend->copy(backend, gradient, network->gradient, bytes));
    release_vectors(network);
    network->vectors_are_lent = true;
    network->beta = beta;
    network->gradient = gradient;
    return network_materialize(network);
}

/* ---- parameters ---- */

/* Whether beta holds survivors alone of a parameter that its block takes whole. */
static bool is_compact(const struct network *network, const struct parameter *p) {
    return p->dense != NULL && !network->masked;
}

/* What a block reads and writes. */
static const float *values_of(const struct network *network, int parameter) {
    const struct parameter *p = &network->parameters[parameter];
    return is_compact(network, p) ? p->dense : network->beta + p->offset;
}

static float *gradient_of(struct network *network, int parameter) {
    struct parameter *p = &network->parameters[parameter];
    return p->dense != NULL ? p->dense_gradient : network->gradient + p->offset;
}

enum status network_materialize(struct network *network) {
    struct backend *backend = network->backend;
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *p = &network->parameters[i];
        if (is_compact(network, p))
            TRY(backend->scatter(backend, network->beta + p->offset, p->indices, p->count,
                                 p->dense));
    }
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        if (block->weight >= 0)
            TRY(backend->block_plan_load_weights(block->plan, values_of(network, block->weight),
                                                 values_of(network, block->bias)));
        if (block->statistics >= 0)
            TRY(backend->block_plan_load_statistics(
                block->plan, network->beta + network->parameters[block->statistics].offset));
    }
    return ST_OK;
}

/* Batch normalisation begins as z = x: weights and variances are 1. */
static enum status initialize_norm(struct network *network, const struct block *block,
                                   float *ones) {
    for (size_t k = 0; k < block_weights(&block->desc); k++)
        ones[k] = 1;
    TRY(network_set_parameter(network, block->weight, ones));
    return network_set_parameter(network, block->statistics + 1, ones);
}

static enum status initialize_block(struct network *network, const struct block *block,
                                    uint64_t seed) {
    float *weights = malloc(block_weights(&block->desc) * sizeof *weights);
    if (weights == NULL)
        FAIL(ST_MEMORY, "out of memory: the initial weights of %s", block->name);
    enum status status;
    if (block->desc.kind == BLOCK_NORM)
        status = initialize_norm(network, block, weights);
    else {
        initializer_fill(block->initializer, &block->desc, seed, weights);
        status = network_set_parameter(network, block->weight, weights);
    }
    free(weights);
    return status;
}

enum status network_initialize(struct network *network, uint64_t seed) {
    for (int i = 0; i < network->blocks_count; i++)
        if (network->blocks[i].weight >= 0)
            TRY(initialize_block(network, &network->blocks[i], seed));
    return network_materialize(network);
}

/* ---- passes ---- */

enum status network_forward(struct network *network, const struct block_pass *pass, const float *x,
                            float **logits) {
    const float *input = x;
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        TRY(network->backend->block_forward(block->plan, pass, input, block->output));
        input = block->output;
    }
    *logits = network->blocks[network->blocks_count - 1].output;
    return ST_OK;
}

float *network_logits_gradient(struct network *network) {
    return network->blocks[network->blocks_count - 1].output_gradient;
}

/* Bring the survivors' gradients to where they belong: into their order, or, under a mask, into
 * their places among zeros, by way of the scratch. */
static enum status carry_gradient(struct network *network, const struct parameter *weight) {
    struct backend *backend = network->backend;
    float *gradient = network->gradient + weight->offset;
    TRY(backend->gather(backend, weight->dense_gradient, weight->indices, weight->count,
                        network->masked ? weight->dense : gradient));
    if (network->masked)
        TRY(backend->scatter(backend, weight->dense, weight->indices, weight->count, gradient));
    return ST_OK;
}

/* Weight and bias are neighbours. */
static enum status finish_gradient(struct network *network, const struct block *block,
                                   const struct gradient_sink *sink) {
    const struct parameter *weight = &network->parameters[block->weight];
    const struct parameter *bias = &network->parameters[block->bias];
    if (weight->dense != NULL)
        TRY(carry_gradient(network, weight));
    if (block->statistics >= 0) /* pruning moves the vector's parts: whatever lies there now */
        TRY(network->backend->clear(network->backend,
                                    network->gradient + bias->offset + bias->count,
                                    2 * bias->count * sizeof *network->gradient));
    return sink->ready(sink->context, weight->offset, weight->stored + bias->stored);
}

enum status network_backward(struct network *network, const struct block_pass *pass, const float *x,
                             const struct gradient_sink *sink) {
    for (int i = network->blocks_count - 1; i >= 0; i--) {
        struct block *block = &network->blocks[i];
        const float *input = i > 0 ? network->blocks[i - 1].output : x;
        float *input_gradient = i > 0 ? network->blocks[i - 1].output_gradient : NULL;
        bool has_weights = block->weight >= 0;
        TRY(network->backend->block_backward(
            block->plan, pass, input, block->output, block->output_gradient,
            has_weights ? gradient_of(network, block->weight) : NULL,
            has_weights ? gradient_of(network, block->bias) : NULL, input_gradient, sink->poll));
        if (has_weights)
            TRY(finish_gradient(network, block, sink));
    }
    return ST_OK;
}
