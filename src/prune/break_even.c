#include <espalier/break_even.h>

#include <espalier/digest.h>
#include <espalier/progress.h>
#include <math.h>
#include <stdlib.h>

/* A pass takes time a + b density in sparse form: two densities tell where it meets the dense form,
 * which is not searched beyond MOST. */
static const double densities[] = {0.02, 0.2}, most = 0.5;

enum { REPEATS = 5 }; /* the fastest counts */

/* Multiplications for a sample below which a block is not worth the measurement. */
static const double worthwhile = 32768;

struct probe {
    struct network *network;
    const struct block_pass *pass;
    const struct block *block;
    const float *input;
    float *input_gradient; /* NULL: the first block */
    float *saved;          /* device: a gradient of the output, which a backward pass destroys */
    uint32_t *host_indices, *indices; /* [weights] */
};

/* ---- one block ---- */

/* Each weight is left by a coin of its own. */
static size_t draw_survivors(const struct probe *p, double density) {
    const size_t weights = block_weights(&p->block->desc);
    size_t count = 0;
    for (uint32_t i = 0; i < weights; i++)
        if ((double)hash_mix(i + 1) < density * 0x1p64)
            p->host_indices[count++] = i;
    return count;
}

/* Weights of any value do: the first ones of beta stand for the survivors. */
static enum status set_form(const struct probe *p, const struct block_survivors *survivors) {
    const struct network *network = p->network;
    const struct parameter *weight = &network->parameters[p->block->weight];
    const struct parameter *bias = &network->parameters[p->block->bias];
    TRY(network->backend->block_plan_set_survivors(p->block->plan, survivors));
    return network->backend->block_plan_load_weights(p->block->plan, network->beta + weight->offset,
                                                     network->beta + bias->offset);
}

/* Forward and backward, once; *seconds is the least so far. */
static enum status time_pass(const struct probe *p, double *seconds) {
    const struct network *network = p->network;
    const struct block *block = p->block;
    struct backend *backend = network->backend;
    const size_t bytes = (size_t)p->pass->samples * shape_size(block->desc.output) * sizeof(float);
    TRY(backend->copy(backend, block->output_gradient, p->saved, bytes));
    TRY(backend->synchronise(backend));
    const double begin = monotonic_seconds();
    TRY(backend->block_forward(block->plan, p->pass, p->input, block->output));
    TRY(backend->block_backward(block->plan, p->pass, p->input, block->output,
                                block->output_gradient,
                                network->gradient + network->parameters[block->weight].offset,
                                network->gradient + network->parameters[block->bias].offset,
                                p->input_gradient, (struct poll){NULL, NULL}));
    TRY(backend->synchronise(backend));
    *seconds = fmin(*seconds, monotonic_seconds() - begin);
    return ST_OK;
}

static enum status time_form(const struct probe *p, const struct block_survivors *survivors,
                             double *seconds) {
    TRY(set_form(p, survivors));
    for (int i = 0; i < REPEATS; i++)
        TRY(time_pass(p, seconds));
    return ST_OK;
}

static enum status time_sparse(const struct probe *p, double density, double *seconds) {
    struct backend *backend = p->network->backend;
    const size_t count = draw_survivors(p, density);
    const struct block_survivors survivors = {p->indices, count, true};
    *seconds = INFINITY;
    TRY(backend->upload(backend, p->indices, p->host_indices, count * sizeof *p->indices));
    return time_form(p, &survivors, seconds);
}

/* The dense form before and after, since a machine does not stay as fast as it is. */
static enum status measure_block(const struct probe *p, double *below) {
    const struct block_survivors all = {NULL, block_weights(&p->block->desc), false};
    double dense = INFINITY, sparse[2];
    TRY(time_form(p, &all, &dense));
    TRY(time_sparse(p, densities[0], &sparse[0]));
    TRY(time_sparse(p, densities[1], &sparse[1]));
    TRY(time_form(p, &all, &dense));
    const double slope = (sparse[1] - sparse[0]) / (densities[1] - densities[0]);
    const double meets = slope > 0 ? densities[0] + (dense - sparse[0]) / slope : most;
    *below = fmin(fmax(meets, 0), most);
    return ST_OK;
}

