#include <espalier/break_even.h>

#include <espalier/digest.h>
#include <espalier/progress.h>
#include <math.h>
#include <stdlib.h>

/* A pass takes time a + b density in sparse form: two densities tell where it meets the dense form,
 * which is not searched beyond MOST. The first is what the run leaves, though not below LEAST:
 * there nothing is interpolated. */
static const double least = 0.02, apart = 0.2, most = 0.5;

/* Forms take turns, since a machine does not stay as fast as it is; the fastest pass counts. */
enum { ROUNDS = 3, REPEATS = 4 };

/* Multiplications for a sample below which a block is not worth the measurement. */
static const double worthwhile = 32768;

/* A block, and all those whose passes are joined to its own: first .. last. */
struct probe {
    struct network *network;
    const struct block_pass *pass;
    const struct block *block;
    int index, first, last;
    const float *x; /* of the network */
    float *saved; /* device: a gradient of the last one's output, which a backward pass destroys */
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
    struct network *network = p->network;
    const struct parameter *weight = &network->parameters[p->block->weight];
    const struct parameter *bias = &network->parameters[p->block->bias];
    TRY(network_part(network, p->index - 1));
    TRY(network_part(network, p->index));
    TRY(network->backend->block_plan_set_survivors(p->block->plan, survivors));
    TRY(network->backend->block_plan_load_weights(p->block->plan, network->beta + weight->offset,
                                                  network->beta + bias->offset));
    return network_join(network);
}

static enum status forward(const struct probe *p) {
    const struct network *network = p->network;
    for (int i = p->first; i <= p->last; i++) {
        const struct block *block = &network->blocks[i];
        TRY(network->backend->block_forward(block->plan, p->pass,
                                            network_block_input(network, i, p->x), block->output));
    }
    return ST_OK;
}

static float *gradient_of(const struct network *network, int parameter) {
    return parameter < 0 ? NULL : network->gradient + network->parameters[parameter].offset;
}

static enum status backward(const struct probe *p) {
    const struct network *network = p->network;
    for (int i = p->last; i >= p->first; i--) {
        const struct block *block = &network->blocks[i];
        TRY(network->backend->block_backward(
            block->plan, p->pass, network_block_input(network, i, p->x), block->output,
            block->output_gradient, gradient_of(network, block->weight),
            gradient_of(network, block->bias), network_block_input_gradient(network, i),
            (struct poll){NULL, NULL}));
    }
    return ST_OK;
}

static size_t output_bytes(const struct probe *p) {
    return (size_t)p->pass->samples * shape_size(p->network->blocks[p->last].desc.output) *
           sizeof(float);
}

/* Forward and backward, once; *seconds is the least so far. */
static enum status time_pass(const struct probe *p, double *seconds) {
    struct backend *backend = p->network->backend;
    TRY(backend->copy(backend, p->network->blocks[p->last].output_gradient, p->saved,
                      output_bytes(p)));
    TRY(backend->synchronise(backend));
    const double begin = monotonic_seconds();
    TRY(forward(p));
    TRY(backward(p));
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

static enum status time_dense(const struct probe *p, double *seconds) {
    const struct block_survivors all = {NULL, block_weights(&p->block->desc), false};
    return time_form(p, &all, seconds);
}

static enum status time_sparse(const struct probe *p, double density, double *seconds) {
    struct backend *backend = p->network->backend;
    const size_t count = draw_survivors(p, density);
    const struct block_survivors survivors = {p->indices, count, true};
    TRY(backend->upload(backend, p->indices, p->host_indices, count * sizeof *p->indices));
    return time_form(p, &survivors, seconds);
}

/* Far enough from the first density to tell the slope, and where dense form may still be slower. */
static double other_density(double density) {
    return density > most / 2 ? density / 2 : fmax(2 * density, apart);
}

static enum status measure_block(const struct probe *p, double density, double *below) {
    const double at = fmax(density, least), other = other_density(at);
    double dense = INFINITY, sparse = INFINITY, sparse_other = INFINITY;
    for (int i = 0; i < ROUNDS; i++) {
        TRY(time_sparse(p, at, &sparse));
        TRY(time_sparse(p, other, &sparse_other));
        TRY(time_dense(p, &dense)); /* last: the form that the block had */
    }
    const double slope = (sparse_other - sparse) / (other - at);
    const double meets = slope > 0 ? at + (dense - sparse) / slope : sparse < dense ? most : 0;
    *below = fmin(fmax(meets, 0), most);
    return ST_OK;
}

/* ---- all blocks ---- */

/* A gradient that is nowhere zero: what pooling and activation zero, they zero themselves. */
static enum status upload_gradient(const struct probe *p) {
    const size_t bytes = output_bytes(p), count = bytes / sizeof(float);
    float *values = malloc(bytes + 1);
    if (values == NULL)
        FAIL(ST_MEMORY, "out of memory: a gradient of %s", p->block->name);
    for (size_t i = 0; i < count; i++)
        values[i] = 1e-3F * (float)((hash_mix(i) >> 40) + 1) * 0x1p-24F;
    enum status status = p->network->backend->upload(p->network->backend, p->saved, values, bytes);
    free(values);
    return status;
}

static enum status probe_block(struct probe *p, double density, double *below) {
    struct backend *backend = p->network->backend;
    const size_t weights = block_weights(&p->block->desc);
    enum status status = ST_OK;
    p->host_indices = malloc(weights * sizeof *p->host_indices);
    if (p->host_indices == NULL)
        TRY_OUT(status_fail(ST_MEMORY, "out of memory: survivors of %s", p->block->name));
    TRY_OUT(backend->alloc(backend, weights * sizeof *p->indices, (void **)&p->indices));
    TRY_OUT(backend->alloc(backend, output_bytes(p), (void **)&p->saved));
    TRY_OUT(upload_gradient(p));
    TRY_OUT(measure_block(p, density, below));
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

/* Blocks that compute together are measured together, as they will run: what one hands to the next
 * stays in the caches there. Which are joined does not go by their form. */
static struct probe probe_of(struct network *network, int index, const struct block_pass *pass,
                             const float *x) {
    struct probe p = {.network = network,
                      .pass = pass,
                      .block = &network->blocks[index],
                      .index = index,
                      .first = index,
                      .last = index,
                      .x = x};
    while (p.first > 0 && network->blocks[p.first - 1].output_gradient == NULL)
        p.first--;
    while (network->blocks[p.last].output_gradient == NULL)
        p.last++;
    return p;
}

/* The group's own passes are those of training: in evaluation joined blocks keep nothing for a
 * backward pass. They hold no batch normalisation, whose statistics would move. */
static enum status measure_scopes(struct pruner *pruner, double density,
                                  const struct block_pass *pass, const float *x, double *below) {
    struct network *network = pruner->network;
    struct block_pass training = *pass;
    float *logits;
    training.training = true;
    TRY(network_forward(network, pass, x, &logits));
    for (int s = 0; s < pruner->scopes_count; s++)
        for (int i = 0; i < pruner->scopes[s].count; i++) {
            const int b = network->parameters[pruner->scopes[s].parameters[i]].block;
            struct probe probe = probe_of(network, b, &training, x);
            if (is_worthwhile(network, probe.block))
                TRY(probe_block(&probe, density, &below[b]));
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
        status = measure_scopes(pruner, density, pass, x, below);
    TRY(communicator_agree(communicator, status));
    TRY(communicator->broadcast(communicator, below, sizeof below, 0));
    for (int b = 0; b < network->blocks_count; b++)
        network->blocks[b].sparse_below = below[b];
    return ST_OK;
}
