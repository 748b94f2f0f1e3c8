/* Training: Algorithm 1 of Barbu et al. 2017 over ranks. train_epoch reads as its box. */
#include <espalier/digest.h>
#include <espalier/evaluate.h>
#include <espalier/events.h>
#include <espalier/model.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <espalier/replica.h>
#include <espalier/run_dir.h>
#include <espalier/trainer.h>

#include <math.h>
#include <string.h>

/* What has been seen over some updates, on all ranks. */
struct tally {
    double loss; /* sum over samples */
    int64_t correct, samples;
};

struct trainer {
    const struct recipe *recipe;
    struct communicator *communicator;
    const char *run_dir;

    struct dataset train, test, validation; /* validation is a view into train's arrays */
    struct device_dataset test_device, validation_device;

    struct replica replica; /* its sums are those since the last step event */
    struct pruner pruner;
    struct evaluator evaluator;

    int64_t last_step;
    int epoch; /* 1 is the first */
    struct tally since_event, in_epoch;
    double event_seconds, train_seconds, start_seconds;

    int64_t own_samples;             /* of since_event.samples, this rank's */
    double seen_loss, seen_accuracy; /* rank 0's of late, for the progress line */

    struct event_log log;
    struct progress progress;
};

/* ---- preparation ---- */

static enum status load_data(struct trainer *t) {
    const struct data_settings *data = &t->recipe->data;
    TRY(dataset_load(data->dir, DATASET_TRAIN, data->train_limit, &t->train));
    TRY(dataset_load(data->dir, DATASET_TEST, data->test_limit, &t->test));
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
    uint32_t batch = (uint32_t)t->recipe->train.batch;
    int64_t steps = (int64_t)t->recipe->train.epochs * dataset_steps(t->train.count, batch);
    int64_t limit = t->recipe->train.steps;
    return limit > 0 && limit < steps ? limit : steps;
}

static enum status build(struct trainer *t) {
    TRY(replica_create(t->recipe, t->communicator, &t->train, &t->replica));
    TRY(replica_check_labels(&t->replica, &t->test, "test"));
    struct network *network = t->replica.network;
    t->last_step = planned_steps(t);
    const struct run_length run = {t->last_step,
                                   dataset_steps(t->train.count, (uint32_t)t->recipe->train.batch)};
    TRY(pruner_create(network, &t->recipe->prune, run, t->communicator, &t->pruner));
    TRY(evaluator_create(network, t->communicator, &t->evaluator));
    TRY(device_dataset_create(t->replica.backend, &t->test, &t->test_device));
    if (t->validation.count > 0)
        TRY(device_dataset_create(t->replica.backend, &t->validation, &t->validation_device));
    return ST_OK;
}

static enum status prepare_rank(struct trainer *t) {
    TRY(load_data(t));
    return build(t);
}

static enum status prepare_run_dir(struct trainer *t) {
    if (t->communicator->rank != 0)
        return ST_OK;
    TRY(run_dir_create(t->run_dir, t->recipe));
    TRY(event_log_open(t->run_dir, &t->log));
    return event_start(&t->log, t->recipe, t->replica.network, t->communicator->size,
                       t->train.count, t->test.count);
}

/* Where the results go, and whether anything will be pruned: a short run may end before. */
static void print_plan(struct trainer *t) {
    const struct schedule *schedule = &t->pruner.schedule;
    int64_t events = 0;
    for (int64_t step = 1; step <= t->last_step; step++)
        events += schedule_event(schedule, step) > 0;
    progress_line(&t->progress, "%s: %lld updates on %d rank(s) of %d thread(s)", t->run_dir,
                  (long long)t->last_step, t->communicator->size, t->replica.backend->threads);
    if (schedule->kind != SCHEDULE_NONE && events == 0)
        progress_line(&t->progress,
                      "note: nothing is pruned: no event of the schedule falls into %lld updates",
                      (long long)t->last_step);
}

static enum status prepare(struct trainer *t) {
    t->start_seconds = monotonic_seconds();
    TRY_TOGETHER(t->communicator, prepare_rank(t));
    TRY(replica_join(&t->replica));
    TRY_TOGETHER(t->communicator, prepare_run_dir(t)); /* not before all ranks can train */
    TRY(pruner_compare_replicas(&t->pruner, 0));       /* equal from the start, or not at all */
    print_plan(t);
    return ST_OK;
}

static void release(struct trainer *t) {
    device_dataset_destroy(&t->test_device);
    device_dataset_destroy(&t->validation_device);
    evaluator_destroy(&t->evaluator);
    pruner_destroy(&t->pruner);
    replica_destroy(&t->replica);
    dataset_destroy(&t->train);
    dataset_destroy(&t->test);
    progress_end(&t->progress);
}

/* ---- pruning ---- */

