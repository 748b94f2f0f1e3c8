/* dataset.h - labelled images in host memory, and which rank takes which of them when.
 *
 * A dataset owns its bytes. Nothing here is collective: every function is a pure
 * function of its arguments and the files, so all ranks agree without talking. */
#ifndef ESPALIER_DATASET_H
#define ESPALIER_DATASET_H

#include <espalier/shape.h>
#include <espalier/status.h>
#include <stddef.h>
#include <stdint.h>

struct dataset {
    struct shape shape; /* height, width, 1 */
    uint32_t count;
    int classes;     /* largest label + 1 */
    uint8_t *images; /* [count, height, width] */
    uint8_t *labels; /* [count] */
};

enum dataset_split { DATASET_TRAIN, DATASET_TEST };

/** Load one split from a directory: {train,t10k}-{images-idx3,labels-idx1}-ubyte, a plain file
 *  wins over the one with .gz. At most the first `limit` samples (0: all); a limit above the
 *  count is ST_INPUT. Errors as idx_read; also when images and labels disagree in count. */
enum status dataset_load(const char *dir, enum dataset_split split, int limit,
                         struct dataset *dataset);

/** Hold out the last `count` samples: `held` receives them as a view into `dataset`, which
 *  shrinks. ST_INPUT unless at least one sample is left. `held` must not be destroyed. */
enum status dataset_hold_out(struct dataset *dataset, int count, struct dataset *held);

/** Free the bytes; legal on a zeroed dataset. */
void dataset_destroy(struct dataset *dataset);

/** The path of a split's file (labels or images): the plain file where it exists, else the one
 *  with .gz where that exists, else the plain file. */
void dataset_path(const char *dir, enum dataset_split split, int labels, char *path, size_t size);

/** A half-open range of positions. */
struct slice {
    uint32_t begin, count;
};

/** Rank r's contiguous part of `count` items: sizes differ by at most one, the lower ranks have
 *  the larger; a part may be empty. */
struct slice dataset_shard(uint32_t count, int rank, int size);

/** The window of the epoch's permutation that update `step` (0-based within the epoch) uses; the
 * last batch of an epoch is the remainder. A rank takes dataset_shard of it. */
struct slice dataset_batch(uint32_t samples, uint32_t batch, uint32_t step);

/** Updates in an epoch: ceil(samples / batch). */
uint32_t dataset_steps(uint32_t samples, uint32_t batch);

#endif
