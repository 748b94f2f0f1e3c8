#define _GNU_SOURCE /* sched_getaffinity and CPU_* */
#include <espalier/threads.h>

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has_core(const struct cores *set, int core) {
    return set->bits[core / 8] >> core % 8 & 1;
}

static void add_core(struct cores *set, int core) {
    set->bits[core / 8] |= (uint8_t)(1 << core % 8);
}

/* Where the system does not say which: as many as are online. */
static void add_online(struct cores *cores) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    for (int core = 0; core < CORES_MAX && core < (count < 1 ? 1 : count); core++)
        add_core(cores, core);
}

void cores_allowed(struct cores *cores) {
    cpu_set_t allowed[CORES_MAX / CPU_SETSIZE];
    memset(cores, 0, sizeof *cores);
    if (sched_getaffinity(0, sizeof allowed, allowed) != 0) {
        add_online(cores);
        return;
    }
    for (int core = 0; core < CORES_MAX; core++)
        if (CPU_ISSET_S(core, sizeof allowed, allowed))
            add_core(cores, core);
}

int cores_share(const struct cores *sets, int ranks, int rank) {
    double share = 0;
    for (int core = 0; core < CORES_MAX; core++) {
        if (!has_core(&sets[rank], core))
            continue;
        int users = 0;
        for (int r = 0; r < ranks; r++)
            users += has_core(&sets[r], core);
        share += 1.0 / users;
    }
    const double rounding = 1e-9; /* three thirds are a whole core */
    return share + rounding < 1 ? 1 : (int)(share + rounding);
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

int threads_default(int wanted, int share) {
    if (wanted > 0)
        return wanted;
    int cap = environment_cap(), count = share < cap ? share : cap;
    return count < 1 ? 1 : count;
}
