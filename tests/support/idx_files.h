/* idx_files.h - IDX and gzip files in a test's directory. */
#ifndef ESPALIER_TESTS_IDX_FILES_H
#define ESPALIER_TESTS_IDX_FILES_H

#include "temp_dir.h"
#include <zlib.h>

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
