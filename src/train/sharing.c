#include <espalier/sharing.h>
#include <espalier/watchdog.h>

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CACHE_LINE = 64, LINE_FLOATS = CACHE_LINE / sizeof(float) };

/* What each rank's memory begins with; gradient, beta and, where there is one, the exact vector
 * follow on cache lines of their own. */
struct header {
    _Atomic uint64_t meetings; /* that this rank has come to */
    float wishes[SHARING_WISHES_MAX];
};
_Static_assert(sizeof(struct header) <= CACHE_LINE, "the gradient follows on the next line");

static size_t whole_lines(size_t floats) {
    return (floats + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

static float *gradient_of(const struct sharing *s, int rank) {
    return (float *)s->maps[rank] + LINE_FLOATS;
}

static float *beta_of(const struct sharing *s, int rank) {
    return gradient_of(s, rank) + whole_lines(s->capacity);
}

static double *exact_of(const struct sharing *s, int rank) {
    return (double *)(void *)(beta_of(s, rank) + whole_lines(s->capacity));
}

/* In a rank's memory, with a vector of doubles or without. */
static size_t bytes_of(size_t count, bool exact) {
    const size_t floats = exact ? 2 + sizeof(double) / sizeof(float) : 2;
    return CACHE_LINE + floats * whole_lines(count) * sizeof(float);
}

static enum status allocate_maps(struct sharing *s) {
    s->maps = calloc((size_t)s->communicator->size, sizeof *s->maps);
    return s->maps != NULL ? ST_OK : status_fail(ST_MEMORY, "out of memory");
}

enum status sharing_create(struct communicator *communicator, size_t count, bool exact,
                           struct sharing *s) {
    *s = (struct sharing){.communicator = communicator, .capacity = count};
    TRY_TOGETHER(communicator, allocate_maps(s));
    TRY(communicator->map(communicator, bytes_of(count, exact), s->maps));
    if (s->maps[0] == NULL) {
        sharing_destroy(s);
        return ST_OK;
    }
    s->gradient = gradient_of(s, communicator->rank);
    s->beta = beta_of(s, communicator->rank);
    s->exact = exact ? exact_of(s, communicator->rank) : NULL;
    return ST_OK;
}

void sharing_destroy(struct sharing *s) {
    free(s->maps);
    memset(s, 0, sizeof *s);
}

struct share sharing_share(const struct sharing *s, size_t count, int rank) {
    const size_t ranks = (size_t)s->communicator->size, lines = whole_lines(count) / LINE_FLOATS;
    const size_t begin = lines * (size_t)rank / ranks * LINE_FLOATS;
    const size_t end = lines * ((size_t)rank + 1) / ranks * LINE_FLOATS;
    return (struct share){begin, (end < count ? end : count) - begin};
}

/* A rank that is awaited may need the core that this one waits on. */
static void wait_for(const struct header *other, uint64_t meetings) {
    enum { SPINS = 2000 };
    for (int i = 0; atomic_load_explicit(&other->meetings, memory_order_acquire) < meetings; i++)
        if (i >= SPINS)
            sched_yield();
}

void sharing_meet(struct sharing *s) {
    struct header *mine = s->maps[s->communicator->rank];
    s->meetings++;
    atomic_store_explicit(&mine->meetings, s->meetings, memory_order_release);
    watchdog_waits(true);
    for (int rank = 0; rank < s->communicator->size; rank++)
        wait_for(s->maps[rank], s->meetings);
    watchdog_waits(false);
}

void sharing_wish(const struct sharing *s, const float *wishes, int count) {
    struct header *mine = s->maps[s->communicator->rank];
    memcpy(mine->wishes, wishes, (size_t)count * sizeof *wishes);
}

void sharing_sum_wishes(const struct sharing *s, float *wishes, int count) {
    memset(wishes, 0, (size_t)count * sizeof *wishes);
    for (int rank = 0; rank < s->communicator->size; rank++)
        for (int i = 0; i < count; i++)
            wishes[i] += ((const struct header *)s->maps[rank])->wishes[i];
}

static void add(float *restrict sum, const float *restrict values, size_t count) {
    for (size_t i = 0; i < count; i++)
        sum[i] += values[i];
}

void sharing_sum(const struct sharing *s, struct share range) {
    enum { BLOCK = 2048 }; /* stays in the first cache */
    float sum[BLOCK];
    for (size_t done = 0; done < range.count; done += BLOCK) {
        const size_t first = range.begin + done;
        const size_t count = range.count - done < BLOCK ? range.count - done : BLOCK;
        memcpy(sum, gradient_of(s, 0) + first, count * sizeof *sum);
        for (int rank = 1; rank < s->communicator->size; rank++)
            add(sum, gradient_of(s, rank) + first, count);
        memcpy(s->gradient + first, sum, count * sizeof *sum);
    }
}

static void add_exact(double *restrict sum, const double *restrict values, size_t count) {
    for (size_t i = 0; i < count; i++)
        sum[i] += values[i];
}

void sharing_sum_exact(const struct sharing *s, struct share range) {
    enum { BLOCK = 1024 };
    double sum[BLOCK];
    for (size_t done = 0; done < range.count; done += BLOCK) {
        const size_t first = range.begin + done;
        const size_t count = range.count - done < BLOCK ? range.count - done : BLOCK;
        memcpy(sum, exact_of(s, 0) + first, count * sizeof *sum);
        for (int rank = 1; rank < s->communicator->size; rank++)
            add_exact(sum, exact_of(s, rank) + first, count);
        for (size_t i = 0; i < count; i++)
            s->gradient[first + i] = (float)sum[i];
    }
}

void sharing_fetch(const struct sharing *s, size_t count) {
    for (int rank = 0; rank < s->communicator->size; rank++) {
        const struct share share = sharing_share(s, count, rank);
        if (rank != s->communicator->rank)
            memcpy(s->beta + share.begin, beta_of(s, rank) + share.begin,
                   share.count * sizeof(float));
    }
}

enum status sharing_complete(const struct sharing *s, float *state, size_t count) {
    struct communicator *c = s->communicator;
    for (int rank = 0; rank < c->size; rank++) {
        const struct share share = sharing_share(s, count, rank);
        TRY(c->broadcast(c, state + share.begin, share.count * sizeof *state, rank));
    }
    return ST_OK;
}
