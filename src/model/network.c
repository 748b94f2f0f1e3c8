#include "model_internal.h"

#include <espalier/initializer.h>
#include <espalier/watchdog.h>
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

/* Nothing is left out at first. */
static enum status allocate_reduction(struct backend *backend, struct block *block) {
    const size_t channels = (size_t)block->desc.output.channels;
    block->reduction.fates = calloc(channels, sizeof *block->reduction.fates);
    block->reduction.skipped = calloc(shape_size(block->desc.input), 1);
    if (block->reduction.fates == NULL || block->reduction.skipped == NULL)
        FAIL(ST_MEMORY, "out of memory: the channels of %s", block->name);
    TRY(backend->alloc(backend, channels * sizeof *block->kept, (void **)&block->kept));
    TRY(backend->alloc(backend, channels * sizeof(float), (void **)&block->kept_bias));
    return backend->alloc(backend, channels * sizeof(float), (void **)&block->kept_bias_gradient);
}

static enum status allocate_block(struct network *network, int index) {
    struct backend *backend = network->backend;
    struct block *block = &network->blocks[index];
    size_t bytes = (size_t)network->max_samples * shape_size(block->desc.output) * sizeof(float);
    TRY(backend->block_plan_create(backend, &block->desc, network->max_samples, index == 0,
                                   &block->plan));
    watchdog_beat();
    block->sparse_below = backend->block_plan_sparse_below(block->plan);
    block->has_sparse_form = block->sparse_below > 0;
    block->planned = block_weights(&block->desc);
    block->reduced = block->desc;
    TRY(allocate_reduction(backend, block));
    return backend->alloc(backend, bytes, (void **)&block->output);
}

enum status network_part(struct network *network, int index) {
    struct backend *backend = network->backend;
    const int last = network->blocks_count - 1;
    for (int i = index; i >= 0 && i <= last && network->blocks[i].output_gradient == NULL; i++) {
        struct block *block = &network->blocks[i];
        size_t values = (size_t)network->max_samples * shape_size(block->desc.output);
        TRY(backend->alloc(backend, values * sizeof(float), (void **)&block->output_gradient));
        if (i < last)
            backend->block_plan_part(block->plan, network->blocks[i + 1].plan);
    }
    return ST_OK;
}

static enum status join_to_next(struct network *network, int index) {
    struct backend *backend = network->backend;
    struct block *block = &network->blocks[index];
    bool joined = false;
    if (block->output_gradient == NULL || network->blocks[index + 1].reduction.gathers)
        return ST_OK;
    TRY(backend->block_plan_join(block->plan, network->blocks[index + 1].plan, &joined));
    if (joined) {
        backend->release(backend, block->output_gradient);
        block->output_gradient = NULL;
    }
    return ST_OK;
}

