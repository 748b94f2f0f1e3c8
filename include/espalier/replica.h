/* replica.h - one rank's copy of what is trained, and one update of it.
 *
 * A replica owns backend, network, optimizer and the training set's copy on the device; it borrows
 * recipe, communicator and data set. After each update all ranks' replicas hold the same
 * parameters. */
#ifndef ESPALIER_REPLICA_H
#define ESPALIER_REPLICA_H

#include <espalier/communicator.h>
#include <espalier/dataset.h>
#include <espalier/evaluate.h>
#include <espalier/network.h>
#include <espalier/optimizer.h>
#include <espalier/prune.h>
#include <espalier/sharing.h>
#include <espalier/staging.h>

/** Seconds spent in the phases of updates, added up; `load` brings survivors to where blocks
 * compute with them. On a device that queues its work they are the host's, and an update that is
 * replayed counts as one phase, `update`. */
struct replica_seconds {
    double gather, forward, loss, backward, wait, update, load;
};

/** What a rank may ask of all: summed along with the gradient, so that after an update all ranks
 * know at no cost of its own. */
enum replica_request {
    REQUEST_STOP,
    REQUEST_CHECKPOINT,
    REQUEST_SAVED,
    REQUEST_REPORT,
    REQUEST_RECORDED, /* this update cannot be replayed here; nor recorded */
    REQUEST_PLAIN,
    REQUEST_COUNT
};

struct replica {
    const struct recipe *recipe;
    struct communicator *communicator;
    struct backend *backend;
    struct network *network;
    struct optimizer optimizer; /* its states: see replica_complete */
    struct sharing sharing;     /* of updates, among the ranks of one node */
    struct staging staging;     /* of the gradient, where nothing is shared */
    struct device_dataset data;
    uint32_t *permutation;        /* host [data.count] */
    uint32_t *device_permutation; /* device [data.count] */
    uint32_t *batch_ids;          /* device [max_samples]: of an update that can be replayed */
    float *x;                     /* device [max_samples][input] */
    struct loss_sums *sums;       /* device: this rank's, until someone clears them */
    double *exact;                /* [count]: the gradient of a reproducible run, NULL else */
    int64_t step;                 /* updates done */
    /* Before an update, 1 where this rank asks for it; after it, how many ranks did. */
    float requests[REQUEST_COUNT];
    struct replica_seconds seconds;
};

/** Build the recipe's network with its initial weights on the CPU backend, for a share of the
 *  recipe's batch. ST_INPUT when a label of `train` is beyond the network's classes.
 *  replica_destroy frees it, also after a failure. Not collective. */
enum status replica_create(const struct recipe *recipe, struct communicator *communicator,
                           const struct dataset *train, struct replica *replica);
void replica_destroy(struct replica *replica); /* legal on a zeroed replica */

/** Let the ranks share the work of updates, where they can, or sum on their devices
 *  (communicator_join_gpu; `share_gpus`: ranks may have the same one). To be called once, when
 *  all ranks have created their replicas. Collective. */
enum status replica_join(struct replica *replica, bool share_gpus);

/** Make the optimizer's states complete on every rank: between updates that ranks share, each has
 *  those of its share alone. To be called before the states are read or renumbered. Collective. */
enum status replica_complete(struct replica *replica);

/** Draw the epoch's permutation of the training set (1 is the first). */
enum status replica_shuffle(struct replica *replica, int epoch);

/** One update by the batch at `window` of the permutation: forward and backward over this rank's
 *  slice of it, gradient summed over the ranks to the mean over the window, optimizer. Loss and
 *  correct answers are added to `sums`. Collective. */
enum status replica_update(struct replica *replica, struct slice window);

/** The grains of a reproducible run: a batch is cut into so many parts, whatever the ranks, and a
 * rank takes whole ones. Each is a pass of its own, and the passes' gradients are summed exactly.
 */
enum { REPLICA_GRAINS = 4 };

/** Images of a grain. */
uint32_t replica_grain(const struct recipe *recipe);

/** The images of a window of `count` that rank `rank` of `ranks` takes. */
struct slice replica_shard(const struct recipe *recipe, uint32_t count, int rank, int ranks);

/** Measure for the network's blocks when sparse form pays (break_even.h), on the first batch of the
 *  first epoch, in a run that leaves `density` of the connections. To be called before the first
 *  epoch's permutation is drawn. Collective. */
enum status replica_measure_break_even(struct replica *replica, struct pruner *pruner,
                                       double density);

/** With train.cudnn_autotune: let rank 0 try the ways that the plans' passes can go, for plans that
 *  are new, and let all ranks take the fastest; what a checkpoint holds is taken as it is.
 *  *measured: something was tried. To be called between updates. Collective. */
enum status replica_choose(struct replica *replica, bool *measured);

/** Labels of a data set that the network has no unit for: ST_INPUT naming `split`. */
enum status replica_check_labels(const struct replica *replica, const struct dataset *dataset,
                                 const char *split);

#endif
