/* events.jsonl and summary.json, read back by a JSON parser. */
#include "check.h"
#include "temp_dir.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <espalier/events.h>
#include <float.h>
#include <math.h>

/* A network of a convolution that is whole and a dense layer that has lost connections. */
static struct block blocks[2] = {{.name = "conv1"}, {.name = "dense1"}};
static struct parameter parameters[4] = {
    {.block = 0, .is_weight = true, .original_count = 18, .count = 18},
    {.block = 0, .is_weight = false, .original_count = 2, .count = 2},
    {.block = 1, .is_weight = true, .original_count = 320, .count = 77},
    {.block = 1, .is_weight = false, .original_count = 10, .count = 10},
};
static struct backend backend = {.name = "reference", .threads = 3};
static const struct network network = {
    .backend = &backend,
    .input = {28, 26, 1},
    .classes = 10,
    .blocks_count = 2,
    .blocks = blocks,
    .parameters_count = 4,
    .parameters = parameters,
    .count = 107,
    .original_count = 350,
};

/* Doubles that 15 digits do not hold, and the ends of the range. */
static const double DOUBLES[] = {0.1,     1.0 / 3,     0.62616622989353088, -8.6171180194651013e-68,
                                 DBL_MAX, DBL_MIN,     0x1p-1074,           0,
                                 1e22,    123456789.0, 2.3025850929940459,  0.98929999999999996};

static struct recipe make_recipe(void) {
    static char name[] = "tiny";
    struct recipe recipe = {.name = name};
    recipe.train.epochs = 12;
    recipe.train.batch = 128;
    recipe.train.seed = UINT64_MAX;
    recipe.train.optimizer.kind = OPTIMIZER_ADADELTA;
    recipe.train.optimizer.learning_rate = 0.1;
    recipe.prune.schedule = SCHEDULE_LINEAR;
    return recipe;
}

/* "seconds_epoch": lower-case letters, digits and single underscores. */
static void check_keys(const cJSON *object) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        for (const char *c = item->string; c != NULL && *c != '\0'; c++)
            if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9' && c > item->string) ||
                  (*c == '_' && c > item->string && c[1] != '_' && c[1] != '\0')))
                fail_msg("key '%s' is not snake_case", item->string);
        check_keys(item->child);
    }
}

/* The last line of events.jsonl, parsed; every line before must parse too. */
static cJSON *last_event(const struct event_log *log, int expected_lines) {
    static char text[TEST_FILE_MAX];
    size_t count = read_bytes(log->path, text);
    assert_true(count > 0 && text[count - 1] == '\n');
    cJSON *last = NULL;
    int lines = 0;
    for (char *line = text; *line != '\0'; lines++) {
        char *end = strchr(line, '\n');
        *end = '\0';
        cJSON_Delete(last);
        last = cJSON_ParseWithOpts(line, NULL, true);
        assert_non_null(last);
        check_keys(last->child);
        assert_true(cJSON_IsString(cJSON_GetObjectItem(last, "event")));
        assert_true(cJSON_GetObjectItem(last, "seconds")->valuedouble >= 0);
        line = end + 1;
    }
    assert_int_equal(lines, expected_lines);
    return last;
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item))
        fail_msg("no number %s", key);
    return item->valuedouble;
}

static const char *text_of(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsString(item))
        fail_msg("no text %s", key);
    return item->valuestring;
}

static void start_describes_the_run(void **state) {
    struct event_log log;
    const struct recipe recipe = make_recipe();
    assert_ok(event_log_open(*state, 0, &log));
    assert_ok(event_start(&log, &recipe, &network, 4, 60000, 10000));
    cJSON *event = last_event(&log, 1);
    assert_string_equal(text_of(event, "event"), "start");
    assert_string_equal(text_of(event, "recipe"), "tiny");
    assert_string_equal(text_of(event, "optimizer"), "adadelta");
    assert_string_equal(text_of(event, "schedule"), "linear");
    assert_string_equal(text_of(event, "backend"), "reference");
    assert_true(number(event, "threads") == 3 && number(event, "ranks") == 4);
    assert_true(number(event, "train_images") == 60000 && number(event, "test_images") == 10000);
    assert_true(number(event, "connections") == 338 && number(event, "parameters") == 350);
    assert_true(number(event, "epochs") == 12 && number(event, "batch") == 128);
    const cJSON *input = cJSON_GetObjectItem(event, "input");
    assert_int_equal(cJSON_GetArraySize(input), 3);
    assert_true(cJSON_GetArrayItem(input, 1)->valuedouble == 26);
    cJSON_Delete(event);
    assert_ok(event_log_close(&log));
}

