/* break_even.h - from which density on it pays to compute with survivors alone, measured. */
#ifndef ESPALIER_BREAK_EVEN_H
#define ESPALIER_BREAK_EVEN_H

#include <espalier/prune.h>

/** Measure the density below which sparse form is faster, for each block in the pruner's scopes,
 *  and set the blocks' `sparse_below` to it.
 *
 *  Nothing happens in a masked network, where the recipe has a threshold of its own, or where no
 *  scope falls below half of its connections, with `density` as what the run leaves; blocks that
 *  compute next to nothing keep the backend's table, as do all on an accelerator, where the time to
 *  queue what a step replays would be measured, too. The blocks' plans and the gradient are used,
 *  and parameters stay as they are. Rank 0 measures and broadcasts, so that all ranks decide alike.
 *  Collective.
 *
 *  pass, x  images as in training, on the device; no weight has lost connections yet */
enum status break_even_measure(struct pruner *pruner, double density, const struct block_pass *pass,
                               const float *x);

#endif
