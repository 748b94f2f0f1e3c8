/* Ranks over NCCL: what lies in the devices' memory is summed from device to device, on a stream
 * beside the backend's; the rest goes through the communicator of the host beneath. */
#include "comm_nccl.h"

#include <cuda_runtime_api.h>
#include <espalier/watchdog.h>
#include <nccl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Smaller broadcasts go through the host: an agreement must not depend on the device. */
enum { BROADCAST_LEAST = 4096, BROADCAST_PART = 1 << 20 };

struct comm_nccl {
    struct communicator host; /* what is beneath */
    ncclComm_t comm;          /* NULL after it was aborted */
    cudaStream_t compute;     /* the backend's */
    cudaStream_t stream;      /* of the sums */
    cudaEvent_t ready, done;  /* compute -> sums, sums -> compute */
    cudaEvent_t settled;
    bool under_way;
    bool broken; /* it has failed: what is under way may never end */
    struct gpu gpu;
    void *part; /* device [BROADCAST_PART] */
};

static enum status check_cuda(cudaError_t code, const char *call) {
    if (code == cudaSuccess)
        return ST_OK;
    FAIL(ST_COMMUNICATION, "%s: %s", call, cudaGetErrorString(code));
}

static enum status check_nccl(ncclResult_t code, const char *call, ncclComm_t comm) {
    if (code == ncclSuccess)
        return ST_OK;
    const char *more = ncclGetLastError(comm);
    FAIL(ST_COMMUNICATION, "%s: %s%s%s", call, ncclGetErrorString(code),
         more != NULL && more[0] != '\0' ? ": " : "", more != NULL ? more : "");
}

#define TRY_CUDA(function, ...) TRY(check_cuda(function(__VA_ARGS__), #function))
#define TRY_NCCL(comm, function, ...) TRY(check_nccl(function(__VA_ARGS__), #function, (comm)))

static struct communicator *host_of(struct communicator *c) {
    return &((struct comm_nccl *)c->state)->host;
}

/* ---- errors ---- */

/* NCCL lets go of a communicator, also of one that is aborted, when the last graph with a sum of it
 * is gone; of what is under way, when that has ended. */
static void drop_recorded(const struct comm_nccl *s) {
    if (s->gpu.drop_recorded != NULL)
        s->gpu.drop_recorded(s->gpu.owner);
}

/* Kernels of NCCL that wait for a peer end with this, and let the streams go on. Not while sums are
 * being recorded: the graph that they go into would have to be gone. */
static void give_up(struct comm_nccl *s) {
    if (s->comm == NULL)
        return;
    drop_recorded(s);
    ncclCommAbort(s->comm);
    s->comm = NULL;
}

/* What NCCL's own threads and kernels have found since. */
static enum status check_peers(struct comm_nccl *s) {
    ncclResult_t found = ncclSuccess;
    if (s->comm == NULL)
        FAIL(ST_COMMUNICATION, "NCCL was aborted");
    TRY_NCCL(s->comm, ncclCommGetAsyncError, s->comm, &found);
    if (found == ncclSuccess || found == ncclInProgress)
        return ST_OK;
    s->broken = true;
    return check_nccl(found, "NCCL, meanwhile", s->comm);
}

/* ---- sums ---- */

static enum status start(struct comm_nccl *s, void *buffer, size_t count, ncclDataType_t type) {
    TRY(check_peers(s));
    TRY_CUDA(cudaEventRecord, s->ready, s->compute);
    TRY_CUDA(cudaStreamWaitEvent, s->stream, s->ready, 0);
    TRY_NCCL(s->comm, ncclAllReduce, buffer, buffer, count, type, ncclSum, s->comm, s->stream);
    s->under_way = true;
    return ST_OK;
}

static enum status nccl_allreduce_start(struct communicator *c, float *buffer, size_t count) {
    return start(c->state, buffer, count, ncclFloat);
}

static enum status nccl_allreduce_start_doubles(struct communicator *c, double *buffer,
                                                size_t count) {
    return start(c->state, buffer, count, ncclDouble);
}

