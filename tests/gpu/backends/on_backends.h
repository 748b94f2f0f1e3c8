/* on_backends.h - in place of the header of this name in tests/support: the same tests of every
 * backend, on the CUDA backend over this machine's first GPU. Where there is none a test ends with
 * exit code 77, and says why. */
#ifndef ESPALIER_TESTS_ON_BACKENDS_H
#define ESPALIER_TESTS_ON_BACKENDS_H

#include "backend_reference.h"
#include "check.h"
#include "device_memory.h"

#include <espalier/backend.h>
#include <stdlib.h>

enum { MOST_BACKENDS = 16, SKIPPED = 77 };

static inline enum status device_create(struct backend **backend) {
    struct devices_found found;
    if (backend_cuda_devices(&found) == ST_UNAVAILABLE) {
        printf("skipped: %s\n", status_message());
        exit(SKIPPED);
    }
    return backend_cuda_create(&(struct backend_options){.threads = 1}, backend);
}

#define backend_cpu_create(threads, backend) device_create(backend)

static const char *const exact_convs[] = {"device"};
enum { EXACT_CONVS = sizeof exact_convs / sizeof exact_convs[0] };

static inline int cpu_backends_with(const char *conv, struct backend **backends) {
    (void)conv;
    assert_ok(device_create(&backends[0]));
    return 1;
}

/** Without the reference, which the CPU's tests hold already. */
static inline int all_backends_with(const char *conv, struct backend **backends) {
    return cpu_backends_with(conv, backends);
}

static inline struct backend *cpu_backend_with(const char *isa, const char *conv, int threads) {
    struct backend *backend;
    (void)isa, (void)conv, (void)threads;
    assert_ok(device_create(&backend));
    return backend;
}

/** Head of a test that is called with each backend as `b`. */
#define ON_EACH_BACKEND(name)                                                                      \
    static void name##_on(struct backend *b);                                                      \
    static void name(void **state) {                                                               \
        struct backend *backend;                                                                   \
        (void)state;                                                                               \
        assert_ok(device_create(&backend));                                                        \
        name##_on(backend);                                                                        \
        backend->destroy(backend);                                                                 \
    }                                                                                              \
    static void name##_on(struct backend *b)

#endif
