/* schedule.h - when pruning events come, and how many connections each leaves: pure functions of
 * the update, the same on every rank and after every restart. */
#ifndef ESPALIER_SCHEDULE_H
#define ESPALIER_SCHEDULE_H

#include <espalier/recipe.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/** How long a run is; 0 where it is not known, and then no event is taken from it. */
struct run_length {
    int64_t updates, updates_per_epoch;
};

/** A recipe's schedule with everything counted in updates. */
struct schedule {
    enum schedule_kind kind;
    int64_t begin, every; /* event e follows update begin + e * every, e = 1, 2, ... */
    int64_t events;       /* E: the last event; INT64_MAX: no end */
    double rate, mu, keep;
};

/** Resolve a recipe's settings for a run.
 *
 *  The unit of begin and end is an update, an event (`every` updates) or an epoch (every too).
 *  E = (end - begin) / every, rounded down. Where end is 0, it is the middle of what follows begin
 *  for schedules that go to keep: FSA reaches k after half of its N iterations (Barbu et al. 2017,
 *  eq. 3: N = 2 E). The others have no end then. `oneshot` has E = 1. */
struct schedule schedule_plan(const struct prune_settings *prune, struct run_length run);

/** The number e of the event that follows update `update` (the first update is 1), or 0 when none
 *  does: e = (update - begin) / every where that is a whole number of 1 to E. Always 0 for the
 *  schedule `none`. */
int64_t schedule_event(const struct schedule *schedule, int64_t update);

/** M_e, the connections that are left of `connections` (M) after event e.
 *
 *  none             M
 *  linear           M - lround(e rate M)       (Bartoldson's poster: rate 0.005, every 50 updates)
 *  geometric        lround(M (1 - rate)^e)
 *  fsa              lround(k + (M - k) (E - e) / (E + mu e))
 *                   eq. 3 of Barbu et al. 2017, k + (M - k) max(0, (N - 2e) / (2 e mu + N)), with
 *                   N = 2 E; mu = 0 is a constant pace
 *  fsa_exponential  lround(M (k / M)^(e / E)): the same part of what is left at each event
 *  cubic            lround(k + (M - k) (1 - e / E)^3)           (Zhu & Gupta 2017, eq. 1)
 *  oneshot          k
 *
 *  with k = keep (a count) or lround(keep M) (a fraction below 1). From event E on the schedules
 *  that go to keep leave exactly k. M_0 is M; never below k, never above M. */
size_t schedule_survivors(const struct schedule *schedule, size_t connections, int64_t event);

/** Write a table of the schedules (name, M_e), for --help. */
void schedule_write_table(FILE *file);

#endif