/* Nothing waits here but the backend's stream. */
static enum status nccl_allreduce_wait(struct communicator *c) {
    struct comm_nccl *s = c->state;
    if (!s->under_way)
        return ST_OK;
    s->under_way = false;
    TRY_CUDA(cudaEventRecord, s->done, s->stream);
    TRY_CUDA(cudaStreamWaitEvent, s->compute, s->done, 0);
    return ST_OK;
}

static void nccl_poll(struct communicator *c) {
    (void)c; /* the device needs nobody to make progress */
}

/* ---- waiting ---- */

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A step takes a fraction of a millisecond, or many; then the core is left to others. */
static void pause_briefly(int looks) {
    enum { EAGER = 1000 };
    const struct timespec nap = {.tv_nsec = 50000};
    if (looks < EAGER)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

/* Time in which this process did not run, stopped as a whole, is not the others' fault. */
static double add_elapsed(double waited, double *last) {
    const double most = 1, now = now_seconds(), elapsed = now - *last;
    *last = now;
    return waited + (elapsed < most ? elapsed : most);
}

static enum status wait_for(struct comm_nccl *s, cudaEvent_t event, double patience) {
    double last = now_seconds(), waited = 0;
    cudaError_t code;
    for (int looks = 0; (code = cudaEventQuery(event)) == cudaErrorNotReady; looks++) {
        TRY(check_peers(s));
        waited = add_elapsed(waited, &last);
        if (patience > 0 && waited > patience) {
            s->broken = true;
            FAIL(ST_COMMUNICATION,
                 "rank %d: NCCL has waited %.0f s for another rank, which must have stopped "
                 "(train.hang_seconds)",
                 s->host.rank, patience);
        }
        pause_briefly(looks);
    }
    TRY(check_cuda(code, "cudaEventQuery"));
    return check_peers(s);
}

/* The watchdog looks on; a wait that ends by its own clock ends before. */
static enum status wait_stream(struct communicator *c, cudaStream_t stream) {
    struct comm_nccl *s = c->state;
    TRY_CUDA(cudaEventRecord, s->settled, stream);
    watchdog_waits(true);
    const enum status status = wait_for(s, s->settled, c->patience_seconds);
    if (s->broken)
        give_up(s);
    watchdog_waits(false);
    return status;
}

static enum status nccl_settle(struct communicator *c) {
    return wait_stream(c, ((struct comm_nccl *)c->state)->compute);
}

/* ---- what goes through the host ---- */

static enum status nccl_sum_doubles(struct communicator *c, double *values, size_t count) {
    return host_of(c)->sum_doubles(host_of(c), values, count);
}

static enum status nccl_sum_integers(struct communicator *c, int64_t *values, size_t count) {
    return host_of(c)->sum_integers(host_of(c), values, count);
}

static enum status nccl_allgather(struct communicator *c, const void *mine, void *all,
                                  size_t count) {
    return host_of(c)->allgather(host_of(c), mine, all, count);
}

static enum status nccl_barrier(struct communicator *c) {
    return host_of(c)->barrier(host_of(c));
}

static enum status nccl_map(struct communicator *c, size_t bytes, void **maps) {
    return host_of(c)->map(host_of(c), bytes, maps);
}

static void nccl_abort(struct communicator *c, int code) {
    host_of(c)->abort(host_of(c), code);
}

/* ---- broadcast ---- */

static enum status broadcast_part(struct communicator *c, void *bytes, size_t count, int root) {
    struct comm_nccl *s = c->state;
    if (c->rank == root)
        TRY_CUDA(cudaMemcpyAsync, s->part, bytes, count, cudaMemcpyHostToDevice, s->stream);
    TRY(check_peers(s));
    TRY_NCCL(s->comm, ncclBroadcast, s->part, s->part, count, ncclUint8, root, s->comm, s->stream);
    TRY(wait_stream(c,
                    s->stream)); /* what a hung peer must not hold up: a copy to pageable memory */
    if (c->rank != root)
        TRY_CUDA(cudaMemcpyAsync, bytes, s->part, count, cudaMemcpyDeviceToHost, s->stream);
    return wait_stream(c, s->stream);
}

static enum status nccl_broadcast(struct communicator *c, void *bytes, size_t count, int root) {
    if (count < BROADCAST_LEAST)
        return host_of(c)->broadcast(host_of(c), bytes, count, root);
    for (size_t done = 0; done < count; done += BROADCAST_PART) {
        const size_t left = count - done;
        TRY(broadcast_part(c, (char *)bytes + done, left < BROADCAST_PART ? left : BROADCAST_PART,
                           root));
    }
    return ST_OK;
}

/* ---- life ---- */

static void destroy_event(cudaEvent_t event) {
    if (event != NULL)
        cudaEventDestroy(event);
}

/* After a failure collectives may wait for ranks that will not come. */
static void release(struct comm_nccl *s, bool failed) {
    drop_recorded(s);
    if (failed || s->broken)
        give_up(s);
    if (s->comm != NULL)
        ncclCommDestroy(s->comm);
    destroy_event(s->ready);
    destroy_event(s->done);
    destroy_event(s->settled);
    cudaFree(s->part);
    if (s->stream != NULL)
        cudaStreamDestroy(s->stream);
    free(s);
}

static void nccl_leave(struct communicator *c) {
    struct comm_nccl *s = c->state;
    const int failed_rank = c->failed_rank;
    *c = s->host;
    c->failed_rank = failed_rank;
    release(s, failed_rank >= 0);
}

static void nccl_destroy(struct communicator *c) {
    nccl_leave(c);
    c->destroy(c);
}

static enum status create_streams(struct comm_nccl *s) {
    TRY_CUDA(cudaStreamCreateWithFlags, &s->stream, cudaStreamNonBlocking);
    TRY_CUDA(cudaEventCreateWithFlags, &s->ready, cudaEventDisableTiming);
    TRY_CUDA(cudaEventCreateWithFlags, &s->done, cudaEventDisableTiming);
    TRY_CUDA(cudaEventCreateWithFlags, &s->settled, cudaEventDisableTiming);
    TRY_CUDA(cudaMalloc, &s->part, BROADCAST_PART);
    return ST_OK;
}

static enum status draw_id(const struct communicator *c, ncclUniqueId *id) {
    if (c->rank == 0)
        TRY_NCCL(NULL, ncclGetUniqueId, id);
    return ST_OK;
}

/* A rank that cannot connect leaves the others waiting inside the library: it fails alone, and they
 * are ended. */
static enum status connect(struct communicator *c, struct comm_nccl *s) {
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    TRY_TOGETHER(c, create_streams(s));
    TRY_TOGETHER(c, draw_id(c, &id));
    TRY(c->broadcast(c, &id, sizeof id, 0));
    watchdog_waits(true);
    const ncclResult_t code = ncclCommInitRank(&s->comm, c->size, id, c->rank);
    watchdog_waits(false);
    return check_nccl(code, "ncclCommInitRank", NULL);
}

static void put_over(struct communicator *c, struct comm_nccl *s) {
    s->host = *c;
    c->name = "nccl";
    c->device_memory = true;
    c->allreduce_start = nccl_allreduce_start;
    c->allreduce_start_doubles = nccl_allreduce_start_doubles;
    c->allreduce_wait = nccl_allreduce_wait;
    c->poll = nccl_poll;
    c->settle = nccl_settle;
    c->sum_doubles = nccl_sum_doubles;
    c->sum_integers = nccl_sum_integers;
    c->broadcast = nccl_broadcast;
    c->allgather = nccl_allgather;
    c->barrier = nccl_barrier;
    c->map = nccl_map;
    c->abort = nccl_abort;
    c->leave_gpu = nccl_leave;
    c->destroy = nccl_destroy;
    c->state = s;
}

static enum status allocate(struct comm_nccl **s) {
    *s = calloc(1, sizeof **s);
    return *s != NULL ? ST_OK : status_fail(ST_MEMORY, "out of memory");
}

enum status comm_nccl_join(struct communicator *c, const struct gpu *gpu) {
    struct comm_nccl *s = NULL;
    TRY_TOGETHER(c, allocate(&s));
    s->gpu = *gpu;
    s->compute = gpu->stream;
    const enum status status = connect(c, s);
    if (status == ST_OK)
        put_over(c, s);
    else
        release(s, true);
    return status;
}
