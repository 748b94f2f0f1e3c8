#include "model_internal.h"

#include <espalier/reduction.h>
#include <stdlib.h>
#include <string.h>

size_t reduction_count(const struct block *block, enum channel_fate fate) {
    size_t count = 0;
    for (int k = 0; k < block->desc.output.channels; k++)
        count += block->reduction.fates[k] == fate;
    return count;
}

bool reduction_folds(const struct block *before, const struct block *reader) {
    const struct block_desc *from = &before->desc, *to = &reader->desc;
    const bool reads =
        to->kind == BLOCK_DENSE ? to->dropconnect == 0 : to->kind == BLOCK_CONV && to->padding == 0;
    return reads && (from->kind == BLOCK_CONV || from->kind == BLOCK_DENSE) && from->dropout == 0 &&
           from->dropconnect == 0;
}

/* ---- what a block computes ---- */

static size_t gathered_count(const struct block *block) {
    size_t count = 0;
    for (size_t j = 0; j < shape_size(block->desc.input); j++)
        count += block->reduction.skipped[j] == 0;
    return count;
}

static struct block_desc reduce(const struct block *before, const struct block *block) {
    struct block_desc desc = block->desc;
    const int channels = (int)reduction_count(block, CHANNEL_KEPT);
    if (before != NULL)
        desc.input.channels = before->reduced.output.channels;
    if (block->reduction.gathers)
        desc.input = (struct shape){1, 1, (int)gathered_count(block)};
    if (channels < desc.output.channels) {
        desc.kept = block->kept;
        desc.layer_channels = desc.output.channels;
    }
    desc.linear.channels = desc.output.channels = channels;
    return desc;
}

