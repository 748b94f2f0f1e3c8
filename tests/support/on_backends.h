/* on_backends.h - run a test on every backend: the reference, the CPU with one and two threads. */
#ifndef ESPALIER_TESTS_ON_BACKENDS_H
#define ESPALIER_TESTS_ON_BACKENDS_H

#include "backend_reference.h"
#include "check.h"

#include <espalier/backend.h>
#include <stdlib.h>

static inline void on_each_backend(void (*test)(struct backend *)) {
    struct backend *backend;
    assert_ok(backend_reference_create(&backend));
    test(backend);
    backend->destroy(backend);
    for (int threads = 1; threads <= 2; threads++) {
        assert_ok(backend_cpu_create(threads, &backend));
        assert_int_equal(backend->threads, threads);
        test(backend);
        backend->destroy(backend);
    }
}

/** Head of a test that is called with each backend as `b`. */
#define ON_EACH_BACKEND(name)                                                                      \
    static void name##_on(struct backend *b);                                                      \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        on_each_backend(name##_on);                                                                \
    }                                                                                              \
    static void name##_on(struct backend *b)

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
