/* temp_dir.h - a directory of a test's own, gone afterwards with all that is in it.
 *
 * For cmocka_unit_test_setup_teardown(TEST, temp_dir_setup, temp_dir_teardown): *state is then
 * the directory's path, a string. */
#ifndef ESPALIER_TESTS_TEMP_DIR_H
#define ESPALIER_TESTS_TEMP_DIR_H

#include "check.h"
#include <dirent.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEST_PATH_SIZE = 512, TEST_FILE_MAX = 65536 };

static inline const char *join(char path[TEST_PATH_SIZE], const char *dir, const char *name) {
    assert_true(snprintf(path, TEST_PATH_SIZE, "%s/%s", dir, name) < TEST_PATH_SIZE);
    return path;
}

static inline void remove_tree(const char *path) {
    struct stat information;
    if (lstat(path, &information) == 0 && S_ISDIR(information.st_mode)) {
        char entry_path[TEST_PATH_SIZE];
        DIR *entries = opendir(path);
        for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                remove_tree(join(entry_path, path, entry->d_name));
        closedir(entries);
    }
    remove(path);
}

static inline int temp_dir_setup(void **state) {
    const char *base = getenv("TMPDIR");
    char *dir = malloc(TEST_PATH_SIZE);
    join(dir, base != NULL ? base : "/tmp", "espalier-test-XXXXXX");
    *state = dir;
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static inline int temp_dir_teardown(void **state) {
    remove_tree(*state);
    free(*state);
    return 0;
}

static inline bool path_exists(const char *path) {
    struct stat information;
    return lstat(path, &information) == 0;
}

static inline void write_bytes(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* A file's content and a terminating zero; returns its length. */
static inline size_t read_bytes(const char *path, char bytes[TEST_FILE_MAX]) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t count = fread(bytes, 1, TEST_FILE_MAX - 1, file);
    assert_int_equal(fclose(file), 0);
    bytes[count] = '\0';
    return count;
}

/* The number of entries of a directory. */
static inline int count_entries(const char *dir) {
    int count = -2; /* . and .. */
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    while (readdir(entries) != NULL)
        count++;
    closedir(entries);
    return count;
}

#endif
