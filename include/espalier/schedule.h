/* schedule.h - how many connections are left after each pruning event: pure functions. */
#ifndef ESPALIER_SCHEDULE_H
#define ESPALIER_SCHEDULE_H

#include <espalier/recipe.h>
#include <stddef.h>
#include <stdint.h>

/** The number e >= 1 of the event that follows update `update` (the first update is 1), or 0 when
 *  none does: e = (update - begin) / every where that is a whole number, and update <= end
 *  unless end is 0. Always 0 for the schedule `none`. */
int64_t schedule_event(const struct prune_settings *prune, int64_t update);

/** M_e, the connections that are left of `connections` (M) after event e.
 *
 *  linear  M_e = M - lround(e * rate * M)    (Bartoldson's poster: rate 0.005, every 50 updates)
 *
 *  never below k = keep (a count) or lround(keep * M) (a fraction below 1), never below 0, never
 *  above M. */
size_t schedule_survivors(const struct prune_settings *prune, size_t connections, int64_t event);

#endif
