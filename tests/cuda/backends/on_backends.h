/* on_backends.h - in place of the header of this name in tests/support: the same tests of every
 * backend, on the CUDA backend over the emulated device, in both orders of threads and work. */
#ifndef ESPALIER_TESTS_ON_BACKENDS_H
#define ESPALIER_TESTS_ON_BACKENDS_H

#include "backend_reference.h"
#include "check.h"
#include "device_memory.h"
#include "emulation.h"

#include <espalier/backend.h>
#include <stdlib.h>

enum { MOST_BACKENDS = 16 };

static inline enum status emulated_create(struct backend **backend) {
    return backend_cuda_create(&(struct backend_options){.threads = 1}, backend);
}

#define backend_cpu_create(threads, backend) emulated_create(backend)

/** In place of the CPU's convolutions, the orders of threads and work. */
static const char *const exact_convs[] = {"forward", "reverse"};
enum { EXACT_CONVS = sizeof exact_convs / sizeof exact_convs[0] };

/** NULL: in the order that EMULATED_ORDER says. */
static inline int cpu_backends_with(const char *conv, struct backend **backends) {
    if (conv != NULL)
        emulation_set_order(strcmp(conv, "reverse") == 0);
    assert_ok(emulated_create(&backends[0]));
    return 1;
}

/** Without the reference, which the CPU's tests hold already. */
static inline int all_backends_with(const char *conv, struct backend **backends) {
    return cpu_backends_with(conv, backends);
}

static inline struct backend *cpu_backend_with(const char *isa, const char *conv, int threads) {
    struct backend *backend;
    (void)isa, (void)conv, (void)threads;
    assert_ok(emulated_create(&backend));
    return backend;
}

static inline void on_each_backend(void (*test)(struct backend *)) {
    static const char *const policies[] = {"late", "others"};
    for (int order = 0; order < 2; order++) {
        struct backend *backend;
        const long before = emulation_live_objects();
        emulation_set_order(order == 1);
        emulation_set_streams(policies[order]);
        assert_ok(emulated_create(&backend));
        test(backend);
        backend->destroy(backend);
        assert_int_equal(emulation_live_objects(), before);
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

#endif
