/* bench --plans: the algorithm that each block got, and what it costs. */
#include "bench.h"

#include <espalier/progress.h>
#include <stdio.h>
#include <stdlib.h>

enum { REPEATS = 25 }; /* of each pass; the median is one of them */

struct plans {
    struct replica *replica;
    struct block_pass pass;
    float *saved;            /* device: a copy of dy, which a backward pass may destroy */
    float *dweights, *dbias; /* device: for the largest block */
    double forward[RECIPE_LAYERS_MAX], backward[RECIPE_LAYERS_MAX]; /* seconds of a pass */
};

/* ---- memory ---- */

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static enum status plans_create(struct replica *replica, struct plans *plans) {
    const struct network *network = replica->network;
    struct backend *backend = replica->backend;
    size_t units = 0, weights = 0, biases = 0;
    *plans = (struct plans){.replica = replica};
    for (int i = 0; i < network->blocks_count; i++) {
        const struct block_desc *desc = &network->blocks[i].desc;
        units = larger(units, shape_size(desc->output));
        weights = larger(weights, block_weights(desc));
        biases = larger(biases, block_biases(desc));
    }
    units *= (size_t)network->max_samples;
    TRY(backend->alloc(backend, units * sizeof(float), (void **)&plans->saved));
    TRY(backend->alloc(backend, weights * sizeof(float), (void **)&plans->dweights));
    return backend->alloc(backend, biases * sizeof(float), (void **)&plans->dbias);
}

static void plans_destroy(struct plans *plans) {
    struct backend *backend = plans->replica->backend;
    backend->release(backend, plans->saved);
    backend->release(backend, plans->dweights);
    backend->release(backend, plans->dbias);
}

/* ---- times ---- */

static const float *input_of(const struct plans *plans, int block) {
    return network_block_input(plans->replica->network, block, plans->replica->x);
}

static enum status time_forward(struct plans *plans, int index) {
    const struct block *block = &plans->replica->network->blocks[index];
    struct backend *backend = plans->replica->backend;
    double seconds[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        double begin = monotonic_seconds();
        TRY(backend->block_forward(block->plan, &plans->pass, input_of(plans, index),
                                   block->output));
        TRY(backend->synchronise(backend));
        seconds[i] = monotonic_seconds() - begin;
    }
    qsort(seconds, REPEATS, sizeof *seconds, bench_compare_seconds);
    plans->forward[index] = seconds[REPEATS / 2];
    return ST_OK;
}

static enum status time_backward(struct plans *plans, int index) {
    struct block *blocks = plans->replica->network->blocks, *block = &blocks[index];
    struct backend *backend = plans->replica->backend;
    float *dy = block->output_gradient,
          *dx = network_block_input_gradient(plans->replica->network, index);
    size_t bytes = dy == NULL
                       ? 0 /* joined to the next block */
                       : (size_t)plans->pass.samples * shape_size(block->desc.output) * sizeof *dy;
    const struct poll poll = {.call = NULL};
    double seconds[REPEATS];
    TRY(backend->copy(backend, plans->saved, dy, bytes));
    for (int i = 0; i < REPEATS; i++) {
        TRY(backend->copy(backend, dy, plans->saved, bytes));
        TRY(backend->synchronise(backend));
        double begin = monotonic_seconds();
        TRY(backend->block_backward(block->plan, &plans->pass, input_of(plans, index),
                                    block->output, dy, plans->dweights, plans->dbias, dx, poll));
        TRY(backend->synchronise(backend));
        seconds[i] = monotonic_seconds() - begin;
    }
    qsort(seconds, REPEATS, sizeof *seconds, bench_compare_seconds);
    plans->backward[index] = seconds[REPEATS / 2];
    return ST_OK;
}

