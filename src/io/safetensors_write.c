#include "file.h"
#include "safetensors_format.h"
#include <cjson/cJSON.h>
#include <espalier/digest.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

uint64_t safetensor_count(const struct safetensor *tensor) {
    uint64_t count = 1;
    for (int i = 0; i < tensor->dimensions; i++)
        count *= tensor->size[i];
    return count;
}

static uint64_t tensor_bytes(const struct safetensor *tensor) {
    return safetensor_count(tensor) * safetensors_type_size(tensor->type);
}

static bool add_item(cJSON *object, const char *key, cJSON *item) {
    if (item != NULL && cJSON_AddItemToObject(object, key, item))
        return true;
    cJSON_Delete(item);
    return false;
}

/* An array of counts; cJSON prints integers exactly below 1e15. */
static cJSON *counts_json(const uint64_t *counts, int count) {
    double values[SAFETENSORS_DIMENSIONS_MAX];
    for (int i = 0; i < count; i++)
        values[i] = (double)counts[i];
    return cJSON_CreateDoubleArray(values, count);
}

static cJSON *tensor_json(const struct safetensor *tensor, uint64_t begin) {
    uint64_t offsets[2] = {begin, begin + tensor_bytes(tensor)};
    cJSON *object = cJSON_CreateObject();
    if (add_item(object, "dtype", cJSON_CreateString(safetensors_type_names[tensor->type])) &&
        add_item(object, "shape", counts_json(tensor->size, tensor->dimensions)) &&
        add_item(object, "data_offsets", counts_json(offsets, 2)))
        return object;
    cJSON_Delete(object);
    return NULL;
}

static cJSON *metadata_json(const struct safetensors_entry *metadata, int count) {
    cJSON *object = cJSON_CreateObject();
    for (int i = 0; i < count; i++)
        if (!add_item(object, metadata[i].key, cJSON_CreateString(metadata[i].text))) {
            cJSON_Delete(object);
            return NULL;
        }
    return object;
}

static char *header_text(const struct safetensor *tensors, int tensors_count,
                         const struct safetensors_entry *metadata, int metadata_count) {
    cJSON *root = cJSON_CreateObject();
    bool complete = metadata_count == 0 || add_item(root, SAFETENSORS_METADATA_KEY,
                                                    metadata_json(metadata, metadata_count));
    uint64_t begin = 0;
    for (int i = 0; complete && i < tensors_count; i++) {
        complete = add_item(root, tensors[i].name, tensor_json(&tensors[i], begin));
        begin += tensor_bytes(&tensors[i]);
    }
    char *text = complete ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    return text;
}

/* Where the bytes go: the file, and the seal's digest where there is a seal. */
struct sink {
    struct whole_file file;
    struct digest *digest; /* NULL: no seal */
    uint64_t bytes;
};

static enum status sink_add(struct sink *sink, const void *bytes, size_t count) {
    sink->bytes += count;
    if (sink->digest != NULL && count > 0)
        TRY(digest_add(sink->digest, bytes, count));
    return whole_file_add(&sink->file, bytes, count);
}

/* Length, header, and as many spaces as bring the data to its alignment. */
static enum status write_header(struct sink *sink, const char *text) {
    static const char spaces[SAFETENSORS_ALIGNMENT] =
        "                                                               ";
    size_t length = strlen(text);
    size_t begin = SAFETENSORS_LENGTH_BYTES + length;
    size_t padding =
        (SAFETENSORS_ALIGNMENT - begin % SAFETENSORS_ALIGNMENT) % SAFETENSORS_ALIGNMENT;
    uint64_t padded = length + padding;
    TRY(sink_add(sink, &padded, sizeof padded));
    TRY(sink_add(sink, text, length));
    return sink_add(sink, spaces, padding);
}

static enum status write_content(struct sink *sink, const char *header,
                                 const struct safetensor *tensors, int count) {
    TRY(write_header(sink, header));
    for (int i = 0; i < count; i++)
        TRY(sink_add(sink, tensors[i].values, tensor_bytes(&tensors[i])));
    return ST_OK;
}

/* The seal is the last tensor of the header, and the file's last bytes. */
static enum status write_seal(struct sink *sink) {
    unsigned char seal[DIGEST_SIZE];
    struct digest *digest = sink->digest;
    sink->digest = NULL;
    TRY(digest_finish_bytes(digest, seal));
    return sink_add(sink, seal, sizeof seal);
}

static enum status write_file(struct sink *sink, const char *path, const char *header,
                              const struct safetensor *tensors, int count) {
    TRY(whole_file_begin(path, &sink->file));
    enum status status = write_content(sink, header, tensors, count);
    if (status == ST_OK && sink->digest != NULL)
        status = write_seal(sink);
    if (status == ST_OK)
        return whole_file_finish(&sink->file);
    whole_file_drop(&sink->file);
    return status;
}

enum status safetensors_write(const char *path, const struct safetensor *tensors, int tensors_count,
                              const struct safetensors_entry *metadata, int metadata_count) {
    char *header = header_text(tensors, tensors_count, metadata, metadata_count);
    if (header == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", path);
    struct sink sink = {.digest = NULL};
    enum status status = write_file(&sink, path, header, tensors, tensors_count);
    cJSON_free(header);
    return status;
}

enum status safetensors_write_sealed(const char *path, const struct safetensor *tensors,
                                     int tensors_count, const struct safetensors_entry *metadata,
                                     int metadata_count, uint64_t *bytes) {
    struct sink sink = {.digest = NULL};
    char *header = NULL;
    enum status status = ST_OK;
    struct safetensor *sealed = malloc(((size_t)tensors_count + 1) * sizeof *sealed);
    if (sealed == NULL)
        TRY_OUT(status_fail(ST_MEMORY, "%s: out of memory", path));
    if (tensors_count > 0)
        memcpy(sealed, tensors, (size_t)tensors_count * sizeof *sealed);
    sealed[tensors_count] = (struct safetensor){
        .name = SAFETENSORS_SEAL, .type = SAFETENSORS_U8, .dimensions = 1, .size = {DIGEST_SIZE}};
    header = header_text(sealed, tensors_count + 1, metadata, metadata_count);
    if (header == NULL)
        TRY_OUT(status_fail(ST_MEMORY, "%s: out of memory", path));
    TRY_OUT(digest_create(&sink.digest));
    TRY_OUT(write_file(&sink, path, header, tensors, tensors_count));
    *bytes = sink.bytes;
out:
    digest_destroy(sink.digest);
    cJSON_free(header);
    free(sealed);
    return status;
}
