/* run_record.h - what a run has left behind, read back: events.jsonl and summary.json.
 *
 * A record owns everything in it. Numbers are doubles, counts too (exact up to 2^53); NaN stands
 * where the run wrote null. Nothing here is collective. */
#ifndef ESPALIER_RUN_RECORD_H
#define ESPALIER_RUN_RECORD_H

#include <espalier/status.h>
#include <stdbool.h>

/** What the `start` event says of the run. */
struct run_start {
    double epochs, batch, ranks, threads, connections;
    const char *recipe, *backend, *schedule, *time; /* time: UTC, "2026-01-31T12:00:00Z" */
};

struct run_epoch {
    double epoch, step;                   /* 1 is the first epoch; updates done at its end */
    double train_accuracy, test_accuracy; /* fractions */
    double test_errors, survivors;
    double seconds_epoch;
};

/** Means over the updates since the record before. */
struct run_step {
    double step, images_per_second;
};

/** After a pruning event. */
struct run_prune {
    double step;
    const double *survivors; /* [layers_count] */
};

struct run_layer {
    const char *name;
    double connections; /* before the first event */
};

/** What the run came to. */
struct run_result {
    double test_accuracy, train_accuracy, test_errors, epochs, steps, survivors;
    double seconds_train, images_per_second;
};

struct run_record {
    const char *dir; /* as given */
    struct run_start start;
    struct run_epoch *epochs;
    struct run_step *steps;
    struct run_prune *prunes;
    struct run_layer *layers; /* none while nothing has been pruned */
    int epochs_count, steps_count, prunes_count, layers_count;
    bool finished;            /* there is a summary.json */
    struct run_result result; /* where finished */
    struct arena *arena;
};

/** Read the directory of a run, which need not have finished.
 *
 *  Events of other kinds and keys that nothing here holds are passed over. A last line without
 *  its newline is still being written, and passed over too. Where a run was resumed, an event
 *  replaces those of later updates that stand before it.
 *
 *  ST_INPUT when DIR is no run's directory, and, naming file and line, for what is no JSON object
 *  or an event without a key that it must have.
 *
 *  record  filled; run_record_destroy frees it (legal on a zeroed record, and after failure) */
enum status run_record_read(const char *dir, struct run_record *record);

void run_record_destroy(struct run_record *record);

/** Updates that the run has done as far as the record tells. */
double run_record_last_step(const struct run_record *record);

#endif
