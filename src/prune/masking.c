#include "masking.h"

/* The device's masks of one event, over the scope's survivors. */
struct masks {
    uint64_t *kept, *dropped;
};

/* Zeros in a vector of the parameter at the places `dropped`. */
static enum status clear_places(struct backend *backend, const struct parameter *p, float *vector,
                                const uint32_t *dropped, size_t count) {
    if (vector == NULL)
        return ST_OK;
    return backend->scatter(backend, p->dense, dropped, count, vector + p->offset);
}

/* The dense arrays are scratch here: zeros to scatter, and the places that they go to. */
static enum status drop(struct network *network, struct parameter *p, const uint64_t *dropped_mask,
                        size_t first, size_t count, float *const *states, int states_count) {
    struct backend *backend = network->backend;
    uint32_t *dropped = (uint32_t *)(void *)p->dense_gradient;
    TRY(backend->compact(backend, p->indices, dropped_mask, first, p->count, dropped));
    TRY(backend->clear(backend, p->dense, count * sizeof *p->dense));
    TRY(clear_places(backend, p, network->beta, dropped, count));
    TRY(clear_places(backend, p, network->gradient, dropped, count));
    for (int i = 0; i < states_count; i++)
        TRY(clear_places(backend, p, states[i], dropped, count));
    return ST_OK;
}

static enum status apply(struct network *network, const struct survivors_scope *scope,
                         const struct bitmask *mask, const struct masks *device,
                         float *const *states, int states_count) {
    struct backend *backend = network->backend;
    for (size_t i = 0, first = 0, count; i < (size_t)scope->count; i++, first += count) {
        struct parameter *p = &network->parameters[scope->parameters[i]];
        count = p->count;
        size_t kept = bitmask_count_range(mask->words, first, count);
        if (kept == count)
            continue;
        TRY(drop(network, p, device->dropped, first, count - kept, states, states_count));
        TRY(backend->compact(backend, p->indices, device->kept, first, count, p->indices));
        p->count = kept;
    }
    return network_materialize(network);
}

/* Everything that can fail for want of memory, before anything changes. */
static enum status open_scope(struct network *network, const struct survivors_scope *scope,
                              const struct bitmask *mask) {
    size_t first = 0;
    for (int i = 0; i < scope->count; i++) {
        struct parameter *p = &network->parameters[scope->parameters[i]];
        if (p->indices == NULL && bitmask_count_range(mask->words, first, p->count) < p->count)
            TRY(survivors_open(network->backend, p));
        first += p->count;
    }
    return ST_OK;
}

static enum status upload_masks(struct backend *backend, const struct bitmask *mask,
                                struct bitmask *dropped, struct masks *device) {
    size_t words = bitmask_words(mask->count), bytes = words * sizeof *mask->words;
    for (size_t i = 0; i < words; i++)
        dropped->words[i] = ~mask->words[i];
    TRY(backend->alloc(backend, bytes, (void **)&device->kept));
    TRY(backend->alloc(backend, bytes, (void **)&device->dropped));
    TRY(backend->upload(backend, device->kept, mask->words, bytes));
    return backend->upload(backend, device->dropped, dropped->words, bytes);
}

enum status masking_keep(struct network *network, const struct survivors_scope *scope,
                         const struct bitmask *mask, float *const *states, int states_count) {
    struct backend *backend = network->backend;
    struct bitmask dropped = {0, NULL};
    struct masks device = {NULL, NULL};
    enum status status = ST_OK;
    TRY_OUT(bitmask_create(mask->count, &dropped));
    TRY_OUT(upload_masks(backend, mask, &dropped, &device));
    TRY_OUT(open_scope(network, scope, mask));
    TRY_OUT(apply(network, scope, mask, &device, states, states_count));
out:
    backend->release(backend, device.kept);
    backend->release(backend, device.dropped);
    bitmask_destroy(&dropped);
    return status;
}