static enum status prune(struct trainer *t) {
    double begin = monotonic_seconds();
    bool pruned = false;
    if (schedule_event(&t->pruner.schedule, t->replica.step) > 0)
        TRY(replica_complete(&t->replica));
    TRY(pruner_step(&t->pruner, t->replica.step, t->replica.optimizer.states, OPTIMIZER_STATES_MAX,
                    &pruned));
    if (!pruned)
        return ST_OK;
    TRY_TOGETHER(t->communicator, event_prune(&t->log, t->replica.step, t->replica.network,
                                              monotonic_seconds() - begin));
    return ST_OK;
}

/* ---- observation ---- */

/* Collect the sums since the last step event over all ranks. Collective. */
static enum status collect(struct trainer *t) {
    struct loss_sums sums;
    struct backend *backend = t->replica.backend;
    TRY(backend->download(backend, &sums, t->replica.sums, sizeof sums));
    TRY(backend->clear(backend, t->replica.sums, sizeof sums));
    TRY(t->communicator->sum_doubles(t->communicator, &sums.loss, 1));
    TRY(t->communicator->sum_integers(t->communicator, &sums.correct, 1));
    t->since_event.loss = sums.loss;
    t->since_event.correct = sums.correct;
    t->in_epoch.loss += sums.loss;
    t->in_epoch.correct += sums.correct;
    t->in_epoch.samples += t->since_event.samples;
    return ST_OK;
}

static enum status check_loss(const struct trainer *t, double loss) {
    if (!isfinite(loss))
        FAIL(ST_NUMERIC,
             "update %lld: the training loss is %g: expected a finite number (is the "
             "learning rate too large?)",
             (long long)t->replica.step, loss);
    return ST_OK;
}

/* A step event, which covers the updates since the one before. Collective. */
static enum status report_steps(struct trainer *t) {
    if (t->since_event.samples == 0)
        return ST_OK;
    TRY(collect(t));
    double samples = (double)t->since_event.samples, now = monotonic_seconds();
    const struct step_event event = {.step = t->replica.step,
                                     .epoch = t->epoch,
                                     .loss = t->since_event.loss / samples,
                                     .accuracy = (double)t->since_event.correct / samples,
                                     .images_per_second = samples / (now - t->event_seconds),
                                     .allreduce_bytes = t->replica.network->count * sizeof(float)};
    enum status status = check_loss(t, event.loss);
    if (status == ST_OK)
        status = event_step(&t->log, &event);
    TRY_TOGETHER(t->communicator, status);
    t->own_samples = 0;
    t->event_seconds = now;
    memset(&t->since_event, 0, sizeof t->since_event);
    return ST_OK;
}

static enum status draw_progress(struct trainer *t, double epoch_begin, int64_t steps_before) {
    if (!progress_due(&t->progress))
        return ST_OK;
    struct loss_sums sums;
    struct backend *backend = t->replica.backend;
    if (t->own_samples > 0) {
        TRY(backend->download(backend, &sums, t->replica.sums, sizeof sums));
        t->seen_loss = sums.loss / (double)t->own_samples;
        t->seen_accuracy = (double)sums.correct / (double)t->own_samples;
    }
    double spent = monotonic_seconds() - epoch_begin;
    double per_step = spent / (double)(t->replica.step - steps_before);
    char left[32];
    format_duration(per_step * (double)(t->last_step - t->replica.step), left, sizeof left);
    progress_draw(&t->progress, (double)t->replica.step / (double)t->last_step,
                  "%s left  epoch %d/%d  loss %.4f  accuracy %.2f %%  %.0f images/s  survivors %zu",
                  left, t->epoch, t->recipe->train.epochs, t->seen_loss, 100 * t->seen_accuracy,
                  t->recipe->train.batch / per_step, network_survivors(t->replica.network));
    return ST_OK;
}

static void print_epoch(struct trainer *t, const struct epoch_event *event) {
    char validation[64] = "";
    if (event->has_validation)
        snprintf(validation, sizeof validation, "  validation %.2f %%",
                 100 * event->validation_accuracy);
    progress_line(&t->progress,
                  "epoch %*d/%d  loss %.4f  train %.2f %%%s  test %.2f %% (%lld errors)  "
                  "survivors %zu  %.1f s  %.0f images/s",
                  t->recipe->train.epochs >= 10 ? 2 : 1, event->epoch, t->recipe->train.epochs,
                  event->train_loss, 100 * event->train_accuracy, validation,
                  100 * event->test_accuracy, (long long)event->test_errors, event->survivors,
                  event->seconds_epoch, event->images_per_second);
}

/* Evaluate, write and print the epoch event; the evaluations are kept in it. Collective. */
static enum status report_epoch(struct trainer *t, double seconds, struct epoch_event *event) {
    double samples = (double)t->in_epoch.samples;
    *event = (struct epoch_event){.epoch = t->epoch,
                                  .step = t->replica.step,
                                  .train_loss = t->in_epoch.loss / samples,
                                  .train_accuracy = (double)t->in_epoch.correct / samples,
                                  .has_validation = t->validation.count > 0,
                                  .survivors = network_survivors(t->replica.network),
                                  .seconds_epoch = seconds,
                                  .images_per_second = samples / seconds};
    struct evaluation result;
    TRY(evaluator_run(&t->evaluator, &t->test_device, &t->test, NULL, &result));
    event->test_loss = result.loss;
    event->test_accuracy = result.accuracy;
    event->test_errors = result.errors;
    if (event->has_validation) {
        TRY(evaluator_run(&t->evaluator, &t->validation_device, &t->validation, NULL, &result));
        event->validation_loss = result.loss;
        event->validation_accuracy = result.accuracy;
    }
    TRY_TOGETHER(t->communicator, event_epoch(&t->log, event));
    print_epoch(t, event);
    return ST_OK;
}

