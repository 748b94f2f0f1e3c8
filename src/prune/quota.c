#include <espalier/quota.h>
#include <math.h>

size_t quota_least(double min_keep, size_t connections) {
    double all = (double)connections;
    double least = min_keep < 1 ? (double)lround(min_keep * all) : min_keep;
    return (size_t)fmin(least, all);
}

double quota_erk_weight(const uint32_t *sizes, int dimensions) {
    double sum = 0;
    for (int i = 0; i < dimensions; i++)
        sum += sizes[i];
    return sum;
}

/* Rounded down at the half, so that no count is larger than its x allows. */
static size_t share_at(const struct quota *quota, double x) {
    double share = fmin(ceil(x * quota->weight - 0.5), (double)quota->connections);
    return share > (double)quota->least ? (size_t)share : quota->least;
}

static size_t fill(struct quota *quotas, int count, double x) {
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += quotas[i].count = share_at(&quotas[i], x);
    return sum;
}

/* The x at which the quota's next connection is due. */
static double next_due(const struct quota *quota) {
    return quota->count < quota->connections ? ((double)quota->count + 0.5) / quota->weight
                                             : INFINITY;
}

/* An x just below the one wanted; the counts add up to at most `total`, or to all the least. */
static double bisect(struct quota *quotas, int count, size_t total) {
    enum { HALVINGS = 100 }; /* more than a double has bits */
    double low = 0, high = 0;
    for (int i = 0; i < count; i++)
        high = fmax(high, (double)(quotas[i].connections + 1) / quotas[i].weight);
    for (int i = 0; i < HALVINGS; i++) {
        double middle = low + (high - low) / 2;
        if (fill(quotas, count, middle) <= total)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void quota_share(struct quota *quotas, int count, size_t total) {
    size_t sum = fill(quotas, count, bisect(quotas, count, total));
    while (sum < total) {
        int first = 0;
        for (int i = 1; i < count; i++)
            if (next_due(&quotas[i]) < next_due(&quotas[first]))
                first = i;
        if (count == 0 || next_due(&quotas[first]) == INFINITY)
            return;
        quotas[first].count++;
        sum++;
    }
}
