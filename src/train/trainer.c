/* Training: Algorithm 1 of Barbu et al. 2017 over ranks. train_epoch reads as its box. */
#include "trainer_internal.h"

#include <espalier/interrupt.h>
#include <espalier/schedule.h>
#include <stdlib.h>
#include <string.h>

/* ---- preparation ---- */

static enum status load_data(struct trainer *t) {
    const struct data_settings *data = &t->recipe.data;
    TRY(dataset_load(data->dir, DATASET_TRAIN, data->train_limit, &t->train));
    watchdog_beat();
    TRY(dataset_load(data->dir, DATASET_TEST, data->test_limit, &t->test));
    watchdog_beat();
    if (t->train.shape.height != t->test.shape.height ||
        t->train.shape.width != t->test.shape.width)
        FAIL(ST_INPUT, "%s: training images are %dx%d, test images %dx%d", data->dir,
             t->train.shape.height, t->train.shape.width, t->test.shape.height,
             t->test.shape.width);
    if (data->validation > 0)
        TRY(dataset_hold_out(&t->train, data->validation, &t->validation));
    return ST_OK;
}

static int64_t planned_steps(const struct trainer *t) {
    uint32_t batch = (uint32_t)t->recipe.train.batch;
    int64_t steps = (int64_t)t->recipe.train.epochs * dataset_steps(t->train.count, batch);
    int64_t limit = t->recipe.train.steps;
    return limit > 0 && limit < steps ? limit : steps;
}

static enum status build(struct trainer *t) {
    TRY(replica_create(&t->recipe, t->communicator, &t->train, &t->replica));
    TRY(replica_check_labels(&t->replica, &t->test, "test"));
    struct network *network = t->replica.network;
    t->last_step = planned_steps(t);
    const struct run_length run = {t->last_step,
                                   dataset_steps(t->train.count, (uint32_t)t->recipe.train.batch)};
    TRY(pruner_create(network, &t->recipe.prune, run, t->communicator, &t->pruner));
    TRY(evaluator_create(network, t->communicator, &t->evaluator));
    TRY(trainer_prepare_reports(t));
    TRY(device_dataset_create(t->replica.backend, &t->test, &t->test_device));
    if (t->validation.count > 0)
        TRY(device_dataset_create(t->replica.backend, &t->validation, &t->validation_device));
    return ST_OK;
}

static enum status prepare_rank(struct trainer *t) {
    TRY(load_data(t));
    return build(t);
}

/* The ranks see from now on which of them it is that they wait for. */
static enum status share_waits(struct trainer *t) {
    struct communicator *c = t->communicator;
    t->waits = calloc((size_t)c->size, sizeof *t->waits);
    TRY_TOGETHER(c, t->waits != NULL ? ST_OK : status_fail(ST_MEMORY, "out of memory"));
    TRY(c->map(c, sizeof(uint64_t), t->waits));
    watchdog_share(t->waits, c->rank, c->size);
    return ST_OK;
}

static enum status choose(struct trainer *t) {
    bool measured;
    TRY(replica_choose(&t->replica, &measured));
    if (!measured)
        return ST_OK;
    return communicator_agree(t->communicator,
                              event_engines(&t->log, t->replica.step, t->replica.network));
}

static enum status prepare(struct trainer *t, bool *finished) {
    t->start_seconds = monotonic_seconds();
    TRY(share_waits(t));
    TRY_TOGETHER(t->communicator, prepare_rank(t));
    TRY(replica_join(&t->replica, t->options->share_gpus));
    TRY(trainer_open(t, finished)); /* not before all ranks can train */
    if (*finished)
        return ST_OK;
    TRY(pruner_compare_replicas(&t->pruner, t->replica.step)); /* equal from the start, or never */
    TRY(choose(t));
    trainer_print_plan(t);
    if (t->replica.step > 0) /* the checkpoint has what was measured */
        return ST_OK;
    return replica_measure_break_even(&t->replica, &t->pruner,
                                      pruner_least_density(&t->pruner, t->last_step));
}

static void release(struct trainer *t) {
    device_dataset_destroy(&t->test_device);
    device_dataset_destroy(&t->validation_device);
    evaluator_destroy(&t->evaluator);
    pruner_destroy(&t->pruner);
    if (t->replica.backend != NULL)
        t->replica.backend->release(t->replica.backend, t->pending.sums);
    replica_destroy(&t->replica);
    dataset_destroy(&t->train);
    dataset_destroy(&t->test);
    checkpoint_destroy(&t->resumed);
    progress_end(&t->progress);
}

/* ---- pruning ---- */

static enum status prune(struct trainer *t) {
    double begin = monotonic_seconds();
    bool pruned = false;
    if (schedule_event(&t->pruner.schedule, t->replica.step) > 0) {
        TRY(trainer_write_reports(t));
        TRY(t->communicator->settle(t->communicator));
        TRY(replica_complete(&t->replica));
    }
    TRY(pruner_step(&t->pruner, t->replica.step, t->replica.optimizer.states, OPTIMIZER_STATES_MAX,
                    &pruned));
    if (!pruned)
        return ST_OK;
    t->state.event = schedule_event(&t->pruner.schedule, t->replica.step);
    const struct prune_event event = {.step = t->replica.step,
                                      .allreduce_bytes = t->replica.network->count * sizeof(float),
                                      .optimizer_bytes = optimizer_bytes(&t->replica.optimizer),
                                      .seconds_event = monotonic_seconds() - begin};
    TRY_TOGETHER(t->communicator, event_prune(&t->log, &event, t->replica.network));
    return choose(t);
}

