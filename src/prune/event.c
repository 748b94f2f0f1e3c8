#include <espalier/prune.h>
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
    }
}

static enum status allocate_mask(struct pruner *pruner) {
    size_t largest = 0;
    for (int i = 0; i < pruner->scopes_count; i++) {
        size_t count = survivors_count(pruner->network, &pruner->scopes[i]);
        largest = count > largest ? count : largest;
    }
    struct backend *backend = pruner->network->backend;
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
    if (pruner->scopes == NULL)
        FAIL(ST_MEMORY, "out of memory: %d layers to prune", settings->layers_count);
    fill_scopes(pruner);
    return allocate_mask(pruner);
}

void pruner_destroy(struct pruner *pruner) {
    if (pruner->network != NULL)
        pruner->network->backend->release(pruner->network->backend, pruner->device_mask);
    free(pruner->scopes);
    *pruner = (struct pruner){0};
}

/* ---- selection ---- */

/* The name and original index of the first survivor that is no number. `values` and `indices` hold
 * the survivors of parameter p on the host; indices is NULL while all survive. */
static enum status name_invalid(const struct pruner *pruner, int64_t update, int parameter,
                                const float *values, const uint32_t *indices) {
    for (size_t j = 0; j < pruner->network->parameters[parameter].count; j++)
        if (!isfinite(values[j]))
            FAIL(ST_NUMERIC, "update %lld: layer %s: weight %zu is %s", (long long)update,
                 layer_of(pruner->network, parameter), indices != NULL ? (size_t)indices[j] : j,
                 isnan(values[j]) ? "nan" : "infinite");
    return ST_OK;
}

/* ST_NUMERIC if parameter p holds what is no number; any failure says so itself. */
static enum status search_parameter(const struct pruner *pruner, int64_t update, int parameter) {
    const struct parameter *p = &pruner->network->parameters[parameter];
    struct backend *backend = pruner->network->backend;
    enum status status = ST_OK;
    float *values = malloc((p->count + 1) * sizeof *values);
    uint32_t *indices = p->indices != NULL ? malloc((p->count + 1) * sizeof *indices) : NULL;
    if (values == NULL || (p->indices != NULL && indices == NULL))
        TRY_OUT(status_fail(ST_MEMORY, "out of memory: a copy of %s", p->name));
    TRY_OUT(backend->download(backend, values, pruner->network->beta + p->offset,
                              p->count * sizeof *values));
    if (indices != NULL)
        TRY_OUT(backend->download(backend, indices, p->indices, p->count * sizeof *indices));
    TRY_OUT(name_invalid(pruner, update, parameter, values, indices));
out:
    free(values);
    free(indices);
    return status;
}

/* The backend knows segments; say layer and original index instead. */
static enum status explain_numeric(const struct pruner *pruner, int64_t update,
                                   const struct survivors_scope *scope) {
    for (int i = 0; i < scope->count; i++)
        TRY(search_parameter(pruner, update, scope->parameters[i]));
    return ST_NUMERIC;
}

static enum status select_survivors(const struct pruner *pruner, int64_t update,
                                    const struct survivors_scope *scope, size_t keep,
                                    struct bitmask *mask) {
    struct backend *backend = pruner->network->backend;
    struct segment segments[RECIPE_LAYERS_MAX];
    for (int i = 0; i < scope->count; i++) {
        const struct parameter *p = &pruner->network->parameters[scope->parameters[i]];
        segments[i] = (struct segment){pruner->network->beta + p->offset, p->count};
    }
    enum status status =
        backend->select_largest(backend, segments, scope->count, keep, pruner->device_mask);
    if (status == ST_NUMERIC)
        return explain_numeric(pruner, update, scope);
    TRY(status);
    return backend->download(backend, mask->words, pruner->device_mask,
                             bitmask_words(mask->count) * sizeof *mask->words);
}

/* ---- the event ---- */

/* Rank 0 selects; every rank has its own mask to receive into. */
static enum status prepare_mask(const struct pruner *pruner, int64_t update,
                                const struct survivors_scope *scope, size_t keep,
                                struct bitmask *mask) {
    TRY(bitmask_create(survivors_count(pruner->network, scope), mask));
    if (pruner->communicator->rank != 0)
        return ST_OK;
    return select_survivors(pruner, update, scope, keep, mask);
}

static enum status share_mask(struct pruner *pruner, const struct survivors_scope *scope,
                              struct bitmask *mask, float *const *states, int states_count) {
    struct communicator *communicator = pruner->communicator;
    size_t bytes = bitmask_words(mask->count) * sizeof *mask->words;
    TRY(communicator->broadcast(communicator, mask->words, bytes, 0));
    return communicator_agree(communicator,
                              survivors_keep(pruner->network, scope, mask, states, states_count));
}

/* Nothing comes back: where more would be left than there are, they stay as they are. */
static enum status prune_scope(struct pruner *pruner, int64_t update,
                               const struct survivors_scope *scope, size_t keep,
                               float *const *states, int states_count) {
    if (keep >= survivors_count(pruner->network, scope))
        return ST_OK;
    struct bitmask mask = {0, NULL};
    enum status status =
        communicator_agree(pruner->communicator, prepare_mask(pruner, update, scope, keep, &mask));
    if (status == ST_OK)
        status = share_mask(pruner, scope, &mask, states, states_count);
    bitmask_destroy(&mask);
    return status;
}

enum status pruner_step(struct pruner *pruner, int64_t update, float *const *states,
                        int states_count, bool *pruned) {
    int64_t event = schedule_event(&pruner->schedule, update);
    *pruned = event > 0 && pruner->scopes_count > 0;
    if (!*pruned)
        return ST_OK;
    for (int i = 0; i < pruner->scopes_count; i++) {
        const struct survivors_scope *scope = &pruner->scopes[i];
        size_t keep = schedule_survivors(&pruner->schedule,
                                         survivors_original_count(pruner->network, scope), event);
        TRY(prune_scope(pruner, update, scope, keep, states, states_count));
    }
    return pruner_compare_replicas(pruner, update);
}

enum status pruner_prune_to(struct pruner *pruner, double density, int64_t update,
                            float *const *states, int states_count) {
    for (int i = 0; i < pruner->scopes_count; i++) {
        const struct survivors_scope *scope = &pruner->scopes[i];
        double original = (double)survivors_original_count(pruner->network, scope);
        size_t keep = (size_t)lround(density * original);
        TRY(prune_scope(pruner, update, scope, keep, states, states_count));
    }
    return pruner_compare_replicas(pruner, update);
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
