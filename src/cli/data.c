#include "command.h"

#include <espalier/dataset.h>
#include <espalier/digest.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

enum { CLASSES_MAX = 256, BAR_COLUMNS = 20, DIMENSIONS_MAX = 3 };

/* SHA-256 of the raw files of MNIST (LeCun, Cortes, Burges), by split, images before labels. */
static const char *const mnist_digests[2][2] = {
    [DATASET_TRAIN] = {"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                       "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"},
    [DATASET_TEST] = {"0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                      "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"},
};

/* The IDX header that stood before the content: magic, then the sizes, big-endian. */
static size_t make_header(const struct dataset *d, bool labels, uint8_t header[]) {
    uint32_t dimensions = labels ? 1 : DIMENSIONS_MAX;
    const uint32_t words[] = {0x800 + dimensions, d->count, (uint32_t)d->shape.height,
                              (uint32_t)d->shape.width};
    for (uint32_t i = 0; i < 4 * (1 + dimensions); i++)
        header[i] = (uint8_t)(words[i / 4] >> (24 - 8 * (i % 4)));
    return 4 * (1 + dimensions);
}

/* Of the raw file, also where it lies compressed. */
static enum status raw_digest(const struct dataset *d, bool labels, char text[DIGEST_TEXT_SIZE]) {
    uint8_t header[4 * (1 + DIMENSIONS_MAX)];
    size_t header_bytes = make_header(d, labels, header);
    size_t bytes = labels ? d->count : d->count * shape_size(d->shape);
    struct digest *digest = NULL;
    enum status status;
    TRY_OUT(digest_create(&digest));
    TRY_OUT(digest_add(digest, header, header_bytes));
    TRY_OUT(digest_add(digest, labels ? d->labels : d->images, bytes));
    return digest_finish(digest, text);
out:
    digest_destroy(digest);
    return status;
}

static enum status print_file(const char *dir, enum dataset_split split, bool labels,
                              const struct dataset *d, int *originals) {
    char path[PATH_MAX], digest[DIGEST_TEXT_SIZE];
    TRY(raw_digest(d, labels, digest));
    bool original = strcmp(digest, mnist_digests[split][labels]) == 0;
    *originals += original;
    dataset_path(dir, split, labels, path, sizeof path);
    if (labels)
        printf("%s\n  %" PRIu32 " labels, %d classes\n", path, d->count, d->classes);
    else
        printf("%s\n  %" PRIu32 " images of %dx%d\n", path, d->count, d->shape.height,
               d->shape.width);
    printf("  sha256 %s  %s\n", digest, original ? "MNIST, original" : "not MNIST's");
    return ST_OK;
}

static uint32_t count_labels(const struct dataset *d, uint32_t counts[CLASSES_MAX]) {
    uint32_t largest = 1;
    memset(counts, 0, CLASSES_MAX * sizeof counts[0]);
    for (uint32_t i = 0; i < d->count; i++)
        if (++counts[d->labels[i]] > largest)
            largest = counts[d->labels[i]];
    return largest;
}

static void print_bar(uint32_t count, uint32_t largest, bool padded) {
    int length = (int)((uint64_t)count * BAR_COLUMNS / largest);
    for (int i = 0; i < (padded ? BAR_COLUMNS : length); i++)
        putchar(i < length ? '#' : ' ');
}

static void print_histogram(const struct dataset splits[2]) {
    uint32_t train[CLASSES_MAX], test[CLASSES_MAX];
    uint32_t largest_train = count_labels(&splits[DATASET_TRAIN], train);
    uint32_t largest_test = count_labels(&splits[DATASET_TEST], test);
    int classes = splits[DATASET_TRAIN].classes > splits[DATASET_TEST].classes
                      ? splits[DATASET_TRAIN].classes
                      : splits[DATASET_TEST].classes;
    printf("\n%5s  %10s  %*s  %10s\n", "class", "train", BAR_COLUMNS, "", "test");
    for (int i = 0; i < classes; i++) {
        printf("%5d  %10" PRIu32 "  ", i, train[i]);
        print_bar(train[i], largest_train, true);
        printf("  %10" PRIu32 "  ", test[i]);
        print_bar(test[i], largest_test, false);
        putchar('\n');
    }
}

static enum status check_splits_fit(const char *dir, const struct dataset splits[2]) {
    struct shape train = splits[DATASET_TRAIN].shape, test = splits[DATASET_TEST].shape;
    if (train.height == test.height && train.width == test.width)
        return ST_OK;
    FAIL(ST_INPUT, "%s: test images of %dx%d, the training images' %dx%d expected", dir,
         test.height, test.width, train.height, train.width);
}

static enum status describe(const char *dir, const struct dataset splits[2]) {
    int originals = 0;
    TRY(check_splits_fit(dir, splits));
    for (enum dataset_split split = DATASET_TRAIN; split <= DATASET_TEST; split++)
        for (int labels = 0; labels < 2; labels++)
            TRY(print_file(dir, split, labels, &splits[split], &originals));
    print_histogram(splits);
    printf("\nchecksums: %s\n", originals == 4 ? "MNIST, original" : "not MNIST's");
    return command_flush_output();
}

static enum status load_and_describe(const char *dir) {
    struct dataset splits[2] = {{.count = 0}};
    enum status status = dataset_load(dir, DATASET_TRAIN, 0, &splits[DATASET_TRAIN]);
    if (status == ST_OK)
        status = dataset_load(dir, DATASET_TEST, 0, &splits[DATASET_TEST]);
    if (status == ST_OK)
        status = describe(dir, splits);
    dataset_destroy(&splits[DATASET_TRAIN]);
    dataset_destroy(&splits[DATASET_TEST]);
    return status;
}

/* One reader for all: the others wait in the agreement. */
static enum status run(struct communicator *communicator, int argc, char **argv) {
    const char *dir = NULL;
    TRY_TOGETHER(communicator, command_one_argument(&command_data, argc, argv, &dir));
    TRY_TOGETHER(communicator, communicator->rank == 0 ? load_and_describe(dir) : ST_OK);
    return ST_OK;
}

const struct command command_data = {
    .name = "data",
    .usage = "espalier data DIR",
    .summary = "verify and describe a directory of images: counts, classes, checksums",
    .help =
        "DIR holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte\n"
        "and t10k-labels-idx1-ubyte (IDX, MNIST's format), each plain or with .gz; a plain\n"
        "file wins. Checks magic, sizes, lengths and that images and labels agree, prints\n"
        "the classes and the SHA-256 of the uncompressed files, and whether they are MNIST's.\n",
    .run = run,
};
