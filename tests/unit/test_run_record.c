/* What events.h writes, run_record.h reads back; and what nothing wrote is refused. */
#include "check.h"
#include "temp_dir.h"
#include <espalier/events.h>
#include <espalier/run_record.h>
#include <math.h>

static struct block blocks[2] = {{.name = "conv1"}, {.name = "dense1"}};
static struct parameter parameters[3] = {
    {.block = 0, .is_weight = true, .original_count = 18, .count = 18},
    {.block = 0, .is_weight = false, .original_count = 2, .count = 2},
    {.block = 1, .is_weight = true, .original_count = 320, .count = 320},
};
static struct backend backend = {.name = "reference", .threads = 3};
static const struct network network = {.backend = &backend,
                                       .input = {28, 28, 1},
                                       .classes = 10,
                                       .blocks_count = 2,
                                       .blocks = blocks,
                                       .parameters_count = 3,
                                       .parameters = parameters};

static struct event_log begin_run(const char *dir) {
    static char name[] = "tiny";
    struct recipe recipe = {.name = name};
    struct event_log log;
    recipe.train.epochs = 12;
    recipe.train.batch = 128;
    assert_ok(event_log_open(dir, 0, &log));
    assert_ok(event_start(&log, &recipe, &network, 4, 60000, 10000));
    return log;
}

static void write_prune(struct event_log *log, int64_t step, size_t left) {
    parameters[2].count = left;
    assert_ok(
        event_prune(log, &(struct prune_event){.step = step, .seconds_event = 0.001}, &network));
    parameters[2].count = 320;
}

static void write_epoch(struct event_log *log, int number, double accuracy) {
    const struct epoch_event event = {.epoch = number,
                                      .step = 10 * number,
                                      .train_accuracy = accuracy - 0.125,
                                      .test_accuracy = accuracy,
                                      .test_loss = NAN,
                                      .test_errors = 7 * number,
                                      .survivors = 300,
                                      .seconds_epoch = 1.5};
    assert_ok(event_epoch(log, &event));
}

static void write_step(struct event_log *log, int64_t step, double images_per_second) {
    const struct step_event event = {.step = step, .images_per_second = images_per_second};
    assert_ok(event_step(log, &event));
}

static void reads_what_events_wrote(void **state) {
    struct event_log log = begin_run(*state);
    struct run_record r;
    write_step(&log, 5, 1.0 / 3);
    write_prune(&log, 6, 77);
    write_epoch(&log, 1, 0.75);
    write_step(&log, 15, INFINITY); /* null */
    assert_ok(event_log_close(&log));
    assert_ok(run_record_read(*state, &r));
    assert_string_equal(r.dir, *state);
    assert_string_equal(r.start.recipe, "tiny");
    assert_string_equal(r.start.backend, "reference");
    assert_true(r.start.epochs == 12 && r.start.batch == 128 && r.start.ranks == 4);
    assert_true(r.start.threads == 3 && r.start.connections == 338);
    assert_true(r.steps_count == 2 && r.prunes_count == 1 && r.epochs_count == 1);
    assert_true(r.steps[0].step == 5 && r.steps[0].images_per_second == 1.0 / 3);
    assert_true(isnan(r.steps[1].images_per_second));
    assert_int_equal(r.layers_count, 2);
    assert_string_equal(r.layers[1].name, "dense1");
    assert_true(r.layers[1].connections == 320 && r.prunes[0].survivors[0] == 18);
    assert_true(r.prunes[0].survivors[1] == 77 && r.prunes[0].step == 6);
    assert_true(r.epochs[0].test_accuracy == 0.75 && r.epochs[0].train_accuracy == 0.625);
    assert_true(r.epochs[0].test_errors == 7 && r.epochs[0].seconds_epoch == 1.5);
    assert_false(r.finished);
    assert_true(run_record_last_step(&r) == 15);
    run_record_destroy(&r);
}

