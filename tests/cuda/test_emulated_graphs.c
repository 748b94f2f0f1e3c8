/* Captured graphs replay what was queued, and refuse what cannot be replayed. */
#include "emulated_check.h"

/* x -> 2x + 1 on one stream; then -> 3x + 1 of a copy on another, and x + 1 beside it; the sum of
 * blocks at the end needs both. */
static cudaGraphExec_t capture_fork(int *x, int *y, cudaStream_t stream, cudaStream_t side) {
    cudaEvent_t fork = new_event(), join = new_event();
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(sample_step(x, COUNT, 2, stream));
    assert_cuda(cudaEventRecord(fork, stream));
    assert_cuda(cudaStreamWaitEvent(side, fork, 0));
    assert_cuda(cudaMemcpyAsync(y, x, COUNT * sizeof *y, cudaMemcpyDeviceToDevice, side));
    assert_cuda(sample_step(y, COUNT, 3, side));
    assert_cuda(cudaEventRecord(join, side));
    assert_cuda(cudaStreamWaitEvent(stream, join, 0));
    assert_cuda(sample_step(x, COUNT, 1, stream));
    assert_cuda(cudaStreamEndCapture(stream, &graph));
    assert_cuda(cudaGraphInstantiate(&executable, graph, 0));
    assert_cuda(cudaGraphDestroy(graph));
    assert_cuda(cudaEventDestroy(fork));
    assert_cuda(cudaEventDestroy(join));
    return executable;
}

IN_EACH_ORDER(graphs_replay_what_was_captured) {
    enum { LAUNCHES = 3 };
    cudaStream_t stream = new_stream(), side = new_stream();
    int values[COUNT], copies[COUNT], first[COUNT];
    fill(first);
    int *x = device_copy(first, sizeof first), *y = device_memory(sizeof first);
    cudaGraphExec_t executable = capture_fork(x, y, stream, side);
    assert_int_equal(emulation_pending(), 0);
    for (int i = 0; i < LAUNCHES; i++)
        assert_cuda(cudaGraphLaunch(executable, stream));
    download(values, x, sizeof values, stream);
    download(copies, y, sizeof copies, stream);
    for (int i = 0; i < COUNT; i++) {
        int want = first[i], copy = 0;
        for (int l = 0; l < LAUNCHES; l++) {
            copy = 3 * (2 * want + 1) + 1;
            want = 2 * want + 2;
        }
        assert_int_equal(values[i], want);
        assert_int_equal(copies[i], copy);
    }
    assert_cuda(cudaGraphExecDestroy(executable));
    assert_cuda(cudaFree(x));
    assert_cuda(cudaFree(y));
    assert_cuda(cudaStreamDestroy(stream));
    assert_cuda(cudaStreamDestroy(side));
}

static void unjoined_captures_are_refused(void **state) {
    (void)state;
    cudaStream_t stream = new_stream(), side = new_stream();
    cudaEvent_t fork = new_event();
    cudaGraph_t graph;
    assert_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(cudaEventRecord(fork, stream));
    assert_cuda(cudaStreamWaitEvent(side, fork, 0));
    assert_cuda(sample_launch(1, 1, 0, side));
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined);
    assert_null(graph);
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureUnjoined);
    assert_cuda(cudaEventDestroy(fork));
    assert_cuda(cudaStreamDestroy(stream));
    assert_cuda(cudaStreamDestroy(side));
}

static cudaStream_t captured;
static void *captured_memory;

static cudaError_t allocate(void) {
    void *memory;
    return cudaMalloc(&memory, 8);
}

static cudaError_t copy_pageable(void) {
    int zero = 0;
    return cudaMemcpyAsync(captured_memory, &zero, sizeof zero, cudaMemcpyHostToDevice, captured);
}

static cudaError_t synchronise(void) {
    return cudaStreamSynchronize(captured);
}

static cudaError_t query(void) {
    return cudaStreamQuery(captured);
}

static cudaError_t release(void) {
    return cudaFree(captured_memory);
}

static void captures_refuse_what_cannot_be_replayed(void **state) {
    (void)state;
    static cudaError_t (*const calls[])(void) = {allocate, copy_pageable, synchronise, query,
                                                 release};
    captured = new_stream();
    captured_memory = device_memory(sizeof(int));
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        cudaGraph_t graph;
        assert_cuda(cudaStreamBeginCapture(captured, cudaStreamCaptureModeThreadLocal));
        assert_int_equal(calls[i](), cudaErrorStreamCaptureUnsupported);
        assert_int_equal(cudaStreamEndCapture(captured, &graph), cudaErrorStreamCaptureInvalidated);
    }
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    assert_cuda(cudaFree(captured_memory));
    assert_cuda(cudaStreamDestroy(captured));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_replay_what_was_captured),
        cmocka_unit_test(unjoined_captures_are_refused),
        cmocka_unit_test(captures_refuse_what_cannot_be_replayed),
    };
    return RUN_TESTS(tests, argc, argv);
}
