#include <espalier/fsa.h>
#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b) {
    double p = *(const double *)a, q = *(const double *)b;
    return (p > q) - (p < q);
}

/* The scores of the positive samples in front, of the others behind; returns the positives. */
static int split(const double *scores, const double *y, int count, double *sorted) {
    int positive = 0, negative = 0;
    for (int i = 0; i < count; i++)
        if (y[i] > 0)
            sorted[positive++] = scores[i];
        else
            sorted[count - ++negative] = scores[i];
    return positive;
}

double fsa_auc(const double *scores, const double *y, int count, double *sorted) {
    int positive = split(scores, y, count, sorted), negative = count - positive;
    const double *low = sorted + positive; /* scores that should be the lower ones */
    qsort(sorted, (size_t)positive, sizeof *sorted, ascending);
    qsort(sorted + positive, (size_t)negative, sizeof *sorted, ascending);
    double ordered = 0;
    for (int p = 0, below = 0, not_above = 0; p < positive; p++) {
        while (below < negative && low[below] < sorted[p])
            below++;
        while (not_above < negative && low[not_above] <= sorted[p])
            not_above++;
        ordered += 0.5 * (below + not_above);
    }
    return ordered / ((double)positive * negative); /* 0 / 0 is the NaN */
}
