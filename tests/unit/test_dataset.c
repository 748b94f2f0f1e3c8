/* Data sets: which files are read, which samples a rank gets, and that the number of ranks does not
 * change which samples are in a batch. */
#include "idx_files.h"
#include <espalier/dataset.h>
#include <espalier/rng.h>

enum { HEIGHT = 2, WIDTH = 3, PIXELS = HEIGHT * WIDTH, SAMPLES_MAX = 300 };

/* Pixel p of image i is base + 6 i + p. */
static void write_images(const char *dir, const char *name, uint32_t count, int base) {
    char path[TEST_PATH_SIZE];
    uint8_t bytes[16 + SAMPLES_MAX * PIXELS];
    size_t header = put_header(bytes, 3, count, HEIGHT, WIDTH);
    for (size_t i = 0; i < count * PIXELS; i++)
        bytes[header + i] = (uint8_t)(base + (int)i);
    join(path, dir, name);
    if (strstr(name, ".gz") != NULL)
        write_gzip(path, "wb", bytes, header + count * PIXELS);
    else
        write_bytes(path, bytes, header + count * PIXELS);
}

/* Label i is i modulo `classes`. */
static void write_labels(const char *dir, const char *name, uint32_t count, uint32_t classes) {
    char path[TEST_PATH_SIZE];
    uint8_t bytes[8 + SAMPLES_MAX];
    size_t header = put_header(bytes, 1, count, 0, 0);
    for (size_t i = 0; i < count; i++)
        bytes[header + i] = (uint8_t)(i % classes);
    join(path, dir, name);
    if (strstr(name, ".gz") != NULL)
        write_gzip(path, "wb", bytes, header + count);
    else
        write_bytes(path, bytes, header + count);
}

static void write_train(const char *dir, uint32_t count, uint32_t classes) {
    write_images(dir, "train-images-idx3-ubyte", count, 0);
    write_labels(dir, "train-labels-idx1-ubyte", count, classes);
}

static void assert_load_fails(const char *dir, enum dataset_split split, int limit,
                              const char *text) {
    struct dataset dataset;
    assert_fails(dataset_load(dir, split, limit, &dataset), ST_INPUT, text);
    assert_null(dataset.images);
    assert_null(dataset.labels);
    assert_int_equal(dataset.count, 0);
}

static void loads_each_split(void **state) {
    struct dataset train, test;
    write_train(*state, 7, 3);
    write_images(*state, "t10k-images-idx3-ubyte", 2, 100);
    write_labels(*state, "t10k-labels-idx1-ubyte", 2, 2);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &train));
    assert_int_equal(train.count, 7);
    assert_int_equal(train.classes, 3);
    assert_int_equal(train.shape.height, HEIGHT);
    assert_int_equal(train.shape.width, WIDTH);
    assert_int_equal(train.shape.channels, 1);
    for (int i = 0; i < 7 * PIXELS; i++)
        assert_int_equal(train.images[i], i);
    for (int i = 0; i < 7; i++)
        assert_int_equal(train.labels[i], i % 3);
    assert_ok(dataset_load(*state, DATASET_TEST, 0, &test));
    assert_int_equal(test.count, 2);
    assert_int_equal(test.images[2 * PIXELS - 1], 100 + 2 * PIXELS - 1);
    dataset_destroy(&train);
    dataset_destroy(&train);
    dataset_destroy(&test);
}

static void path_is_plain_unless_only_gz_is_there(void **state) {
    char path[TEST_PATH_SIZE], plain[TEST_PATH_SIZE], compressed[TEST_PATH_SIZE];
    join(plain, *state, "t10k-labels-idx1-ubyte");
    join(compressed, *state, "t10k-labels-idx1-ubyte.gz");
    dataset_path(*state, DATASET_TEST, 1, path, sizeof path);
    assert_string_equal(path, plain);
    write_bytes(compressed, "", 0);
    dataset_path(*state, DATASET_TEST, 1, path, sizeof path);
    assert_string_equal(path, compressed);
    write_bytes(plain, "", 0);
    dataset_path(*state, DATASET_TEST, 1, path, sizeof path);
    assert_string_equal(path, plain);
    dataset_path(*state, DATASET_TRAIN, 0, path, sizeof path);
    assert_string_equal(path, join(plain, *state, "train-images-idx3-ubyte"));
}

