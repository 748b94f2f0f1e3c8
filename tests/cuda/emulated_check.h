/* emulated_check.h - what the emulation's own tests share. */
#ifndef ESPALIER_TESTS_EMULATED_CHECK_H
#define ESPALIER_TESTS_EMULATED_CHECK_H

#include "check.h"
#include "emulation.h"
#include "sample_kernels.h"

enum { COUNT = 1000 };

#define assert_cuda(expr) assert_int_equal((expr), cudaSuccess)

static inline void *device_memory(size_t bytes) {
    void *memory;
    assert_cuda(cudaMalloc(&memory, bytes));
    return memory;
}

static inline void *device_copy(const void *values, size_t bytes) {
    void *memory = device_memory(bytes);
    assert_cuda(cudaMemcpy(memory, values, bytes, cudaMemcpyHostToDevice));
    return memory;
}

static inline cudaStream_t new_stream(void) {
    cudaStream_t stream;
    assert_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
}

static inline cudaEvent_t new_event(void) {
    cudaEvent_t event;
    assert_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
}

/* Values that no order and no loss leaves in place. */
static inline void fill(int *x) {
    for (int i = 0; i < COUNT; i++)
        x[i] = i * 37 % 101;
}

static inline void download(void *to, const void *from, size_t bytes, cudaStream_t stream) {
    assert_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
    assert_cuda(cudaStreamSynchronize(stream));
}

/* Run by each test in both orders of threads and under each policy of streams. */
static inline void in_each_order(void (*test)(void)) {
    static const char *const policies[] = {"late", "others", "now"};
    for (int reverse = 0; reverse <= 1; reverse++)
        for (int p = 0; p < 3; p++) {
            emulation_reset_failures();
            emulation_set_order(reverse == 1);
            emulation_set_streams(policies[p]);
            test();
            assert_int_equal(emulation_live_objects(), 0);
        }
    emulation_set_order(false);
    emulation_set_streams("late");
}

#define IN_EACH_ORDER(name)                                                                        \
    static void name##_once(void);                                                                 \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        in_each_order(name##_once);                                                                \
    }                                                                                              \
    static void name##_once(void)

#endif
