#include <espalier/dataset.h>
#include <espalier/idx.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void join_path(const char *dir, enum dataset_split split, int labels, const char *suffix,
                      char *path, size_t size) {
    snprintf(path, size, "%s/%s-%s-ubyte%s", dir, split == DATASET_TRAIN ? "train" : "t10k",
             labels ? "labels-idx1" : "images-idx3", suffix);
}

static bool exists(const char *dir, enum dataset_split split, int labels, const char *suffix) {
    char path[PATH_MAX];
    join_path(dir, split, labels, suffix, path, sizeof path);
    return access(path, F_OK) == 0;
}

void dataset_path(const char *dir, enum dataset_split split, int labels, char *path, size_t size) {
    bool compressed = !exists(dir, split, labels, "") && exists(dir, split, labels, ".gz");
    join_path(dir, split, labels, compressed ? ".gz" : "", path, size);
}

#define WHERE_TO_GET_THEM                                                                          \
    "jobs/fetch_mnist.sh gets MNIST, data.dir or ESPALIER_MNIST name its directory"

static bool is_absent(int reason) {
    return reason == ENOENT || reason == ENOTDIR;
}

static enum status check_directory(const char *dir) {
    struct stat found;
    if (strlen(dir) > PATH_MAX - sizeof "/train-images-idx3-ubyte.gz")
        FAIL(ST_INPUT, "%.40s...: a path of %zu bytes, at most %d expected", dir, strlen(dir),
             PATH_MAX);
    bool exists = stat(dir, &found) == 0;
    if (!exists && !is_absent(errno))
        FAIL(ST_IO, "%s: cannot open: %s", dir, strerror(errno));
    if (!exists)
        FAIL(ST_INPUT, "%s: no such directory; " WHERE_TO_GET_THEM, dir);
    if (!S_ISDIR(found.st_mode))
        FAIL(ST_INPUT, "%s: not a directory; " WHERE_TO_GET_THEM, dir);
    return ST_OK;
}

/* What is there but cannot be opened, the reader tells. */
static enum status read_part(const char *dir, enum dataset_split split, int labels,
                             struct idx *idx) {
    char path[PATH_MAX];
    TRY(check_directory(dir));
    dataset_path(dir, split, labels, path, sizeof path);
    if (access(path, F_OK) != 0 && is_absent(errno))
        FAIL(ST_INPUT, "%s: not found (nor .gz): an IDX file of %s expected; " WHERE_TO_GET_THEM,
             path, labels ? "labels" : "images");
    return idx_read(path, labels ? 1 : 3, idx);
}

static enum status check_counts(const char *dir, enum dataset_split split, const struct idx *images,
                                const struct idx *labels) {
    if (images->size[0] == labels->size[0])
        return ST_OK;
    char path[PATH_MAX];
    dataset_path(dir, split, 1, path, sizeof path);
    FAIL(ST_INPUT, "%s: %" PRIu32 " labels for %" PRIu32 " images, as many expected", path,
         labels->size[0], images->size[0]);
}

/* Counted over the whole file, so that a limit does not change what the labels mean. A test split
 * may hold a single class; a training split of one teaches nothing. */
static enum status count_classes(const char *dir, enum dataset_split split,
                                 const struct idx *labels, int *classes) {
    int largest = 0;
    for (uint32_t i = 0; i < labels->size[0]; i++)
        if (labels->bytes[i] > largest)
            largest = labels->bytes[i];
    *classes = largest + 1;
    if (split == DATASET_TEST || largest > 0)
        return ST_OK;
    char path[PATH_MAX];
    dataset_path(dir, split, 1, path, sizeof path);
    FAIL(ST_INPUT, "%s: all labels are 0, 2 to 256 classes expected", path);
}

static enum status apply_limit(const char *dir, enum dataset_split split, int limit,
                               struct dataset *dataset) {
    if (limit < 0 || (uint32_t)limit > dataset->count)
        FAIL(ST_INPUT, "%s: the first %d %s images wanted, 1 to %" PRIu32 " expected (0: all)", dir,
             limit, split == DATASET_TRAIN ? "training" : "test", dataset->count);
    if (limit > 0)
        dataset->count = (uint32_t)limit;
    return ST_OK;
}

enum status dataset_load(const char *dir, enum dataset_split split, int limit,
                         struct dataset *dataset) {
    *dataset = (struct dataset){0};
    struct idx images = {0}, labels = {0};
    enum status status;
    TRY_OUT(read_part(dir, split, 0, &images));
    TRY_OUT(read_part(dir, split, 1, &labels));
    TRY_OUT(check_counts(dir, split, &images, &labels));
    TRY_OUT(count_classes(dir, split, &labels, &dataset->classes));
    dataset->shape = (struct shape){(int)images.size[1], (int)images.size[2], 1};
    dataset->count = images.size[0];
    TRY_OUT(apply_limit(dir, split, limit, dataset));
    dataset->images = images.bytes;
    dataset->labels = labels.bytes;
    return ST_OK;
out:
    idx_destroy(&images);
    idx_destroy(&labels);
    *dataset = (struct dataset){0};
    return status;
}

enum status dataset_hold_out(struct dataset *dataset, int count, struct dataset *held) {
    if (count < 0 || (uint32_t)count >= dataset->count)
        FAIL(ST_INPUT, "%d images to be held out of %" PRIu32 ", at most %" PRIu32 " expected",
             count, dataset->count, dataset->count - 1);
    dataset->count -= (uint32_t)count;
    *held = *dataset;
    held->count = (uint32_t)count;
    held->images += dataset->count * shape_size(dataset->shape);
    held->labels += dataset->count;
    return ST_OK;
}

void dataset_destroy(struct dataset *dataset) {
    free(dataset->images);
    free(dataset->labels);
    *dataset = (struct dataset){0};
}

struct slice dataset_shard(uint32_t count, int rank, int size) {
    uint32_t r = (uint32_t)rank, base = count / (uint32_t)size, larger = count % (uint32_t)size;
    return (struct slice){r * base + (r < larger ? r : larger), base + (r < larger)};
}

struct slice dataset_batch(uint32_t samples, uint32_t batch, uint32_t step) {
    uint64_t begin = (uint64_t)step * batch;
    if (begin >= samples)
        return (struct slice){samples, 0};
    uint32_t left = samples - (uint32_t)begin;
    return (struct slice){(uint32_t)begin, left < batch ? left : batch};
}

uint32_t dataset_steps(uint32_t samples, uint32_t batch) {
    return samples / batch + (samples % batch != 0);
}
