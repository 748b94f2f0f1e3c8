/* readers.h - which outputs of blocks are read, and which are led to, by survivors.
 *
 * Host memory, of an arena. Nothing here is collective. */
#ifndef ESPALIER_PRUNE_READERS_H
#define ESPALIER_PRUNE_READERS_H

#include <espalier/arena.h>
#include <espalier/network.h>

/** A block as its survivors see it. */
struct reader {
    const struct block *block;
    bool has_connections;    /* its weights can be pruned; they are those that matter */
    bool counts_channels;    /* what it computes goes by all of its channels, read or not */
    size_t outputs, columns; /* of the weights */
    const uint32_t *indices; /* of the survivors; NULL: all are left */
    size_t *start;           /* [outputs + 1]: where a row's survivors begin */
    uint8_t *read;           /* [channels of the output]: 1 where something reads it */
};

/** The readers [blocks] of a network. */
enum status readers_create(struct arena *arena, const struct network *network,
                           struct reader **readers);

/** Survivors of a row, and of the rows whose output is kept; of these, those that read a channel
 *  that is kept of the block before (NULL: all are). What nothing reads, no survivor reads. */
size_t reader_row(const struct reader *reader, size_t row);
size_t reader_kept(const struct reader *reader, const uint8_t *fates_before, const uint8_t *fates);

/** read[j] = 1 for each input [inputs] of a dense block that survivors of kept rows read. */
void reader_mark_inputs(const struct reader *reader, const uint8_t *fates, uint8_t *read);

#endif