static void reads_gz_where_there_is_no_plain_file(void **state) {
    struct dataset dataset;
    write_images(*state, "train-images-idx3-ubyte.gz", 4, 50);
    write_labels(*state, "train-labels-idx1-ubyte", 4, 2);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &dataset));
    assert_int_equal(dataset.images[0], 50);
    dataset_destroy(&dataset);
}

static void plain_file_wins_over_gz(void **state) {
    struct dataset dataset;
    write_train(*state, 4, 2);
    write_images(*state, "train-images-idx3-ubyte.gz", 9, 50);
    write_labels(*state, "train-labels-idx1-ubyte.gz", 9, 9);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &dataset));
    assert_int_equal(dataset.count, 4);
    assert_int_equal(dataset.images[0], 0);
    dataset_destroy(&dataset);
}

static void limit_keeps_first_samples_and_meaning_of_labels(void **state) {
    struct dataset dataset;
    write_train(*state, 7, 5);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 2, &dataset));
    assert_int_equal(dataset.count, 2);
    assert_int_equal(dataset.classes, 5);
    assert_int_equal(dataset.images[2 * PIXELS - 1], 2 * PIXELS - 1);
    dataset_destroy(&dataset);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 7, &dataset));
    assert_int_equal(dataset.count, 7);
    dataset_destroy(&dataset);
}

static void refuses_limit_above_count(void **state) {
    write_train(*state, 7, 5);
    assert_load_fails(*state, DATASET_TRAIN, 8,
                      ": the first 8 training images wanted, 1 to 7 expected (0: all)");
    assert_load_fails(*state, DATASET_TRAIN, -1, ": the first -1 training images wanted");
}

static void refuses_labels_that_do_not_match_images(void **state) {
    write_train(*state, 7, 5);
    write_labels(*state, "train-labels-idx1-ubyte", 6, 5);
    assert_load_fails(*state, DATASET_TRAIN, 0,
                      "train-labels-idx1-ubyte: 6 labels for 7 images, as many expected");
    assert_load_fails(*state, DATASET_TRAIN, 3, ": 6 labels for 7 images");
}

#define HINT "jobs/fetch_mnist.sh gets MNIST, data.dir or ESPALIER_MNIST name its directory"

static void refuses_missing_files(void **state) {
    assert_load_fails(*state, DATASET_TEST, 0,
                      "/t10k-images-idx3-ubyte: not found (nor .gz): an IDX file of images "
                      "expected; " HINT);
    write_images(*state, "t10k-images-idx3-ubyte", 3, 0);
    assert_load_fails(*state, DATASET_TEST, 0,
                      "/t10k-labels-idx1-ubyte: not found (nor .gz): an IDX file of labels "
                      "expected; " HINT);
}

static void refuses_what_is_no_directory(void **state) {
    char path[TEST_PATH_SIZE], below[TEST_PATH_SIZE];
    assert_load_fails(join(path, *state, "absent"), DATASET_TRAIN, 0,
                      "/absent: no such directory; " HINT);
    write_bytes(join(path, *state, "file"), "x", 1);
    assert_load_fails(path, DATASET_TRAIN, 0, "/file: not a directory; " HINT);
    assert_load_fails(join(below, path, "below"), DATASET_TRAIN, 0,
                      "/file/below: no such directory; " HINT);
}

