#include "exact.h"
#include "replica_internal.h"

#include <espalier/backend.h>
#include <espalier/break_even.h>
#include <espalier/progress.h>
#include <espalier/rank_backend.h>
#include <espalier/rng.h>
#include <stdlib.h>
#include <string.h>

enum status replica_check_labels(const struct replica *replica, const struct dataset *dataset,
                                 const char *split) {
    const struct recipe *recipe = replica->recipe;
    int units = replica->network->classes;
    if (dataset->classes > units)
        FAIL(ST_INPUT, "%s: the %s labels go up to %d, but the last layer of %s has %d units",
             recipe->data.dir, split, dataset->classes - 1, recipe->path, units);
    return ST_OK;
}

/* The largest share of a batch, which the lowest rank has, or a grain; evaluation goes in passes of
 * the same size, which should keep the threads busy. */
static int pass_samples(const struct recipe *recipe, const struct dataset *train, int ranks) {
    enum { LEAST = 64 };
    uint32_t batch = (uint32_t)recipe->train.batch;
    uint32_t share = dataset_shard(batch < train->count ? batch : train->count, 0, ranks).count;
    if (recipe->train.reproducible)
        share = replica_grain(recipe);
    return share < LEAST ? LEAST : (int)share;
}

enum status replica_create(const struct recipe *recipe, struct communicator *communicator,
                           const struct dataset *train, struct replica *replica) {
    *replica = (struct replica){.recipe = recipe, .communicator = communicator};
    TRY(rank_backend_create(recipe, communicator, &replica->backend));
    struct backend *backend = replica->backend;
    int samples = pass_samples(recipe, train, communicator->size);
    TRY(network_create(recipe, train->shape, samples, backend, &replica->network));
    TRY(replica_check_labels(replica, train, "training"));
    TRY(network_initialize(replica->network, recipe->train.seed));
    TRY(optimizer_create(replica->network, &recipe->train, &replica->optimizer));
    TRY(device_dataset_create(backend, train, &replica->data));
    TRY(backend->alloc(backend, train->count * sizeof(uint32_t),
                       (void **)&replica->device_permutation));
    TRY(backend->alloc(backend, (size_t)samples * shape_size(train->shape) * sizeof(float),
                       (void **)&replica->x));
    TRY(backend->alloc(backend, sizeof *replica->sums, (void **)&replica->sums));
    if (recipe->train.reproducible)
        TRY(replica_create_grains(replica));
    replica->permutation = malloc(train->count * sizeof *replica->permutation);
    if (replica->permutation == NULL)
        FAIL(ST_MEMORY, "out of memory: a permutation of %u samples", train->count);
    return ST_OK;
}

void replica_destroy(struct replica *replica) {
    struct backend *backend = replica->backend;
    if (backend == NULL)
        return;
    backend->release(backend, replica->device_permutation);
    backend->release(backend, replica->x);
    backend->release(backend, replica->sums);
    free(replica->exact);
    device_dataset_destroy(&replica->data);
    optimizer_destroy(&replica->optimizer);
    network_destroy(replica->network);
    sharing_destroy(&replica->sharing);
    backend->destroy(backend);
    free(replica->permutation);
    memset(replica, 0, sizeof *replica);
}

static bool shares(const struct replica *r) {
    return r->sharing.maps != NULL;
}

/* Memory of the host is what the ranks can map. */
enum status replica_join(struct replica *r) {
    if (!r->backend->host_memory || r->exact != NULL)
        return ST_OK;
    TRY(sharing_create(r->communicator, r->network->original_count, &r->sharing));
    if (!shares(r))
        return ST_OK;
    return network_move_vectors(r->network, r->sharing.beta, r->sharing.gradient);
}

enum status replica_complete(struct replica *r) {
    for (int i = 0; shares(r) && i < OPTIMIZER_STATES_MAX; i++)
        if (r->optimizer.states[i] != NULL)
            TRY(sharing_complete(&r->sharing, r->optimizer.states[i], r->network->count));
    return ST_OK;
}

enum status replica_shuffle(struct replica *replica, int epoch) {
    uint32_t count = replica->data.count;
    rng_permutation(replica->recipe->train.seed, (uint32_t)epoch, replica->permutation, count);
    return replica->backend->upload(replica->backend, replica->device_permutation,
                                    replica->permutation, count * sizeof *replica->permutation);
}

static enum status gradient_ready(void *context, size_t offset, size_t count) {
    struct replica *r = context;
    if (shares(r))
        return ST_OK; /* the others will read it where it is */
    return r->communicator->allreduce_start(r->communicator, r->network->gradient + offset, count);
}

static void poll_communicator(void *context) {
    struct replica *r = context;
    r->communicator->poll(r->communicator);
}

struct poll replica_poll(struct replica *r) {
    return (struct poll){.call = r->communicator->size > 1 ? poll_communicator : NULL,
                         .context = r};
}

static enum status sum_over_ranks(void *context, double *values, size_t count) {
    struct replica *r = context;
    return r->communicator->sum_doubles(r->communicator, values, count);
}

