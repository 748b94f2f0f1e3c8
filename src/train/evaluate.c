#include "exact.h"
#include <espalier/evaluate.h>
#include <espalier/watchdog.h>

#include <stdlib.h>
#include <string.h>

enum status device_dataset_create(struct backend *backend, const struct dataset *dataset,
                                  struct device_dataset *device) {
    memset(device, 0, sizeof *device);
    device->backend = backend;
    device->count = dataset->count;
    device->pixels = shape_size(dataset->shape);
    if (backend->host_memory) {
        device->images = dataset->images;
        device->labels = dataset->labels;
        return ST_OK;
    }
    size_t bytes = dataset->count * device->pixels;
    TRY(backend->alloc(backend, bytes, (void **)&device->images));
    TRY(backend->alloc(backend, dataset->count, (void **)&device->labels));
    TRY(backend->upload(backend, device->images, dataset->images, bytes));
    return backend->upload(backend, device->labels, dataset->labels, dataset->count);
}

void device_dataset_destroy(struct device_dataset *device) {
    if (device->backend != NULL && !device->backend->host_memory) {
        device->backend->release(device->backend, device->images);
        device->backend->release(device->backend, device->labels);
    }
    memset(device, 0, sizeof *device);
}

enum status evaluator_create(struct network *network, struct communicator *communicator,
                             struct evaluator *evaluator) {
    memset(evaluator, 0, sizeof *evaluator);
    evaluator->network = network;
    evaluator->communicator = communicator;
    struct backend *backend = network->backend;
    size_t samples = (size_t)network->max_samples;
    TRY(backend->alloc(backend, samples * sizeof(uint32_t), (void **)&evaluator->ids));
    TRY(backend->alloc(backend, samples * shape_size(network->input) * sizeof(float),
                       (void **)&evaluator->x));
    TRY(backend->alloc(backend, sizeof *evaluator->sums, (void **)&evaluator->sums));
    evaluator->host_ids = calloc(samples, sizeof *evaluator->host_ids);
    evaluator->logits = calloc(samples * (size_t)network->classes, sizeof *evaluator->logits);
    if (evaluator->host_ids == NULL || evaluator->logits == NULL)
        FAIL(ST_MEMORY, "out of memory: the logits of %zu samples", samples);
    return ST_OK;
}

void evaluator_destroy(struct evaluator *evaluator) {
    if (evaluator->network != NULL) {
        struct backend *backend = evaluator->network->backend;
        backend->release(backend, evaluator->ids);
        backend->release(backend, evaluator->x);
        backend->release(backend, evaluator->sums);
    }
    free(evaluator->host_ids);
    free(evaluator->logits);
    memset(evaluator, 0, sizeof *evaluator);
}

/* Count predictions (the first of equal logits wins, as in the loss) by label. */
static enum status count_predictions(const struct evaluator *evaluator, const float *device_logits,
                                     const uint8_t *labels, int samples, int64_t *confusion) {
    struct backend *backend = evaluator->network->backend;
    const int classes = evaluator->network->classes;
    const float *row = evaluator->logits;
    TRY(backend->download(backend, evaluator->logits, device_logits,
                          (size_t)samples * (size_t)classes * sizeof *row));
    for (int i = 0; i < samples; i++, row += classes) {
        int best = 0;
        for (int k = 1; k < classes; k++)
            if (row[k] > row[best])
                best = k;
        confusion[labels[i] * classes + best]++;
    }
    return ST_OK;
}

/* Evaluate samples begin .. begin + samples - 1 of the data set. */
static enum status evaluate_batch(struct evaluator *evaluator, const struct device_dataset *data,
                                  const struct dataset *host, uint32_t begin, int samples,
                                  int64_t *confusion) {
    struct network *network = evaluator->network;
    struct backend *backend = network->backend;
    for (int i = 0; i < samples; i++)
        evaluator->host_ids[i] = begin + (uint32_t)i;
    TRY(backend->upload(backend, evaluator->ids, evaluator->host_ids,
                        (size_t)samples * sizeof *evaluator->ids));
    TRY(backend->gather_batch(backend, data->images, data->pixels, evaluator->ids, samples,
                              evaluator->x));
    const struct block_pass pass = {.samples = samples, .sample_ids = evaluator->ids};
    float *logits = NULL;
    TRY(network_forward(network, &pass, evaluator->x, &logits));
    TRY(backend->softmax_cross_entropy(backend, logits, network->classes, data->labels,
                                       evaluator->ids, samples, 1.0F, NULL, evaluator->sums));
    if (confusion != NULL)
        TRY(count_predictions(evaluator, logits, host->labels + begin, samples, confusion));
    return ST_OK;
}

/* Take the sums of a pass, rounded: how passes are grouped by ranks makes no difference then. */
static enum status take_sums(struct evaluator *evaluator, struct loss_sums *sums) {
    struct backend *backend = evaluator->network->backend;
    struct loss_sums pass;
    TRY(backend->download(backend, &pass, evaluator->sums, sizeof pass));
    TRY(backend->clear(backend, evaluator->sums, sizeof pass));
    sums->loss += exact_loss(pass.loss);
    sums->correct += pass.correct;
    return ST_OK;
}

/* This rank's part: whole passes, as they would be on one rank. */
static enum status evaluate_shard(struct evaluator *evaluator, const struct device_dataset *data,
                                  const struct dataset *host, int64_t *confusion,
                                  struct loss_sums *sums) {
    struct communicator *communicator = evaluator->communicator;
    struct backend *backend = evaluator->network->backend;
    const uint32_t most = (uint32_t)evaluator->network->max_samples;
    struct slice passes =
        dataset_shard(dataset_steps(data->count, most), communicator->rank, communicator->size);
    TRY(backend->clear(backend, evaluator->sums, sizeof *evaluator->sums));
    for (uint32_t i = passes.begin; i < passes.begin + passes.count; i++) {
        const struct slice pass = dataset_batch(data->count, most, i);
        TRY(evaluate_batch(evaluator, data, host, pass.begin, (int)pass.count, confusion));
        TRY(take_sums(evaluator, sums));
        watchdog_beat();
    }
    return ST_OK;
}

enum status evaluator_run(struct evaluator *evaluator, const struct device_dataset *data,
                          const struct dataset *host, int64_t *confusion,
                          struct evaluation *result) {
    struct communicator *communicator = evaluator->communicator;
    size_t cells = (size_t)evaluator->network->classes * (size_t)evaluator->network->classes;
    if (confusion != NULL)
        memset(confusion, 0, cells * sizeof *confusion);
    struct loss_sums sums = {0};
    TRY_TOGETHER(communicator, evaluate_shard(evaluator, data, host, confusion, &sums));
    TRY(communicator->sum_doubles(communicator, &sums.loss, 1));
    TRY(communicator->sum_integers(communicator, &sums.correct, 1));
    if (confusion != NULL)
        TRY(communicator->sum_integers(communicator, confusion, cells));
    result->samples = data->count;
    result->errors = (int64_t)data->count - sums.correct;
    result->loss = sums.loss / (double)data->count;
    result->accuracy = (double)sums.correct / (double)data->count;
    return ST_OK;
}