static void doubles_read_back_exactly(void **state) {
    struct event_log log;
    assert_ok(event_log_open(*state, 0, &log));
    for (size_t i = 0; i < sizeof DOUBLES / sizeof DOUBLES[0]; i++) {
        const struct step_event written = {.loss = DOUBLES[i], .accuracy = -DOUBLES[i]};
        assert_ok(event_step(&log, &written));
        cJSON *event = last_event(&log, (int)i + 1);
        assert_true(number(event, "loss") == DOUBLES[i]);
        assert_true(number(event, "accuracy") == -DOUBLES[i]);
        cJSON_Delete(event);
    }
    assert_ok(event_log_close(&log));
}

static void what_is_no_number_is_null(void **state) {
    struct event_log log;
    assert_ok(event_log_open(*state, 0, &log));
    assert_ok(event_step(&log, &(struct step_event){.loss = NAN, .accuracy = -INFINITY}));
    cJSON *event = last_event(&log, 1);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(event, "loss")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(event, "accuracy")));
    cJSON_Delete(event);
    assert_ok(event_log_close(&log));
}

static void integers_are_written_whole(void **state) {
    static char text[TEST_FILE_MAX];
    struct event_log log;
    assert_ok(event_log_open(*state, 0, &log));
    assert_ok(event_step(
        &log, &(struct step_event){.step = INT64_MAX, .epoch = 7, .allreduce_bytes = SIZE_MAX}));
    const struct recipe recipe = make_recipe();
    assert_ok(event_start(&log, &recipe, &network, 1, UINT32_MAX, 0));
    read_bytes(log.path, text);
    assert_non_null(strstr(text, "\"step\":9223372036854775807,"));
    assert_non_null(strstr(text, "\"allreduce_bytes\":18446744073709551615,"));
    assert_non_null(strstr(text, "\"seed\":18446744073709551615,"));
    assert_non_null(strstr(text, "\"train_images\":4294967295,"));
    assert_ok(event_log_close(&log));
}

static void prune_counts_each_layer(void **state) {
    struct event_log log;
    assert_ok(event_log_open(*state, 0, &log));
    const struct prune_event pruned = {
        .step = 50, .allreduce_bytes = 412, .optimizer_bytes = 824, .seconds_event = 0.25};
    assert_ok(event_prune(&log, &pruned, &network));
    cJSON *event = last_event(&log, 1);
    assert_string_equal(text_of(event, "event"), "prune");
    assert_true(number(event, "step") == 50 && number(event, "seconds_event") == 0.25);
    assert_true(number(event, "connections") == 338 && number(event, "survivors") == 95);
    assert_true(number(event, "survivor_bytes") == 380);
    assert_true(number(event, "allreduce_bytes") == 412 && number(event, "optimizer_bytes") == 824);
    const cJSON *layers = cJSON_GetObjectItem(event, "layers");
    assert_int_equal(cJSON_GetArraySize(layers), 2);
    const cJSON *dense = cJSON_GetArrayItem(layers, 1);
    assert_string_equal(text_of(dense, "name"), "dense1");
    assert_true(number(dense, "connections") == 320 && number(dense, "survivors") == 77);
    cJSON_Delete(event);
    assert_ok(event_log_close(&log));
}

static void epoch_has_validation_only_where_there_is_one(void **state) {
    struct event_log log;
    struct epoch_event written = {.epoch = 2,
                                  .step = 938,
                                  .train_loss = 0.5,
                                  .train_accuracy = 0.75,
                                  .test_loss = 0.25,
                                  .test_accuracy = 0.9,
                                  .test_errors = 1000,
                                  .validation_accuracy = 0.8,
                                  .survivors = 95,
                                  .seconds_epoch = 3.5,
                                  .images_per_second = 1e5};
    assert_ok(event_log_open(*state, 0, &log));
    assert_ok(event_epoch(&log, &written));
    cJSON *event = last_event(&log, 1);
    assert_string_equal(text_of(event, "event"), "epoch");
    assert_true(number(event, "test_errors") == 1000 && number(event, "survivors") == 95);
    assert_null(cJSON_GetObjectItem(event, "validation_accuracy"));
    cJSON_Delete(event);
    written.has_validation = true;
    assert_ok(event_epoch(&log, &written));
    event = last_event(&log, 2);
    assert_true(number(event, "validation_accuracy") == 0.8);
    cJSON_Delete(event);
    assert_ok(event_log_close(&log));
}

