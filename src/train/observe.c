/* What a run says of itself while it trains. */
#include "trainer_internal.h"

#include <espalier/schedule.h>
#include <math.h>
#include <stdlib.h>

/* What the ranks compute on, by rank 0's. */
static void describe_place(const struct backend *backend, char *text, size_t size) {
    const struct gpu *gpu = backend->gpu;
    if (gpu == NULL)
        snprintf(text, size, "%d thread(s)", backend->threads);
    else
        snprintf(text, size, "%s (compute capability %d.%d, %.1f GiB)", gpu->name, gpu->major,
                 gpu->minor, (double)gpu->memory_bytes / 0x1p30);
}

void trainer_print_plan(struct trainer *t) {
    const struct schedule *schedule = &t->pruner.schedule;
    char place[GPU_NAME_MAX + 64];
    int64_t events = 0;
    for (int64_t step = 1; step <= t->last_step; step++)
        events += schedule_event(schedule, step) > 0;
    describe_place(t->replica.backend, place, sizeof place);
    progress_line(&t->progress, "%s: %lld updates on %d rank(s) of %s", t->options->run_dir,
                  (long long)t->last_step, t->communicator->size, place);
    if (t->replica.backend->refused[0] != '\0')
        progress_line(&t->progress, "note: a GPU is left alone: %s", t->replica.backend->refused);
    if (schedule->kind != SCHEDULE_NONE && events == 0)
        progress_line(&t->progress,
                      "note: nothing is pruned: no event of the schedule falls into %lld updates",
                      (long long)t->last_step);
}

/* ---- updates ---- */

/* How long a step event may wait, where it does. */
static const double report_seconds = 0.25;

enum status trainer_prepare_reports(struct trainer *t) {
    struct backend *backend = t->replica.backend;
    t->pending.most = backend->host_memory ? 1 : PENDING_MAX;
    t->pending.written_seconds = monotonic_seconds();
    return backend->alloc(backend, PENDING_MAX * sizeof *t->pending.sums,
                          (void **)&t->pending.sums);
}

bool trainer_reports_are_due(const struct trainer *t) {
    return t->communicator->rank == 0 && t->pending.count > 0 &&
           monotonic_seconds() - t->pending.written_seconds >= report_seconds;
}

enum status trainer_report_steps(struct trainer *t) {
    struct pending_steps *p = &t->pending;
    struct backend *backend = t->replica.backend;
    const int64_t samples = t->state.since_event;
    const double now = monotonic_seconds();
    if (samples == 0)
        return ST_OK;
    TRY(backend->copy(backend, p->sums + p->count, t->replica.sums, sizeof *p->sums));
    TRY(backend->clear(backend, t->replica.sums, sizeof *p->sums));
    p->samples[p->count] = samples;
    p->events[p->count++] =
        (struct step_event){.step = t->replica.step,
                            .epoch = (int)t->state.epoch,
                            .images_per_second = (double)samples / (now - t->event_seconds),
                            .allreduce_bytes = t->replica.network->count * sizeof(float),
                            .optimizer_bytes = optimizer_bytes(&t->replica.optimizer)};
    t->own_samples = 0;
    t->event_seconds = now;
    t->state.since_event = 0;
    return p->count == p->most ? trainer_write_reports(t) : ST_OK;
}

/* The sums of the events that wait, over all ranks. Collective. */
static enum status collect(struct trainer *t, double *loss, int64_t *correct) {
    const struct pending_steps *p = &t->pending;
    const size_t count = (size_t)p->count;
    struct communicator *c = t->communicator;
    struct backend *backend = t->replica.backend;
    struct loss_sums sums[PENDING_MAX];
    TRY(backend->download(backend, sums, p->sums, count * sizeof *sums));
    for (size_t i = 0; i < count; i++) {
        loss[i] = sums[i].loss;
        correct[i] = sums[i].correct;
    }
    TRY(c->sum_doubles(c, loss, count));
    return c->sum_integers(c, correct, count);
}

/* The first parameter that a value is not finite of, NULL: all are. */
static enum status find_not_finite(const struct network *network, const char **name) {
    float *beta = malloc(network->count * sizeof *beta + 1);
    *name = NULL;
    if (beta == NULL)
        FAIL(ST_MEMORY, "out of memory: the parameters");
    enum status status = network->backend->download(network->backend, beta, network->beta,
                                                    network->count * sizeof *beta);
    for (int i = 0; status == ST_OK && i < network->parameters_count && *name == NULL; i++) {
        const struct parameter *p = &network->parameters[i];
        for (size_t k = 0; k < p->stored && *name == NULL; k++)
            if (!isfinite(beta[p->offset + k]))
                *name = p->name;
    }
    free(beta);
    return status;
}

static enum status check_loss(const struct network *network, int64_t step, double loss) {
    const char *name;
    if (isfinite(loss))
        return ST_OK;
    TRY(find_not_finite(network, &name));
    FAIL(ST_NUMERIC,
         "update %lld: the training loss is %g: expected a finite number (is the learning rate too "
         "large?)%s%s%s",
         (long long)step, loss, name == NULL ? "" : "; ", name == NULL ? "" : name,
         name == NULL ? "" : " is not finite");
}

static enum status write_events(struct trainer *t, const double *loss, const int64_t *correct) {
    struct pending_steps *p = &t->pending;
    for (int i = 0; i < p->count; i++) {
        struct step_event *event = &p->events[i];
        const double samples = (double)p->samples[i];
        event->loss = loss[i] / samples;
        event->accuracy = (double)correct[i] / samples;
        t->state.in_epoch.loss += loss[i];
        t->state.in_epoch.correct += correct[i];
        t->state.in_epoch.samples += p->samples[i];
        TRY(check_loss(t->replica.network, event->step, event->loss));
        TRY(event_step(&t->log, event));
    }
    return ST_OK;
}

enum status trainer_write_reports(struct trainer *t) {
    double loss[PENDING_MAX];
    int64_t correct[PENDING_MAX];
    t->pending.written_seconds = monotonic_seconds();
    if (t->pending.count == 0)
        return ST_OK;
    TRY(t->communicator->settle(t->communicator));
    TRY(collect(t, loss, correct));
    TRY_TOGETHER(t->communicator, write_events(t, loss, correct));
    t->pending.count = 0;
    return ST_OK;
}

enum status trainer_draw_progress(struct trainer *t) {
    if (!progress_due(&t->progress))
        return ST_OK;
    struct loss_sums sums;
    struct backend *backend = t->replica.backend;
    if (t->own_samples > 0) {
        TRY(t->communicator->settle(t->communicator));
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
