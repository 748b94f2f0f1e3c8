/* replica_internal.h - the parts of an update, shared by replica.c and grains.c. */
#ifndef ESPALIER_TRAIN_REPLICA_INTERNAL_H
#define ESPALIER_TRAIN_REPLICA_INTERNAL_H

#include <espalier/replica.h>

/** Add the time since *mark to a phase, and set the mark to now. */
void replica_end_phase(double *phase, double *mark);

/** Whether the ranks read each other's memory, and send nothing. */
bool replica_shares(const struct replica *r);

/** Lets the communicator make progress, where there is anybody to talk to. */
struct poll replica_poll(struct replica *r);

/** The pass over images begin .. begin + count - 1 of the permutation. */
struct block_pass replica_pass_of(struct replica *r, uint32_t begin, uint32_t count);

/** Forward and backward over one pass; the loss is the mean over a batch of `batch`, and its sums
 * are added to `sums` (device). */
enum status replica_pass(struct replica *r, const struct block_pass *pass, uint32_t batch,
                         struct loss_sums *sums, const struct gradient_sink *sink, double *mark);

/* ---- grains.c ---- */

/** Whether a run can be reproducible: ST_INPUT for layers that need the whole batch, ST_UNAVAILABLE
 *  where the backend's memory is not the host's. */
enum status replica_check_grains(const struct replica *r);

/** Give a reproducible run its exact gradient, once it is known whether the ranks share memory. */
enum status replica_join_grains(struct replica *r);

/** Compute this rank's grains of the window and, where ranks send, begin to sum the exact gradient
 *  over them. */
enum status replica_compute_grains(struct replica *r, struct slice window, double *mark);

#endif
