/* The communicator over emulated NCCL among the ranks of mpirun, each with a device of its own. */
#include "emulation.h"
#include "mpi_check.h"

#include <cuda_runtime_api.h>

static struct communicator *const c = &mpi_check_ranks;
static cudaStream_t stream;

#define CHECK_CUDA(call) CHECK((call) == cudaSuccess)

static struct gpu own_gpu(void) {
    struct gpu gpu = {.index = c->local_rank, .name = "Emulated GPU", .stream = stream};
    struct cudaDeviceProp properties;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, gpu.index));
    memcpy(gpu.uuid, properties.uuid.bytes, sizeof gpu.uuid);
    return gpu;
}

static void join(void) {
    const struct gpu gpu = own_gpu();
    CHECK_OK(communicator_join_gpu(c, &gpu, "", false));
    CHECK(c->device_memory);
    CHECK(strcmp(c->name, "nccl") == 0);
}

/* Element i of rank r: whole numbers whose sums are exact. */
static float element(int rank, size_t i) {
    return (float)((i * 7 + (size_t)rank * 1013) % 65521);
}

static float sum_of_elements(size_t i) {
    float sum = 0;
    for (int rank = 0; rank < c->size; rank++)
        sum += element(rank, i);
    return sum;
}

/* A vector on the device, and pinned memory, from which a queued copy reads late. */
struct vector {
    float *device, *host;
    size_t count;
};

static struct vector vector_create(size_t count) {
    struct vector v = {.count = count};
    CHECK_CUDA(cudaMalloc((void **)&v.device, (count + 1) * sizeof(float)));
    CHECK_CUDA(cudaMallocHost((void **)&v.host, (count + 1) * sizeof(float)));
    for (size_t i = 0; i < count; i++)
        v.host[i] = element(c->rank, i);
    return v;
}

static void vector_destroy(struct vector *v) {
    CHECK_CUDA(cudaFree(v->device));
    CHECK_CUDA(cudaFreeHost(v->host));
}

static void queue_copy(const struct vector *v, enum cudaMemcpyKind kind) {
    const bool up = kind == cudaMemcpyHostToDevice;
    CHECK_CUDA(cudaMemcpyAsync(up ? v->device : v->host, up ? v->host : v->device,
                               v->count * sizeof(float), kind, stream));
}

/* What was queued before a sum is in it, and what is queued after it sees the sum: no host waits
 * but at the end. */
static void sums_keep_their_place_in_the_stream(void) {
    static const size_t counts[] = {1, 3, 1000, 40001};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        struct vector v = vector_create(counts[k]);
        queue_copy(&v, cudaMemcpyHostToDevice);
        CHECK_OK(c->allreduce_start(c, v.device, v.count));
        CHECK_OK(c->allreduce_wait(c));
        queue_copy(&v, cudaMemcpyDeviceToHost);
        CHECK_OK(c->settle(c));
        for (size_t i = 0; i < v.count; i++)
            CHECK(v.host[i] == sum_of_elements(i));
        vector_destroy(&v);
    }
    CHECK_OK(c->allreduce_wait(c)); /* nothing is under way: legal */
}

/* As a backward pass does: the last part first. */
static void many_sums_are_under_way(void) {
    enum { PARTS = 12, LENGTH = 501 };
    struct vector v = vector_create((size_t)PARTS * LENGTH);
    queue_copy(&v, cudaMemcpyHostToDevice);
    for (int part = PARTS - 1; part >= 0; part--) {
        CHECK_OK(c->allreduce_start(c, v.device + (size_t)part * LENGTH, LENGTH));
        c->poll(c);
    }
    CHECK_OK(communicator_agree(c, ST_OK));
    CHECK_OK(c->allreduce_wait(c));
    queue_copy(&v, cudaMemcpyDeviceToHost);
    CHECK_OK(c->settle(c));
    for (size_t i = 0; i < v.count; i++)
        CHECK(v.host[i] == sum_of_elements(i));
    vector_destroy(&v);
}

