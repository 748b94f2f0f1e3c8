/* file.h - how the modules of this folder name and write files. */
#ifndef ESPALIER_IO_FILE_H
#define ESPALIER_IO_FILE_H

#include <espalier/status.h>
#include <stdbool.h>
#include <stddef.h>

enum { FILE_PATH_MAX = 4096 };

/** DIR/NAME in path [FILE_PATH_MAX]; ST_INPUT when it does not fit. */
enum status path_join(const char *dir, const char *name, char *path);

/** Write all bytes to a descriptor; false, and errno says why, when the system refuses. */
bool write_all(int descriptor, const void *bytes, size_t count);

/** Flush the directory that holds `path`, so that names in it reach the disk. Not every file system
 *  can, which is no failure; ST_IO names the directory when the disk fails. */
enum status flush_directory_of(const char *path);

/** A file that appears under its name whole or not at all: it is written to PATH.tmp, flushed to
 *  disk and renamed. Each function that fails removes PATH.tmp itself and leaves what stood under
 *  PATH alone, unless it is the directory that cannot be flushed: then the file has its name, and a
 *  power failure may take it back. ST_IO names what failed and the reason. */
enum { FILE_BUFFER_BYTES = 1 << 15 };
struct whole_file {
    int descriptor; /* -1: nothing is under way */
    size_t buffered;
    char buffer[FILE_BUFFER_BYTES];
    char path[FILE_PATH_MAX], temporary[FILE_PATH_MAX];
};

enum status whole_file_begin(const char *path, struct whole_file *whole);
enum status whole_file_add(struct whole_file *whole, const void *bytes, size_t count);
enum status whole_file_finish(struct whole_file *whole);
/** Give up what is under way, if anything is. */
void whole_file_drop(struct whole_file *whole);

#endif
