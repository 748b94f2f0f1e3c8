#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT_S */
#include <espalier/threads.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

enum { CPU_SETS = 16 }; /* of 1024 cores each: the kernel refuses a mask that is too small */

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static int online_cores(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (int)count;
}

static int allowed_cores(void) {
    cpu_set_t cores[CPU_SETS];
    if (sched_getaffinity(0, sizeof cores, cores) != 0)
        return online_cores();
    return CPU_COUNT_S(sizeof cores, cores);
}

/* OMP_NUM_THREADS is a list, of which the first entry counts here; INT_MAX unless it is usable. */
static int environment_cap(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    if (text == NULL)
        return INT_MAX;
    char *end;
    long count = strtol(text, &end, 10);
    return count < 1 || count > INT_MAX || (*end != '\0' && *end != ',') ? INT_MAX : (int)count;
}

int threads_default(int wanted, int local_size) {
    if (wanted > 0)
        return wanted;
    int share = smaller(allowed_cores(), online_cores() / (local_size < 1 ? 1 : local_size));
    int count = smaller(share, environment_cap());
    return count < 1 ? 1 : count;
}
