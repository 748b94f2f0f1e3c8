/* The file of events: its lock, its lines, its end. */
#include "file.h"
#include <errno.h>
#include <espalier/events.h>
#include <espalier/progress.h>
#include <espalier/watchdog.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static enum status io_fail(const struct event_log *log) {
    FAIL(ST_IO, "cannot write %s: %s", log->path, strerror(errno));
}

/* The system releases the lock when the process ends, however it ends. A file system that knows no
 * locks does not keep anybody from training. */
static enum status lock(struct event_log *log, const char *run_dir, double wait_seconds) {
    const struct timespec pause = {.tv_nsec = 50000000};
    const double begin = monotonic_seconds();
    while (flock(log->descriptor, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return ST_OK;
        if (monotonic_seconds() - begin >= wait_seconds)
            FAIL(ST_USAGE, "run directory %s is in use: another run is writing to it", run_dir);
        watchdog_beat();
        nanosleep(&pause, NULL);
    }
    return ST_OK;
}

enum status event_log_open(const char *run_dir, double wait_seconds, struct event_log *log) {
    *log = (struct event_log){.descriptor = -1, .start_seconds = monotonic_seconds()};
    TRY(path_join(run_dir, "events.jsonl", log->path));
    log->descriptor = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->descriptor < 0)
        return io_fail(log);
    enum status status = lock(log, run_dir, wait_seconds);
    log->is_open = status == ST_OK;
    if (status != ST_OK)
        close(log->descriptor);
    return status;
}

enum status event_log_close(struct event_log *log) {
    if (!log->is_open)
        return ST_OK;
    log->is_open = false;
    return close(log->descriptor) == 0 ? ST_OK : io_fail(log);
}

enum status event_log_append(struct event_log *log, const char *line, size_t length) {
    return write_all(log->descriptor, line, length) ? ST_OK : io_fail(log);
}

enum status event_log_length(const struct event_log *log, int64_t *bytes) {
    off_t end = log->is_open ? lseek(log->descriptor, 0, SEEK_END) : 0;
    *bytes = end < 0 ? 0 : (int64_t)end; /* a pipe or a device has none */
    return ST_OK;
}

enum status event_log_flush(const struct event_log *log) {
    if (!log->is_open)
        return ST_OK;
    if (fsync(log->descriptor) != 0 && errno != EINVAL) /* no such thing for a pipe or a device */
        return io_fail(log);
    return ST_OK;
}

enum status event_log_cut(struct event_log *log, int64_t bytes) {
    if (!log->is_open)
        return ST_OK;
    off_t end = lseek(log->descriptor, 0, SEEK_END);
    if (end < bytes)
        FAIL(ST_INPUT, "%s: has %lld bytes, its checkpoint was written after %lld: cut short",
             log->path, (long long)end, (long long)bytes);
    return ftruncate(log->descriptor, (off_t)bytes) == 0 ? ST_OK : io_fail(log);
}
