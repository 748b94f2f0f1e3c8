#include "selection.h"

#include <espalier/deletion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- scopes ---- */

static bool is_listed(const struct prune_settings *settings, const char *layer) {
    for (int i = 0; i < settings->layers_count; i++)
        if (strcmp(settings->layers[i], layer) == 0)
            return true;
    return false;
}

static const char *layer_of(const struct network *network, int parameter) {
    return network->blocks[network->parameters[parameter].block].name;
}

static enum status check_layers(const struct network *network,
                                const struct prune_settings *settings) {
    for (int i = 0; i < settings->layers_count; i++) {
        bool found = false;
        for (int p = 0; p < network->parameters_count; p++)
            found = found || (network->parameters[p].is_weight &&
                              strcmp(layer_of(network, p), settings->layers[i]) == 0);
        if (!found)
            FAIL(ST_INPUT, "prune.layers: the network has no layer '%s' with weights",
                 settings->layers[i]);
    }
    return ST_OK;
}

/* In network order, whatever order the recipe lists the layers in: masks and ties go by it. */
static void fill_scopes(struct pruner *pruner) {
    const struct network *network = pruner->network;
    bool global = pruner->settings->scope == SCOPE_GLOBAL;
    for (int p = 0; p < network->parameters_count; p++) {
        if (!network->parameters[p].is_weight || !is_listed(pruner->settings, layer_of(network, p)))
            continue;
        if (!global || pruner->scopes_count == 0)
            pruner->scopes_count++;
        struct survivors_scope *scope = &pruner->scopes[pruner->scopes_count - 1];
        scope->parameters[scope->count++] = p;
        const struct parameter *parameter = &network->parameters[p];
        size_t connections = parameter->original_count;
        pruner->quotas[pruner->layers_count++] =
            (struct quota){.connections = connections,
                           .least = quota_least(pruner->settings->min_keep, connections),
                           .weight = quota_erk_weight(parameter->size, parameter->dimensions)};
    }
}

static enum status allocate(struct pruner *pruner) {
    const struct network *network = pruner->network;
    size_t largest = 0;
    for (int i = 0; i < pruner->scopes_count; i++) {
        size_t count = survivors_count(network, &pruner->scopes[i]);
        largest = count > largest ? count : largest;
    }
    struct backend *backend = network->backend;
    if (network->masked || pruner->settings->normalise)
        TRY(backend->alloc(backend, largest * sizeof *pruner->device_values,
                           (void **)&pruner->device_values));
    return backend->alloc(backend, bitmask_words(largest) * sizeof *pruner->device_mask,
                          (void **)&pruner->device_mask);
}

enum status pruner_create(struct network *network, const struct prune_settings *settings,
                          struct run_length run, struct communicator *communicator,
                          struct pruner *pruner) {
    *pruner = (struct pruner){.network = network,
                              .settings = settings,
                              .schedule = schedule_plan(settings, run),
                              .communicator = communicator};
    if (settings->layers_count == 0)
        return ST_OK;
    TRY(check_layers(network, settings));
    pruner->scopes = calloc((size_t)settings->layers_count + 1, sizeof *pruner->scopes);
    pruner->quotas = calloc((size_t)settings->layers_count + 1, sizeof *pruner->quotas);
    if (pruner->scopes == NULL || pruner->quotas == NULL)
        FAIL(ST_MEMORY, "out of memory: %d layers to prune", settings->layers_count);
    fill_scopes(pruner);
    if (!network->masked)
        deletion_set_threshold(network, settings->sparse_below);
    return allocate(pruner);
}

static void release_device(struct pruner *pruner) {
    struct backend *backend = pruner->network->backend;
    backend->release(backend, pruner->device_mask);
    backend->release(backend, pruner->device_values);
}

void pruner_destroy(struct pruner *pruner) {
    if (pruner->network != NULL)
        release_device(pruner);
    free(pruner->scopes);
    free(pruner->quotas);
    *pruner = (struct pruner){0};
}

/* ---- how many stay ---- */

/* What `left` says of M connections, for each layer by itself or for all and then shared out. */
struct target {
    size_t (*left)(const struct pruner *, size_t connections, double argument);
    double argument;
};

static size_t left_after_event(const struct pruner *pruner, size_t connections, double event) {
    return schedule_survivors(&pruner->schedule, connections, (int64_t)event);
}

static size_t left_at_density(const struct pruner *pruner, size_t connections, double density) {
    (void)pruner;
    return (size_t)lround(density * (double)connections);
}

/* Fill in the quotas' counts. They do not bind in scope `global`, but their sum does. */
static void set_quotas(struct pruner *pruner, const struct target *target) {
    const struct prune_settings *settings = pruner->settings;
    size_t all = 0;
    for (int i = 0; i < pruner->layers_count; i++) {
        struct quota *quota = &pruner->quotas[i];
        size_t left = target->left(pruner, quota->connections, target->argument);
        quota->count = left > quota->least ? left : quota->least;
        all += quota->connections;
    }
    if (settings->scope == SCOPE_GLOBAL || settings->distribution == DISTRIBUTION_ERK)
        quota_share(pruner->quotas, pruner->layers_count,
                    target->left(pruner, all, target->argument));
}

/* ---- the event ---- */

/* What an event does to one scope. */
struct cut {
    const struct survivors_scope *scope;
    size_t least[RECIPE_LAYERS_MAX]; /* of each of its layers */
    size_t keep;                     /* of the scope; at least their sum */
};

