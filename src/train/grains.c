/* Reproducible updates: the batch in grains that do not depend on the ranks, summed exactly. */
#include "exact.h"
#include "replica_internal.h"

#include <stdlib.h>

static uint32_t whole_parts(uint32_t count, uint32_t part) {
    return count / part + (count % part != 0);
}

uint32_t replica_grain(const struct recipe *recipe) {
    return whole_parts((uint32_t)recipe->train.batch, REPLICA_GRAINS);
}

struct slice replica_shard(const struct recipe *recipe, uint32_t count, int rank, int ranks) {
    if (!recipe->train.reproducible)
        return dataset_shard(count, rank, ranks);
    const uint32_t grain = replica_grain(recipe);
    const struct slice grains = dataset_shard(whole_parts(count, grain), rank, ranks);
    const uint32_t begin = grains.begin * grain, end = begin + grains.count * grain;
    if (grains.count == 0)
        return (struct slice){0, 0};
    return (struct slice){begin, (end < count ? end : count) - begin};
}

enum status replica_check_grains(const struct replica *r) {
    for (int i = 0; i < r->recipe->layers_count; i++)
        if (r->recipe->layers[i].type == LAYER_BATCHNORM)
            FAIL(ST_INPUT,
                 "%s: train.reproducible: layer %s needs sums over the whole batch, which are not "
                 "made exactly",
                 r->recipe->path, r->recipe->layers[i].name);
    if (!r->backend->host_memory)
        FAIL(ST_UNAVAILABLE, "train.reproducible: not on the backend %s", r->backend->name);
    return ST_OK;
}

enum status replica_join_grains(struct replica *r) {
    r->exact = r->sharing.exact;
    if (r->exact == NULL)
        r->exact = malloc(r->network->original_count * sizeof *r->exact);
    if (r->exact == NULL)
        FAIL(ST_MEMORY, "out of memory: the exact gradient");
    return ST_OK;
}

/* One grain on its way. */
struct grain {
    struct replica *r;
    bool first, last;
};

/* Where ranks send, their sums start with the last grain's gradient, layer by layer. */
static enum status add_gradient(void *context, size_t offset, size_t count) {
    const struct grain *grain = context;
    struct replica *r = grain->r;
    if (!exact_add(r->network->gradient + offset, count, grain->first, r->exact + offset,
                   r->backend->threads))
        FAIL(ST_NUMERIC, "update %lld: a gradient of %g or more: train.reproducible cannot sum it",
             (long long)r->step + 1, (double)EXACT_GRADIENT_LIMIT);
    if (!grain->last || replica_shares(r))
        return ST_OK;
    return r->communicator->allreduce_start_doubles(r->communicator, r->exact + offset, count);
}

/* A grain's loss is rounded before it joins the others'. */
static enum status add_loss(struct replica *r, const struct loss_sums *before) {
    struct backend *backend = r->backend;
    struct loss_sums sums;
    TRY(backend->download(backend, &sums, r->sums, sizeof sums));
    sums.loss = before->loss + exact_loss(sums.loss);
    sums.correct += before->correct;
    return backend->upload(backend, r->sums, &sums, sizeof sums);
}

static enum status compute_grain(struct grain *grain, struct slice part, uint32_t batch,
                                 double *mark) {
    struct replica *r = grain->r;
    struct loss_sums before;
    const struct block_pass pass = replica_pass_of(r, part.begin, part.count);
    const struct gradient_sink sink = {
        .ready = add_gradient, .poll = replica_poll(r), .context = grain};
    TRY(r->backend->download(r->backend, &before, r->sums, sizeof before));
    TRY(r->backend->clear(r->backend, r->sums, sizeof before));
    TRY(replica_pass(r, &pass, batch, r->sums, &sink, mark));
    return add_loss(r, &before);
}

/* A rank without a grain takes an empty one: its zeros join the sums. */
enum status replica_compute_grains(struct replica *r, struct slice window, double *mark) {
    const uint32_t size = replica_grain(r->recipe);
    const struct slice shard =
        replica_shard(r->recipe, window.count, r->communicator->rank, r->communicator->size);
    uint32_t done = 0;
    do {
        const uint32_t count = shard.count - done < size ? shard.count - done : size;
        struct grain grain = {r, done == 0, done + count == shard.count};
        TRY(compute_grain(&grain, (struct slice){window.begin + shard.begin + done, count},
                          window.count, mark));
        done += count;
    } while (done < shard.count);
    return ST_OK;
}