struct block_pass replica_pass_of(struct replica *r, uint32_t begin, uint32_t count) {
    return (struct block_pass){.samples = (int)count,
                               .training = true,
                               .seed = r->recipe->train.seed,
                               .update = (uint32_t)r->step,
                               .sample_ids = r->device_permutation + begin,
                               .ranks = {sum_over_ranks, r}};
}

void replica_end_phase(double *phase, double *mark) {
    double now = monotonic_seconds();
    *phase += now - *mark;
    *mark = now;
}

enum status replica_pass(struct replica *r, const struct block_pass *pass, uint32_t batch,
                         struct loss_sums *sums, const struct gradient_sink *sink, double *mark) {
    struct backend *backend = r->backend;
    const uint32_t *ids = pass->sample_ids;
    TRY(backend->gather_batch(backend, r->data.images, r->data.pixels, ids, pass->samples, r->x));
    replica_end_phase(&r->seconds.gather, mark);
    float *logits = NULL;
    TRY(network_forward(r->network, pass, r->x, &logits));
    replica_end_phase(&r->seconds.forward, mark);
    TRY(backend->softmax_cross_entropy(backend, logits, r->network->classes, r->data.labels, ids,
                                       pass->samples, 1.0F / (float)batch,
                                       network_logits_gradient(r->network), sums));
    replica_end_phase(&r->seconds.loss, mark);
    TRY(network_backward(r->network, pass, r->x, sink));
    replica_end_phase(&r->seconds.backward, mark);
    return ST_OK;
}

static enum status compute_gradient(struct replica *r, struct slice window, double *mark) {
    struct slice shard = dataset_shard(window.count, r->communicator->rank, r->communicator->size);
    const struct block_pass pass = replica_pass_of(r, window.begin + shard.begin, shard.count);
    const struct gradient_sink sink = {.ready = gradient_ready,
                                       .poll = shares(r) ? (struct poll){.call = NULL}
                                                         : replica_poll(r),
                                       .context = r};
    return replica_pass(r, &pass, window.count, r->sums, &sink, mark);
}

/* The gradient is summed over the ranks; each updates all parameters. */
static enum status update_all(struct replica *r, double *mark) {
    TRY(r->communicator->allreduce_wait(r->communicator));
    replica_end_phase(&r->seconds.wait, mark);
    if (r->exact != NULL)
        exact_get(r->exact, r->network->count, r->network->gradient, r->backend->threads);
    TRY(optimizer_step(&r->optimizer));
    replica_end_phase(&r->seconds.update, mark);
    return ST_OK;
}

/* In parts that stay in the second cache between the sum and the update. */
static enum status update_own(struct replica *r) {
    enum { PART = 1 << 16 };
    const struct share own = sharing_share(&r->sharing, r->network->count, r->communicator->rank);
    optimizer_begin(&r->optimizer);
    for (size_t done = 0; done < own.count; done += PART) {
        const size_t count = own.count - done < PART ? own.count - done : PART;
        sharing_sum(&r->sharing, (struct share){own.begin + done, count});
        TRY(optimizer_update(&r->optimizer, own.begin + done, count));
    }
    return ST_OK;
}

/* Each rank sums and updates its share, and takes the others' from them. The next gradient is not
 * written before the second meeting, when all have read this one, and the next update not before
 * the first meeting of the next step, when all have taken their shares of this one. */
static enum status update_share(struct replica *r, double *mark) {
    sharing_meet(&r->sharing);
    replica_end_phase(&r->seconds.wait, mark);
    sharing_sum_wishes(&r->sharing, r->requests, REQUEST_COUNT);
    TRY(update_own(r));
    replica_end_phase(&r->seconds.update, mark);
    sharing_meet(&r->sharing);
    replica_end_phase(&r->seconds.wait, mark);
    sharing_fetch(&r->sharing, r->network->count);
    TRY(network_materialize(r->network));
    replica_end_phase(&r->seconds.update, mark);
    return ST_OK;
}

enum status replica_measure_break_even(struct replica *r, struct pruner *pruner, double density) {
    struct slice window = dataset_batch(r->data.count, (uint32_t)r->recipe->train.batch, 0);
    struct slice shard =
        replica_shard(r->recipe, window.count, r->communicator->rank, r->communicator->size);
    /* No training: that would change the running statistics of batch normalisation. */
    const struct block_pass pass = {.samples = (int)shard.count,
                                    .sample_ids =
                                        r->device_permutation + window.begin + shard.begin};
    if (r->recipe->train.reproducible)
        return ST_OK; /* the backend's table does not depend on the machine */
    TRY(replica_shuffle(r, 1));
    TRY(r->backend->gather_batch(r->backend, r->data.images, r->data.pixels, pass.sample_ids,
                                 pass.samples, r->x));
    return break_even_measure(pruner, density, &pass, r->x);
}

enum status replica_update(struct replica *r, struct slice window) {
    double mark = monotonic_seconds();
    if (shares(r))
        sharing_wish(&r->sharing, r->requests, REQUEST_COUNT);
    else
        TRY(r->communicator->allreduce_start(r->communicator, r->requests, REQUEST_COUNT));
    TRY(r->exact != NULL ? replica_compute_grains(r, window, &mark)
                         : compute_gradient(r, window, &mark));
    TRY(shares(r) ? update_share(r, &mark) : update_all(r, &mark));
    r->step++;
    return ST_OK;
}