static void refuses_swapped_files(void **state) {
    write_labels(*state, "train-images-idx3-ubyte", 9, 5);
    write_images(*state, "train-labels-idx1-ubyte", 9, 0);
    assert_load_fails(*state, DATASET_TRAIN, 0,
                      "train-images-idx3-ubyte: magic 0x00000801 (labels) found");
}

static void refuses_path_that_is_too_long(void **state) {
    (void)state;
    char dir[5000];
    memset(dir, 'd', sizeof dir - 1);
    dir[sizeof dir - 1] = '\0';
    assert_load_fails(dir, DATASET_TRAIN, 0, "ddd...: a path of 4999 bytes");
}

static void takes_2_to_256_classes(void **state) {
    struct dataset dataset;
    write_train(*state, 256, 256);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &dataset));
    assert_int_equal(dataset.classes, 256);
    dataset_destroy(&dataset);
    write_train(*state, 20, 1);
    assert_load_fails(*state, DATASET_TRAIN, 0,
                      "train-labels-idx1-ubyte: all labels are 0, 2 to 256 classes expected");
}

static void test_split_may_hold_one_class(void **state) {
    struct dataset dataset;
    write_images(*state, "t10k-images-idx3-ubyte", 3, 0);
    write_labels(*state, "t10k-labels-idx1-ubyte", 3, 1);
    assert_ok(dataset_load(*state, DATASET_TEST, 0, &dataset));
    assert_int_equal(dataset.classes, 1);
    dataset_destroy(&dataset);
}

static void holds_out_the_last_samples(void **state) {
    struct dataset dataset, held;
    write_train(*state, 7, 5);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &dataset));
    assert_ok(dataset_hold_out(&dataset, 3, &held));
    assert_int_equal(dataset.count, 4);
    assert_int_equal(held.count, 3);
    assert_int_equal(held.classes, 5);
    assert_int_equal(held.shape.width, WIDTH);
    assert_ptr_equal(held.images, dataset.images + 4 * PIXELS);
    assert_ptr_equal(held.labels, dataset.labels + 4);
    assert_ok(dataset_hold_out(&dataset, 0, &held));
    assert_int_equal(dataset.count, 4);
    assert_int_equal(held.count, 0);
    dataset_destroy(&dataset);
}

static void hold_out_leaves_at_least_one(void **state) {
    struct dataset dataset, held;
    write_train(*state, 7, 5);
    assert_ok(dataset_load(*state, DATASET_TRAIN, 0, &dataset));
    assert_fails(dataset_hold_out(&dataset, 7, &held), ST_INPUT,
                 "7 images to be held out of 7, at most 6 expected");
    assert_fails(dataset_hold_out(&dataset, -1, &held), ST_INPUT, "-1 images to be held out");
    assert_int_equal(dataset.count, 7);
    assert_ok(dataset_hold_out(&dataset, 6, &held));
    assert_int_equal(dataset.count, 1);
    dataset_destroy(&dataset);
}

/* Adjacent, together everything, as even as can be, the larger parts first; many counts are smaller
 * than the number of ranks. */
static void shards_partition_everything(void **state) {
    (void)state;
    static const uint32_t large[] = {96, 128, 10000, 60000, 0x7fffffff, 0xffffffff};
    for (int size = 1; size <= 7; size++)
        for (uint32_t i = 0; i < 50 + sizeof large / sizeof large[0]; i++) {
            uint32_t count = i < 50 ? i : large[i - 50], next = 0, last = UINT32_MAX;
            for (int rank = 0; rank < size; rank++) {
                struct slice shard = dataset_shard(count, rank, size);
                assert_int_equal(shard.begin, next);
                assert_true(shard.count <= last);
                assert_in_range(shard.count, count / (uint32_t)size,
                                ((uint64_t)count + (uint32_t)size - 1) / (uint32_t)size);
                next += shard.count;
                last = shard.count;
            }
            assert_int_equal(next, count);
        }
}

