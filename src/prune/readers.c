#include "readers.h"

#include <string.h>

static bool has_connections(const struct block *block) {
    return block->desc.kind == BLOCK_CONV || block->desc.kind == BLOCK_DENSE;
}

/* Batch normalisation keeps the statistics of all channels; DropConnect draws by the connection. */
static bool counts_channels(const struct block *block) {
    return block->desc.kind == BLOCK_NORM || block->desc.dropconnect > 0;
}

/* ---- rows ---- */

/* The first survivor, from `from` on, whose index is at least `least`. */
static size_t first_from(const uint32_t *indices, size_t from, size_t count, size_t least) {
    size_t end = count;
    while (from < end) {
        const size_t middle = from + (end - from) / 2;
        if (indices[middle] < least)
            from = middle + 1;
        else
            end = middle;
    }
    return from;
}

static enum status find_rows(struct arena *arena, const struct network *network,
                             struct reader *reader) {
    const struct parameter *p = &network->parameters[reader->block->weight];
    const uint32_t *indices;
    TRY(network_get_indices(network, p, arena, &indices));
    reader->outputs = (size_t)reader->block->desc.linear.channels;
    reader->columns = p->original_count / reader->outputs;
    reader->indices = indices;
    TRY(ARENA_ARRAY(arena, reader->outputs + 1, &reader->start));
    for (size_t row = 1; row <= reader->outputs; row++)
        reader->start[row] = indices == NULL ? row * reader->columns
                                             : first_from(indices, reader->start[row - 1], p->count,
                                                          row * reader->columns);
    return ST_OK;
}

size_t reader_row(const struct reader *reader, size_t row) {
    return reader->start[row + 1] - reader->start[row];
}

/* Column of a row's survivor e. */
static size_t column_of(const struct reader *reader, size_t row, size_t e) {
    return (reader->indices == NULL ? e : reader->indices[e]) - row * reader->columns;
}

/* The input channel that a column reads. */
static size_t channel_of(const struct reader *reader, size_t column) {
    const struct block_desc *desc = &reader->block->desc;
    const size_t taps = desc->kind == BLOCK_CONV ? (size_t)desc->kernel * (size_t)desc->kernel : 1;
    return column / taps % (size_t)desc->input.channels;
}

static size_t kept_of_row(const struct reader *reader, size_t row, const uint8_t *fates_before) {
    size_t count = 0;
    for (size_t e = reader->start[row]; e < reader->start[row + 1]; e++)
        count += fates_before[channel_of(reader, column_of(reader, row, e))] == CHANNEL_KEPT;
    return count;
}

size_t reader_kept(const struct reader *reader, const uint8_t *fates_before, const uint8_t *fates) {
    const size_t channels = (size_t)reader->block->desc.input.channels;
    const bool all =
        fates_before == NULL || memchr(fates_before, CHANNEL_CONSTANT, channels) == NULL;
    size_t count = 0;
    for (size_t row = 0; row < reader->outputs; row++)
        if (fates[row] == CHANNEL_KEPT)
            count += all ? reader_row(reader, row) : kept_of_row(reader, row, fates_before);
    return count;
}

/* ---- inputs ---- */

/* Ends when all have been seen. */
static void mark_channels(const struct reader *reader, uint8_t *read) {
    size_t left = (size_t)reader->block->desc.input.channels;
    for (size_t row = 0; row < reader->outputs; row++)
        for (size_t e = reader->start[row]; reader->read[row] && e < reader->start[row + 1]; e++) {
            uint8_t *channel = &read[channel_of(reader, column_of(reader, row, e))];
            left -= *channel == 0;
            *channel = 1;
            if (left == 0)
                return;
        }
}

void reader_mark_inputs(const struct reader *reader, const uint8_t *fates, uint8_t *read) {
    size_t left = reader->columns;
    for (size_t row = 0; row < reader->outputs && left > 0; row++)
        for (size_t e = reader->start[row];
             fates[row] == CHANNEL_KEPT && e < reader->start[row + 1]; e++) {
            uint8_t *input = &read[column_of(reader, row, e)];
            left -= *input == 0;
            *input = 1;
        }
}

/* Which outputs of the block before it a block reads; what has no connections passes on what is
 * read of its own. */
static void mark_read(const struct reader *reader, size_t channels, uint8_t *read) {
    if (reader->counts_channels)
        memset(read, 1, channels);
    else if (reader->has_connections)
        mark_channels(reader, read);
    else
        memcpy(read, reader->read, channels);
}

enum status readers_create(struct arena *arena, const struct network *network,
                           struct reader **readers) {
    const int last = network->blocks_count - 1;
    TRY(ARENA_ARRAY(arena, (size_t)network->blocks_count, readers));
    for (int i = last; i >= 0; i--) {
        struct reader *reader = &(*readers)[i];
        const struct block *block = &network->blocks[i];
        const size_t channels = (size_t)block->desc.output.channels;
        *reader = (struct reader){.block = block,
                                  .has_connections = has_connections(block),
                                  .counts_channels = counts_channels(block)};
        TRY(ARENA_ARRAY(arena, channels, &reader->read));
        if (reader->has_connections)
            TRY(find_rows(arena, network, reader));
        if (i == last)
            memset(reader->read, 1, channels); /* the logits */
        else
            mark_read(&(*readers)[i + 1], channels, reader->read);
    }
    return ST_OK;
}
