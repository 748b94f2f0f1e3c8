/* Algorithm 1 of Barbu et al. 2017 for linear models. fsa_fit reads as its box. */
#include "columns.h"

#include <espalier/fsa.h>
#include <espalier/schedule.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum status fsa_workspace_create(int samples, int variables, struct fsa_workspace *w) {
    size_t n = (size_t)samples, m = (size_t)variables;
    *w = (struct fsa_workspace){.x = calloc(n * m, sizeof *w->x),
                                .y = calloc(n, sizeof *w->y),
                                .margins = calloc(n, sizeof *w->margins),
                                .weights = calloc(m, sizeof *w->weights),
                                .gradient = calloc(m, sizeof *w->gradient),
                                .variables = calloc(m, sizeof *w->variables),
                                .columns = calloc(m, sizeof *w->columns)};
    if (w->x == NULL || w->y == NULL || w->margins == NULL || w->weights == NULL ||
        w->gradient == NULL || w->variables == NULL || w->columns == NULL)
        FAIL(ST_MEMORY, "out of memory: %d samples of %d variables", samples, variables);
    return ST_OK;
}

void fsa_workspace_destroy(struct fsa_workspace *w) {
    free(w->x);
    free(w->y);
    free(w->margins);
    free(w->weights);
    free(w->gradient);
    free(w->variables);
    free(w->columns);
    *w = (struct fsa_workspace){.x = NULL};
}

/* gradient = d/dbeta of the mean loss; margins is scratch. */
static void find_gradient(const struct fsa_settings *s, struct fsa_workspace *w) {
    int n = s->samples;
    memset(w->margins, 0, (size_t)n * sizeof *w->margins);
    for (int j = 0; j < w->count; j++)
        column_add(n, w->weights[j], column_of(w->x, n, j), w->margins);
    for (int i = 0; i < n; i++)
        w->margins[i] = fsa_loss_slope(s->loss, w->y[i] * w->margins[i]) * w->y[i] / n;
    for (int j = 0; j < w->count; j++)
        w->gradient[j] = column_dot(n, column_of(w->x, n, j), w->margins);
}

static int descending(const void *a, const void *b) {
    double p = *(const double *)a, q = *(const double *)b;
    return (p < q) - (p > q);
}

/* Keep the `left` largest |beta|: close the gaps between what belongs to them, columns included. */
static void keep_largest(int samples, int left, struct fsa_workspace *w) {
    double *magnitudes = w->gradient;
    for (int j = 0; j < w->count; j++)
        magnitudes[j] = fabs(w->weights[j]);
    qsort(magnitudes, (size_t)w->count, sizeof *magnitudes, descending);
    double least = magnitudes[left - 1];
    int ties = 1; /* of that magnitude, those that stay: the lower indices */
    while (ties < left && magnitudes[left - 1 - ties] == least)
        ties++;
    int kept = 0;
    for (int j = 0; j < w->count; j++) {
        double magnitude = fabs(w->weights[j]);
        if (magnitude < least || (magnitude == least && ties-- <= 0))
            continue;
        w->weights[kept] = w->weights[j];
        w->variables[kept] = w->variables[j];
        if (kept < j)
            memcpy(column_of(w->x, samples, kept), column_of(w->x, samples, j),
                   (size_t)samples * sizeof *w->x);
        kept++;
    }
    w->count = left;
}

static bool all_finite(const double *values, int count) {
    for (int j = 0; j < count; j++)
        if (!isfinite(values[j]))
            return false;
    return true;
}

static void begin_fit(int variables, struct fsa_workspace *w) {
    w->count = variables;
    for (int j = 0; j < variables; j++) {
        w->weights[j] = 0;
        w->variables[j] = j;
    }
}

int fsa_fit(const struct fsa_settings *s, struct fsa_workspace *w) {
    const struct schedule schedule = {.kind = SCHEDULE_FSA,
                                      .every = 1,
                                      .events = s->iterations / 2,
                                      .mu = s->mu,
                                      .keep = s->keep};
    begin_fit(s->variables, w);
    for (int e = 1; e <= s->iterations; e++) {
        find_gradient(s, w);
        double rate = s->rate * pow((double)s->variables / w->count, s->growth);
        for (int j = 0; j < w->count; j++)
            w->weights[j] -= rate * w->gradient[j];
        if (!all_finite(w->weights, w->count))
            return e;
        int left = (int)schedule_survivors(&schedule, (size_t)s->variables, e);
        if (left < w->count)
            keep_largest(s->samples, left, w);
    }
    return 0;
}
