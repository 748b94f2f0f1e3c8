/* safetensors.h - tensors in a file, in the safetensors format.
 *
 * Layout: 8 bytes little-endian header length N, N bytes of JSON
 * {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...,
 * "__metadata__": {"key": "text"}}, then the tensors' bytes, row-major, little-endian. */
#ifndef ESPALIER_SAFETENSORS_H
#define ESPALIER_SAFETENSORS_H

#include <espalier/status.h>
#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_DIMENSIONS_MAX = 8 };

/** One F32 tensor: a view, the file or the caller owns what it points to. */
struct safetensor {
    const char *name;
    int dimensions;
    uint64_t size[SAFETENSORS_DIMENSIONS_MAX];
    const float *values; /* [product of size] */
};

struct safetensors_entry {
    const char *key, *text;
};

/** A file that was read; owns everything that it points to. */
struct safetensors {
    int tensors_count, metadata_count;
    struct safetensor *tensors; /* in the order of their bytes */
    struct safetensors_entry *metadata;
    void *owned;
};

/** Write a file: to PATH.tmp, flushed to disk, then renamed; what stood under PATH before stays
 *  whole until then, and no .tmp is left after a failure. ST_IO names file and reason. */
enum status safetensors_write(const char *path, const struct safetensor *tensors, int tensors_count,
                              const struct safetensors_entry *metadata, int metadata_count);

/** Read a file of F32 tensors. ST_INPUT names the file, what was found and what was expected;
 *  every offset and length is checked before it is used; allocates no more than the file's
 *  length calls for. safetensors_destroy frees it (legal on a zeroed one). */
enum status safetensors_read(const char *path, struct safetensors *file);

void safetensors_destroy(struct safetensors *file);

/** The tensor, or the metadata's text, of that name; NULL when there is none. */
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_metadata(const struct safetensors *file, const char *key);

#endif
