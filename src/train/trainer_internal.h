/* trainer_internal.h - a training run, shared by the files that make up the trainer. */
#ifndef ESPALIER_TRAIN_TRAINER_INTERNAL_H
#define ESPALIER_TRAIN_TRAINER_INTERNAL_H

#include <espalier/checkpoint.h>
#include <espalier/evaluate.h>
#include <espalier/events.h>
#include <espalier/job.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <espalier/replica.h>
#include <espalier/trainer.h>

/* Rank 0's checkpoint on its way to the disk. */
struct save {
    struct job job;
    struct checkpoint_copy copy;
    uint64_t bytes;
    double seconds; /* that the run has waited for it so far */
};

/* Step events that have not been written: to know their loss the host must wait for the device. */
enum { PENDING_MAX = 64 };
struct pending_steps {
    struct loss_sums *sums;                /* device [PENDING_MAX]: this rank's */
    struct step_event events[PENDING_MAX]; /* all but loss and accuracy */
    int64_t samples[PENDING_MAX];          /* of all ranks */
    int count, most;                       /* most: how many may wait */
    double written_seconds;                /* when the last ones were */
};

struct trainer {
    struct recipe recipe; /* the caller's, but for its name after a resume; owns nothing */
    struct communicator *communicator;
    const struct trainer_options *options;

    struct dataset train, test, validation; /* validation is a view into train's arrays */
    struct device_dataset test_device, validation_device;

    struct replica replica; /* its sums are those since the last step event */
    struct pruner pruner;
    struct evaluator evaluator;

    struct pending_steps pending;
    struct run_state state; /* what replica and log hold themselves is filled in for a checkpoint */
    struct checkpoint resumed; /* where the run goes on from; zero for a new one */
    int64_t last_step, data_hash;
    /* monotonic; a resumed run's begin in the past, by what it had already taken */
    double start_seconds, epoch_seconds, event_seconds, checkpoint_seconds;

    struct save save;
    void **waits; /* [ranks]: where each counts its waits, for the watchdog */

    int64_t own_samples;             /* of state.since_event, this rank's */
    double seen_loss, seen_accuracy; /* rank 0's of late, for the progress line */

    struct event_log log;
    struct progress progress;
};

/* ---- observe.c ---- */

/** Where the results go, and whether anything will be pruned: a short run may end before. */
void trainer_print_plan(struct trainer *t);

/** Prepare to report updates: on a device whose work is queued, step events wait for a while. */
enum status trainer_prepare_reports(struct trainer *t);

/** A step event, which covers the updates since the one before. Collective. */
enum status trainer_report_steps(struct trainer *t);

/** Rank 0: whether step events have waited long enough. */
bool trainer_reports_are_due(const struct trainer *t);

/** Write the step events that wait. To be called before any other event. Collective. */
enum status trainer_write_reports(struct trainer *t);

enum status trainer_draw_progress(struct trainer *t);

/** Evaluate, write and print the epoch event; it is kept in state.last_epoch. Collective. */
enum status trainer_report_epoch(struct trainer *t);

/* ---- resume.c ---- */

/** Open the run directory, and load where the run goes on from, if it does. *finished: there is
 *  nothing left to do. Collective. */
enum status trainer_open(struct trainer *t, bool *finished);

/* ---- save.c ---- */

/** What the optimizer keeps beside the parameters. */
struct checkpoint_states trainer_states(const struct trainer *t);

/** Begin to write a checkpoint of the run as it is now, between two updates; whatever is under way
 *  is finished first. Collective. */
enum status trainer_checkpoint(struct trainer *t);

/** Whether one that was begun has been written, or has failed. Rank 0 knows. */
bool trainer_has_saved(const struct trainer *t);

/** Wait until the last one is written. Collective. */
enum status trainer_finish_checkpoint(struct trainer *t);

/** Rank 0's part of it; legal on all. */
enum status trainer_finish_save(struct trainer *t);

/* ---- results.c ---- */

/** Model, summary and end event, by rank 0. */
enum status trainer_write_results(struct trainer *t);

#endif
