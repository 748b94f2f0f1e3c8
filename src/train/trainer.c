/* Training: Algorithm 1 of Barbu et al. 2017 over ranks. train_epoch reads as its box. */
#include <espalier/backend.h>
#include <espalier/digest.h>
#include <espalier/evaluate.h>
#include <espalier/events.h>
#include <espalier/model.h>
#include <espalier/optimizer.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <espalier/rng.h>
#include <espalier/run_dir.h>
#include <espalier/threads.h>
#include <espalier/trainer.h>

#include <math.h>
#include <stdlib.h>
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
    struct device_dataset train_device, test_device, validation_device;

    struct backend *backend;
    struct network *network;
    struct optimizer optimizer;
    struct pruner pruner;
    struct evaluator evaluator;

    uint32_t *permutation;        /* host [train.count] */
    uint32_t *device_permutation; /* device [train.count] */
    float *x;                     /* device [max_samples][input] */
    struct loss_sums *sums;       /* device: this rank's, since the last step event */

    int64_t step; /* updates done */
    int64_t last_step;
    int epoch; /* 1 is the first */
    struct tally since_event, in_epoch;
    double event_seconds, train_seconds, start_seconds;
    int64_t event_step;
    double seen_loss, seen_accuracy; /* of the last step event, for the progress line */

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

/* The largest share of a batch that a rank gets; evaluation uses passes of the same size. */
static int largest_share(const struct trainer *t) {
    return (int)dataset_shard((uint32_t)t->recipe->train.batch, 0, t->communicator->size).count;
}

static enum status check_labels(const struct trainer *t, const struct dataset *dataset,
                                const char *split) {
    if (dataset->classes > t->network->classes)
        FAIL(ST_INPUT, "%s: the %s labels go up to %d, but the last layer of %s has %d units",
             t->recipe->data.dir, split, dataset->classes - 1, t->recipe->path,
             t->network->classes);
    return ST_OK;
}

static enum status build(struct trainer *t) {
    struct backend *backend = t->backend;
    int samples = largest_share(t);
    TRY(network_create(t->recipe, t->train.shape, samples, backend, &t->network));
    TRY(check_labels(t, &t->train, "training"));
    TRY(check_labels(t, &t->test, "test"));
    TRY(network_initialize(t->network, t->recipe->train.seed));
    TRY(optimizer_create(t->network, &t->recipe->train.optimizer, &t->optimizer));
    TRY(pruner_create(t->network, &t->recipe->prune, t->communicator, &t->pruner));
    TRY(evaluator_create(t->network, t->communicator, &t->evaluator));
    TRY(device_dataset_create(backend, &t->train, &t->train_device));
    TRY(device_dataset_create(backend, &t->test, &t->test_device));
    if (t->validation.count > 0)
        TRY(device_dataset_create(backend, &t->validation, &t->validation_device));
    size_t pixels = shape_size(t->train.shape);
    TRY(backend->alloc(backend, t->train.count * sizeof(uint32_t),
                       (void **)&t->device_permutation));
    TRY(backend->alloc(backend, (size_t)samples * pixels * sizeof(float), (void **)&t->x));
    TRY(backend->alloc(backend, sizeof *t->sums, (void **)&t->sums));
    t->permutation = malloc(t->train.count * sizeof *t->permutation);
    if (t->permutation == NULL)
        FAIL(ST_MEMORY, "out of memory: a permutation of %u samples", t->train.count);
    return ST_OK;
}

/* What a rank can do alone; only rank 0 writes. */
static enum status prepare_rank(struct trainer *t) {
    TRY(load_data(t));
    int threads = threads_default(t->recipe->train.threads, t->communicator->local_size);
    TRY(backend_create(backend_names[0], threads, &t->backend));
    TRY(build(t));
    if (t->communicator->rank != 0)
        return ST_OK;
    TRY(run_dir_create(t->run_dir, t->recipe));
    TRY(event_log_open(t->run_dir, &t->log));
    return event_start(&t->log, t->recipe, t->network, t->communicator->size, t->train.count,
                       t->test.count);
}

static int64_t planned_steps(const struct trainer *t) {
    uint32_t batch = (uint32_t)t->recipe->train.batch;
    int64_t steps = (int64_t)t->recipe->train.epochs * dataset_steps(t->train.count, batch);
    int64_t limit = t->recipe->train.steps;
    return limit > 0 && limit < steps ? limit : steps;
}

