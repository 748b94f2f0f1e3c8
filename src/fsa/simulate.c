/* Many runs of FSA on synthetic data, shared out over ranks and threads. */
#include "columns.h"

#include <espalier/fsa.h>
#include <espalier/threads.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { TRUE_SPACING = 10 }; /* every tenth variable counts */

/* Of one run; doubles, as ranks add them up. */
struct outcome {
    double found; /* true variables that were kept */
    double auc;
    double diverged; /* in this iteration; 0: it did not */
};

static bool is_true(const struct fsa_settings *s, int variable) {
    return (variable + 1) % TRUE_SPACING == 0 && variable < TRUE_SPACING * s->keep;
}

static struct fsa_source source_of(const struct fsa_settings *s, int run, uint32_t set) {
    return (struct fsa_source){s->seed, (uint32_t)run, set, s->correlation};
}

static void make_training_set(const struct fsa_settings *s, int run, struct fsa_workspace *w) {
    const struct fsa_source source = source_of(s, run, 0);
    for (int j = 0; j < s->variables; j++)
        w->columns[j] = j;
    fsa_generate(&source, w->columns, s->variables, s->samples, w->x);
    memset(w->margins, 0, (size_t)s->samples * sizeof *w->margins);
    for (int j = 0; j < s->variables; j++)
        if (is_true(s, j))
            column_add(s->samples, 1, column_of(w->x, s->samples, j), w->margins);
    fsa_label(&source, w->margins, s->samples, s->noise, w->y);
}

/* Columns that the model or the truth looks at, ascending; returns how many. */
static int choose_columns(const struct fsa_settings *s, struct fsa_workspace *w) {
    int count = 0, next = 0;
    for (int j = 0; j < s->variables; j++) {
        bool kept = next < w->count && w->variables[next] == j;
        next += kept;
        if (kept || is_true(s, j))
            w->columns[count++] = j;
    }
    return count;
}

/* On as many new samples. Scores go to margins, the sums behind the labels to x's last column. */
static double test(const struct fsa_settings *s, int run, struct fsa_workspace *w) {
    const struct fsa_source source = source_of(s, run, 1);
    size_t bytes = (size_t)s->samples * sizeof(double);
    double *sums = column_of(w->x, s->samples, s->variables - 1); /* more than count */
    int count = choose_columns(s, w), next = 0;
    fsa_generate(&source, w->columns, count, s->samples, w->x);
    memset(w->margins, 0, bytes);
    memset(sums, 0, bytes);
    for (int c = 0; c < count; c++) {
        const double *column = column_of(w->x, s->samples, c);
        if (is_true(s, w->columns[c]))
            column_add(s->samples, 1, column, sums);
        if (next < w->count && w->variables[next] == w->columns[c])
            column_add(s->samples, w->weights[next++], column, w->margins);
    }
    fsa_label(&source, sums, s->samples, s->noise, w->y);
    return fsa_auc(w->margins, w->y, s->samples, sums);
}

static struct outcome simulate_run(const struct fsa_settings *s, int run, struct fsa_workspace *w) {
    struct outcome outcome = {0};
    make_training_set(s, run, w);
    outcome.diverged = fsa_fit(s, w);
    if (outcome.diverged != 0)
        return outcome;
    for (int j = 0; j < w->count; j++)
        outcome.found += is_true(s, w->variables[j]);
    outcome.auc = test(s, run, w);
    return outcome;
}

/* ---- ranks and threads ---- */

/* Every run is one thread's from its first draw to its outcome. */
static void simulate_own(const struct fsa_settings *s, const struct communicator *communicator,
                         struct fsa_workspace *workspaces, int threads, struct outcome *outcomes) {
    int rank = communicator->rank, size = communicator->size;
    int own = (s->runs - rank + size - 1) / size;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int i = 0; i < own; i++)
        outcomes[rank + i * size] =
            simulate_run(s, rank + i * size, &workspaces[omp_get_thread_num()]);
}

static enum status create_workspaces(const struct fsa_settings *s, int threads,
                                     struct fsa_workspace **workspaces, struct outcome **outcomes) {
    *workspaces = calloc((size_t)threads, sizeof **workspaces);
    *outcomes = calloc((size_t)s->runs, sizeof **outcomes);
    if (*workspaces == NULL || *outcomes == NULL)
        FAIL(ST_MEMORY, "out of memory: %d runs on %d threads", s->runs, threads);
    for (int i = 0; i < threads; i++)
        TRY(fsa_workspace_create(s->samples, s->variables, &(*workspaces)[i]));
    return ST_OK;
}

/* The same on every rank. */
static enum status summarize(const struct fsa_settings *s, const struct outcome *outcomes,
                             struct fsa_result *result) {
    *result = (struct fsa_result){0};
    for (int r = 0; r < s->runs; r++) {
        if (outcomes[r].diverged != 0)
            FAIL(ST_NUMERIC,
                 "run %d, iteration %.0f: a weight is no finite number (is the learning rate %g "
                 "too large?)",
                 r, outcomes[r].diverged, s->rate);
        result->all_found += outcomes[r].found == s->keep;
        result->found += outcomes[r].found / s->keep;
        result->auc += outcomes[r].auc;
    }
    result->all_found /= s->runs;
    result->found /= s->runs;
    result->auc /= s->runs;
    return ST_OK;
}

enum status fsa_simulate(const struct fsa_settings *s, struct communicator *communicator,
                         struct fsa_result *result) {
    struct fsa_workspace *workspaces = NULL;
    struct outcome *outcomes = NULL;
    int threads = threads_default(s->threads, communicator->cores);
    enum status status =
        communicator_agree(communicator, create_workspaces(s, threads, &workspaces, &outcomes));
    if (status == ST_OK) {
        simulate_own(s, communicator, workspaces, threads, outcomes);
        status = communicator->sum_doubles(communicator, (double *)outcomes,
                                           (size_t)s->runs * sizeof *outcomes / sizeof(double));
    }
    if (status == ST_OK)
        status = communicator_agree(communicator, summarize(s, outcomes, result));
    for (int i = 0; i < threads && workspaces != NULL; i++)
        fsa_workspace_destroy(&workspaces[i]);
    free(workspaces);
    free(outcomes);
    return status;
}
