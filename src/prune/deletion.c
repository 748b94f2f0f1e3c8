#include <espalier/deletion.h>
#include <stdlib.h>
#include <string.h>

void deletion_set_threshold(struct network *network, double sparse_below) {
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        if (sparse_below >= 0 && network->backend->block_plan_sparse_below(block->plan) > 0)
            block->sparse_below = sparse_below;
    }
}

/* ---- forms ---- */

/* What has been sparse stays so: the density only falls. */
static enum status choose_form(struct network *network, struct parameter *p) {
    const struct block *block = &network->blocks[p->block];
    struct backend *backend = network->backend;
    p->sparse = (double)p->count < block->sparse_below * (double)p->original_count;
    if (!p->sparse)
        return ST_OK;
    TRY(network_part(network, p->block - 1));
    TRY(network_part(network, p->block));
    backend->release(backend, p->dense);
    backend->release(backend, p->dense_gradient);
    p->dense = p->dense_gradient = NULL;
    return ST_OK;
}

/* ---- outputs that nothing reads ---- */

/* The channels that a layer's survivors read, for outputs that are read themselves. Columns are
 * [channels][kernel][kernel], or flattened in (h, w, c). */
static void mark_read(const struct block *reader, const uint32_t *indices, size_t count,
                      uint8_t *unused) {
    const struct block_desc *d = &reader->desc;
    const uint32_t columns = (uint32_t)(block_weights(d) / (size_t)d->linear.channels);
    const uint32_t channels = (uint32_t)d->input.channels;
    const uint32_t taps = d->kind == BLOCK_CONV ? (uint32_t)(d->kernel * d->kernel) : 1;
    for (size_t e = 0; e < count; e++)
        if (reader->unused[indices[e] / columns] == 0)
            unused[indices[e] % columns / taps % channels] = 0;
}

static enum status find_unread(const struct network *network, const struct block *reader,
                               size_t channels, uint8_t *unused) {
    const struct parameter *p = &network->parameters[reader->weight];
    struct backend *backend = network->backend;
    uint32_t *indices = malloc(p->count * sizeof *indices + 1);
    if (indices == NULL)
        FAIL(ST_MEMORY, "out of memory: the indices of %s", p->name);
    enum status status =
        backend->download(backend, indices, p->indices, p->count * sizeof *indices);
    if (status == ST_OK) {
        memset(unused, 1, channels);
        mark_read(reader, indices, p->count, unused);
    }
    free(indices);
    return status;
}

/* Which outputs of a block nothing reads. A block without weights passes on what is read of it; but
 * batch normalisation keeps the statistics of all that it sees. */
static enum status find_unused(const struct network *network, int index, uint8_t *unused) {
    const size_t channels = (size_t)network->blocks[index].desc.linear.channels;
    const struct block *reader = &network->blocks[index + 1];
    memset(unused, 0, channels);
    if (index + 1 == network->blocks_count || reader->desc.kind == BLOCK_NORM)
        return ST_OK;
    if (reader->desc.kind == BLOCK_PASS)
        memcpy(unused, reader->unused, channels);
    else if (network->parameters[reader->weight].sparse)
        return find_unread(network, reader, channels, unused);
    return ST_OK;
}

/* ---- plans ---- */

static enum status tell_plan(struct network *network, struct block *block) {
    struct backend *backend = network->backend;
    struct parameter *p = &network->parameters[block->weight];
    TRY(backend->upload(backend, block->device_unused, block->unused,
                        (size_t)block->desc.linear.channels));
    const struct block_survivors survivors = {p->indices, p->count, p->sparse,
                                              block->device_unused};
    block->planned = p->count;
    return backend->block_plan_set_survivors(block->plan, &survivors);
}

static bool is_pruned(const struct network *network, const struct block *block) {
    return block->weight >= 0 && network->parameters[block->weight].indices != NULL;
}

static enum status update_block(struct network *network, int index, uint8_t *unused) {
    struct block *block = &network->blocks[index];
    const size_t channels = (size_t)block->desc.linear.channels;
    TRY(find_unused(network, index, unused));
    bool changed = memcmp(block->unused, unused, channels) != 0;
    memcpy(block->unused, unused, channels);
    if (!is_pruned(network, block))
        return ST_OK;
    changed = changed || block->planned != network->parameters[block->weight].count;
    return changed ? tell_plan(network, block) : ST_OK;
}

enum status deletion_apply(struct network *network) {
    size_t most = 0;
    for (int i = 0; i < network->blocks_count; i++) {
        const struct block *block = &network->blocks[i];
        const size_t channels = (size_t)block->desc.linear.channels;
        most = channels > most ? channels : most;
        if (is_pruned(network, block))
            TRY(choose_form(network, &network->parameters[block->weight]));
    }
    uint8_t *unused = malloc(most + 1);
    if (unused == NULL)
        FAIL(ST_MEMORY, "out of memory: the unused outputs");
    enum status status = ST_OK;
    for (int i = network->blocks_count - 1; status == ST_OK && i >= 0; i--)
        status = update_block(network, i, unused);
    for (int i = 0; status == ST_OK && i < network->blocks_count; i++)
        status = network_join(network, i); /* where a change of form has parted them */
    free(unused);
    return status;
}
