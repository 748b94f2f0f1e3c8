/* on_backends.h - run a test on every backend: the reference, the CPU with each of the machine's
 * instruction sets, with one thread and with two. */
#ifndef ESPALIER_TESTS_ON_BACKENDS_H
#define ESPALIER_TESTS_ON_BACKENDS_H

#include "../../src/cpu/kernels.h"
#include "backend_reference.h"
#include "check.h"
#include "device_memory.h"

#include <espalier/backend.h>
#include <stdlib.h>

enum { MOST_BACKENDS = 16 };

/** The CPU backend with the instruction set and the convolution of these names; NULL: any. */
static inline struct backend *cpu_backend_with(const char *isa, const char *conv, int threads) {
    struct backend *backend;
    if (isa != NULL)
        assert_int_equal(setenv("ESPALIER_ISA", isa, 1), 0);
    if (conv != NULL)
        assert_int_equal(setenv("ESPALIER_CONV", conv, 1), 0);
    assert_ok(backend_cpu_create(threads, &backend));
    assert_int_equal(backend->threads, threads);
    unsetenv("ESPALIER_ISA");
    unsetenv("ESPALIER_CONV");
    return backend;
}

/** CPU backends with two threads for each instruction set that this machine has, then the best set
 *  with one thread; returns how many. */
static inline int cpu_backends_with(const char *conv, struct backend **backends) {
    const char *const *isas = kernels_available();
    int count = 0;
    for (; isas[count] != NULL; count++) {
        assert_true(count < MOST_BACKENDS - 2);
        backends[count] = cpu_backend_with(isas[count], conv, 2);
    }
    backends[count] = cpu_backend_with(isas[0], conv, 1);
    return count + 1;
}

/** Convolutions that are exact on the integers that suit them. */
static const char *const exact_convs[] = {"direct", "sparse", "winograd"};
enum { EXACT_CONVS = sizeof exact_convs / sizeof exact_convs[0] };

/** The same, and the reference, which is slow. */
static inline int all_backends_with(const char *conv, struct backend **backends) {
    const int count = cpu_backends_with(conv, backends);
    assert_ok(backend_reference_create(&backends[count]));
    return count + 1;
}

static inline void on_each_backend(void (*test)(struct backend *)) {
    struct backend *backends[MOST_BACKENDS];
    const int count = all_backends_with(NULL, backends);
    for (int i = 0; i < count; i++) {
        test(backends[i]);
        backends[i]->destroy(backends[i]);
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
