/* What the OpenMP library makes of the process: how long its threads spin, and where they run. */
#define _GNU_SOURCE /* sched_setaffinity and CPU_* */
#include <espalier/backend.h>

#include <omp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The user's word on where threads run. The library has bound the first before main. */
static bool user_binds(void) {
    return getenv("OMP_PROC_BIND") != NULL || getenv("OMP_PLACES") != NULL ||
           getenv("GOMP_CPU_AFFINITY") != NULL;
}

/* How long a thread spins at a barrier before it sleeps, in the OpenMP library's rounds: some 80
 * microseconds, for within a step waits are short, and to be woken takes as long. By default it
 * spins for milliseconds, on a core that another process could have used: beside one busy process,
 * small networks train a hundred times slower so. */
static bool choose_spinning(void) {
    if (getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL || user_binds())
        return false; /* a bound thread would start the program anew on its one core */
    return setenv("GOMP_SPINCOUNT", "4000", 1) == 0;
}

void backend_cpu_prepare_process(char **argv) {
    if (choose_spinning())
        execv("/proc/self/exe", argv); /* returns only if it failed: then slower, but right */
}

/* Where the system refuses, the thread runs where it did. */
static void bind_this_thread(int core) {
    cpu_set_t set[CORES_MAX / CPU_SETSIZE];
    memset(set, 0, sizeof set);
    CPU_SET_S((size_t)core, sizeof set, set);
    (void)sched_setaffinity(0, sizeof set, set);
}

void backend_cpu_bind(int threads, const struct cores *place) {
    if (user_binds() || cores_count(place) != threads)
        return;
#pragma omp parallel num_threads(threads)
    bind_this_thread(cores_nth(place, omp_get_thread_num()));
}
