#include "masking.h"

#include <espalier/deletion.h>
#include <espalier/digest.h>

size_t survivors_count(const struct network *network, const struct survivors_scope *scope) {
    size_t sum = 0;
    for (int i = 0; i < scope->count; i++)
        sum += network->parameters[scope->parameters[i]].count;
    return sum;
}

size_t survivors_original_count(const struct network *network,
                                const struct survivors_scope *scope) {
    size_t sum = 0;
    for (int i = 0; i < scope->count; i++)
        sum += network->parameters[scope->parameters[i]].original_count;
    return sum;
}

/* ---- one mask over all of beta ---- */

/* The scope's mask spread over beta; what is out of scope is kept. Both are in network order. */
static void spread_mask(const struct network *network, const struct survivors_scope *scope,
                        const struct bitmask *mask, struct bitmask *full) {
    size_t read = 0;
    for (int p = 0, next = 0; p < network->parameters_count; p++) {
        const struct parameter *parameter = &network->parameters[p];
        if (next < scope->count && scope->parameters[next] == p) {
            bitmask_copy(mask->words, read, full->words, parameter->offset, parameter->count);
            read += parameter->count;
            next++;
        } else
            bitmask_fill(full->words, parameter->offset, parameter->count);
    }
}

/* ---- applying it ---- */

enum { PART = 16384 }; /* indices */

static size_t kept_of(const struct parameter *p, const struct bitmask *full) {
    return bitmask_count_range(full->words, p->offset, p->count);
}

/* Part by part, by way of memory that stays in the caches. */
static enum status upload_identity(struct backend *backend, const struct parameter *p,
                                   uint32_t *indices) {
    uint32_t part[PART];
    for (size_t first = 0; first < p->original_count; first += PART) {
        const size_t left = p->original_count - first, count = left < PART ? left : PART;
        for (size_t i = 0; i < count; i++)
            part[i] = (uint32_t)(first + i);
        TRY(backend->upload(backend, indices + first, part, count * sizeof *part));
    }
    return ST_OK;
}

/* All of them or none, since the network goes by the indices. */
enum status survivors_open(struct backend *backend, struct parameter *p) {
    enum status status = ST_OK;
    uint32_t *indices = NULL;
    float *dense = NULL, *dense_gradient = NULL;
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *indices, (void **)&indices));
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *dense, (void **)&dense));
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *dense, (void **)&dense_gradient));
    TRY_OUT(upload_identity(backend, p, indices));
    backend->release(backend, p->dense); /* of a block that is a part of its layer */
    backend->release(backend, p->dense_gradient);
    p->indices = indices;
    p->dense = dense;
    p->dense_gradient = dense_gradient;
    p->room = p->original_count;
    return ST_OK;
out:
    backend->release(backend, indices);
    backend->release(backend, dense);
    backend->release(backend, dense_gradient);
    return status;
}

/* Everything that can fail for want of memory, before anything moves. */
static enum status open_parameters(struct network *network, const struct bitmask *full) {
    for (int i = 0; i < network->parameters_count; i++) {
        struct parameter *p = &network->parameters[i];
        if (p->indices == NULL && kept_of(p, full) < p->count)
            TRY(survivors_open(network->backend, p));
    }
    return ST_OK;
}

/* The vectors parallel to beta. */
static enum status compact_vectors(struct network *network, const uint64_t *device_mask,
                                   float *const *states, int states_count) {
    struct backend *backend = network->backend;
    size_t count = network->count;
    TRY(backend->compact(backend, network->beta, device_mask, 0, count, network->beta));
    TRY(backend->compact(backend, network->gradient, device_mask, 0, count, network->gradient));
    for (int i = 0; i < states_count; i++)
        if (states[i] != NULL)
            TRY(backend->compact(backend, states[i], device_mask, 0, count, states[i]));
    return ST_OK;
}

/* The indices, and zeros where the dense weights lost their last value. */
static enum status compact_indices(struct network *network, const struct bitmask *full,
                                   const uint64_t *device_mask) {
    struct backend *backend = network->backend;
    for (int i = 0; i < network->parameters_count; i++) {
        struct parameter *p = &network->parameters[i];
        if (kept_of(p, full) == p->count)
            continue;
        TRY(backend->compact(backend, p->indices, device_mask, p->offset, p->count, p->indices));
        if (p->dense != NULL)
            TRY(backend->clear(backend, p->dense, p->room * sizeof *p->dense));
    }
    return ST_OK;
}

static void renumber(struct network *network, const struct bitmask *full) {
    size_t offset = 0;
    for (int i = 0; i < network->parameters_count; i++) {
        struct parameter *p = &network->parameters[i];
        size_t kept = kept_of(p, full);
        p->offset = offset;
        p->count = p->stored = kept;
        offset += kept;
    }
    network->count = offset;
}

static enum status apply_mask(struct network *network, const struct bitmask *full,
                              uint64_t *device_mask, float *const *states, int states_count) {
    struct backend *backend = network->backend;
    size_t bytes = bitmask_words(full->count) * sizeof *device_mask;
    TRY(backend->upload(backend, device_mask, full->words, bytes));
    TRY(compact_vectors(network, device_mask, states, states_count));
    TRY(compact_indices(network, full, device_mask));
    renumber(network, full);
    TRY(deletion_apply(network));
    return network_materialize(network);
}

static enum status delete_others(struct network *network, const struct survivors_scope *scope,
                                 const struct bitmask *mask, float *const *states,
                                 int states_count) {
    struct backend *backend = network->backend;
    struct bitmask full = {0, NULL};
    uint64_t *device_mask = NULL;
    enum status status = ST_OK;
    TRY_OUT(bitmask_create(network->count, &full));
    spread_mask(network, scope, mask, &full);
    TRY_OUT(backend->alloc(backend, bitmask_words(full.count) * sizeof *device_mask,
                           (void **)&device_mask));
    TRY_OUT(open_parameters(network, &full));
    TRY_OUT(apply_mask(network, &full, device_mask, states, states_count));
out:
    backend->release(backend, device_mask);
    bitmask_destroy(&full);
    return status;
}

enum status survivors_keep(struct network *network, const struct survivors_scope *scope,
                           const struct bitmask *mask, float *const *states, int states_count) {
    size_t count = survivors_count(network, scope);
    if (mask->count != count)
        FAIL(ST_SHAPE, "a mask of %zu bits for %zu survivors", mask->count, count);
    network->backend->forget_steps(network->backend);
    return network->masked ? masking_keep(network, scope, mask, states, states_count)
                           : delete_others(network, scope, mask, states, states_count);
}

enum status survivors_values(const struct network *network, int parameter, float *values) {
    const struct parameter *p = &network->parameters[parameter];
    struct backend *backend = network->backend;
    const float *stored = network->beta + p->offset;
    if (p->count == p->stored)
        return backend->copy(backend, values, stored, p->count * sizeof *values);
    return backend->gather(backend, stored, p->indices, p->count, values);
}

enum status survivors_hash(const struct network *network, int parameter, uint64_t *hash) {
    const struct parameter *p = &network->parameters[parameter];
    struct backend *backend = network->backend;
    uint64_t values = 0, indices = 0;
    TRY(backend->hash(backend, network->beta + p->offset, p->stored, &values));
    if (p->indices != NULL)
        TRY(backend->hash(backend, p->indices, p->count, &indices));
    *hash = values + 31 * indices;
    return ST_OK;
}