enum status network_join(struct network *network) {
    for (int i = 0; i + 1 < network->blocks_count; i++)
        TRY(join_to_next(network, i));
    return ST_OK;
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
    TRY(network_part(network, 0));
    TRY(network_join(network));
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

static void release_block(struct backend *backend, struct block *block) {
    void *const memory[] = {block->output,     block->output_gradient,    block->kept,
                            block->kept_bias,  block->kept_bias_gradient, block->gathered.indices,
                            block->gathered.x, block->gathered.dx};
    backend->block_plan_destroy(block->plan);
    constants_destroy(backend, block->constants);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        backend->release(backend, memory[i]);
    free(block->reduction.fates);
    free(block->reduction.skipped);
}

static void release_parameter(struct backend *backend, struct parameter *p) {
    backend->release(backend, p->indices);
    backend->release(backend, p->places);
    backend->release(backend, p->dense);
    backend->release(backend, p->dense_gradient);
}

void network_destroy(struct network *network) {
    if (network == NULL)
        return;
    struct backend *backend = network->backend;
    for (int i = 0; network->blocks != NULL && i < network->blocks_count; i++)
        release_block(backend, &network->blocks[i]);
    for (int i = 0; i < network->parameters_count; i++)
        release_parameter(backend, &network->parameters[i]);
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

static const uint32_t *places_of(const struct parameter *p) {
    return p->places != NULL ? p->places : p->indices;
}

/* The biases of the channels that are kept. */
static enum status gather_bias(struct network *network, const struct block *block,
                               const float **bias) {
    *bias = values_of(network, block->bias);
    if (!block_is_reduced(block))
        return ST_OK;
    TRY(network->backend->gather(network->backend, *bias, block->kept,
                                 (size_t)block->reduced.output.channels, block->kept_bias));
    *bias = block->kept_bias;
    return ST_OK;
}

static enum status load_block(struct network *network, int index) {
    struct block *block = &network->blocks[index];
    const float *bias;
    TRY(gather_bias(network, block, &bias));
    if (block->constants != NULL) {
        TRY(constants_fold(network, index, bias));
        bias = block->constants->bias;
    }
    return network->backend->block_plan_load_weights(block->plan, values_of(network, block->weight),
                                                     bias);
}

enum status network_materialize(struct network *network) {
    struct backend *backend = network->backend;
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *p = &network->parameters[i];
        if (is_compact(network, p))
            TRY(backend->scatter(backend, network->beta + p->offset, places_of(p), p->count,
                                 p->dense));
    }
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        if (block->weight >= 0)
            TRY(load_block(network, i));
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

const float *network_block_input(const struct network *network, int index, const float *x) {
    const struct block *block = &network->blocks[index];
    return block->reduction.gathers ? block->gathered.x
           : index > 0              ? network->blocks[index - 1].output
                                    : x;
}

float *network_block_input_gradient(const struct network *network, int index) {
    const struct block *block = &network->blocks[index];
    return block->reduction.gathers ? block->gathered.dx
           : index > 0              ? network->blocks[index - 1].output_gradient
                                    : NULL;
}

static enum status gather_input(const struct block *block, struct backend *backend, int samples,
                                const float *x) {
    const struct gathered_inputs *gathered = &block->gathered;
    return backend->gather(backend, x, gathered->indices, (size_t)samples * gathered->count,
                           gathered->x);
}

/* What is not gathered has no gradient. */
static enum status scatter_input_gradient(const struct network *network, int index, int samples) {
    struct backend *backend = network->backend;
    const struct gathered_inputs *gathered = &network->blocks[index].gathered;
    const struct block *before = block_before(network, index);
    if (before == NULL)
        return ST_OK;
    const size_t outputs = (size_t)samples * shape_size(before->reduced.output);
    TRY(backend->clear(backend, before->output_gradient, outputs * sizeof(float)));
    return backend->scatter(backend, gathered->dx, gathered->indices,
                            (size_t)samples * gathered->count, before->output_gradient);
}

enum status network_forward(struct network *network, const struct block_pass *pass, const float *x,
                            float **logits) {
    const float *input = x;
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        if (block->reduction.gathers)
            TRY(gather_input(block, network->backend, pass->samples, input));
        TRY(network->backend->block_forward(block->plan, pass, network_block_input(network, i, x),
                                            block->output));
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
    TRY(backend->gather(backend, weight->dense_gradient, places_of(weight), weight->count,
                        network->masked ? weight->dense : gradient));
    if (network->masked)
        TRY(backend->scatter(backend, weight->dense, weight->indices, weight->count, gradient));
    return ST_OK;
}

/* Of channels that are not computed: 0, or what the block found that has them in its bias. */
static enum status carry_bias_gradient(struct network *network, int index) {
    struct backend *backend = network->backend;
    const struct block *block = &network->blocks[index];
    const struct constants *c =
        index + 1 < network->blocks_count ? network->blocks[index + 1].constants : NULL;
    float *gradient = gradient_of(network, block->bias);
    if (!block_is_reduced(block))
        return ST_OK;
    TRY(backend->clear(backend, gradient, block_biases(&block->desc) * sizeof *gradient));
    TRY(backend->scatter(backend, block->kept_bias_gradient, block->kept,
                         (size_t)block->reduced.output.channels, gradient));
    return c == NULL ? ST_OK
                     : backend->scatter(backend, c->source_bias_gradient, c->indices, c->channels,
                                        gradient);
}

/* Weight and bias are neighbours. */
static enum status finish_gradient(struct network *network, int index,
                                   const struct gradient_sink *sink) {
    const struct block *block = &network->blocks[index];
    const struct parameter *weight = &network->parameters[block->weight];
    const struct parameter *bias = &network->parameters[block->bias];
    TRY(carry_bias_gradient(network, index));
    if (weight->dense != NULL)
        TRY(carry_gradient(network, weight));
    if (block->statistics >= 0) /* pruning moves the vector's parts: whatever lies there now */
        TRY(network->backend->clear(network->backend,
                                    network->gradient + bias->offset + bias->count,
                                    2 * bias->count * sizeof *network->gradient));
    return sink->ready(sink->context, weight->offset, weight->stored + bias->stored);
}

/* Of the biases of the channels that are kept. */
static float *kept_bias_gradient(struct network *network, const struct block *block) {
    return block_is_reduced(block) ? block->kept_bias_gradient : gradient_of(network, block->bias);
}

static enum status backward_block(struct network *network, int index, const struct block_pass *pass,
                                  const float *x, struct poll poll) {
    struct block *block = &network->blocks[index];
    const struct constants *c = block->constants;
    float *dweights = NULL, *dbias = NULL;
    if (block->weight >= 0) {
        dweights = gradient_of(network, block->weight);
        dbias = c != NULL ? c->bias_gradient : kept_bias_gradient(network, block);
    }
    TRY(network->backend->block_backward(block->plan, pass, network_block_input(network, index, x),
                                         block->output, block->output_gradient, dweights, dbias,
                                         network_block_input_gradient(network, index), poll));
    if (block->reduction.gathers)
        TRY(scatter_input_gradient(network, index, pass->samples));
    return c == NULL ? ST_OK
                     : constants_backward(network, index, kept_bias_gradient(network, block));
}

enum status network_backward(struct network *network, const struct block_pass *pass, const float *x,
                             const struct gradient_sink *sink) {
    for (int i = network->blocks_count - 1; i >= 0; i--) {
        TRY(backward_block(network, i, pass, x, sink->poll));
        if (network->blocks[i].weight >= 0)
            TRY(finish_gradient(network, i, sink));
    }
    return ST_OK;
}
