/* The safetensors reader: any bytes. What is accepted must hold what it claims, byte for byte, and
 * come back when it is written again. */
#include "mutate_safetensors.h"

#include <espalier/safetensors.h>

static size_t bytes_of(const struct safetensor *tensor) {
    return (size_t)safetensor_count(tensor) * safetensors_type_size(tensor->type);
}

/* The tensors are the file's bytes behind the header, in order. */
static void check_values(const struct safetensors *file, const uint8_t *data, size_t size) {
    size_t at = header_end(data, size);
    for (int i = 0; i < file->tensors_count; i++) {
        size_t bytes = bytes_of(&file->tensors[i]);
        REQUIRE(bytes <= size - at);
        REQUIRE(bytes == 0 || memcmp(file->tensors[i].values, data + at, bytes) == 0);
        at += bytes;
    }
    REQUIRE(at == size);
}

static void check_again(const struct safetensors *file, const struct safetensors *again) {
    REQUIRE(again->tensors_count == file->tensors_count);
    REQUIRE(again->metadata_count == file->metadata_count);
    for (int i = 0; i < file->metadata_count; i++) {
        const char *text = safetensors_metadata(again, file->metadata[i].key);
        REQUIRE(text != NULL && strcmp(text, file->metadata[i].text) == 0);
    }
    for (int i = 0; i < file->tensors_count; i++) {
        const struct safetensor *tensor = safetensors_find(again, file->tensors[i].name);
        REQUIRE(tensor != NULL && tensor->dimensions == file->tensors[i].dimensions);
        for (int d = 0; d < tensor->dimensions; d++)
            REQUIRE(tensor->size[d] == file->tensors[i].size[d]);
        REQUIRE(tensor->type == file->tensors[i].type);
        REQUIRE(bytes_of(tensor) == 0 ||
                memcmp(tensor->values, file->tensors[i].values, bytes_of(tensor)) == 0);
    }
}

static void check_round_trip(const struct safetensors *file) {
    static char path[64];
    struct safetensors again;
    snprintf(path, sizeof path, "/tmp/espalier-fuzz-%ld.safetensors", (long)getpid());
    REQUIRE(safetensors_write(path, file->tensors, file->tensors_count, file->metadata,
                              file->metadata_count) == ST_OK);
    REQUIRE(safetensors_read(path, &again) == ST_OK);
    REQUIRE(unlink(path) == 0);
    check_again(file, &again);
    safetensors_destroy(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors file;
    enum status status = safetensors_read(fuzz_file(data, size), &file);
    if (status == ST_OK) {
        check_values(&file, data, size);
        check_round_trip(&file);
    } else {
        fuzz_check_refusal(status);
    }
    safetensors_destroy(&file);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return mutate_safetensors(data, size, max_size, seed);
}
