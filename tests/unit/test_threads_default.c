/* A rank's number of threads, against the kernel's own account of the cores. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "check.h"
#include <espalier/threads.h>
#include <sched.h>
#include <stdlib.h>

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

static void wanted_number_wins(void **state) {
    (void)state;
    setenv("OMP_NUM_THREADS", "1", 1);
    assert_int_equal(threads_default(7, 1), 7);
    assert_int_equal(threads_default(1, 64), 1);
}

/* A set of the cores from first to last. */
static struct cores range(int first, int last) {
    struct cores set = {{0}};
    for (int core = first; core <= last; core++)
        set.bits[core / 8] |= (uint8_t)(1 << core % 8);
    return set;
}

static int share_of_all(void) {
    struct cores mine;
    cores_allowed(&mine);
    return cores_share(&mine, 1, 0);
}

static void alone_takes_all_allowed_cores(void **state) {
    (void)state;
    int first;
    assert_int_equal(share_of_all(), allowed_by_proc(&first));
}

static void unbound_ranks_share_the_node(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 40; ranks++) {
        struct cores sets[40];
        for (int r = 0; r < ranks; r++)
            sets[r] = range(3, 34);
        for (int r = 0; r < ranks; r++)
            assert_int_equal(cores_share(sets, ranks, r), ranks > 32 ? 1 : 32 / ranks);
    }
}

static void bound_ranks_keep_their_cores(void **state) {
    (void)state;
    const struct cores sets[] = {range(0, 7), range(8, 15), range(4095, 4095)};
    assert_int_equal(cores_share(sets, 3, 0), 8);
    assert_int_equal(cores_share(sets, 3, 1), 8);
    assert_int_equal(cores_share(sets, 3, 2), 1);
}

/* Cores 0-3 belong to rank 0 alone, 4-7 to both. */
static void overlapping_ranks_share_the_overlap(void **state) {
    (void)state;
    const struct cores sets[] = {range(0, 7), range(4, 7)};
    assert_int_equal(cores_share(sets, 2, 0), 6);
    assert_int_equal(cores_share(sets, 2, 1), 2);
}

static void bound_process_counts_its_own_cores(void **state) {
    (void)state;
    int first = 0;
    cpu_set_t before, one;
    (void)allowed_by_proc(&first);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int bound = share_of_all();
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(bound, 1);
}

static void assert_place(const struct cores *sets, int ranks, int rank, int first, int count) {
    struct cores place;
    cores_place(sets, ranks, rank, &place);
    assert_int_equal(cores_count(&place), count);
    for (int i = 0; i < count; i++)
        assert_int_equal(cores_nth(&place, i), first + i);
}

static void unbound_ranks_get_a_part_each(void **state) {
    (void)state;
    const struct cores all[] = {range(3, 9), range(3, 9), range(3, 9)};
    assert_place(all, 1, 0, 3, 7);
    assert_place(all, 2, 0, 3, 3);
    assert_place(all, 2, 1, 6, 3);
    for (int rank = 0; rank < 3; rank++)
        assert_place(all, 3, rank, 3 + 2 * rank, 2);
}

static void bound_ranks_have_their_cores_for_themselves(void **state) {
    (void)state;
    const struct cores sets[] = {range(0, 7), range(8, 15), range(4095, 4095)};
    assert_place(sets, 3, 0, 0, 8);
    assert_place(sets, 3, 1, 8, 8);
    assert_place(sets, 3, 2, 4095, 1);
}

/* Nobody is told to stay on a core that another may want. */
static void ranks_that_meet_have_no_place(void **state) {
    (void)state;
    const struct cores overlap[] = {range(0, 7), range(4, 7), range(8, 9)};
    assert_place(overlap, 3, 0, 0, 0);
    assert_place(overlap, 3, 1, 0, 0);
    assert_place(overlap, 3, 2, 8, 2);
    const struct cores crowded[] = {range(0, 1), range(0, 1), range(0, 1)};
    for (int rank = 0; rank < 3; rank++)
        assert_place(crowded, 3, rank, 0, 0);
}

static void environment_caps(void **state) {
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(threads_default(0, 5), 5);
    setenv("OMP_NUM_THREADS", "2", 1);
    assert_int_equal(threads_default(0, 5), 2);
    setenv("OMP_NUM_THREADS", "3,8", 1);
    assert_int_equal(threads_default(0, 5), 3);
    setenv("OMP_NUM_THREADS", "100000", 1);
    assert_int_equal(threads_default(0, 5), 5);
}

static void unusable_environment_is_ignored(void **state) {
    (void)state;
    static const char *const texts[] = {"", "0", "-1", "x", "1x", "99999999999999999999"};
    unsetenv("OMP_NUM_THREADS");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        setenv("OMP_NUM_THREADS", texts[i], 1);
        assert_int_equal(threads_default(0, 6), 6);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wanted_number_wins),
        cmocka_unit_test(alone_takes_all_allowed_cores),
        cmocka_unit_test(unbound_ranks_share_the_node),
        cmocka_unit_test(bound_ranks_keep_their_cores),
        cmocka_unit_test(overlapping_ranks_share_the_overlap),
        cmocka_unit_test(bound_process_counts_its_own_cores),
        cmocka_unit_test(unbound_ranks_get_a_part_each),
        cmocka_unit_test(bound_ranks_have_their_cores_for_themselves),
        cmocka_unit_test(ranks_that_meet_have_no_place),
        cmocka_unit_test(environment_caps),
        cmocka_unit_test(unusable_environment_is_ignored),
    };
    return RUN_TESTS(tests, argc, argv);
}
