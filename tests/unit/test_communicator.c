/* The single rank, and what decides which communicator comes up. */
#include "check.h"
#include <espalier/communicator.h>
#include <stdlib.h>

/* The suite itself may run under a launcher. */
static void forget_launcher(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK",
                                        "PMIX_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
}

static void single_is_a_whole(void **state) {
    (void)state;
    struct communicator c;
    assert_ok(communicator_single(&c));
    assert_string_equal(c.name, "single");
    assert_int_equal(c.rank, 0);
    assert_int_equal(c.size, 1);
    assert_int_equal(c.local_rank, 0);
    assert_int_equal(c.local_size, 1);
    assert_int_equal(c.failed_rank, -1);
    c.destroy(&c);
}

static void single_leaves_values_alone(void **state) {
    (void)state;
    struct communicator c;
    float floats[3] = {1.5F, -0.0F, 3};
    double doubles[2] = {0.1, 7};
    int64_t integers[2] = {INT64_MAX, -4};
    char bytes[4] = "abc", all[4] = "";
    assert_ok(communicator_single(&c));
    assert_ok(c.allreduce_start(&c, floats, 3));
    c.poll(&c);
    assert_ok(c.allreduce_wait(&c));
    assert_ok(c.sum_doubles(&c, doubles, 2));
    assert_ok(c.sum_integers(&c, integers, 2));
    assert_ok(c.broadcast(&c, bytes, sizeof bytes, 0));
    assert_ok(c.allgather(&c, bytes, all, sizeof bytes));
    assert_ok(c.allgather(&c, NULL, NULL, 0));
    assert_ok(c.barrier(&c));
    assert_true(floats[0] == 1.5F && floats[1] == 0 && floats[2] == 3);
    assert_true(doubles[0] == 0.1 && doubles[1] == 7);
    assert_true(integers[0] == INT64_MAX && integers[1] == -4);
    assert_string_equal(bytes, "abc");
    assert_string_equal(all, "abc");
    c.destroy(&c);
}

static void single_agrees_with_itself(void **state) {
    (void)state;
    struct communicator c;
    assert_ok(communicator_single(&c));
    assert_ok(communicator_agree(&c, ST_OK));
    assert_int_equal(c.failed_rank, -1);
    assert_true(communicator_reports(&c));
    assert_fails(communicator_agree(&c, status_fail(ST_IO, "the disk is full")), ST_IO,
                 "the disk is full");
    assert_int_equal(c.failed_rank, 0);
    assert_true(communicator_reports(&c));
    c.destroy(&c);
}

static void only_the_agreed_rank_reports(void **state) {
    (void)state;
    struct communicator c;
    assert_ok(communicator_single(&c));
    c.rank = 2;
    assert_true(communicator_reports(&c));
    c.failed_rank = 1;
    assert_false(communicator_reports(&c));
    c.failed_rank = 2;
    assert_true(communicator_reports(&c));
}

/* Inside a batch script the job's variables are set, but no step was launched. */
static void no_launcher_means_single(void **state) {
    (void)state;
    forget_launcher();
    setenv("SLURM_JOB_ID", "17", 1);
    setenv("SLURM_NTASKS", "4", 1);
    setenv("SLURM_PROCID", "0", 1);
    setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    struct communicator c;
    assert_ok(communicator_create(NULL, NULL, &c));
    assert_string_equal(c.name, "single");
    assert_int_equal(c.size, 1);
    c.destroy(&c);
}

static void empty_and_odd_variables_are_no_launcher(void **state) {
    (void)state;
    forget_launcher();
    setenv("OMPI_COMM_WORLD_SIZE", "", 1);
    setenv("PMI_RANK", "first", 1);
    setenv("PMIX_RANK", "-1", 1);
    struct communicator c;
    assert_ok(communicator_create(NULL, NULL, &c));
    assert_string_equal(c.name, "single");
    c.destroy(&c);
    forget_launcher();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_is_a_whole),
        cmocka_unit_test(single_leaves_values_alone),
        cmocka_unit_test(single_agrees_with_itself),
        cmocka_unit_test(only_the_agreed_rank_reports),
        cmocka_unit_test(no_launcher_means_single),
        cmocka_unit_test(empty_and_odd_variables_are_no_launcher),
    };
    return RUN_TESTS(tests, argc, argv);
}