/* Nothing comes back: where more would be left than there are, they stay as they are. */
static void plan_cut(const struct pruner *pruner, const struct survivors_scope *scope,
                     const struct quota *quotas, struct cut *cut) {
    *cut = (struct cut){.scope = scope};
    for (int i = 0; i < scope->count; i++) {
        size_t count = pruner->network->parameters[scope->parameters[i]].count;
        cut->least[i] = quotas[i].least < count ? quotas[i].least : count;
        cut->keep += quotas[i].count;
    }
}

/* Rank 0 selects; every rank has its own mask to receive into. */
static enum status prepare_mask(const struct pruner *pruner, int64_t update, const struct cut *cut,
                                struct bitmask *mask) {
    TRY(bitmask_create(survivors_count(pruner->network, cut->scope), mask));
    if (pruner->communicator->rank != 0)
        return ST_OK;
    return selection_run(pruner, update, cut->scope, cut->least, cut->keep, mask);
}

static enum status share_mask(struct pruner *pruner, const struct survivors_scope *scope,
                              struct bitmask *mask, float *const *states, int states_count) {
    struct communicator *communicator = pruner->communicator;
    size_t bytes = bitmask_words(mask->count) * sizeof *mask->words;
    TRY(communicator->broadcast(communicator, mask->words, bytes, 0));
    return communicator_agree(communicator,
                              survivors_keep(pruner->network, scope, mask, states, states_count));
}

static enum status prune_scope(struct pruner *pruner, int64_t update, const struct cut *cut,
                               float *const *states, int states_count) {
    if (cut->keep >= survivors_count(pruner->network, cut->scope))
        return ST_OK;
    struct bitmask mask = {0, NULL};
    enum status status =
        communicator_agree(pruner->communicator, prepare_mask(pruner, update, cut, &mask));
    if (status == ST_OK)
        status = share_mask(pruner, cut->scope, &mask, states, states_count);
    bitmask_destroy(&mask);
    return status;
}

static enum status prune_scopes(struct pruner *pruner, int64_t update, const struct target *target,
                                float *const *states, int states_count) {
    const struct quota *quotas = pruner->quotas;
    set_quotas(pruner, target);
    for (int i = 0; i < pruner->scopes_count; i++) {
        struct cut cut;
        plan_cut(pruner, &pruner->scopes[i], quotas, &cut);
        TRY(prune_scope(pruner, update, &cut, states, states_count));
        quotas += pruner->scopes[i].count;
    }
    return pruner_compare_replicas(pruner, update);
}

enum status pruner_step(struct pruner *pruner, int64_t update, float *const *states,
                        int states_count, bool *pruned) {
    int64_t event = schedule_event(&pruner->schedule, update);
    *pruned = event > 0 && pruner->scopes_count > 0;
    if (!*pruned)
        return ST_OK;
    const struct target target = {left_after_event, (double)event};
    return prune_scopes(pruner, update, &target, states, states_count);
}

double pruner_least_density(const struct pruner *pruner, int64_t updates) {
    const struct schedule *schedule = &pruner->schedule;
    double least = 1;
    int64_t event = 0;
    for (int64_t update = updates; update > 0 && event == 0; update--)
        event = schedule_event(schedule, update);
    for (int i = 0; event > 0 && i < pruner->scopes_count; i++) {
        size_t original = survivors_original_count(pruner->network, &pruner->scopes[i]);
        size_t left = schedule_survivors(schedule, original, event);
        bool uneven =
            pruner->scopes[i].count > 1 || pruner->settings->distribution != DISTRIBUTION_UNIFORM;
        least = fmin(least, uneven && left < original ? 0 : (double)left / (double)original);
    }
    return least;
}

enum status pruner_prune_to(struct pruner *pruner, double density, int64_t update,
                            float *const *states, int states_count) {
    const struct target target = {left_at_density, density};
    return prune_scopes(pruner, update, &target, states, states_count);
}

/* ---- replicas ---- */

/* Hashes [ranks][parameters]; the same on every rank, so that all come to the same verdict. */
static enum status judge(const struct pruner *pruner, int64_t update, const uint64_t *hashes) {
    const struct network *network = pruner->network;
    int count = network->parameters_count;
    for (int rank = 1; rank < pruner->communicator->size; rank++)
        for (int p = 0; p < count; p++)
            if (hashes[(size_t)rank * (size_t)count + (size_t)p] != hashes[p])
                FAIL(ST_DIVERGED, "update %lld: layer %s differs between rank 0 and rank %d",
                     (long long)update, network->parameters[p].name, rank);
    return ST_OK;
}

static enum status hash_parameters(const struct pruner *pruner, uint64_t *mine) {
    if (mine == NULL)
        FAIL(ST_MEMORY, "out of memory: hashes of %d ranks", pruner->communicator->size);
    for (int p = 0; p < pruner->network->parameters_count; p++)
        TRY(survivors_hash(pruner->network, p, &mine[p]));
    return ST_OK;
}

enum status pruner_compare_replicas(struct pruner *pruner, int64_t update) {
    struct communicator *communicator = pruner->communicator;
    if (communicator->size == 1)
        return ST_OK;
    size_t count = (size_t)pruner->network->parameters_count;
    uint64_t *mine = calloc(((size_t)communicator->size + 1) * count, sizeof *mine);
    enum status status = communicator_agree(communicator, hash_parameters(pruner, mine));
    if (status == ST_OK)
        status = communicator->allgather(communicator, mine, mine + count, count * sizeof *mine);
    if (status == ST_OK)
        status = communicator_agree(communicator, judge(pruner, update, mine + count));
    free(mine);
    return status;
}