static void batches_cover_the_epoch(void **state) {
    (void)state;
    for (uint32_t samples = 1; samples <= 40; samples++)
        for (uint32_t batch = 1; batch <= 45; batch++) {
            uint32_t next = 0, step = 0;
            for (; next < samples; step++) {
                struct slice window = dataset_batch(samples, batch, step);
                assert_int_equal(window.begin, next);
                assert_int_equal(window.count, samples - next < batch ? samples - next : batch);
                next += window.count;
            }
            assert_int_equal(dataset_steps(samples, batch), step);
            assert_int_equal(dataset_batch(samples, batch, step).count, 0);
        }
}

/* 60,000 = 468 x 128 + 96. */
static void mnist_has_469_updates_an_epoch(void **state) {
    (void)state;
    assert_int_equal(dataset_steps(60000, 128), 469);
    assert_int_equal(dataset_batch(60000, 128, 467).count, 128);
    struct slice last = dataset_batch(60000, 128, 468);
    assert_int_equal(last.begin, 468 * 128);
    assert_int_equal(last.count, 96);
}

static void batches_do_not_overflow(void **state) {
    (void)state;
    uint32_t most = 0x7fffffff;
    assert_int_equal(dataset_steps(most, most), 1);
    assert_int_equal(dataset_steps(most, most - 1), 2);
    assert_int_equal(dataset_batch(most, most - 1, 1).count, 1);
    assert_int_equal(dataset_batch(5, 0x40000000, 4).count, 0); /* begins at 2^32 */
}

/* The samples of update `step` as the ranks would take them, one rank after the other. */
static uint32_t take_batch(const uint32_t *permutation, uint32_t samples, uint32_t step, int size,
                           uint32_t *taken) {
    uint32_t count = 0;
    struct slice window = dataset_batch(samples, 16, step);
    for (int rank = 0; rank < size; rank++) {
        struct slice shard = dataset_shard(window.count, rank, size);
        for (uint32_t i = 0; i < shard.count; i++)
            taken[count++] = permutation[window.begin + shard.begin + i];
    }
    return count;
}

/* 100 samples in batches of 16: neither 16 nor the last 4 divide by 3. */
static void batches_do_not_depend_on_ranks(void **state) {
    (void)state;
    enum { SAMPLES = 100, STEPS = 7 };
    uint32_t permutation[SAMPLES];
    rng_permutation(1, 0, permutation, SAMPLES);
    for (int size = 1; size <= 7; size++) {
        uint32_t seen[SAMPLES] = {0}, next = 0;
        for (uint32_t step = 0; step < STEPS; step++) {
            uint32_t taken[SAMPLES], count = take_batch(permutation, SAMPLES, step, size, taken);
            assert_int_equal(count, step < STEPS - 1 ? 16 : 4);
            assert_memory_equal(taken, permutation + next, count * sizeof taken[0]);
            for (uint32_t i = 0; i < count; i++)
                seen[taken[i]]++;
            next += count;
        }
        for (int i = 0; i < SAMPLES; i++)
            assert_int_equal(seen[i], 1);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(loads_each_split, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(path_is_plain_unless_only_gz_is_there, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_gz_where_there_is_no_plain_file, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(plain_file_wins_over_gz, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(limit_keeps_first_samples_and_meaning_of_labels,
                                        temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_limit_above_count, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_labels_that_do_not_match_images, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_missing_files, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_directory, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_swapped_files, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test(refuses_path_that_is_too_long),
        cmocka_unit_test_setup_teardown(takes_2_to_256_classes, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_split_may_hold_one_class, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(holds_out_the_last_samples, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(hold_out_leaves_at_least_one, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test(shards_partition_everything),
        cmocka_unit_test(batches_cover_the_epoch),
        cmocka_unit_test(mnist_has_469_updates_an_epoch),
        cmocka_unit_test(batches_do_not_overflow),
        cmocka_unit_test(batches_do_not_depend_on_ranks),
    };
    return RUN_TESTS(tests, argc, argv);
}
