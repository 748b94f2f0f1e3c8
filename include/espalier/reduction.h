/* reduction.h - the network without the channels and inputs that have no connections left.
 *
 * A channel that nothing reads is not computed, and its gradients are 0. One that nothing leads to
 * has the same activation c for every sample: the block that reads it takes c into its bias b, with
 * weights w_k, and then dL/dw_k = c dL/db_k. Inputs that nothing reads are left out of a dense
 * block's products. All this is in what the blocks compute alone: parameters keep every survivor in
 * its place. Results are those of the whole network but for rounding. */
#ifndef ESPALIER_REDUCTION_H
#define ESPALIER_REDUCTION_H

#include <espalier/network.h>

/** True when a block can take constant channels of the block before it into its bias: where the
 *  same weights meet them at every place, and nothing between the two is random or of the batch. */
bool reduction_folds(const struct block *before, const struct block *reader);

/** Make the network compute what `wanted` [blocks] leaves, where that or the survivors have
 *  changed; network_materialize must follow. A block without weights has the fates of the block
 *  before it, or keeps all; so does one whose channels are counted, by batch normalisation or
 *  DropConnect, on either side. A channel is constant only where the next block folds it. At least
 *  one channel and one input of a block are kept. After a failure the network can only be
 *  destroyed. Not collective. */
enum status network_reduce(struct network *network, const struct reduction *wanted);

#endif
