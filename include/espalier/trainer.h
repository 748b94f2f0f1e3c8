/* trainer.h - training: the loop of Algorithm 1 (Barbu et al. 2017) over ranks. */
#ifndef ESPALIER_TRAINER_H
#define ESPALIER_TRAINER_H

#include <espalier/communicator.h>
#include <espalier/dataset.h>
#include <espalier/recipe.h>

/** Train the recipe's network from its initial weights and leave the results in `run_dir`. The
 *  directory exists; rank 0 writes. Collective. */
enum status trainer_run(const struct recipe *recipe, struct communicator *communicator,
                        const char *run_dir, bool quiet);

#endif
