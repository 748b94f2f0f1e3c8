/* evaluate.h - loss and errors of a network on a data set, over all ranks. */
#ifndef ESPALIER_EVALUATE_H
#define ESPALIER_EVALUATE_H

#include <espalier/communicator.h>
#include <espalier/dataset.h>
#include <espalier/network.h>

/** A data set's copy on a device. */
struct device_dataset {
    struct backend *backend;
    uint8_t *images,
        *labels; /* device; the data set's own where the device has the host's memory */
    uint32_t count;
    size_t pixels;
};

/** The data set must outlive it. */
enum status device_dataset_create(struct backend *backend, const struct dataset *dataset,
                                  struct device_dataset *device);
void device_dataset_destroy(struct device_dataset *device); /* legal on a zeroed one */

/** Working memory for evaluations of one network. */
struct evaluator {
    struct network *network;
    struct communicator *communicator;
    uint32_t *ids;          /* device [max_samples] */
    float *x;               /* device [max_samples][input] */
    struct loss_sums *sums; /* device */
    uint32_t *host_ids;     /* [max_samples] */
    float *logits;          /* host [max_samples][classes] */
};

enum status evaluator_create(struct network *network, struct communicator *communicator,
                             struct evaluator *evaluator);
void evaluator_destroy(struct evaluator *evaluator); /* legal on a zeroed one */

struct evaluation {
    int64_t samples, errors;
    double loss, accuracy; /* mean over the samples; fraction */
};

/** Evaluate in passes of max_samples, of which each rank takes its share (dataset_shard); sums are
 * all-reduced, counts as integers. `confusion` is NULL or [classes * classes] counts, row = label,
 * column = prediction, all-reduced too. Dropout is off. Collective. */
enum status evaluator_run(struct evaluator *evaluator, const struct device_dataset *data,
                          const struct dataset *host, int64_t *confusion,
                          struct evaluation *result);

#endif
