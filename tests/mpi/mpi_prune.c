/* Pruning under mpirun: every replica keeps the same, and what is not the same is found out. */
#include "mpi_check.h"
#include "tiny_network.h"
#include <espalier/digest.h>
#include <espalier/prune.h>

static struct communicator *const c = &mpi_check_ranks;

/* A replica with its pruner; event e follows update 10 e and takes an eighth of all. */
struct replica {
    struct backend *backend;
    struct network *network;
    struct prune_settings settings;
    struct pruner pruner;
    float *states[2];
};

static char *layer_names[] = {"dense1", "conv1", "dense2"};

static void replica_create(struct replica *replica, enum prune_scope scope) {
    *replica = (struct replica){.settings = {.layers = layer_names,
                                             .layers_count = 3,
                                             .scope = scope,
                                             .schedule = SCHEDULE_LINEAR,
                                             .rate = 0.125,
                                             .every = 10}};
    CHECK_OK(backend_create("cpu", &(struct backend_options){.threads = 1}, &replica->backend));
    CHECK_OK(tiny_network_create(replica->backend, 1, &replica->network));
    CHECK_OK(network_initialize(replica->network, 5));
    CHECK_OK(pruner_create(replica->network, &replica->settings, (struct run_length){0, 0}, c,
                           &replica->pruner));
    for (int i = 0; i < 2; i++)
        CHECK_OK(replica->backend->alloc(replica->backend, TINY_ALL * sizeof(float),
                                         (void **)&replica->states[i]));
}

static void replica_destroy(struct replica *replica) {
    for (int i = 0; i < 2; i++)
        replica->backend->release(replica->backend, replica->states[i]);
    pruner_destroy(&replica->pruner);
    network_destroy(replica->network);
    replica->backend->destroy(replica->backend);
    c->failed_rank = -1;
}

static enum status step(struct replica *replica, int64_t update) {
    bool pruned = false;
    enum status status = pruner_step(&replica->pruner, update, replica->states, 2, &pruned);
    CHECK(pruned == (update % 10 == 0));
    return status;
}

/* New weights, the same on every rank; an optimizer step's stand-in. */
static void move_weights(struct replica *replica, uint64_t x) {
    float values[TINY_ALL];
    for (size_t i = 0; i < replica->network->count; i++)
        values[i] = tiny_noise(&x);
    CHECK_OK(replica->backend->upload(replica->backend, replica->network->beta, values,
                                      replica->network->count * sizeof *values));
    CHECK_OK(network_materialize(replica->network));
}

/* One survivor or bias of this replica alone. */
static void set_value(struct replica *replica, const char *parameter, size_t j, float value) {
    int p = network_find_parameter(replica->network, parameter);
    CHECK(p >= 0);
    size_t at = replica->network->parameters[p].offset + j;
    CHECK_OK(replica->backend->upload(replica->backend, replica->network->beta + at, &value,
                                      sizeof value));
}

static void check_same_digest(const struct replica *replica) {
    char mine[DIGEST_TEXT_SIZE], first[DIGEST_TEXT_SIZE];
    CHECK_OK(network_digest(replica->network, mine));
    memcpy(first, mine, sizeof first);
    CHECK_OK(c->broadcast(c, first, sizeof first, 0));
    CHECK(strcmp(first, mine) == 0);
}

static void check_counts(const struct replica *replica, int64_t event) {
    const struct network *network = replica->network;
    if (replica->settings.scope == SCOPE_GLOBAL) {
        size_t all = TINY_CONV1 + TINY_DENSE1 + TINY_DENSE2;
        CHECK(network_survivors(network) ==
              schedule_survivors(&replica->pruner.schedule, all, event));
        return;
    }
    for (int p = 0; p < network->parameters_count; p++) {
        const struct parameter *parameter = &network->parameters[p];
        size_t left =
            schedule_survivors(&replica->pruner.schedule, parameter->original_count, event);
        CHECK(parameter->count == (parameter->is_weight ? left : parameter->original_count));
    }
}

static void replicas_stay_identical(enum prune_scope scope) {
    struct replica replica;
    replica_create(&replica, scope);
    for (int64_t update = 1; update <= 90; update++) {
        CHECK_OK(step(&replica, update));
        if (update % 10 != 0)
            continue;
        check_counts(&replica, update / 10);
        check_same_digest(&replica);
        move_weights(&replica, (uint64_t)update);
    }
    CHECK(network_survivors(replica.network) == 0);
    replica_destroy(&replica);
}