static enum status prepare(struct trainer *t) {
    t->start_seconds = monotonic_seconds();
    TRY_TOGETHER(t->communicator, prepare_rank(t));
    TRY(pruner_compare_replicas(&t->pruner, 0)); /* equal from the start, or not at all */
    t->last_step = planned_steps(t);
    return ST_OK;
}

static void release(struct trainer *t) {
    if (t->backend != NULL) {
        t->backend->release(t->backend, t->device_permutation);
        t->backend->release(t->backend, t->x);
        t->backend->release(t->backend, t->sums);
    }
    device_dataset_destroy(&t->train_device);
    device_dataset_destroy(&t->test_device);
    device_dataset_destroy(&t->validation_device);
    evaluator_destroy(&t->evaluator);
    pruner_destroy(&t->pruner);
    optimizer_destroy(&t->optimizer);
    network_destroy(t->network);
    if (t->backend != NULL)
        t->backend->destroy(t->backend);
    free(t->permutation);
    dataset_destroy(&t->train);
    dataset_destroy(&t->test);
    progress_end(&t->progress);
}

/* ---- one update ---- */

static enum status gradient_ready(void *context, size_t offset, size_t count) {
    struct trainer *t = context;
    return t->communicator->allreduce_start(t->communicator, t->network->gradient + offset, count);
}

static void poll_communicator(void *context) {
    struct trainer *t = context;
    t->communicator->poll(t->communicator);
}

/* Forward and backward over this rank's slice of the batch; the gradient becomes the mean over the
 * global batch on all ranks. */
static enum status compute_gradient(struct trainer *t, struct slice batch) {
    struct backend *backend = t->backend;
    struct slice shard = dataset_shard(batch.count, t->communicator->rank, t->communicator->size);
    const uint32_t *ids = t->device_permutation + batch.begin + shard.begin;
    const struct block_pass pass = {.samples = (int)shard.count,
                                    .training = true,
                                    .seed = t->recipe->train.seed,
                                    .update = (uint32_t)t->step,
                                    .sample_ids = ids};
    TRY(backend->gather_batch(backend, t->train_device.images, t->train_device.pixels, ids,
                              pass.samples, t->x));
    float *logits = NULL;
    TRY(network_forward(t->network, &pass, t->x, &logits));
    TRY(backend->softmax_cross_entropy(backend, logits, t->network->classes, t->train_device.labels,
                                       ids, pass.samples, 1.0F / (float)batch.count,
                                       network_logits_gradient(t->network), t->sums));
    const struct gradient_sink sink = {
        .ready = gradient_ready,
        .poll = {.call = t->communicator->size > 1 ? poll_communicator : NULL, .context = t},
        .context = t};
    TRY(network_backward(t->network, &pass, t->x, &sink));
    return t->communicator->allreduce_wait(t->communicator);
}

static enum status prune(struct trainer *t) {
    double begin = monotonic_seconds();
    bool pruned = false;
    TRY(pruner_step(&t->pruner, t->step, t->optimizer.states, OPTIMIZER_STATES_MAX, &pruned));
    if (!pruned)
        return ST_OK;
    TRY_TOGETHER(t->communicator,
                 event_prune(&t->log, t->step, t->network, monotonic_seconds() - begin));
    return ST_OK;
}

/* ---- observation ---- */

/* Collect the sums since the last step event over all ranks. Collective. */
static enum status collect(struct trainer *t) {
    struct loss_sums sums;
    TRY(t->backend->download(t->backend, &sums, t->sums, sizeof sums));
    TRY(t->backend->clear(t->backend, t->sums, sizeof sums));
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
             (long long)t->step, loss);
    return ST_OK;
}

/* A step event, which covers the updates since the one before. Collective. */
static enum status report_steps(struct trainer *t) {
    if (t->since_event.samples == 0)
        return ST_OK;
    TRY(collect(t));
    double samples = (double)t->since_event.samples, now = monotonic_seconds();
    const struct step_event event = {.step = t->step,
                                     .epoch = t->epoch,
                                     .loss = t->since_event.loss / samples,
                                     .accuracy = (double)t->since_event.correct / samples,
                                     .images_per_second = samples / (now - t->event_seconds),
                                     .allreduce_bytes = t->network->count * sizeof(float)};
    enum status status = check_loss(t, event.loss);
    if (status == ST_OK)
        status = event_step(&t->log, &event);
    TRY_TOGETHER(t->communicator, status);
    t->seen_loss = event.loss;
    t->seen_accuracy = event.accuracy;
    t->event_seconds = now;
    memset(&t->since_event, 0, sizeof t->since_event);
    return ST_OK;
}