static void reads_the_summary(void **state) {
    struct event_log log = begin_run(*state);
    const struct run_summary summary = {.recipe = "tiny",
                                        .test_accuracy = 0.98750000000000004,
                                        .test_errors = 125,
                                        .epochs = 12,
                                        .steps = 5628,
                                        .seconds_train = 61.5,
                                        .survivors = 99,
                                        .backend = "cpu",
                                        .communicator = "mpi",
                                        .weights_sha256 = ""};
    struct run_record r;
    assert_ok(event_log_close(&log));
    assert_ok(summary_write(*state, &summary));
    assert_ok(run_record_read(*state, &r));
    assert_true(r.finished);
    assert_true(r.result.test_accuracy == summary.test_accuracy && r.result.test_errors == 125);
    assert_true(r.result.epochs == 12 && r.result.steps == 5628 && r.result.survivors == 99);
    assert_true(r.result.seconds_train == 61.5);
    run_record_destroy(&r);
}

/* Of a run that was killed after update 30 and resumed from update 20. */
static void later_lives_replace_earlier_ones(void **state) {
    struct event_log log = begin_run(*state);
    struct run_record r;
    write_epoch(&log, 1, 0.5);
    write_step(&log, 20, 1);
    write_epoch(&log, 2, 0.6);
    write_prune(&log, 25, 100);
    write_epoch(&log, 3, 0.7);
    write_step(&log, 22, 2);
    assert_ok(event_log_close(&log));
    assert_ok(run_record_read(*state, &r));
    assert_true(r.epochs_count == 2 && r.prunes_count == 0 && r.steps_count == 2);
    assert_true(r.epochs[1].test_accuracy == 0.6 && r.steps[1].step == 22);
    assert_true(run_record_last_step(&r) == 22);
    run_record_destroy(&r);
}

static void same_update_is_recorded_once(void **state) {
    struct event_log log = begin_run(*state);
    struct run_record r;
    write_step(&log, 5, 1);
    write_step(&log, 5, 2);
    assert_ok(event_log_close(&log));
    assert_ok(run_record_read(*state, &r));
    assert_int_equal(r.steps_count, 1);
    assert_true(r.steps[0].images_per_second == 2);
    run_record_destroy(&r);
}

static void lines_count_from_1(void **state) {
    char path[TEST_PATH_SIZE];
    const char text[] = "{\"event\":\"later\"}\n{\"event\":\"later\"}\nnonsense\n";
    struct run_record r;
    write_bytes(join(path, *state, "events.jsonl"), text, strlen(text));
    assert_fails(run_record_read(*state, &r), ST_INPUT, "events.jsonl:3: not a JSON object");
    run_record_destroy(&r);
}

static void torn_last_line_is_passed_over(void **state) {
    struct event_log log = begin_run(*state);
    struct run_record r;
    write_step(&log, 5, 1);
    assert_ok(event_log_append(&log, "{\"event\":\"ep", 12));
    assert_ok(event_log_close(&log));
    assert_ok(run_record_read(*state, &r));
    assert_int_equal(r.steps_count, 1);
    run_record_destroy(&r);
}

/* More lines than the first allocation holds. */
static void long_run_is_read_whole(void **state) {
    struct event_log log = begin_run(*state);
    struct run_record r;
    for (int64_t step = 1; step <= 1000; step++)
        write_step(&log, step, (double)step);
    assert_ok(event_log_close(&log));
    assert_ok(run_record_read(*state, &r));
    assert_int_equal(r.steps_count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_true(r.steps[i].images_per_second == i + 1);
    run_record_destroy(&r);
}

static void no_directory(void **state) {
    char path[TEST_PATH_SIZE];
    struct run_record r;
    assert_fails(run_record_read(join(path, *state, "none"), &r), ST_INPUT, "No such file");
    run_record_destroy(&r);
    assert_fails(run_record_read(*state, &r), ST_INPUT, "it has no events.jsonl");
    run_record_destroy(&r);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_events_wrote, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(reads_the_summary, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(later_lives_replace_earlier_ones, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(same_update_is_recorded_once, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(lines_count_from_1, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(torn_last_line_is_passed_over, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(long_run_is_read_whole, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(no_directory, temp_dir_setup, temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}
