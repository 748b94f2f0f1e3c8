/* deletion.h - computing with what is left: which form a pruned layer's weights take,
 * and which outputs nothing reads.
 *
 * Nothing here is collective; all ranks must have the same thresholds, and then decide alike. */
#ifndef ESPALIER_DELETION_H
#define ESPALIER_DELETION_H

#include <espalier/network.h>

/** The same threshold for all blocks that have a sparse form; a negative one leaves them as they
 *  are, which at first is what the backend's table says. */
void deletion_set_threshold(struct network *network, double sparse_below);

/** Tell the blocks what is left, where that has changed since the last call.
 *
 *  A weight whose density is below its block's `sparse_below` goes into sparse form, and its dense
 *  arrays are freed. Outputs that no survivor of a later layer in sparse form reads, whichever way
 *  they go, are left out with all that leads to them. network_materialize must follow. */
enum status deletion_apply(struct network *network);

#endif
