#include "readers.h"

#include <espalier/deletion.h>
#include <espalier/reduction.h>
#include <string.h>

/* Shapes shrink by whole sixteenths of what they were at first, so that plans are made anew seldom;
 * the few that are too many for that stay. Leaving out inputs costs a copy of the others: it is
 * done from a quarter on. */
enum { STEPS = 16, GATHER_PARTS = 4, VECTOR = 16 };

void deletion_set_threshold(struct network *network, double sparse_below) {
    for (int i = 0; i < network->blocks_count; i++) {
        struct block *block = &network->blocks[i];
        if (sparse_below >= 0 && block->has_sparse_form)
            block->sparse_below = sparse_below;
    }
}

/* ---- whole steps ---- */

/* Of `gone` of `count`, those that are too many for whole steps, or would leave none. */
static size_t surplus(size_t gone, size_t count) {
    const size_t step = count < STEPS ? 1 : count / STEPS, most = gone < count ? gone : count - 1;
    return gone - most / step * step;
}

/* Set up to `most` bytes that are `from` to 0, from the end; returns how many are missing. */
static size_t restore(uint8_t *bytes, size_t count, uint8_t from, size_t most) {
    for (size_t i = count; most > 0 && i-- > 0;)
        if (bytes[i] == from) {
            bytes[i] = 0;
            most--;
        }
    return most;
}

static size_t count_set(const uint8_t *bytes, size_t count) {
    size_t set = 0;
    for (size_t i = 0; i < count; i++)
        set += bytes[i] != 0;
    return set;
}

/* ---- channels ---- */

static enum channel_fate fate_of(const struct reader *reader, size_t channel, bool folds) {
    if (!reader->read[channel])
        return CHANNEL_DELETED;
    return folds && reader_row(reader, channel) == 0 ? CHANNEL_CONSTANT : CHANNEL_KEPT;
}

/* Blocks without connections keep what they are given. */
static void decide_fates(const struct reader *reader, const struct reader *after,
                         const uint8_t *fates_before, uint8_t *fates) {
    const size_t channels = (size_t)reader->block->desc.output.channels;
    if (!reader->has_connections) {
        if (fates_before != NULL)
            memcpy(fates, fates_before, channels);
        return;
    }
    if (after == NULL || reader->counts_channels)
        return;
    const bool folds = reduction_folds(reader->block, after->block);
    for (size_t k = 0; k < channels; k++)
        fates[k] = (uint8_t)fate_of(reader, k, folds);
    size_t many = surplus(count_set(fates, channels), channels);
    many = restore(fates, channels, CHANNEL_CONSTANT, many);
    restore(fates, channels, CHANNEL_DELETED, many);
}

/* ---- forms, and inputs ---- */

static size_t kept_inputs(const struct reader *reader, const uint8_t *fates_before) {
    const size_t channels = (size_t)reader->block->desc.input.channels;
    const size_t gone = fates_before == NULL ? 0 : count_set(fates_before, channels);
    return reader->columns / channels * (channels - gone);
}

/* What dense form computes for the channels that are kept: whole vectors, of the widest that a
 * backend has, so that all decide alike; not more than the layer had. */
static size_t computed(size_t kept, size_t channels) {
    const size_t whole = (kept + VECTOR - 1) / VECTOR * VECTOR;
    return whole < channels ? whole : channels;
}

/* Sparse form goes by the survivors that are computed, dense form by the shapes that are left. */
static bool is_sparse(const struct network *network, const struct reader *reader,
                      const uint8_t *fates_before, const uint8_t *fates) {
    const struct block *block = reader->block;
    if (!block->has_sparse_form || network->parameters[block->weight].indices == NULL)
        return false;
    const size_t channels = (size_t)block->desc.input.channels, outputs = reader->outputs;
    const size_t pixels = reader->columns / channels;
    const size_t rows = computed(outputs - count_set(fates, outputs), outputs);
    const size_t inputs = pixels * computed(kept_inputs(reader, fates_before) / pixels, channels);
    return (double)reader_kept(reader, fates_before, fates) <
           block->sparse_below * (double)(rows * inputs);
}

/* Inputs of channels that are gone are left out in any case. */
static void skip_inputs(const struct reader *reader, const uint8_t *fates_before,
                        struct reduction *wanted) {
    const size_t inputs = reader->columns, channels = (size_t)reader->block->desc.input.channels;
    const size_t kept = kept_inputs(reader, fates_before);
    uint8_t *skipped = wanted->skipped;
    reader_mark_inputs(reader, wanted->fates, skipped);
    for (size_t j = 0; j < inputs; j++)
        skipped[j] = !skipped[j] && (fates_before == NULL || fates_before[j % channels] == 0);
    const size_t gone = count_set(skipped, inputs);
    restore(skipped, inputs, 1, surplus(gone, kept));
    wanted->gathers = count_set(skipped, inputs) >= (kept + GATHER_PARTS - 1) / GATHER_PARTS;
    for (size_t j = 0; fates_before != NULL && j < inputs; j++)
        skipped[j] = skipped[j] || fates_before[j % channels] != 0;
}

static void decide_form(const struct network *network, const struct reader *reader,
                        const uint8_t *fates_before, struct reduction *wanted) {
    if (!reader->has_connections || reader->counts_channels)
        return;
    wanted->sparse = is_sparse(network, reader, fates_before, wanted->fates);
    if (reader->block->desc.kind == BLOCK_DENSE && !wanted->sparse)
        skip_inputs(reader, fates_before, wanted);
}

/* ---- all blocks ---- */

static enum status decide(struct arena *arena, const struct network *network,
                          struct reduction **wanted) {
    const int count = network->blocks_count;
    struct reader *readers;
    TRY(readers_create(arena, network, &readers));
    TRY(ARENA_ARRAY(arena, (size_t)count, wanted));
    for (int i = 0; i < count; i++) {
        const struct block_desc *desc = &network->blocks[i].desc;
        struct reduction *r = &(*wanted)[i];
        const uint8_t *before = i > 0 ? (*wanted)[i - 1].fates : NULL;
        TRY(ARENA_ARRAY(arena, (size_t)desc->output.channels, &r->fates));
        TRY(ARENA_ARRAY(arena, shape_size(desc->input), &r->skipped));
        decide_fates(&readers[i], i + 1 < count ? &readers[i + 1] : NULL, before, r->fates);
        decide_form(network, &readers[i], before, r);
    }
    return ST_OK;
}

enum status deletion_apply(struct network *network) {
    struct arena *arena = NULL;
    struct reduction *wanted;
    TRY(arena_create(&arena));
    enum status status = decide(arena, network, &wanted);
    if (status == ST_OK)
        status = network_reduce(network, wanted);
    arena_destroy(arena);
    return status;
}
