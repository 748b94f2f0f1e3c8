/* break_even.h - from which density on it pays to compute with survivors alone, measured. */
#ifndef ESPALIER_BREAK_EVEN_H
#define ESPALIER_BREAK_EVEN_H

#include <espalier/prune.h>

/** Measure the density below which sparse form is faster, for each block in the pruner's scopes,
 *  and set the blocks' `sparse_below` to it.
 *
 *  Forward and backward passes are timed in dense form, in sparse form with the part of the
 *  connections that the run leaves at least (`density`, taken as 2 % where it is less), and at
 *  another density, for what lies between: each together with the neighbours that the block is
 *  joined to, as in training, which are in dense form.
 *
 *  Nothing happens in a masked network, where the recipe has a threshold of its own, or where
 *  `density` is half or more; blocks that compute next to nothing keep the backend's table, as do
 *  all on an accelerator, where the time to queue what a step replays would be measured, too. The
 *  blocks' plans and the gradient are used, and parameters stay as they are. Rank 0 measures and
 *  broadcasts, so that all ranks decide alike. Collective.
 *
 *  pass, x  images as in training, on the device; no weight has lost connections yet */
enum status break_even_measure(struct pruner *pruner, double density, const struct block_pass *pass,
                               const float *x);

#endif
