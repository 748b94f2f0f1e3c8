#include <espalier/digest.h>
#include <espalier/survivors.h>
#include <stdlib.h>

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

/* Bits first .. first + count - 1 as a word, count in 1 .. 64. */
static uint64_t read_bits(const uint64_t *words, size_t first, size_t count) {
    size_t word = first / 64, shift = first % 64;
    uint64_t bits = words[word] >> shift;
    if (shift + count > 64)
        bits |= words[word + 1] << (64 - shift);
    return count < 64 ? bits & (((uint64_t)1 << count) - 1) : bits;
}

/* Set the bits of `bits` at first .. first + count - 1, which are zero so far. */
static void write_bits(uint64_t *words, size_t first, size_t count, uint64_t bits) {
    size_t word = first / 64, shift = first % 64;
    words[word] |= bits << shift;
    if (shift + count > 64)
        words[word + 1] |= bits >> (64 - shift);
}

/* Append `count` bits from `from` on of the scope's mask; ones where `mask` is NULL. */
static void append_bits(struct bitmask *full, size_t *filled, const struct bitmask *mask,
                        size_t from, size_t count) {
    for (size_t done = 0; done < count;) {
        size_t part = count - done < 64 ? count - done : 64;
        uint64_t ones = part < 64 ? ((uint64_t)1 << part) - 1 : UINT64_MAX;
        write_bits(full->words, *filled, part,
                   mask != NULL ? read_bits(mask->words, from + done, part) : ones);
        *filled += part;
        done += part;
    }
}

/* The scope's mask spread over beta; what is out of scope is kept. Both are in network order. */
static void spread_mask(const struct network *network, const struct survivors_scope *scope,
                        const struct bitmask *mask, struct bitmask *full) {
    size_t filled = 0, read = 0;
    for (int p = 0, next = 0; p < network->parameters_count; p++) {
        size_t count = network->parameters[p].count;
        if (next < scope->count && scope->parameters[next] == p) {
            append_bits(full, &filled, mask, read, count);
            read += count;
            next++;
        } else
            append_bits(full, &filled, NULL, 0, count);
    }
}

/* ---- applying it ---- */

static size_t kept_of(const struct parameter *p, const struct bitmask *full) {
    return bitmask_count_range(full->words, p->offset, p->count);
}

static enum status upload_identity(struct backend *backend, const struct parameter *p,
                                   uint32_t *indices) {
    uint32_t *identity = malloc((p->original_count + 1) * sizeof *identity);
    if (identity == NULL)
        FAIL(ST_MEMORY, "out of memory: the indices of %s", p->name);
    for (size_t i = 0; i < p->original_count; i++)
        identity[i] = (uint32_t)i;
    enum status status =
        backend->upload(backend, indices, identity, p->original_count * sizeof *identity);
    free(identity);
    return status;
}

/* Give a weight that has lost nothing yet its indices and dense arrays: all of them or none, since
 * the network goes by the indices. */
static enum status open_parameter(struct backend *backend, struct parameter *p) {
    enum status status = ST_OK;
    uint32_t *indices = NULL;
    float *dense = NULL, *dense_gradient = NULL;
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *indices, (void **)&indices));
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *dense, (void **)&dense));
    TRY_OUT(backend->alloc(backend, p->original_count * sizeof *dense, (void **)&dense_gradient));
    TRY_OUT(upload_identity(backend, p, indices));
    p->indices = indices;
    p->dense = dense;
    p->dense_gradient = dense_gradient;
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
            TRY(open_parameter(network->backend, p));
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
        TRY(backend->clear(backend, p->dense, p->original_count * sizeof *p->dense));
    }
    return ST_OK;
}

static void renumber(struct network *network, const struct bitmask *full) {
    size_t offset = 0;
    for (int i = 0; i < network->parameters_count; i++) {
        struct parameter *p = &network->parameters[i];
        size_t kept = kept_of(p, full);
        p->offset = offset;
        p->count = kept;
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
    return network_materialize(network);
}

enum status survivors_keep(struct network *network, const struct survivors_scope *scope,
                           const struct bitmask *mask, float *const *states, int states_count) {
    size_t count = survivors_count(network, scope);
    if (mask->count != count)
        FAIL(ST_SHAPE, "a mask of %zu bits for %zu survivors", mask->count, count);
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

enum status survivors_hash(const struct network *network, int parameter, uint64_t *hash) {
    const struct parameter *p = &network->parameters[parameter];
    struct backend *backend = network->backend;
    uint64_t values = 0, indices = 0;
    TRY(backend->hash(backend, network->beta + p->offset, p->count, &values));
    if (p->indices != NULL)
        TRY(backend->hash(backend, p->indices, p->count, &indices));
    *hash = values + 31 * indices;
    return ST_OK;
}
