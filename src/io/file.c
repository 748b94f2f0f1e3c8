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

static enum status give_up(struct whole_file *whole, int error) {
    if (whole->file != NULL)
        fclose(whole->file);
    whole->file = NULL;
    unlink(whole->temporary);
    FAIL(ST_IO, "cannot write %s: %s", whole->path, strerror(error));
}

enum status whole_file_begin(const char *path, struct whole_file *whole) {
    whole->file = NULL;
    int length = snprintf(whole->temporary, FILE_PATH_MAX, "%s.tmp", path);
    if (length < 0 || length >= FILE_PATH_MAX)
        FAIL(ST_IO, "cannot write %.64s...: %s", path, strerror(ENAMETOOLONG));
    snprintf(whole->path, FILE_PATH_MAX, "%s", path);
    whole->file = fopen(whole->temporary, "wb");
    if (whole->file == NULL)
        FAIL(ST_IO, "cannot write %s: %s", path, strerror(errno));
    return ST_OK;
}

enum status whole_file_add(struct whole_file *whole, const void *bytes, size_t count) {
    if (count > 0 && fwrite(bytes, 1, count, whole->file) != count)
        return give_up(whole, errno);
    return ST_OK;
}

/* The rename itself reaches the disk with the directory. Best effort: the file is whole under its
 * name either way, and not every file system can flush a directory. */
static void flush_directory_of(const char *path) {
    char dir[FILE_PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        snprintf(dir, sizeof dir, ".");
    else
        slash[slash == dir ? 1 : 0] = '\0';
    int descriptor = open(dir, O_RDONLY | O_DIRECTORY);
    if (descriptor < 0)
        return;
    fsync(descriptor);
    close(descriptor);
}

enum status whole_file_finish(struct whole_file *whole) {
    if (fflush(whole->file) != 0 || fsync(fileno(whole->file)) != 0)
        return give_up(whole, errno);
    FILE *file = whole->file;
    whole->file = NULL;
    if (fclose(file) != 0 || rename(whole->temporary, whole->path) != 0)
        return give_up(whole, errno);
    flush_directory_of(whole->path);
    return ST_OK;
}

enum status file_write_whole(const char *path, const void *bytes, size_t count) {
    struct whole_file whole;
    TRY(whole_file_begin(path, &whole));
    TRY(whole_file_add(&whole, bytes, count));
    return whole_file_finish(&whole);
}