static void doubles_are_summed(void) {
    double *device, *host;
    CHECK_CUDA(cudaMalloc((void **)&device, 2 * sizeof *device));
    CHECK_CUDA(cudaMallocHost((void **)&host, 2 * sizeof *host));
    host[0] = 1 + 0x1p-40;
    host[1] = c->rank;
    CHECK_CUDA(cudaMemcpyAsync(device, host, 2 * sizeof *host, cudaMemcpyHostToDevice, stream));
    CHECK_OK(c->allreduce_start_doubles(c, device, 2));
    CHECK_OK(c->allreduce_wait(c));
    CHECK_CUDA(cudaMemcpyAsync(host, device, 2 * sizeof *host, cudaMemcpyDeviceToHost, stream));
    CHECK_OK(c->settle(c));
    CHECK(host[0] == c->size * (1 + 0x1p-40));
    CHECK(host[1] == c->size * (c->size - 1) / 2);
    CHECK_CUDA(cudaFree(device));
    CHECK_CUDA(cudaFreeHost(host));
}

/* Small ones go through the host, large ones through the devices, in parts of 1 MiB. */
static void broadcasts_reach_all(void) {
    static const size_t counts[] = {0, 5, 4095, 4096, (1 << 20) + 3};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
        for (int root = 0; root < c->size; root++) {
            unsigned char *bytes = malloc(counts[k] + 1);
            CHECK(bytes != NULL);
            for (size_t i = 0; i < counts[k]; i++)
                bytes[i] = (unsigned char)(i * 31 + (size_t)c->rank);
            CHECK_OK(c->broadcast(c, bytes, counts[k], root));
            for (size_t i = 0; i < counts[k]; i++)
                CHECK(bytes[i] == (unsigned char)(i * 31 + (size_t)root));
            free(bytes);
        }
}

static void the_host_goes_on_beneath(void) {
    double real = 0.5;
    int64_t whole = c->rank, all[16];
    CHECK_OK(c->sum_doubles(c, &real, 1));
    CHECK(real == 0.5 * c->size);
    CHECK_OK(c->allgather(c, &whole, all, sizeof whole));
    CHECK_OK(c->sum_integers(c, &whole, 1));
    for (int rank = 0; rank < c->size; rank++)
        CHECK(all[rank] == rank);
    CHECK(whole == c->size * (c->size - 1) / 2);
    CHECK_OK(c->barrier(c));
}

static void leave(void) {
    c->leave_gpu(c);
    CHECK(!c->device_memory);
    CHECK(strcmp(c->name, "mpi") == 0);
    CHECK_OK(c->barrier(c));
}

/* Rank 0 alone begins a sum; nobody joins it. It gives up in its time, and all go on. */
static void nobody_is_waited_for_beyond_patience(void) {
    join();
    c->patience_seconds = 0.3;
    struct vector v = vector_create(100);
    if (c->rank == 0 && c->size > 1) {
        CHECK_OK(c->allreduce_start(c, v.device, v.count));
        CHECK_OK(c->allreduce_wait(c));
        CHECK(c->settle(c) == ST_COMMUNICATION);
        CHECK_MESSAGE("rank 0: NCCL has waited 0 s for another rank");
        CHECK(c->allreduce_start(c, v.device, v.count) == ST_COMMUNICATION);
        CHECK_MESSAGE("NCCL was aborted");
    }
    CHECK_OK(c->barrier(c));
    vector_destroy(&v);
    c->patience_seconds = 0;
    leave();
}

/* The library meets an error on one rank while the host is elsewhere; the others run out of
 * patience, since that sum never ends. */
static void an_error_of_the_library_is_told(void) {
    join();
    c->patience_seconds = 0.3;
    struct vector v = vector_create(100);
    const bool fails = c->rank == c->size - 1;
    if (fails)
        emulation_fail("ncclAsync", 1, 0);
    CHECK_OK(c->allreduce_start(c, v.device, v.count));
    CHECK_OK(c->allreduce_wait(c));
    CHECK(c->settle(c) == ST_COMMUNICATION);
    CHECK_MESSAGE(fails ? "NCCL, meanwhile: " : "NCCL has waited");
    emulation_reset_failures();
    CHECK_OK(c->barrier(c));
    vector_destroy(&v);
    c->patience_seconds = 0;
    leave();
}

int main(int argc, char **argv) {
    CHECK_OK(communicator_create(&argc, &argv, c));
    CHECK_CUDA(cudaSetDevice(c->local_rank));
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    join();
    sums_keep_their_place_in_the_stream();
    many_sums_are_under_way();
    doubles_are_summed();
    broadcasts_reach_all();
    the_host_goes_on_beneath();
    leave();
    CHECK_CUDA(cudaStreamDestroy(stream));
    CHECK(emulation_live_objects() == 0);
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    nobody_is_waited_for_beyond_patience();
    an_error_of_the_library_is_told();
    CHECK_OK(c->barrier(c));
    c->destroy(c);
    return 0;
}
