/* What a run says of itself while it trains. */
#include "trainer_internal.h"

#include <espalier/schedule.h>
#include <math.h>

void trainer_print_plan(struct trainer *t) {
    const struct schedule *schedule = &t->pruner.schedule;
    int64_t events = 0;
    for (int64_t step = 1; step <= t->last_step; step++)
        events += schedule_event(schedule, step) > 0;
    progress_line(&t->progress, "%s: %lld updates on %d rank(s) of %d thread(s)",
                  t->options->run_dir, (long long)t->last_step, t->communicator->size,
                  t->replica.backend->threads);
    if (schedule->kind != SCHEDULE_NONE && events == 0)
        progress_line(&t->progress,
                      "note: nothing is pruned: no event of the schedule falls into %lld updates",
                      (long long)t->last_step);
}

/* ---- updates ---- */

/* Collect the sums since the last step event over all ranks. Collective. */
static enum status collect(struct trainer *t, struct tally *all) {
    struct loss_sums sums;
    struct backend *backend = t->replica.backend;
    TRY(backend->download(backend, &sums, t->replica.sums, sizeof sums));
    TRY(backend->clear(backend, t->replica.sums, sizeof sums));
    TRY(t->communicator->sum_doubles(t->communicator, &sums.loss, 1));
    TRY(t->communicator->sum_integers(t->communicator, &sums.correct, 1));
    *all = (struct tally){sums.loss, sums.correct, t->state.since_event};
    t->state.in_epoch.loss += sums.loss;
    t->state.in_epoch.correct += sums.correct;
    t->state.in_epoch.samples += all->samples;
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

enum status trainer_report_steps(struct trainer *t) {
    struct tally all;
    if (t->state.since_event == 0)
        return ST_OK;
    TRY(collect(t, &all));
    double samples = (double)all.samples, now = monotonic_seconds();
    const struct step_event event = {.step = t->replica.step,
                                     .epoch = (int)t->state.epoch,
                                     .loss = all.loss / samples,
                                     .accuracy = (double)all.correct / samples,
                                     .images_per_second = samples / (now - t->event_seconds),
                                     .allreduce_bytes = t->replica.network->count * sizeof(float),
                                     .optimizer_bytes = optimizer_bytes(&t->replica.optimizer)};
    enum status status = check_loss(t, event.loss);
    if (status == ST_OK)
        status = event_step(&t->log, &event);
    TRY_TOGETHER(t->communicator, status);
    t->own_samples = 0;
    t->event_seconds = now;
    t->state.since_event = 0;
    return ST_OK;
}

enum status trainer_draw_progress(struct trainer *t) {
    if (!progress_due(&t->progress))
        return ST_OK;
    struct loss_sums sums;
    struct backend *backend = t->replica.backend;
    if (t->own_samples > 0) {
        TRY(backend->download(backend, &sums, t->replica.sums, sizeof sums));
        t->seen_loss = sums.loss / (double)t->own_samples;
        t->seen_accuracy = (double)sums.correct / (double)t->own_samples;
    }
    double spent = monotonic_seconds() - t->epoch_seconds;
    double per_image = spent / (double)t->state.position;
    double per_step = per_image * t->recipe.train.batch;
    char left[32];
    format_duration(per_step * (double)(t->last_step - t->replica.step), left, sizeof left);
    progress_draw(&t->progress, (double)t->replica.step / (double)t->last_step,
                  "%s left  epoch %d/%d  loss %.4f  accuracy %.2f %%  %.0f images/s  survivors %zu",
                  left, (int)t->state.epoch, t->recipe.train.epochs, t->seen_loss,
                  100 * t->seen_accuracy, 1 / per_image, network_survivors(t->replica.network));
    return ST_OK;
}

/* ---- epochs ---- */

static void print_epoch(struct trainer *t, const struct epoch_event *event) {
    char validation[64] = "";
    if (event->has_validation)
        snprintf(validation, sizeof validation, "  validation %.2f %%",
                 100 * event->validation_accuracy);
    progress_line(&t->progress,
                  "epoch %*d/%d  loss %.4f  train %.2f %%%s  test %.2f %% (%lld errors)  "
                  "survivors %zu  %.1f s  %.0f images/s",
                  t->recipe.train.epochs >= 10 ? 2 : 1, event->epoch, t->recipe.train.epochs,
                  event->train_loss, 100 * event->train_accuracy, validation,
                  100 * event->test_accuracy, (long long)event->test_errors, event->survivors,
                  event->seconds_epoch, event->images_per_second);
}

enum status trainer_report_epoch(struct trainer *t) {
    const double samples = (double)t->state.in_epoch.samples, seconds = t->state.seconds_epoch;
    struct epoch_event *event = &t->state.last_epoch;
    *event = (struct epoch_event){.epoch = (int)t->state.epoch,
                                  .step = t->replica.step,
                                  .train_loss = t->state.in_epoch.loss / samples,
                                  .train_accuracy = (double)t->state.in_epoch.correct / samples,
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
