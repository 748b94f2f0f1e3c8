/* idx.h - reader of IDX files (MNIST's format), plain or gzip-compressed.
 *
 * Format: big-endian 32-bit magic 0x00000801 (labels) or 0x00000803 (images), then one
 * 32-bit size for each dimension, then unsigned bytes, row-major. */
#ifndef ESPALIER_IDX_H
#define ESPALIER_IDX_H

#include <espalier/status.h>
#include <stddef.h>
#include <stdint.h>

struct idx {
    int dimensions; /* 1 (labels) or 3 (images) */
    uint32_t size[3];
    uint8_t *bytes; /* [size[0] * ...], owned */
};

/** Read a whole file of `dimensions` (1 or 3) dimensions.
 *
 *  Errors are ST_INPUT (ST_IO when the system refuses) and name the file, what was found and
 *  what was expected: missing, a directory, empty, truncated in the header or the data, bytes
 *  after the end, wrong magic (images where labels are expected is said so), a dimension that
 *  is zero or above the limits (2^28 bytes per image; count < 2^31), damaged gzip data. Never
 *  allocates more than the header claims, and a plain file's claim is held against its length
 *  first. */
enum status idx_read(const char *path, int dimensions, struct idx *idx);

/** Free the bytes; legal on a zeroed idx. */
void idx_destroy(struct idx *idx);

#endif
