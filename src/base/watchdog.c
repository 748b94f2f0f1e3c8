#include <espalier/job.h>
#include <espalier/watchdog.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { LOOKS = 8 }; /* in the time after which the alarm sounds */
static const double longest_pause = 1;

static _Atomic uint64_t moves;
static _Atomic bool waiting;

/* How often each rank has begun to wait for the others: all do so in the same order. Changed under
 * the watchdog's mutex, by the only thread that reads it without. */
static _Atomic uint64_t own_waits;
static struct {
    _Atomic uint64_t *mine;
    void *const *all; /* [ranks], NULL where the ranks cannot see each other's */
    int ranks;
} roll = {.mine = &own_waits};

static struct {
    bool runs, stops;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t stopped;
    double seconds, pause;
    struct watchdog_alarm alarm;
} dog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void watchdog_beat(void) {
    atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
}

void watchdog_share(void *const *counts, int rank, int ranks) {
    if (counts[0] == NULL)
        return;
    pthread_mutex_lock(&dog.mutex);
    roll.mine = counts[rank];
    roll.all = counts;
    roll.ranks = ranks;
    pthread_mutex_unlock(&dog.mutex);
}

/* The first rank that has not come as far as this one. */
static int missing_rank(void) {
    int missing = -1;
    pthread_mutex_lock(&dog.mutex);
    const uint64_t here = atomic_load(roll.mine);
    for (int rank = roll.ranks - 1; rank >= 0; rank--)
        if (atomic_load((_Atomic uint64_t *)roll.all[rank]) < here)
            missing = rank;
    pthread_mutex_unlock(&dog.mutex);
    return missing;
}

void watchdog_waits(bool waits) {
    if (waits)
        atomic_fetch_add_explicit(roll.mine, 1, memory_order_relaxed);
    atomic_store_explicit(&waiting, waits, memory_order_relaxed);
    watchdog_beat();
}

/* True when it is time to stop. */
static bool sleep_once(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double whole = (double)(int64_t)dog.pause;
    until.tv_sec += (time_t)whole;
    until.tv_nsec += (long)((dog.pause - whole) * 1e9);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&dog.mutex);
    if (!dog.stops)
        pthread_cond_timedwait(&dog.stopped, &dog.mutex, &until);
    const bool stops = dog.stops;
    pthread_mutex_unlock(&dog.mutex);
    return stops;
}

static void *watch(void *nothing) {
    uint64_t seen = atomic_load(&moves);
    double still = 0;
    while (!sleep_once()) {
        const uint64_t now = atomic_load(&moves);
        const bool waits = atomic_load(&waiting);
        still = now == seen ? still + dog.pause : 0;
        seen = now;
        if (still < (waits ? 2 : 1) * dog.seconds)
            continue;
        const struct watchdog_report report = {still, waits, missing_rank()};
        dog.alarm.call(dog.alarm.context, &report);
        break;
    }
    return nothing;
}

static int start_thread(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&dog.stopped, &attributes);
    pthread_condattr_destroy(&attributes);
    return thread_start(&dog.thread, watch, NULL);
}

enum status watchdog_start(double seconds, struct watchdog_alarm alarm) {
    if (seconds <= 0)
        return ST_OK;
    dog.seconds = seconds;
    dog.pause = seconds / LOOKS < longest_pause ? seconds / LOOKS : longest_pause;
    dog.alarm = alarm;
    dog.stops = false;
    dog.runs = start_thread() == 0;
    return dog.runs ? ST_OK : status_fail(ST_UNAVAILABLE, "cannot start a thread for the watchdog");
}

static void stop_thread(void) {
    pthread_mutex_lock(&dog.mutex);
    dog.stops = true;
    pthread_cond_signal(&dog.stopped);
    pthread_mutex_unlock(&dog.mutex);
    pthread_join(dog.thread, NULL);
    pthread_cond_destroy(&dog.stopped);
    dog.runs = false;
}

void watchdog_stop(void) {
    if (dog.runs)
        stop_thread();
    roll.mine = &own_waits;
    roll.all = NULL;
    roll.ranks = 0;
}