/* ---- the loop ---- */

static enum status update(struct trainer *t, struct slice window) {
    const double seconds = t->recipe.checkpoint.seconds;
    const bool due = seconds > 0 && monotonic_seconds() - t->checkpoint_seconds >= seconds;
    t->replica.requests[REQUEST_STOP] = interrupt_pending();
    t->replica.requests[REQUEST_CHECKPOINT] = due && t->communicator->rank == 0;
    t->replica.requests[REQUEST_SAVED] = trainer_has_saved(t);
    t->replica.requests[REQUEST_REPORT] = trainer_reports_are_due(t);
    TRY(replica_update(&t->replica, window));
    watchdog_beat();
    t->state.since_event += window.count;
    t->state.position += window.count;
    t->state.images += window.count;
    t->own_samples += replica_shard(&t->recipe, window.count, 0, t->communicator->size).count;
    return ST_OK;
}

/* Between two updates: all ranks know what was asked for. The end of an epoch brings a checkpoint
 * of its own. */
static enum status checkpoint_if_asked(struct trainer *t, bool last) {
    const int every = t->recipe.checkpoint.every;
    const bool stop = t->replica.requests[REQUEST_STOP] > 0;
    const bool due =
        t->replica.requests[REQUEST_CHECKPOINT] > 0 || (every > 0 && t->replica.step % every == 0);
    if (t->replica.requests[REQUEST_SAVED] > 0)
        TRY(trainer_finish_checkpoint(t)); /* a disk that is full ends the run now */
    if (stop || (due && !last))
        TRY(trainer_checkpoint(t));
    if (!stop)
        return ST_OK;
    TRY(trainer_finish_checkpoint(t));
    return communicator_agree(
        t->communicator, status_fail(ST_STOPPED,
                                     "stopped on request after update %lld of %lld; --resume goes "
                                     "on from there",
                                     (long long)t->replica.step, (long long)t->last_step));
}

/* What is left of one pass over the training set, or of the steps. */
static enum status train_epoch(struct trainer *t) {
    const uint32_t batch = (uint32_t)t->recipe.train.batch, samples = t->train.count;
    const uint32_t steps = dataset_steps(samples, batch);
    TRY(replica_shuffle(&t->replica, (int)t->state.epoch));
    for (uint32_t i = dataset_steps((uint32_t)t->state.position, batch);
         i < steps && t->replica.step < t->last_step; i++) {
        TRY(update(t, dataset_batch(samples, batch, i)));
        TRY(prune(t));
        if (t->replica.step % t->recipe.train.log_every == 0)
            TRY(trainer_report_steps(t));
        if (t->replica.requests[REQUEST_REPORT] > 0)
            TRY(trainer_write_reports(t));
        TRY(trainer_draw_progress(t));
        TRY(checkpoint_if_asked(t, i + 1 == steps || t->replica.step == t->last_step));
    }
    TRY(trainer_report_steps(t));
    return trainer_write_reports(t);
}

/* "Best" goes by images that were held out, of two equals by the first. */
static void note_best(struct run_state *state) {
    const struct epoch_event *epoch = &state->last_epoch;
    if (!epoch->has_validation ||
        (state->best_step > 0 && epoch->validation_accuracy <= state->best_accuracy))
        return;
    state->best_step = epoch->step;
    state->best_accuracy = epoch->validation_accuracy;
}

static enum status finish_epoch(struct trainer *t) {
    struct run_state *state = &t->state;
    state->seconds_epoch = monotonic_seconds() - t->epoch_seconds;
    state->seconds_train += state->seconds_epoch;
    TRY(trainer_report_epoch(t));
    note_best(state);
    state->epoch++;
    state->position = 0;
    state->in_epoch = (struct tally){0};
    state->seconds_epoch = 0;
    TRY(trainer_checkpoint(t));
    t->epoch_seconds = t->event_seconds = monotonic_seconds();
    return ST_OK;
}

static enum status train(struct trainer *t) {
    while (t->state.position > 0 || t->replica.step < t->last_step) {
        TRY(train_epoch(t));
        TRY(finish_epoch(t));
    }
    return ST_OK;
}

static enum status run(struct trainer *t) {
    bool finished = false;
    TRY(watchdog_start(t->recipe.train.hang_seconds, t->options->alarm));
    TRY(prepare(t, &finished));
    if (finished)
        return ST_OK;
    TRY(train(t));
    TRY(pruner_compare_replicas(&t->pruner, t->replica.step));
    return communicator_agree(t->communicator, trainer_write_results(t));
}

enum status trainer_run(const struct recipe *recipe, struct communicator *communicator,
                        const struct trainer_options *options) {
    struct trainer t = {.recipe = *recipe, .communicator = communicator, .options = options};
    progress_begin(&t.progress, stderr, options->quiet || communicator->rank != 0);
    interrupt_catch();
    enum status status = run(&t);
    job_wait(&t.save.job); /* after a failure, which is the one to report */
    checkpoint_copy_destroy(&t.save.copy);
    watchdog_stop();
    free(t.waits);
    interrupt_release();
    enum status closed = event_log_close(&t.log);
    if (status == ST_OK)
        status = closed; /* the first failure is the one to report */
    /* A rank that failed alone is about to end all; its gradient may still be on the way. */
    if (status == ST_OK || communicator->failed_rank >= 0 || communicator->size == 1)
        release(&t);
    return status;
}
