/* masking.h - pruning under prune.deletion "mask": what is pruned stays in memory, as zeros. */
#ifndef ESPALIER_PRUNE_MASKING_H
#define ESPALIER_PRUNE_MASKING_H

#include <espalier/survivors.h>

/** survivors_keep for a masked network: beta, gradient and states keep their sizes and become 0
 *  where the mask has no bit. Their zeros last, since no gradient reaches them (network.h) and an
 *  optimizer moves no 0 by state and gradient of 0. mask->count is right. */
enum status masking_keep(struct network *network, const struct survivors_scope *scope,
                         const struct bitmask *mask, float *const *states, int states_count);

/** Give a weight that has lost nothing yet its indices and dense arrays. */
enum status survivors_open(struct backend *backend, struct parameter *p);

#endif
