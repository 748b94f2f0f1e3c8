/* prune.h - the pruning event: select on rank 0, broadcast, apply everywhere, compare replicas. */
#ifndef ESPALIER_PRUNE_H
#define ESPALIER_PRUNE_H

#include <espalier/communicator.h>
#include <espalier/network.h>
#include <espalier/quota.h>
#include <espalier/schedule.h>
#include <espalier/survivors.h>

/** Prepared pruning of one network; borrows network, recipe and communicator. */
struct pruner {
    struct network *network;
    const struct prune_settings *settings;
    struct schedule schedule;
    struct communicator *communicator;
    int scopes_count; /* `layer`: one a layer; `global`: one in all; 0: nothing to prune */
    struct survivors_scope *scopes;
    int layers_count;
    struct quota *quotas;  /* of each layer to prune, in network order */
    uint64_t *device_mask; /* device words for the largest scope */
    float *device_values;  /* device [largest scope]: survivors' copies; NULL where beta serves */
};

/** Resolve prune.layers into scopes and the schedule for a run. ST_INPUT names a layer that the
 *  network lacks. */
enum status pruner_create(struct network *network, const struct prune_settings *settings,
                          struct run_length run, struct communicator *communicator,
                          struct pruner *pruner);

void pruner_destroy(struct pruner *pruner); /* legal on a zeroed pruner */

/** Prune if an event follows update `update`; *pruned says whether. Collective.
 *
 *  For each scope: rank 0 selects the M_e largest |weight| (schedule.h), broadcasts one packed
 *  bit per current survivor, all ranks keep the same (survivors.h).
 *
 *    scope layer   each layer by itself: M_e of its own connections (distribution uniform), or its
 *                  share of the M_e of all layers' connections together (erk, quota.h)
 *    scope global  M_e of all layers' connections, ranked together; with prune.normalise by
 *                  magnitude over the Euclidean norm of the layer's survivors
 *
 *  No layer is left with less than prune.min_keep, nor with more than it has. Then a hash of every
 *  parameter is compared across ranks: ST_DIVERGED names update, layer and the first rank that
 *  differs from rank 0. ST_NUMERIC names update and layer of a NaN or infinite weight.
 *
 *  states  optimizer state, as survivors_keep's */
enum status pruner_step(struct pruner *pruner, int64_t update, float *const *states,
                        int states_count, bool *pruned);

/** Prune every scope at once to lround(density * M) of its original M connections, whatever the
 *  schedule says; else as an event of pruner_step after update `update`. Collective. */
enum status pruner_prune_to(struct pruner *pruner, double density, int64_t update,
                            float *const *states, int states_count);

/** The least part of its connections that a scope is left with after `updates` updates, or 0 where
 *  layers lose connections unevenly: any one of them may lose more than the others. */
double pruner_least_density(const struct pruner *pruner, int64_t updates);

/** Compare all parameters across ranks, as pruner_step does. Collective. */
enum status pruner_compare_replicas(struct pruner *pruner, int64_t update);

#endif
