#include "file.h"
#include <errno.h>
#include <espalier/run_dir.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum status path_join(const char *dir, const char *name, char *path) {
    int length = snprintf(path, FILE_PATH_MAX, "%s/%s", dir, name);
    if (length < 0 || length >= FILE_PATH_MAX)
        FAIL(ST_INPUT, "%.64s...: path of %d bytes is too long, at most %d are possible", dir,
             length, FILE_PATH_MAX - 1);
    return ST_OK;
}

bool write_all(int descriptor, const void *bytes, size_t count) {
    for (const char *at = bytes; count > 0;) {
        ssize_t written = write(descriptor, at, count);
        if (written < 0 && errno != EINTR)
            return false;
        at += written > 0 ? written : 0;
        count -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

static void drop_temporary(struct whole_file *whole) {
    if (whole->descriptor >= 0)
        close(whole->descriptor);
    whole->descriptor = -1;
    unlink(whole->temporary);
}

void whole_file_drop(struct whole_file *whole) {
    if (whole->descriptor >= 0)
        drop_temporary(whole);
}

static enum status give_up(struct whole_file *whole, int error) {
    drop_temporary(whole);
    FAIL(ST_IO, "cannot write %s: %s", whole->path, strerror(error));
}

enum status whole_file_begin(const char *path, struct whole_file *whole) {
    whole->descriptor = -1;
    whole->buffered = 0;
    int length = snprintf(whole->temporary, FILE_PATH_MAX, "%s.tmp", path);
    if (length < 0 || length >= FILE_PATH_MAX)
        FAIL(ST_IO, "cannot write %.64s...: %s", path, strerror(ENAMETOOLONG));
    snprintf(whole->path, FILE_PATH_MAX, "%s", path);
    whole->descriptor = open(whole->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (whole->descriptor < 0)
        FAIL(ST_IO, "cannot write %s: %s", path, strerror(errno));
    return ST_OK;
}

static enum status flush_buffer(struct whole_file *whole) {
    const size_t count = whole->buffered;
    whole->buffered = 0;
    return write_all(whole->descriptor, whole->buffer, count) ? ST_OK : give_up(whole, errno);
}

/* Small pieces are put together; a large one goes out as it is. */
enum status whole_file_add(struct whole_file *whole, const void *bytes, size_t count) {
    if (count > FILE_BUFFER_BYTES - whole->buffered)
        TRY(flush_buffer(whole));
    if (count >= FILE_BUFFER_BYTES)
        return write_all(whole->descriptor, bytes, count) ? ST_OK : give_up(whole, errno);
    if (count > 0)
        memcpy(whole->buffer + whole->buffered, bytes, count);
    whole->buffered += count;
    return ST_OK;
}

enum status flush_directory_of(const char *path) {
    char dir[FILE_PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        snprintf(dir, sizeof dir, ".");
    else
        slash[slash == dir ? 1 : 0] = '\0';
    int descriptor = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return ST_OK;
    const int error = fsync(descriptor) == 0 ? 0 : errno;
    close(descriptor);
    if (error == EIO || error == ENOSPC || error == EDQUOT)
        FAIL(ST_IO, "cannot flush %s: %s", dir, strerror(error));
    return ST_OK;
}

/* The rename itself reaches the disk with the directory. */
enum status whole_file_finish(struct whole_file *whole) {
    TRY(flush_buffer(whole));
    if (fsync(whole->descriptor) != 0)
        return give_up(whole, errno);
    int descriptor = whole->descriptor;
    whole->descriptor = -1;
    if (close(descriptor) != 0 || rename(whole->temporary, whole->path) != 0)
        return give_up(whole, errno);
    return flush_directory_of(whole->path);
}

enum status file_write_whole(const char *path, const void *bytes, size_t count) {
    struct whole_file whole;
    TRY(whole_file_begin(path, &whole));
    TRY(whole_file_add(&whole, bytes, count));
    return whole_file_finish(&whole);
}