/* The verdict on all ranks, naming update, layer and rank. */
static void check_diverged(enum status status, const char *message) {
    CHECK(status == (c->size > 1 ? ST_DIVERGED : ST_OK));
    CHECK(c->size == 1 || strcmp(status_message(), message) == 0);
    CHECK(c->failed_rank == (c->size > 1 ? 0 : -1));
    CHECK(communicator_reports(c) == (c->rank == 0));
}

/* One bit of one bias on the last rank. */
static void a_changed_replica_is_named(void) {
    struct replica replica;
    char message[128];
    replica_create(&replica, SCOPE_LAYER);
    CHECK_OK(step(&replica, 10));
    move_weights(&replica, 1);
    CHECK_OK(pruner_compare_replicas(&replica.pruner, 11));
    set_value(&replica, "dense2.bias", 3, c->rank == c->size - 1 ? 1 + 0x1p-23F : 1);
    snprintf(message, sizeof message,
             "update 20: layer dense2.bias differs between rank 0 and rank %d", c->size - 1);
    check_diverged(step(&replica, 20), message);
    replica_destroy(&replica);
}

/* Equal values everywhere, but on rank 1 another connection survives: only the indices tell. */
static void a_different_mask_is_named(void) {
    struct replica replica;
    replica_create(&replica, SCOPE_LAYER);
    float ones[TINY_DENSE2];
    for (int i = 0; i < TINY_DENSE2; i++)
        ones[i] = 1;
    int dense2 = network_find_parameter(replica.network, "dense2.weight");
    CHECK_OK(network_set_parameter(replica.network, dense2, ones));
    const struct survivors_scope scope = {1, {dense2}};
    struct bitmask mask;
    CHECK_OK(bitmask_create(TINY_DENSE2, &mask));
    bitmask_set(mask.words, 4);
    bitmask_set(mask.words, c->rank == 1 ? 6 : 5);
    CHECK_OK(survivors_keep(replica.network, &scope, &mask, NULL, 0));
    bitmask_destroy(&mask);
    check_diverged(pruner_compare_replicas(&replica.pruner, 7),
                   "update 7: layer dense2.weight differs between rank 0 and rank 1");
    replica_destroy(&replica);
}

/* Rank 0 alone looks at the weights, so it alone finds the NaN. */
static void all_ranks_fail_on_rank_0s_nan(void) {
    struct replica replica;
    replica_create(&replica, SCOPE_GLOBAL);
    if (c->rank == 0)
        set_value(&replica, "dense1.weight", 17, __builtin_nanf(""));
    CHECK(step(&replica, 30) == ST_NUMERIC);
    CHECK(c->failed_rank == 0);
    CHECK_MESSAGE(c->rank == 0 ? "update 30: layer dense1: weight 17 is nan" : "rank 0 failed");
    CHECK(replica.network->count == TINY_ALL);
    replica_destroy(&replica);
}

static enum status no_memory(struct backend *backend, size_t bytes, void **memory) {
    (void)backend, (void)memory;
    FAIL(ST_MEMORY, "out of memory: %zu bytes", bytes);
}

/* The last rank cannot open its dense arrays; the others must not go on without it. */
static void all_ranks_fail_when_one_lacks_memory(void) {
    struct replica replica;
    replica_create(&replica, SCOPE_LAYER);
    bool lacks = c->rank == c->size - 1;
    if (lacks)
        replica.backend->alloc = no_memory;
    char others[64];
    snprintf(others, sizeof others, "rank %d failed", c->size - 1);
    CHECK(step(&replica, 10) == ST_MEMORY);
    CHECK(c->failed_rank == c->size - 1);
    CHECK_MESSAGE(lacks ? "out of memory" : others);
    replica_destroy(&replica);
}

int main(int argc, char **argv) {
    CHECK_OK(communicator_create(&argc, &argv, c));
    replicas_stay_identical(SCOPE_LAYER);
    replicas_stay_identical(SCOPE_GLOBAL);
    a_changed_replica_is_named();
    a_different_mask_is_named();
    all_ranks_fail_on_rank_0s_nan();
    all_ranks_fail_when_one_lacks_memory();
    CHECK_OK(c->barrier(c));
    c->destroy(c);
    return 0;
}