/* ---- the loop ---- */

/* One pass over the training set, or what is left of the steps. */
static enum status train_epoch(struct trainer *t, double *seconds) {
    uint32_t batch = (uint32_t)t->recipe->train.batch, samples = t->train.count;
    double begin = monotonic_seconds();
    int64_t steps_before = t->replica.step;
    t->event_seconds = begin;
    memset(&t->in_epoch, 0, sizeof t->in_epoch);
    TRY(replica_shuffle(&t->replica, t->epoch));
    for (uint32_t i = 0; i < dataset_steps(samples, batch) && t->replica.step < t->last_step; i++) {
        struct slice window = dataset_batch(samples, batch, i);
        TRY(replica_update(&t->replica, window));
        t->since_event.samples += window.count;
        t->own_samples += dataset_shard(window.count, 0, t->communicator->size).count;
        TRY(prune(t));
        if (t->replica.step % t->recipe->train.log_every == 0)
            TRY(report_steps(t));
        TRY(draw_progress(t, begin, steps_before));
    }
    TRY(report_steps(t));
    *seconds = monotonic_seconds() - begin;
    t->train_seconds += *seconds;
    return ST_OK;
}

static enum status train(struct trainer *t, struct epoch_event *last, int64_t *samples) {
    for (t->epoch = 1; t->replica.step < t->last_step; t->epoch++) {
        double seconds = 0;
        TRY(train_epoch(t, &seconds));
        *samples += t->in_epoch.samples;
        TRY(report_epoch(t, seconds, last));
    }
    return ST_OK;
}

/* ---- the results, written by rank 0 ---- */

static struct run_summary summarize(const struct trainer *t, const struct epoch_event *last,
                                    int64_t samples, const char *digest) {
    return (struct run_summary){.recipe = t->recipe->name,
                                .test_accuracy = last->test_accuracy,
                                .test_loss = last->test_loss,
                                .train_accuracy = last->train_accuracy,
                                .train_loss = last->train_loss,
                                .test_errors = last->test_errors,
                                .has_validation = last->has_validation,
                                .validation_accuracy = last->validation_accuracy,
                                .epochs = last->epoch,
                                .steps = t->replica.step,
                                .seconds_train = t->train_seconds,
                                .seconds_total = monotonic_seconds() - t->start_seconds,
                                .images_per_second = (double)samples / t->train_seconds,
                                .connections = network_connections(t->replica.network),
                                .survivors = network_survivors(t->replica.network),
                                .parameters = t->replica.network->original_count,
                                .parameters_left = t->replica.network->count,
                                .ranks = t->communicator->size,
                                .threads = t->replica.backend->threads,
                                .backend = t->replica.backend->name,
                                .communicator = t->communicator->name,
                                .seed = t->recipe->train.seed,
                                .weights_sha256 = digest};
}

static enum status write_results(struct trainer *t, const struct epoch_event *last,
                                 int64_t samples) {
    if (t->communicator->rank != 0)
        return ST_OK;
    char digest[DIGEST_TEXT_SIZE], path[4096];
    TRY(network_digest(t->replica.network, digest));
    const struct run_summary summary = summarize(t, last, samples, digest);
    snprintf(path, sizeof path, "%s/model.safetensors", t->run_dir);
    TRY(model_write(path, t->replica.network, t->recipe));
    TRY(event_end(&t->log, &summary));
    TRY(event_log_close(&t->log));
    return summary_write(t->run_dir, &summary);
}

enum status trainer_run(const struct recipe *recipe, struct communicator *communicator,
                        const char *run_dir, bool quiet) {
    struct trainer t = {.recipe = recipe, .communicator = communicator, .run_dir = run_dir};
    struct epoch_event last = {0};
    int64_t samples = 0;
    progress_begin(&t.progress, stderr, quiet || communicator->rank != 0);
    enum status status = prepare(&t);
    if (status == ST_OK)
        status = train(&t, &last, &samples);
    if (status == ST_OK)
        status = pruner_compare_replicas(&t.pruner, t.replica.step);
    if (status == ST_OK)
        status = communicator_agree(communicator, write_results(&t, &last, samples));
    if (status != ST_OK)
        (void)event_log_close(&t.log); /* the first failure is the one to report */
    /* A rank that failed alone is about to end all; its gradient may still be on the way. */
    if (status == ST_OK || communicator->failed_rank >= 0 || communicator->size == 1)
        release(&t);
    return status;
}
