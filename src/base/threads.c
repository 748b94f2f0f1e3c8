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

int cores_count(const struct cores *set) {
    int count = 0;
    for (int core = 0; core < CORES_MAX; core++)
        count += has_core(set, core);
    return count;
}

int cores_nth(const struct cores *set, int index) {
    int core = 0;
    for (; index > 0 || !has_core(set, core); core++)
        index -= has_core(set, core);
    return core;
}

static bool are_equal(const struct cores *a, const struct cores *b) {
    return memcmp(a->bits, b->bits, sizeof a->bits) == 0;
}

static bool are_disjoint(const struct cores *a, const struct cores *b) {
    bool meet = false;
    for (int i = 0; i < CORES_BYTES; i++)
        meet = meet || (a->bits[i] & b->bits[i]) != 0;
    return !meet;
}

void cores_place(const struct cores *sets, int ranks, int rank, struct cores *place) {
    const struct cores *mine = &sets[rank];
    int equal = 0, disjoint = 0;
    for (int r = 0; r < ranks; r++) {
        equal += are_equal(&sets[r], mine);
        disjoint += r != rank && are_disjoint(&sets[r], mine);
    }
    memset(place, 0, sizeof *place);
    if (disjoint == ranks - 1)
        *place = *mine;
    else if (equal == ranks && cores_count(mine) >= ranks)
        for (int i = 0, share = cores_share(sets, ranks, rank); i < share; i++)
            add_core(place, cores_nth(mine, rank * share + i));
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
