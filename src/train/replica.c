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
    TRY(backend->alloc(backend, (size_t)samples * sizeof(uint32_t), (void **)&replica->batch_ids));
    TRY(backend->alloc(backend, (size_t)samples * shape_size(train->shape) * sizeof(float),
                       (void **)&replica->x));
    TRY(backend->alloc(backend, sizeof *replica->sums, (void **)&replica->sums));
    if (recipe->train.reproducible)
        TRY(replica_check_grains(replica));
    replica->permutation = malloc(train->count * sizeof *replica->permutation);
    if (replica->permutation == NULL)
        FAIL(ST_MEMORY, "out of memory: a permutation of %u samples", train->count);
    return ST_OK;
}

void replica_destroy(struct replica *replica) {
    struct backend *backend = replica->backend;
    if (backend == NULL)
        return;
    replica->communicator->leave_gpu(replica->communicator);
    backend->release(backend, replica->device_permutation);
    backend->release(backend, replica->batch_ids);
    backend->release(backend, replica->x);
    backend->release(backend, replica->sums);
    if (replica->exact != replica->sharing.exact)
        free(replica->exact);
    device_dataset_destroy(&replica->data);
    optimizer_destroy(&replica->optimizer);
    network_destroy(replica->network);
    sharing_destroy(&replica->sharing);
    staging_destroy(&replica->staging);
    backend->destroy(backend);
    free(replica->permutation);
    memset(replica, 0, sizeof *replica);
}

bool replica_shares(const struct replica *r) {
    return r->sharing.maps != NULL;
}

/* Memory of the host is what the ranks can map. */
static enum status join_memory(struct replica *r) {
    if (!r->backend->host_memory)
        return ST_OK;
    TRY(sharing_create(r->communicator, r->network->original_count, r->recipe->train.reproducible,
                       &r->sharing));
    if (!replica_shares(r))
        return ST_OK;
    return network_move_vectors(r->network, r->sharing.beta, r->sharing.gradient);
}

enum status replica_join(struct replica *r, bool share_gpus) {
    struct communicator *c = r->communicator;
    c->patience_seconds = r->recipe->train.hang_seconds;
    TRY(communicator_join_gpu(c, r->backend->gpu, r->backend->refused, share_gpus));
    TRY_TOGETHER(c, staging_create(c, r->backend, r->network->original_count, &r->staging));
    TRY(join_memory(r));
    if (r->recipe->train.reproducible)
        TRY_TOGETHER(c, replica_join_grains(r));
    return ST_OK;
}

enum status replica_complete(struct replica *r) {
    for (int i = 0; replica_shares(r) && i < OPTIMIZER_STATES_MAX; i++)
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
    if (replica_shares(r))
        return ST_OK; /* the others will read it where it is */
    return staging_start(&r->staging, r->network->gradient, offset, count);
}

static void poll_communicator(void *context) {
    struct replica *r = context;
    r->communicator->poll(r->communicator);
}

struct poll replica_poll(struct replica *r) {
    const bool sends = r->communicator->size > 1 && !replica_shares(r);
    return (struct poll){.call = sends ? poll_communicator : NULL, .context = r};
}

