/* A disk that fails and a clock that jumps, for programs that are started with this library in
 * LD_PRELOAD.
 *
 * Calls that change files below $FAULT_DIR are counted; a line "CALL FILE" for each, as
 * "rename summary.json.tmp", goes to $FAULT_LOG. With $FAULT_SITE only the calls count whose line
 * that is. At call $FAULT_AT (1 is the first) comes $FAULT:
 *
 *   kill      the process dies before the call is made
 *   torn      the same, but half of a write is made
 *   hang      the thread never comes back from the call
 *   stop      the process stops before the call, until somebody continues it
 *   EIO       this one call fails
 *   ENOSPC    it and every later write and open fails, half of this write is made
 *   EROFS     it and every later call fails
 *
 * Threads call in no fixed order, but on any one file they do. With $FAULT_HANG the process hangs
 * in what it computes next after SIGUSR2, or with the value "stop" stops itself there. With
 * $FAULT_CLOCK every look at the wall clock finds it somewhere else, days away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS = 1024 };

/* Names of the files below the folder that descriptors write to, "" for other descriptors. */
static char names[DESCRIPTORS][NAME_MAX + 1];
static atomic_long calls; /* those that count */
static atomic_bool failed;

#define REAL(result, name, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (real == NULL)                                                                              \
    *(void **)&real = dlsym(RTLD_NEXT, #name)

static bool is_below(const char *path) {
    const char *folder = getenv("FAULT_DIR");
    return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static bool is_fault(const char *name) {
    const char *fault = getenv("FAULT");
    return fault != NULL && strcmp(fault, name) == 0;
}

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static void note(const char *site) {
    const char *path = getenv("FAULT_LOG");
    FILE *file = path == NULL ? NULL : fopen(path, "a"); /* libc's own open is not ours */
    if (file != NULL) {
        fprintf(file, "%s\n", site);
        fclose(file);
    }
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Whether this is the call to fail at. */
static bool is_reached(const char *call, const char *file) {
    const char *wanted = getenv("FAULT_SITE"), *text = getenv("FAULT_AT");
    char site[NAME_MAX + 32];
    snprintf(site, sizeof site, "%s %s", call, file);
    note(site);
    if (wanted != NULL && strcmp(wanted, site) != 0)
        return false;
    const long at = text == NULL ? 0 : strtol(text, NULL, 10);
    return atomic_fetch_add(&calls, 1) + 1 == at;
}

/* The error that this call must fail with, 0 for none; `reached`: it is the one to fail at. */
static int fault_of(bool reached, bool grows) {
    if (reached)
        atomic_store(&failed, true);
    if (atomic_load(&failed) && is_fault("EROFS"))
        return EROFS;
    if (atomic_load(&failed) && is_fault("ENOSPC"))
        return grows ? ENOSPC : 0;
    if (!reached)
        return 0;
    if (is_fault("kill") || is_fault("torn"))
        die();
    while (is_fault("hang"))
        pause();
    if (is_fault("stop"))
        raise(SIGSTOP);
    return is_fault("EIO") ? EIO : 0;
}

#define FAIL_IF_FAULT(call, file, grows)                                                           \
    do {                                                                                           \
        const int fault = fault_of(is_reached(call, file), grows);                                 \
        if (fault != 0) {                                                                          \
            errno = fault;                                                                         \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...);
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    const bool writes = is_below(path) && (flags & O_ACCMODE) != O_RDONLY;
    if (writes)
        FAIL_IF_FAULT("open", name_of(path), true);
    const int descriptor = real(path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        snprintf(names[descriptor], sizeof names[descriptor], "%s",
                 writes || (is_below(path) && (flags & O_DIRECTORY) != 0) ? name_of(path) : "");
    return descriptor;
}

/* NULL for what is none of ours. */
static const char *watched(int descriptor) {
    const bool known = descriptor >= 0 && descriptor < DESCRIPTORS && *names[descriptor] != '\0';
    return known ? names[descriptor] : NULL;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    const char *name = watched(descriptor);
    if (name == NULL)
        return real(descriptor, bytes, count);
    const bool reached = is_reached("write", name);
    if (reached && (is_fault("torn") || is_fault("ENOSPC"))) {
        const ssize_t written = real(descriptor, bytes, count / 2);
        const int fault = fault_of(reached, true);
        if (written > 0)
            return written; /* the next one meets the full disk */
        errno = fault;
        return -1;
    }
    errno = fault_of(reached, true);
    return errno != 0 ? -1 : real(descriptor, bytes, count);
}

int fsync(int descriptor) {
    REAL(int, fsync, int);
    if (watched(descriptor) != NULL)
        FAIL_IF_FAULT("fsync", watched(descriptor), false);
    return real(descriptor);
}

int ftruncate(int descriptor, off_t length) {
    REAL(int, ftruncate, int, off_t);
    if (watched(descriptor) != NULL)
        FAIL_IF_FAULT("ftruncate", watched(descriptor), false);
    return real(descriptor, length);
}

int close(int descriptor) {
    REAL(int, close, int);
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        *names[descriptor] = '\0';
    return real(descriptor);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    if (is_below(to))
        FAIL_IF_FAULT("rename", name_of(from), false);
    return real(from, to);
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (is_below(path) && access(path, F_OK) == 0)
        FAIL_IF_FAULT("unlink", name_of(path), false);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    if (is_below(path))
        FAIL_IF_FAULT("mkdir", name_of(path), true);
    return real(path, mode);
}

/* ---- hanging ---- */

static volatile sig_atomic_t hangs;
static bool stops;

static void hang_later(int number) {
    (void)number;
    hangs = 1;
}

__attribute__((constructor)) static void prepare_to_hang(void) {
    const char *how = getenv("FAULT_HANG");
    stops = how != NULL && strcmp(how, "stop") == 0;
    if (how != NULL)
        signal(SIGUSR2, hang_later);
}

/* How a thread enters a parallel region of OpenMP. */
void GOMP_parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags) {
    REAL(void, GOMP_parallel, void (*)(void *), void *, unsigned, unsigned);
    while (hangs)
        stops ? raise(SIGSTOP) : pause();
    real(function, data, threads, flags);
}

/* ---- the clock ---- */

/* Forth and back, by up to four years. */
static time_t jump(void) {
    static unsigned state = 1;
    if (getenv("FAULT_CLOCK") == NULL)
        return 0;
    state = state * 1103515245U + 12345U;
    return (time_t)(state % 250000000U) - 125000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    const int result = real(clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += jump();
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    *now = (struct timeval){precise.tv_sec, precise.tv_nsec / 1000};
    return 0;
}