/* The first batch of the permutation, as an update would take it. */
static enum status load_batch(struct plans *plans) {
    struct replica *r = plans->replica;
    struct slice window = dataset_batch(r->data.count, (uint32_t)r->recipe->train.batch, 0);
    struct slice shard = dataset_shard(window.count, r->communicator->rank, r->communicator->size);
    plans->pass = (struct block_pass){.samples = (int)shard.count,
                                      .training = true,
                                      .seed = r->recipe->train.seed,
                                      .update = (uint32_t)r->step,
                                      .sample_ids = r->device_permutation + shard.begin};
    return r->backend->gather_batch(r->backend, r->data.images, r->data.pixels,
                                    plans->pass.sample_ids, plans->pass.samples, r->x);
}

/* Each pass runs on what those before it have left, as in an update. */
static enum status time_all(struct plans *plans) {
    struct replica *r = plans->replica;
    const struct network *network = r->network;
    int last = network->blocks_count - 1;
    TRY(load_batch(plans));
    for (int i = 0; i <= last; i++)
        TRY(time_forward(plans, i));
    TRY(r->backend->softmax_cross_entropy(r->backend, network->blocks[last].output,
                                          network->classes, r->data.labels, plans->pass.sample_ids,
                                          plans->pass.samples, 1.0F / (float)r->recipe->train.batch,
                                          network_logits_gradient(r->network), r->sums));
    for (int i = last; i >= 0; i--)
        TRY(time_backward(plans, i));
    return ST_OK;
}

/* ---- the table ---- */

/* Multiplications and additions of a block's linear map on one sample, by its definition: each
 * weight is used once at each place of a convolution. */
static double direct_flops(const struct block_desc *desc) {
    double places = desc->kind == BLOCK_CONV ? desc->linear.height * desc->linear.width : 1;
    return 2 * (double)block_weights(desc) * places;
}

static bool is_joined(const struct plans *plans, int index) {
    return plans->replica->network->blocks[index].output_gradient == NULL;
}

/* Of a batch, of this block and of those before that are joined to it; one that is joined to the
 * next has none of its own. `backward`: of the weights and of the input. */
static double flops_of(const struct plans *plans, int index, bool backward) {
    const struct block *blocks = plans->replica->network->blocks;
    double flops = 0;
    if (is_joined(plans, index))
        return 0;
    for (int i = index; i >= 0 && (i == index || is_joined(plans, i)); i--)
        flops += direct_flops(&blocks[i].desc) * (backward && i > 0 ? 2 : 1);
    return flops * plans->pass.samples;
}

static void print_pass(const char *algorithm, double flops, double seconds) {
    printf("  %-16s %9.3f", algorithm, 1e3 * seconds);
    if (flops > 0 && seconds > 0)
        printf(" %9.1f", 1e-9 * flops / seconds);
    else
        printf(" %9s", "-");
}

static void print_block(const struct plans *plans, int index, double step_seconds) {
    const struct block *block = &plans->replica->network->blocks[index];
    const char *forward, *backward;
    plans->replica->backend->block_plan_algorithms(block->plan, &forward, &backward);
    printf("%-12s", block->name);
    print_pass(forward, flops_of(plans, index, false), plans->forward[index]);
    print_pass(backward, flops_of(plans, index, true), plans->backward[index]);
    printf(" %7.1f %%\n", 100 * (plans->forward[index] + plans->backward[index]) / step_seconds);
}

static void print_table(const struct plans *plans, double step_seconds) {
    printf("\n%-12s  %-16s %9s %9s  %-16s %9s %9s %9s\n", "block", "forward", "ms", "GFLOPS",
           "backward", "ms", "GFLOPS", "of step");
    for (int i = 0; i < plans->replica->network->blocks_count; i++)
        print_block(plans, i, step_seconds);
    printf("\nEach pass by itself, %d images, median of %d; GFLOPS are those that a direct "
           "algorithm would need; without them, the pass is computed with that of the block "
           "below.\n",
           plans->pass.samples, REPEATS);
}

enum status bench_print_plans(struct replica *replica, double step_seconds) {
    struct plans plans;
    enum status status = plans_create(replica, &plans);
    if (status == ST_OK)
        status = time_all(&plans);
    if (status == ST_OK && replica->communicator->rank == 0)
        print_table(&plans, step_seconds);
    plans_destroy(&plans);
    return status;
}
