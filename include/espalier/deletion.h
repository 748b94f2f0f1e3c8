/* deletion.h - computing with what is left: which form a pruned layer's weights take, and which
 * channels, units and inputs are left out of the shapes.
 *
 * Nothing here is collective; all ranks must have the same thresholds, and then decide alike. What
 * is decided goes by the survivors alone, and not by the events before. */
#ifndef ESPALIER_DELETION_H
#define ESPALIER_DELETION_H

#include <espalier/network.h>

/** The same threshold for all blocks that have a sparse form; a negative one leaves them as they
 *  are, which at first is what the backend's table says. */
void deletion_set_threshold(struct network *network, double sparse_below);

/** Make the network compute with what is left (reduction.h), where that has changed since the last
 *  call.
 *
 *  A weight whose density in the shapes that are left, channels filled up to vectors of 16, is
 * below its block's `sparse_below` goes into sparse form, and its dense arrays are freed; survivors
 * that read what is left out do not count. Channels that no survivor reads, and those that none
 * leads to where the next block can take them into its bias, are left out by whole sixteenths of a
 *  layer's; inputs that no survivor reads, by sixteenths from a quarter on, of dense blocks in
 *  dense form. network_materialize must follow. */
enum status deletion_apply(struct network *network);

#endif
