/* mutate_safetensors.h - mutations of a safetensors file that keep its header's length true: else
 * hardly any would come past the file's first eight bytes. */
#ifndef ESPALIER_TESTS_MUTATE_SAFETENSORS_H
#define ESPALIER_TESTS_MUTATE_SAFETENSORS_H

#include "fuzz.h"

enum { SAFETENSORS_LENGTH = 8, RAW_ONE_IN = 8 };

/* The header's end as the file claims it; 0 where that is impossible. */
static inline size_t header_end(const uint8_t *data, size_t size) {
    uint64_t length;
    if (size < sizeof length)
        return 0;
    memcpy(&length, data, sizeof length);
    return length <= size - sizeof length ? (size_t)length + sizeof length : 0;
}

/* Mutate the header where it stands, behind room for it to grow; the tensors' bytes follow. */
static inline size_t mutate_header(uint8_t *data, size_t size, size_t end, size_t max_size) {
    size_t tail = size - end;
    uint8_t *values = malloc(tail + 1);
    REQUIRE(values != NULL);
    memcpy(values, data + end, tail);
    uint64_t length = LLVMFuzzerMutate(data + SAFETENSORS_LENGTH, end - SAFETENSORS_LENGTH,
                                       max_size - tail - SAFETENSORS_LENGTH);
    memcpy(data, &length, sizeof length);
    memcpy(data + SAFETENSORS_LENGTH + length, values, tail);
    free(values);
    return SAFETENSORS_LENGTH + length + tail;
}

static inline size_t mutate_safetensors(uint8_t *data, size_t size, size_t max_size,
                                        unsigned seed) {
    size_t end = header_end(data, size);
    if (end == 0 || size > max_size || seed % RAW_ONE_IN == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    if (seed % 2 == 0 || end == size)
        return mutate_header(data, size, end, max_size);
    return end + LLVMFuzzerMutate(data + end, size - end, max_size - end);
}

#endif
