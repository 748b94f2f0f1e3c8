/* Emulated NCCL among the ranks of mpirun: each has a device of its own. */
#include "emulation.h"
#include "mpi_check.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdint.h>
#include <unistd.h>

enum { COUNT = 1001 };

static int my_rank, ranks;
static cudaStream_t stream;
static ncclComm_t comm;

static void *device_copy(const void *values, size_t bytes) {
    void *memory;
    CHECK(cudaMalloc(&memory, bytes) == cudaSuccess);
    CHECK(cudaMemcpy(memory, values, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
    return memory;
}

static ncclResult_t connect(int device) {
    ncclUniqueId id;
    CHECK(cudaSetDevice(device) == cudaSuccess);
    if (my_rank == 0)
        CHECK(ncclGetUniqueId(&id) == ncclSuccess);
    CHECK_OK(mpi_check_ranks.broadcast(&mpi_check_ranks, &id, sizeof id, 0));
    return ncclCommInitRank(&comm, ranks, id, my_rank);
}

static void sums_and_broadcasts(void) {
    float x[COUNT], got[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(i * (my_rank + 1));
    float *device = device_copy(x, sizeof x);
    CHECK(ncclAllReduce(device, device, COUNT, ncclFloat, ncclSum, comm, stream) == ncclSuccess);
    CHECK(cudaMemcpyAsync(got, device, sizeof got, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    for (int i = 0; i < COUNT; i++)
        CHECK(got[i] == (float)(i * ranks * (ranks + 1) / 2));
    CHECK(cudaMemcpy(device, x, sizeof x, cudaMemcpyHostToDevice) == cudaSuccess);
    int root = ranks - 1;
    CHECK(ncclBroadcast(device, device, sizeof x, ncclUint8, root, comm, stream) == ncclSuccess);
    CHECK(cudaMemcpyAsync(got, device, sizeof got, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    for (int i = 0; i < COUNT; i++)
        CHECK(got[i] == (float)(i * ranks));
    CHECK(cudaFree(device) == cudaSuccess);
}

/* Rank 0's host waits for its device, the others' hosts for rank 0's host: their devices go on. */
static void devices_go_on_while_hosts_wait(void) {
    double x = 1, got;
    double *device = device_copy(&x, sizeof x);
    CHECK(ncclAllReduce(device, device, 1, ncclDouble, ncclSum, comm, stream) == ncclSuccess);
    if (my_rank == 0)
        CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK_OK(mpi_check_ranks.barrier(&mpi_check_ranks));
    CHECK(cudaMemcpyAsync(&got, device, sizeof got, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(got == ranks);
    CHECK(cudaFree(device) == cudaSuccess);
}

static void captured_sums_are_replayed(void) {
    float x = 1, got;
    float *device = device_copy(&x, sizeof x);
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(ncclAllReduce(device, device, 1, ncclFloat, ncclSum, comm, stream) == ncclSuccess);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(cudaMemcpyAsync(&got, device, sizeof got, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(got == (float)(ranks * ranks * ranks));
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
    CHECK(cudaFree(device) == cudaSuccess);
}

/* The last rank has an error: it is told so, and no rank's collective ends before it is aborted. */
static void errors_are_told(void) {
    float x = 1;
    float *device = device_copy(&x, sizeof x);
    ncclResult_t told;
    emulation_fail("ncclAsync", my_rank == ranks - 1 ? 1 : 1000, 0);
    CHECK(ncclAllReduce(device, device, 1, ncclFloat, ncclSum, comm, stream) == ncclSuccess);
    for (int i = 0; i < 100; i++)
        CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
    CHECK(ncclCommGetAsyncError(comm, &told) == ncclSuccess);
    CHECK(told == (my_rank == ranks - 1 ? ncclRemoteError : ncclSuccess));
    CHECK_OK(mpi_check_ranks.barrier(&mpi_check_ranks));
    CHECK(ncclCommAbort(comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(cudaFree(device) == cudaSuccess);
}

int main(int argc, char **argv) {
    CHECK_OK(communicator_create(&argc, &argv, &mpi_check_ranks));
    my_rank = mpi_check_ranks.rank;
    ranks = mpi_check_ranks.size;
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    if (ranks > 1)
        CHECK(connect(0) == ncclInvalidUsage);
    CHECK(connect(my_rank) == ncclSuccess);
    sums_and_broadcasts();
    devices_go_on_while_hosts_wait();
    captured_sums_are_replayed();
    errors_are_told();
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
    CHECK(emulation_live_objects() == 0);
    CHECK_OK(mpi_check_ranks.barrier(&mpi_check_ranks));
    mpi_check_ranks.destroy(&mpi_check_ranks);
    return 0;
}
