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

/*          enumerator        name   bytes */
#define SAFETENSORS_TYPES(X)                                                                       \
    X(SAFETENSORS_F32, "F32", 4)                                                                   \
    X(SAFETENSORS_F64, "F64", 8)                                                                   \
    X(SAFETENSORS_I32, "I32", 4)                                                                   \
    X(SAFETENSORS_I64, "I64", 8)                                                                   \
    X(SAFETENSORS_U8, "U8", 1)

#define SAFETENSORS_ENUMERATOR(enumerator, name, size) enumerator,
enum safetensors_type { SAFETENSORS_TYPES(SAFETENSORS_ENUMERATOR) SAFETENSORS_TYPE_COUNT };
#undef SAFETENSORS_ENUMERATOR

/** Bytes of one value. */
size_t safetensors_type_size(enum safetensors_type type);

/** One tensor: a view, the file or the caller owns what it points to. */
struct safetensor {
    const char *name;
    enum safetensors_type type;
    int dimensions;
    uint64_t size[SAFETENSORS_DIMENSIONS_MAX];
    const void *values; /* [product of size], aligned to the type's size */
};

/** Number of values. */
uint64_t safetensor_count(const struct safetensor *tensor);

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

/** The same, sealed: the last tensor, "sha256" (U8 [32]), whose bytes end the file, is the SHA-256
 *  of all bytes before them. *bytes is the file's length. */
#define SAFETENSORS_SEAL "sha256"
enum status safetensors_write_sealed(const char *path, const struct safetensor *tensors,
                                     int tensors_count, const struct safetensors_entry *metadata,
                                     int metadata_count, uint64_t *bytes);

/** Read a file of tensors of the types above. ST_INPUT names the file, what was found and what was
 *  expected; every offset and length is checked before it is used; allocates no more than the
 *  file's length calls for. safetensors_destroy frees it (legal on a zeroed one). */
enum status safetensors_read(const char *path, struct safetensors *file);

/** As safetensors_read, from memory; `name` names it in messages. */
enum status safetensors_parse(const char *name, const void *bytes, size_t count,
                              struct safetensors *file);

/** ST_INPUT, naming `name`, unless the bytes end with the seal of a sealed file. */
enum status safetensors_check_seal(const char *name, const void *bytes, size_t count);

void safetensors_destroy(struct safetensors *file);

/** The tensor, or the metadata's text, of that name; NULL when there is none. */
const struct safetensor *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_metadata(const struct safetensors *file, const char *key);

#endif
