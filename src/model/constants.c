/* Constant channels, folded into the bias of the block that reads them. */
#include "model_internal.h"

#include <stdlib.h>

static struct block_desc describe_source(const struct block *before, int channels) {
    const struct shape units = {1, 1, channels};
    return (struct block_desc){.kind = BLOCK_DENSE,
                               .input = {1, 1, 1},
                               .linear = units,
                               .output = units,
                               .kernel = 1,
                               .stride = 1,
                               .activation = before->desc.activation,
                               .pool = 1,
                               .layer = before->desc.layer};
}

/* What the reader sees at once of its input, and of that the constant channels. */
static struct block_desc describe_reader(const struct block *reader, int channels) {
    const struct block_desc *desc = &reader->reduced;
    const struct shape units = {1, 1, desc->linear.channels};
    struct shape seen = reader->desc.input;
    if (desc->kind == BLOCK_CONV)
        seen.height = seen.width = desc->kernel;
    seen.channels = channels;
    return (struct block_desc){.kind = desc->kind,
                               .input = seen,
                               .linear = units,
                               .output = units,
                               .kernel = desc->kernel,
                               .stride = 1,
                               .activation = ACTIVATION_NONE,
                               .pool = 1,
                               .layer = desc->layer};
}

static enum status allocate(struct backend *backend, size_t count, float **values) {
    return backend->alloc(backend, count * sizeof **values, (void **)values);
}

static enum status allocate_all(struct backend *backend, struct constants *c) {
    const size_t biases = (size_t)c->desc.linear.channels;
    TRY(allocate(backend, c->channels + c->places, &c->zeros));
    TRY(allocate(backend, c->channels, &c->source_bias));
    TRY(allocate(backend, c->channels, &c->discard));
    TRY(allocate(backend, c->channels, &c->source_bias_gradient));
    TRY(allocate(backend, c->channels * c->places, &c->values));
    TRY(allocate(backend, c->channels * c->places, &c->dvalues));
    TRY(allocate(backend, biases, &c->bias));
    return allocate(backend, biases, &c->bias_gradient);
}

static enum status upload_indices(struct backend *backend, const struct block *before,
                                  struct constants *c) {
    uint32_t *indices = malloc(c->channels * sizeof *indices);
    if (indices == NULL)
        FAIL(ST_MEMORY, "out of memory: constant channels of %s", before->name);
    size_t count = 0;
    for (int k = 0; k < before->desc.output.channels; k++)
        if (before->reduction.fates[k] == CHANNEL_CONSTANT)
            indices[count++] = (uint32_t)k;
    const size_t bytes = c->channels * sizeof *indices;
    enum status status = backend->alloc(backend, bytes, (void **)&c->indices);
    if (status == ST_OK)
        status = backend->upload(backend, c->indices, indices, bytes);
    free(indices);
    return status;
}

static enum status create_plans(struct backend *backend, const struct block *before,
                                struct constants *c) {
    const struct block_desc source = describe_source(before, (int)c->channels);
    TRY(backend->block_plan_create(backend, &source, (int)c->places, true, &c->source));
    return backend->block_plan_create(backend, &c->desc, 1, false, &c->reader);
}

enum status constants_create(const struct network *network, int index,
                             struct constants **constants) {
    const struct block *before = block_before(network, index);
    const size_t channels = reduction_count(before, CHANNEL_CONSTANT);
    struct constants *c = calloc(1, sizeof *c);
    *constants = c;
    if (c == NULL)
        FAIL(ST_MEMORY, "out of memory: constant channels of %s", before->name);
    c->channels = channels;
    c->desc = describe_reader(&network->blocks[index], (int)channels);
    c->places = (size_t)c->desc.input.height * (size_t)c->desc.input.width;
    TRY(allocate_all(network->backend, c));
    TRY(upload_indices(network->backend, before, c));
    return create_plans(network->backend, before, c);
}

void constants_destroy(struct backend *backend, struct constants *c) {
    if (c == NULL)
        return;
    backend->block_plan_destroy(c->source);
    backend->block_plan_destroy(c->reader);
    void *const memory[] = {
        c->indices, c->zeros,   c->source_bias, c->discard,      c->source_bias_gradient,
        c->values,  c->dvalues, c->bias,        c->bias_gradient};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        backend->release(backend, memory[i]);
    free(c);
}

/* ---- passes ---- */

static const float *bias_before(const struct network *network, int index) {
    const struct block *before = block_before(network, index);
    return network->beta + network->parameters[before->bias].offset;
}

enum status constants_fold(const struct network *network, int index, const float *bias) {
    struct backend *backend = network->backend;
    struct constants *c = network->blocks[index].constants;
    const struct block_pass all = {.samples = (int)c->places}, one = {.samples = 1};
    TRY(backend->gather(backend, bias_before(network, index), c->indices, c->channels,
                        c->source_bias));
    TRY(backend->block_plan_load_weights(c->source, c->zeros, c->source_bias));
    TRY(backend->block_forward(c->source, &all, c->zeros + c->channels, c->values));
    TRY(backend->block_plan_load_weights(c->reader, c->weights, bias));
    return backend->block_forward(c->reader, &one, c->values, c->bias);
}

enum status constants_backward(const struct network *network, int index, float *dbias) {
    struct backend *backend = network->backend;
    struct constants *c = network->blocks[index].constants;
    const struct block_pass all = {.samples = (int)c->places}, one = {.samples = 1};
    const struct poll poll = {.call = NULL};
    TRY(backend->block_backward(c->reader, &one, c->values, c->bias, c->bias_gradient,
                                c->weight_gradient, dbias, c->dvalues, poll));
    return backend->block_backward(c->source, &all, c->zeros + c->channels, c->values, c->dvalues,
                                   c->discard, c->source_bias_gradient, NULL, poll);
}
