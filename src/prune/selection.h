/* selection.h - which survivors an event keeps, chosen by one rank. */
#ifndef ESPALIER_PRUNE_SELECTION_H
#define ESPALIER_PRUNE_SELECTION_H

#include <espalier/prune.h>

/** Set the bits of the `keep` survivors of the scope that stay: those of largest magnitude, of
 * equal ones the first; under prune.normalise of largest magnitude over the Euclidean norm of their
 *  layer's survivors, as a float. Of layer i at least least[i] stay, which then counts against the
 *  other layers; the least add up to at most `keep`, and none is more than the layer has.
 *
 *  mask     [survivors_count] bits, overwritten
 *  ST_NUMERIC names update, layer and original index of a NaN or infinite weight. */
enum status selection_run(const struct pruner *pruner, int64_t update,
                          const struct survivors_scope *scope, const size_t *least, size_t keep,
                          struct bitmask *mask);

#endif