static enum status sum_over_ranks(void *context, double *values, size_t count) {
    struct replica *r = context;
    return staging_sum_doubles(&r->staging, values, count);
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

static enum status compute_gradient(struct replica *r, const struct block_pass *pass,
                                    uint32_t batch, double *mark) {
    const struct gradient_sink sink = {
        .ready = gradient_ready, .poll = replica_poll(r), .context = r};
    return replica_pass(r, pass, batch, r->sums, &sink, mark);
}

static enum status finish_sums(struct replica *r) {
    if (r->exact == NULL)
        return staging_finish(&r->staging, r->network->gradient);
    TRY(r->communicator->allreduce_wait(r->communicator));
    exact_get(r->exact, r->network->count, r->network->gradient, r->backend->threads);
    return ST_OK;
}

/* Through the host, which does not wait for the device's sums. */
static enum status sum_requests(struct replica *r) {
    double sums[REQUEST_COUNT];
    for (int i = 0; i < REQUEST_COUNT; i++)
        sums[i] = (double)r->requests[i];
    TRY(r->communicator->sum_doubles(r->communicator, sums, REQUEST_COUNT));
    for (int i = 0; i < REQUEST_COUNT; i++)
        r->requests[i] = (float)sums[i];
    return ST_OK;
}

/* What blocks compute with follows the survivors. */
static enum status load_weights(struct replica *r, double *mark) {
    TRY(network_materialize(r->network));
    replica_end_phase(&r->seconds.load, mark);
    return ST_OK;
}

/* The gradient is summed over the ranks; each updates all parameters. */
static enum status update_all(struct replica *r, double *mark) {
    TRY(finish_sums(r));
    replica_end_phase(&r->seconds.wait, mark);
    TRY(optimizer_update(&r->optimizer, 0, r->network->count));
    replica_end_phase(&r->seconds.update, mark);
    return load_weights(r, mark);
}

/* In parts that stay in the second cache between the sum and the update. */
static enum status update_own(struct replica *r) {
    enum { PART = 1 << 16 };
    const struct share own = sharing_share(&r->sharing, r->network->count, r->communicator->rank);
    for (size_t done = 0; done < own.count; done += PART) {
        const size_t count = own.count - done < PART ? own.count - done : PART;
        const struct share part = {own.begin + done, count};
        if (r->exact != NULL)
            sharing_sum_exact(&r->sharing, part);
        else
            sharing_sum(&r->sharing, part);
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
    replica_end_phase(&r->seconds.update, mark);
    return load_weights(r, mark);
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

/* ---- an update ---- */

/* As it is read, phase by phase. What the ranks ask for is summed along with the gradient. */
static enum status update_by_phases(struct replica *r, struct slice window, double *mark) {
    struct communicator *c = r->communicator;
    const struct slice shard = dataset_shard(window.count, c->rank, c->size);
    if (replica_shares(r))
        sharing_wish(&r->sharing, r->requests, REQUEST_COUNT);
    else
        TRY(c->allreduce_start(c, r->requests, REQUEST_COUNT));
    if (r->exact != NULL)
        TRY(replica_compute_grains(r, window, mark));
    else {
        const struct block_pass pass = replica_pass_of(r, window.begin + shard.begin, shard.count);
        TRY(compute_gradient(r, &pass, window.count, mark));
    }
    return replica_shares(r) ? update_share(r, mark) : update_all(r, mark);
}

/* A part of a batch on its way through run_step. */
struct replay {
    struct replica *r;
    uint32_t samples, batch;
    double *mark;
};

/* All ranks perform a step alike, as the one does that can do the least; what else they ask for is
 * summed on the way. */
static enum status agree_on_mode(struct replica *r, struct step_work *work) {
    const enum step_mode own = r->backend->step_mode(r->backend, work->key);
    r->requests[REQUEST_RECORDED] = own == STEP_RECORDED;
    r->requests[REQUEST_PLAIN] = own == STEP_PLAIN;
    TRY(sum_requests(r));
    work->mode = r->requests[REQUEST_PLAIN] > 0      ? STEP_PLAIN
                 : r->requests[REQUEST_RECORDED] > 0 ? STEP_RECORDED
                                                     : STEP_REPLAYED;
    return ST_OK;
}

static enum status perform(void *context) {
    const struct replay *replay = context;
    struct replica *r = replay->r;
    struct block_pass pass = replica_pass_of(r, 0, replay->samples);
    pass.sample_ids = r->batch_ids;
    TRY(compute_gradient(r, &pass, replay->batch, replay->mark));
    return update_all(r, replay->mark);
}

/* As a step that the backend may have recorded: the same calls for the same numbers of images. */
static enum status update_by_replay(struct replica *r, struct slice window, double *mark) {
    struct communicator *c = r->communicator;
    struct backend *backend = r->backend;
    const struct slice shard = dataset_shard(window.count, c->rank, c->size);
    const struct step_values values = {.update = (uint32_t)r->step,
                                       .learning_rate =
                                           (float)r->recipe->train.optimizer.learning_rate,
                                       .optimizer_step = r->optimizer.step};
    struct replay replay = {r, shard.count, window.count, mark};
    struct step_work work = {(uint64_t)shard.count << 32 | window.count, perform, &replay,
                             STEP_PLAIN};
    TRY(agree_on_mode(r, &work));
    TRY(backend->copy(backend, r->batch_ids, r->device_permutation + window.begin + shard.begin,
                      shard.count * sizeof *r->batch_ids));
    TRY(backend->run_step(backend, &values, &work));
    replica_end_phase(&r->seconds.update, mark);
    return ST_OK;
}

/* Nothing in such an update may wait for other ranks or pass through the host. */
static bool can_replay(const struct replica *r) {
    return r->exact == NULL && !replica_shares(r) &&
           (r->communicator->device_memory || r->communicator->size == 1);
}

enum status replica_update(struct replica *r, struct slice window) {
    double mark = monotonic_seconds();
    optimizer_begin(&r->optimizer);
    TRY(can_replay(r) ? update_by_replay(r, window, &mark) : update_by_phases(r, window, &mark));
    r->step++;
    return ST_OK;
}