static void draw_progress(struct trainer *t, double epoch_begin, int64_t steps_before) {
    if (!progress_due(&t->progress))
        return;
    double spent = monotonic_seconds() - epoch_begin;
    double per_step = spent / (double)(t->step - steps_before);
    char left[32];
    format_duration(per_step * (double)(t->last_step - t->step), left, sizeof left);
    progress_draw(&t->progress, (double)t->step / (double)t->last_step,
                  "epoch %d/%d  %.0f images/s  loss %.4f  accuracy %.2f %%  survivors %zu  %s left",
                  t->epoch, t->recipe->train.epochs, t->recipe->train.batch / per_step,
                  t->seen_loss, 100 * t->seen_accuracy, network_survivors(t->network), left);
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
                                  .step = t->step,
                                  .train_loss = t->in_epoch.loss / samples,
                                  .train_accuracy = (double)t->in_epoch.correct / samples,
                                  .has_validation = t->validation.count > 0,
                                  .survivors = network_survivors(t->network),
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

static enum status shuffle(struct trainer *t) {
    rng_permutation(t->recipe->train.seed, (uint32_t)t->epoch, t->permutation, t->train.count);
    return t->backend->upload(t->backend, t->device_permutation, t->permutation,
                              t->train.count * sizeof *t->permutation);
}

/* One pass over the training set, or what is left of the steps. */
static enum status train_epoch(struct trainer *t, double *seconds) {
    uint32_t batch = (uint32_t)t->recipe->train.batch, samples = t->train.count;
    double begin = monotonic_seconds();
    int64_t steps_before = t->step;
    t->event_seconds = begin;
    memset(&t->in_epoch, 0, sizeof t->in_epoch);
    TRY(shuffle(t));
    for (uint32_t i = 0; i < dataset_steps(samples, batch) && t->step < t->last_step; i++) {
        struct slice window = dataset_batch(samples, batch, i);
        TRY(compute_gradient(t, window));
        TRY(optimizer_step(&t->optimizer));
        t->step++;
        t->since_event.samples += window.count;
        TRY(prune(t));
        if (t->step % t->recipe->train.log_every == 0)
            TRY(report_steps(t));
        draw_progress(t, begin, steps_before);
    }
    TRY(report_steps(t));
    *seconds = monotonic_seconds() - begin;
    t->train_seconds += *seconds;
    return ST_OK;
}

static enum status train(struct trainer *t, struct epoch_event *last, int64_t *samples) {
    for (t->epoch = 1; t->step < t->last_step; t->epoch++) {
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
                                .steps = t->step,
                                .seconds_train = t->train_seconds,
                                .seconds_total = monotonic_seconds() - t->start_seconds,
                                .images_per_second = (double)samples / t->train_seconds,
                                .connections = network_connections(t->network),
                                .survivors = network_survivors(t->network),
                                .parameters = t->network->original_count,
                                .parameters_left = t->network->count,
                                .ranks = t->communicator->size,
                                .threads = t->backend->threads,
                                .backend = t->backend->name,
                                .communicator = t->communicator->name,
                                .seed = t->recipe->train.seed,
                                .weights_sha256 = digest};
}

static enum status write_results(struct trainer *t, const struct epoch_event *last,
                                 int64_t samples) {
    if (t->communicator->rank != 0)
        return ST_OK;
    char digest[DIGEST_TEXT_SIZE], path[4096];
    TRY(network_digest(t->network, digest));
    const struct run_summary summary = summarize(t, last, samples, digest);
    snprintf(path, sizeof path, "%s/model.safetensors", t->run_dir);
    TRY(model_write(path, t->network, t->recipe));
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
        status = pruner_compare_replicas(&t.pruner, t.step);
    if (status == ST_OK)
        status = communicator_agree(communicator, write_results(&t, &last, samples));
    release(&t);
    if (status != ST_OK)
        (void)event_log_close(&t.log); /* the first failure is the one to report */
    return status;
}
