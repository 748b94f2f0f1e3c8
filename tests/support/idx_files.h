/* idx_files.h - a directory that a test fills with IDX files, and that is gone afterwards.
 *
 * For cmocka_unit_test_setup_teardown(TEST, temp_dir_setup, temp_dir_teardown): *state is then
 * the directory's path, a string. Sub-directories must be empty. */
#ifndef ESPALIER_TESTS_IDX_FILES_H
#define ESPALIER_TESTS_IDX_FILES_H

#include "check.h"
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { TEST_PATH_SIZE = 512 };

static inline const char *join(char path[TEST_PATH_SIZE], const char *dir, const char *name) {
    snprintf(path, TEST_PATH_SIZE, "%s/%s", dir, name);
    return path;
}

static inline int temp_dir_setup(void **state) {
    const char *base = getenv("TMPDIR");
    char *dir = malloc(TEST_PATH_SIZE);
    join(dir, base != NULL ? base : "/tmp", "espalier-test-XXXXXX");
    *state = dir;
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static inline int temp_dir_teardown(void **state) {
    char path[TEST_PATH_SIZE];
    DIR *entries = opendir(*state);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove(join(path, *state, entry->d_name));
    closedir(entries);
    int failed = rmdir(*state);
    free(*state);
    return failed;
}

static inline void write_plain(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* mode "wb" replaces the file, "ab" appends another gzip member */
static inline void write_gzip(const char *path, const char *mode, const void *bytes, size_t count) {
    gzFile file = gzopen(path, mode);
    assert_non_null(file);
    assert_int_equal(count == 0 ? 0 : gzwrite(file, bytes, (unsigned)count), count);
    assert_int_equal(gzclose(file), Z_OK);
}

/* Four bytes, big-endian. */
static inline void put_word(uint8_t *bytes, uint32_t word) {
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(word >> (24 - 8 * i));
}

/* Write an IDX header of 1 or 3 dimensions. Returns its length, 8 or 16. */
static inline size_t put_header(uint8_t *bytes, int dimensions, uint32_t count, uint32_t height,
                                uint32_t width) {
    const uint32_t words[] = {0x00000800u + (uint32_t)dimensions, count, height, width};
    for (int i = 0; i < 1 + dimensions; i++)
        put_word(bytes + 4 * i, words[i]);
    return 4 * (size_t)(1 + dimensions);
}

#endif
