/* device_memory.h - values to a backend's memory and back, for tests. */
#ifndef ESPALIER_TESTS_DEVICE_MEMORY_H
#define ESPALIER_TESTS_DEVICE_MEMORY_H

#include "check.h"

#include <espalier/backend.h>
#include <stdlib.h>

/** A copy in device memory; the backend's `release` frees it. */
static inline void *device_of(struct backend *b, const void *values, size_t bytes) {
    void *memory;
    assert_ok(b->alloc(b, bytes, &memory));
    assert_ok(b->upload(b, memory, values, bytes));
    return memory;
}

/** A copy in host memory, freed by free(). */
static inline void *host_of(struct backend *b, const void *device, size_t bytes) {
    void *memory = malloc(bytes + 1);
    assert_non_null(memory);
    assert_ok(b->download(b, memory, device, bytes));
    return memory;
}

#endif
