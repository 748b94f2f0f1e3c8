/* A rank's number of threads, against the kernel's own account of the cores. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "check.h"
#include <espalier/threads.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* The cores of "Cpus_allowed_list: 0-3,8" in /proc/self/status; first receives the lowest. */
static int allowed_by_proc(int *first) {
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    char line[4096];
    int count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "Cpus_allowed_list:", 18) != 0)
            continue;
        char *at = line + 18;
        do {
            long begin = strtol(at + (*at == ','), &at, 10);
            long end = *at == '-' ? strtol(at + 1, &at, 10) : begin;
            *first = count == 0 ? (int)begin : *first;
            count += (int)(end - begin + 1);
        } while (*at == ',');
    }
    fclose(file);
    assert_true(count > 0);
    return count;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

static void wanted_number_wins(void **state) {
    (void)state;
    setenv("OMP_NUM_THREADS", "1", 1);
    assert_int_equal(threads_default(7, 1), 7);
    assert_int_equal(threads_default(1, 64), 1);
}

static void alone_takes_all_allowed_cores(void **state) {
    (void)state;
    int first, online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(threads_default(0, 1), least(allowed_by_proc(&first), online));
}

static void ranks_of_a_node_share_it(void **state) {
    (void)state;
    int first, online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    unsetenv("OMP_NUM_THREADS");
    for (int ranks = 1; ranks <= 2 * online; ranks++) {
        int share = least(allowed_by_proc(&first), online / ranks);
        assert_int_equal(threads_default(0, ranks), share < 1 ? 1 : share);
    }
}

static void bound_process_counts_its_own_cores(void **state) {
    (void)state;
    int first = 0;
    cpu_set_t before, one;
    unsetenv("OMP_NUM_THREADS");
    (void)allowed_by_proc(&first);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int bound = threads_default(0, 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(bound, 1);
}

static void environment_caps(void **state) {
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    int all = threads_default(0, 1);
    setenv("OMP_NUM_THREADS", "1", 1);
    assert_int_equal(threads_default(0, 1), 1);
    setenv("OMP_NUM_THREADS", "1,8", 1);
    assert_int_equal(threads_default(0, 1), 1);
    setenv("OMP_NUM_THREADS", "100000", 1);
    assert_int_equal(threads_default(0, 1), all);
}

static void unusable_environment_is_ignored(void **state) {
    (void)state;
    static const char *const texts[] = {"", "0", "-1", "x", "1x", "99999999999999999999"};
    unsetenv("OMP_NUM_THREADS");
    int all = threads_default(0, 1);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        setenv("OMP_NUM_THREADS", texts[i], 1);
        assert_int_equal(threads_default(0, 1), all);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wanted_number_wins),
        cmocka_unit_test(alone_takes_all_allowed_cores),
        cmocka_unit_test(ranks_of_a_node_share_it),
        cmocka_unit_test(bound_process_counts_its_own_cores),
        cmocka_unit_test(environment_caps),
        cmocka_unit_test(unusable_environment_is_ignored),
    };
    return RUN_TESTS(tests, argc, argv);
}