static const struct run_summary SUMMARY = {.recipe = "a \"quoted\" name",
                                           .test_accuracy = 0.98929999999999996,
                                           .test_loss = 0.1,
                                           .train_accuracy = 1.0 / 3,
                                           .train_loss = 0.7,
                                           .test_errors = 107,
                                           .epochs = 12,
                                           .steps = 5628,
                                           .seconds_train = 12.5,
                                           .seconds_total = 13.25,
                                           .images_per_second = 57600,
                                           .connections = 1199648,
                                           .survivors = 500000,
                                           .parameters = 1199882,
                                           .parameters_left = 500234,
                                           .ranks = 2,
                                           .threads = 1,
                                           .backend = "cpu",
                                           .communicator = "mpi",
                                           .seed = 1,
                                           .weights_sha256 = "ab12"};

static void check_summary(const cJSON *object) {
    assert_string_equal(text_of(object, "recipe"), "a \"quoted\" name");
    assert_true(number(object, "test_accuracy") == SUMMARY.test_accuracy);
    assert_true(number(object, "train_accuracy") == SUMMARY.train_accuracy);
    assert_true(number(object, "test_errors") == 107 && number(object, "steps") == 5628);
    assert_true(number(object, "seconds_train") == 12.5 && number(object, "epochs") == 12);
    assert_true(number(object, "connections") == 1199648);
    assert_true(number(object, "survivors") == 500000);
    assert_true(number(object, "images_per_second") == 57600 && number(object, "ranks") == 2);
    assert_string_equal(text_of(object, "backend"), "cpu");
    assert_string_equal(text_of(object, "weights_sha256"), "ab12");
    assert_null(cJSON_GetObjectItem(object, "validation_accuracy"));
}

static void summary_and_end_say_the_same(void **state) {
    static char text[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE];
    struct event_log log;
    assert_ok(event_log_open(*state, 0, &log));
    assert_ok(event_end(&log, &SUMMARY));
    cJSON *object = last_event(&log, 1);
    check_summary(object);
    cJSON_Delete(object);
    assert_ok(event_log_close(&log));
    assert_ok(summary_write(*state, &SUMMARY));
    read_bytes(join(path, *state, "summary.json"), text);
    object = cJSON_ParseWithOpts(text, NULL, true);
    assert_non_null(object);
    check_keys(object->child);
    check_summary(object);
    cJSON_Delete(object);
    assert_int_equal(count_entries(*state), 2); /* no .tmp */
}

static void closed_log_does_nothing(void **state) {
    struct event_log log = {0};
    const struct recipe recipe = make_recipe();
    assert_ok(event_start(&log, &recipe, &network, 1, 1, 1));
    assert_ok(event_step(&log, &(struct step_event){0}));
    assert_ok(event_prune(&log, &(struct prune_event){.step = 1}, &network));
    assert_ok(event_epoch(&log, &(struct epoch_event){0}));
    assert_ok(event_end(&log, &SUMMARY));
    assert_ok(event_log_close(&log));
    assert_int_equal(count_entries(*state), 0);
}

static void full_disk_is_reported(void **state) {
    char path[TEST_PATH_SIZE];
    struct event_log log;
    assert_int_equal(symlink("/dev/full", join(path, *state, "events.jsonl")), 0);
    assert_ok(event_log_open(*state, 0, &log));
    assert_fails(event_step(&log, &(struct step_event){0}), ST_IO, strerror(ENOSPC));
    assert_non_null(strstr(status_message(), path));
    (void)event_log_close(&log);
    assert_false(log.is_open);
}

static void unwritable_directory_is_named(void **state) {
    char dir[TEST_PATH_SIZE], path[TEST_PATH_SIZE];
    struct event_log log;
    join(dir, *state, "missing");
    assert_fails(event_log_open(dir, 0, &log), ST_IO, join(path, dir, "events.jsonl"));
    assert_false(log.is_open);
    assert_fails(summary_write(dir, &SUMMARY), ST_IO, join(path, dir, "summary.json"));
    assert_non_null(strstr(status_message(), strerror(ENOENT)));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(start_describes_the_run, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(doubles_read_back_exactly, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(what_is_no_number_is_null, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(integers_are_written_whole, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(prune_counts_each_layer, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(epoch_has_validation_only_where_there_is_one,
                                        temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(summary_and_end_say_the_same, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(closed_log_does_nothing, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(full_disk_is_reported, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(unwritable_directory_is_named, temp_dir_setup,
                                        temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}
