/* Where the CPU backend's threads run, as the kernel tells each of them. */
#define _GNU_SOURCE /* sched_getaffinity and CPU_* */
#include "check.h"

#include <espalier/backend.h>
#include <omp.h>
#include <sched.h>
#include <stdlib.h>

static void forget_the_users_wishes(void) {
    unsetenv("OMP_PROC_BIND");
    unsetenv("OMP_PLACES");
    unsetenv("GOMP_CPU_AFFINITY");
}

static struct cores where_this_thread_may_run(void) {
    struct cores mine;
    cores_allowed(&mine);
    return mine;
}

static void a_team_that_fills_its_place_is_bound(void **state) {
    (void)state;
    forget_the_users_wishes();
    const struct cores place = where_this_thread_may_run();
    const int threads = cores_count(&place);
    int found[CORES_MAX] = {0}, many[CORES_MAX] = {0};
    backend_cpu_bind(threads, &place);
#pragma omp parallel num_threads(threads)
    {
        const struct cores mine = where_this_thread_may_run();
        many[omp_get_thread_num()] = cores_count(&mine);
        found[omp_get_thread_num()] = cores_nth(&mine, 0);
    }
    for (int i = 0; i < threads; i++) {
        assert_int_equal(many[i], 1);
        assert_int_equal(found[i], cores_nth(&place, i));
    }
}

static void others_are_left_alone(void **state) {
    (void)state;
    forget_the_users_wishes();
    const struct cores before = where_this_thread_may_run();
    const struct cores nowhere = {{0}};
    const int threads = cores_count(&before);
    backend_cpu_bind(threads + 1, &before);
    backend_cpu_bind(1, &nowhere);
    setenv("OMP_PROC_BIND", "false", 1);
    backend_cpu_bind(threads, &before);
    const struct cores after = where_this_thread_may_run();
    assert_memory_equal(&after, &before, sizeof after);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_team_that_fills_its_place_is_bound),
        cmocka_unit_test(others_are_left_alone),
    };
    return RUN_TESTS(tests, argc, argv);
}
