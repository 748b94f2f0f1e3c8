/* trainer.h - training: the loop of Algorithm 1 (Barbu et al. 2017) over ranks. */
#ifndef ESPALIER_TRAINER_H
#define ESPALIER_TRAINER_H

#include <espalier/communicator.h>
#include <espalier/dataset.h>
#include <espalier/recipe.h>
#include <espalier/watchdog.h>
#include <stdbool.h>

struct trainer_options {
    const char *run_dir;
    bool resume; /* go on from the newest checkpoint, if there is one */
    bool quiet;
    bool share_gpus; /* ranks of a node may have the same GPU */
    /* When a rank has not moved for train.hang_seconds; called on its watchdog's thread. */
    struct watchdog_alarm alarm;
};

/** Train the recipe's network and leave the results in the run directory; rank 0 writes.
 *
 *  A new run needs a directory that is new or empty. With `resume` it goes on from the newest
 *  checkpoint that is whole, bit for bit where the number of ranks is the same; ST_INPUT names the
 *  keys of a recipe that differs in what matters. Without a checkpoint it starts afresh; a run that
 *  is finished is left alone. ST_STOPPED when a signal (interrupt.h) to any rank asked for it,
 * after a checkpoint. Collective. */
enum status trainer_run(const struct recipe *recipe, struct communicator *communicator,
                        const struct trainer_options *options);

#endif
