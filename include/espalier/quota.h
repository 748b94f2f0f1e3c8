/* quota.h - how many connections each layer keeps of what a schedule leaves: pure functions. */
#ifndef ESPALIER_QUOTA_H
#define ESPALIER_QUOTA_H

#include <stddef.h>
#include <stdint.h>

/** A layer as far as sharing goes. */
struct quota {
    size_t connections; /* that it had at first */
    size_t least;       /* that it keeps whatever happens, at most `connections` */
    double weight;      /* its part of a share is proportional to this, above 0 */
    size_t count;       /* what it gets */
};

/** prune.min_keep of a layer: a part below 1 of its connections, else a count, at most all. */
size_t quota_least(double min_keep, size_t connections);

/** The Erdos-Renyi-kernel weight of a weight of these sizes (conv [out, in, kh, kw], dense
 *  [out, in]): out + in + kh + kw. Evci et al. 2020: the density is proportional to the sum of the
 *  sizes over their product, so the count is to their sum. */
double quota_erk_weight(const uint32_t *sizes, int dimensions);

/** Share `total` out: counts proportional to the weights, rounded, within [least, connections].
 *
 *  count = clamp(round(x weight)) with the x at which the counts add up to `total` (or to the sum
 *  of the least, or of all connections, where that is nearer); of layers that x would raise
 *  together the first goes first. No count grows when `total` shrinks, and the sum is exact. */
void quota_share(struct quota *quotas, int count, size_t total);

#endif
