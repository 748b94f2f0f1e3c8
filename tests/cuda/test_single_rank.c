/* The communicator over NCCL where MPI is not compiled in: one rank, whose sums go through NCCL all
 * the same, recorded ones too. */
#include "check.h"
#include "emulation.h"

#include <cuda_runtime_api.h>
#include <espalier/communicator.h>

enum { COUNT = 5000 };

#define assert_done(expr) assert_int_equal((expr), cudaSuccess)

/* The backend's part: a stream, and what has been recorded of it. */
struct recorder {
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
};

static void drop(void *owner) {
    struct recorder *recorder = owner;
    if (recorder->executable != NULL)
        assert_done(cudaGraphExecDestroy(recorder->executable));
    if (recorder->graph != NULL)
        assert_done(cudaGraphDestroy(recorder->graph));
    recorder->executable = NULL;
    recorder->graph = NULL;
}

static struct gpu begin(struct recorder *recorder) {
    *recorder = (struct recorder){.stream = NULL};
    assert_done(cudaStreamCreateWithFlags(&recorder->stream, cudaStreamNonBlocking));
    return (struct gpu){.name = "Emulated GPU",
                        .stream = recorder->stream,
                        .drop_recorded = drop,
                        .owner = recorder};
}

static void end(struct recorder *recorder) {
    assert_done(cudaStreamDestroy(recorder->stream));
    assert_int_equal(emulation_live_objects(), 0);
}

static float *numbers(const struct recorder *recorder) {
    static float host[COUNT];
    float *device;
    for (int i = 0; i < COUNT; i++)
        host[i] = (float)i;
    assert_done(cudaMalloc((void **)&device, sizeof host));
    assert_done(
        cudaMemcpyAsync(device, host, sizeof host, cudaMemcpyHostToDevice, recorder->stream));
    return device;
}

static void sum(struct communicator *c, float *device) {
    assert_ok(c->allreduce_start(c, device, COUNT));
    assert_ok(c->allreduce_wait(c));
}

static void assert_unchanged(struct communicator *c, const struct recorder *recorder,
                             const float *device) {
    static float got[COUNT];
    assert_ok(c->settle(c));
    assert_done(cudaMemcpyAsync(got, device, sizeof got, cudaMemcpyDeviceToHost, recorder->stream));
    assert_done(cudaStreamSynchronize(recorder->stream));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == (float)i);
}

static void one_rank_sums_by_nccl(void **state) {
    (void)state;
    struct communicator c;
    struct recorder recorder;
    char bytes[COUNT] = "the same";
    const struct gpu gpu = begin(&recorder);
    assert_ok(communicator_create(NULL, NULL, &c));
    assert_ok(communicator_join_gpu(&c, &gpu, "", false));
    assert_string_equal(c.name, "nccl");
    assert_true(c.device_memory);
    float *device = numbers(&recorder);
    sum(&c, device);
    assert_unchanged(&c, &recorder, device);
    assert_true(emulation_calls("ncclAllReduce") == 1);
    assert_ok(c.broadcast(&c, bytes, sizeof bytes, 0));
    assert_string_equal(bytes, "the same");
    assert_done(cudaFree(device));
    c.leave_gpu(&c);
    assert_string_equal(c.name, "single");
    c.destroy(&c);
    end(&recorder);
}

/* NCCL lets go of a communicator when the last graph is gone that has a sum of it. */
static void recorded_sums_go_before_the_communicator(void **state) {
    (void)state;
    struct communicator c;
    struct recorder recorder;
    const struct gpu gpu = begin(&recorder);
    assert_ok(communicator_single(&c));
    assert_ok(communicator_join_gpu(&c, &gpu, "", false));
    float *device = numbers(&recorder);
    assert_done(cudaStreamBeginCapture(recorder.stream, cudaStreamCaptureModeThreadLocal));
    sum(&c, device);
    assert_done(cudaStreamEndCapture(recorder.stream, &recorder.graph));
    assert_done(cudaGraphInstantiate(&recorder.executable, recorder.graph, 0));
    for (int i = 0; i < 3; i++)
        assert_done(cudaGraphLaunch(recorder.executable, recorder.stream));
    assert_unchanged(&c, &recorder, device);
    c.leave_gpu(&c);
    assert_null(recorder.executable);
    assert_done(cudaFree(device));
    c.destroy(&c);
    end(&recorder);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_sums_by_nccl),
        cmocka_unit_test(recorded_sums_go_before_the_communicator),
    };
    return RUN_TESTS(tests, argc, argv);
}