static bool same_shape(struct shape a, struct shape b) {
    return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

static bool same_plan(const struct block_desc *a, const struct block_desc *b) {
    return same_shape(a->input, b->input) && same_shape(a->output, b->output);
}

static enum status renew_plan(struct network *network, int index, const struct block_desc *desc) {
    struct backend *backend = network->backend;
    struct block *block = &network->blocks[index];
    backend->block_plan_destroy(block->plan);
    block->plan = NULL;
    block->choice = CHOICE_NONE;
    block->reduced = *desc;
    return backend->block_plan_create(backend, desc, network->max_samples, index == 0,
                                      &block->plan);
}

/* ---- host lists for the device ---- */

static enum status upload_kept(struct backend *backend, const struct block *block) {
    const size_t channels = (size_t)block->desc.output.channels;
    uint32_t *kept = malloc(channels * sizeof *kept);
    if (kept == NULL)
        FAIL(ST_MEMORY, "out of memory: the channels of %s", block->name);
    size_t count = 0;
    for (size_t k = 0; k < channels; k++)
        if (block->reduction.fates[k] == CHANNEL_KEPT)
            kept[count++] = (uint32_t)k;
    enum status status = backend->upload(backend, block->kept, kept, count * sizeof *kept);
    free(kept);
    return status;
}

static void release_gathered(struct backend *backend, struct gathered_inputs *gathered) {
    backend->release(backend, gathered->indices);
    backend->release(backend, gathered->x);
    backend->release(backend, gathered->dx);
    *gathered = (struct gathered_inputs){0};
}

/* Where the inputs of all samples are in a batch of what the block before computes. */
static void list_inputs(const struct block *before, const struct block *block, int samples,
                        uint32_t *indices) {
    const size_t inputs = shape_size(block->desc.input);
    const size_t channels = (size_t)block->desc.input.channels;
    uint32_t at = 0;
    for (int i = 0; i < samples; i++)
        for (size_t j = 0; j < inputs; j++) {
            if (before != NULL && before->reduction.fates[j % channels] != CHANNEL_KEPT)
                continue;
            if (block->reduction.skipped[j] == 0)
                *indices++ = at;
            at++;
        }
}

static enum status gather_inputs(struct network *network, int index) {
    struct backend *backend = network->backend;
    struct block *block = &network->blocks[index];
    struct gathered_inputs *gathered = &block->gathered;
    release_gathered(backend, gathered);
    if (!block->reduction.gathers)
        return ST_OK;
    const size_t count = gathered_count(block), all = (size_t)network->max_samples * count;
    gathered->count = count;
    TRY(backend->alloc(backend, all * sizeof(uint32_t), (void **)&gathered->indices));
    TRY(backend->alloc(backend, all * sizeof(float), (void **)&gathered->x));
    if (index > 0)
        TRY(backend->alloc(backend, all * sizeof(float), (void **)&gathered->dx));
    uint32_t *indices = malloc(all * sizeof *indices);
    if (indices == NULL)
        FAIL(ST_MEMORY, "out of memory: the inputs of %s", block->name);
    list_inputs(block_before(network, index), block, network->max_samples, indices);
    enum status status =
        backend->upload(backend, gathered->indices, indices, all * sizeof *indices);
    free(indices);
    return status;
}

static enum status renew_constants(struct network *network, int index) {
    struct block *block = &network->blocks[index];
    const struct block *before = block_before(network, index);
    constants_destroy(network->backend, block->constants);
    block->constants = NULL;
    if (before == NULL || block->weight < 0 || reduction_count(before, CHANNEL_CONSTANT) == 0)
        return ST_OK;
    return constants_create(network, index, &block->constants);
}

/* ---- changes ---- */

/* What is wanted becomes what is; true where that is something else than before. */
static bool take(uint8_t *is, const uint8_t *wanted, size_t count) {
    const bool changed = memcmp(is, wanted, count) != 0;
    memcpy(is, wanted, count);
    return changed;
}

static bool take_reduction(struct block *block, const struct reduction *wanted) {
    struct reduction *r = &block->reduction;
    bool changed = r->gathers != wanted->gathers || r->sparse != wanted->sparse;
    r->gathers = wanted->gathers;
    r->sparse = wanted->sparse;
    if (wanted->gathers)
        changed |= take(r->skipped, wanted->skipped, shape_size(block->desc.input));
    return changed;
}

static bool survivors_changed(const struct network *network, const struct block *block) {
    return block->weight >= 0 && block->planned != network->parameters[block->weight].count;
}

static bool changes_form(const struct network *network, const struct block *block) {
    return block->weight >= 0 &&
           network->parameters[block->weight].sparse != block->reduction.sparse;
}

/* What goes by the shapes. A plan that is another, or in another form, must not be joined. */
static enum status reshape(struct network *network, int index) {
    struct block *block = &network->blocks[index];
    const struct block_desc desc = reduce(block_before(network, index), block);
    const bool renewed = !same_plan(&desc, &block->reduced);
    if (renewed || changes_form(network, block)) {
        TRY(network_part(network, index - 1));
        TRY(network_part(network, index));
    }
    if (renewed)
        TRY(renew_plan(network, index, &desc));
    TRY(upload_kept(network->backend, block));
    TRY(gather_inputs(network, index));
    return renew_constants(network, index);
}

/* What goes by the survivors. */
static enum status place(struct network *network, struct block *block, int index) {
    if (block->weight < 0)
        return ST_OK;
    network->parameters[block->weight].sparse = block->reduction.sparse;
    block->planned = network->parameters[block->weight].count;
    return block->desc.kind == BLOCK_NORM ? ST_OK : placement_apply(network, index);
}

enum status network_reduce(struct network *network, const struct reduction *wanted) {
    bool input_changed = false;
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        const bool output_changed =
            take(block->reduction.fates, wanted[i].fates, (size_t)block->desc.output.channels);
        const bool changed = take_reduction(block, &wanted[i]) || output_changed || input_changed;
        if (changed)
            TRY(reshape(network, i));
        if (changed || survivors_changed(network, block))
            TRY(place(network, block, i));
        input_changed = output_changed;
    }
    return network_join(network);
}