/* ---- all blocks ---- */

/* A gradient that is nowhere zero: what pooling and activation zero, they zero themselves. */
static enum status upload_gradient(const struct probe *p) {
    const size_t count = (size_t)p->pass->samples * shape_size(p->block->desc.output);
    float *values = malloc(count * sizeof *values + 1);
    if (values == NULL)
        FAIL(ST_MEMORY, "out of memory: a gradient of %s", p->block->name);
    for (size_t i = 0; i < count; i++)
        values[i] = 1e-3F * (float)((hash_mix(i) >> 40) + 1) * 0x1p-24F;
    enum status status =
        p->network->backend->upload(p->network->backend, p->saved, values, count * sizeof *values);
    free(values);
    return status;
}

static enum status probe_block(struct probe *p, double *below) {
    struct backend *backend = p->network->backend;
    const struct block_desc *desc = &p->block->desc;
    const size_t weights = block_weights(desc);
    enum status status = ST_OK;
    p->host_indices = malloc(weights * sizeof *p->host_indices);
    if (p->host_indices == NULL)
        TRY_OUT(status_fail(ST_MEMORY, "out of memory: survivors of %s", p->block->name));
    TRY_OUT(backend->alloc(backend, weights * sizeof *p->indices, (void **)&p->indices));
    TRY_OUT(backend->alloc(backend,
                           (size_t)p->pass->samples * shape_size(desc->output) * sizeof(float),
                           (void **)&p->saved));
    TRY_OUT(upload_gradient(p));
    TRY_OUT(measure_block(p, below));
out:
    backend->release(backend, p->saved);
    backend->release(backend, p->indices);
    free(p->host_indices);
    return status;
}

static bool is_worthwhile(const struct network *network, const struct block *block) {
    const struct shape linear = block->desc.linear;
    const double pixels = (double)linear.height * (double)linear.width;
    return (double)block_weights(&block->desc) * pixels >= worthwhile &&
           network->backend->block_plan_sparse_below(block->plan) > 0;
}

/* Apart from its neighbours, whose gradients are needed here. */
static enum status probe_apart(struct probe *p, int index, double *below) {
    TRY(network_part(p->network, index - 1));
    TRY(network_part(p->network, index));
    p->input_gradient = index == 0 ? NULL : p->network->blocks[index - 1].output_gradient;
    TRY(probe_block(p, below));
    return network_join(p->network);
}

static enum status measure_scopes(struct pruner *pruner, const struct block_pass *pass,
                                  const float *x, double *below) {
    struct network *network = pruner->network;
    float *logits;
    TRY(network_forward(network, pass, x, &logits));
    for (int s = 0; s < pruner->scopes_count; s++)
        for (int i = 0; i < pruner->scopes[s].count; i++) {
            const int b = network->parameters[pruner->scopes[s].parameters[i]].block;
            struct probe probe = {.network = network,
                                  .pass = pass,
                                  .block = &network->blocks[b],
                                  .input = b == 0 ? x : network->blocks[b - 1].output};
            if (is_worthwhile(network, probe.block))
                TRY(probe_apart(&probe, b, &below[b]));
        }
    return ST_OK;
}

enum status break_even_measure(struct pruner *pruner, double density, const struct block_pass *pass,
                               const float *x) {
    struct communicator *communicator = pruner->communicator;
    struct network *network = pruner->network;
    double below[RECIPE_LAYERS_MAX];
    if (network->masked || pruner->settings->sparse_below >= 0 || density >= most ||
        pass->samples == 0)
        return ST_OK;
    for (int b = 0; b < network->blocks_count; b++)
        below[b] = network->blocks[b].sparse_below;
    enum status status = ST_OK;
    if (communicator->rank == 0 && network->backend->gpu == NULL)
        status = measure_scopes(pruner, pass, x, below);
    TRY(communicator_agree(communicator, status));
    TRY(communicator->broadcast(communicator, below, sizeof below, 0));
    for (int b = 0; b < network->blocks_count; b++)
        network->blocks[b].sparse_below = below[b];
    return ST_OK;
}
