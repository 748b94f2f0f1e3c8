/* Ranks by MPI; and MPI's own calls, in which the device must go on when they last. */
#include "peers.h"

#include <chrono>
#include <cstring>
#include <mpi.h>
#include <sched.h>

namespace emulation {

struct peers {
    MPI_Comm comm = MPI_COMM_NULL; /* none for one rank, which needs no MPI */

    ~peers() {
        int finalized = 1;
        if (comm != MPI_COMM_NULL && PMPI_Finalized(&finalized) == MPI_SUCCESS && !finalized)
            PMPI_Comm_free(&comm);
    }
};

peers_ref meet(int ranks) {
    auto p = std::make_shared<peers>();
    if (ranks == 1)
        return p;
    int initialized = 0, size = 0;
    PMPI_Initialized(&initialized);
    if (initialized)
        PMPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size != ranks)
        return nullptr;
    PMPI_Comm_dup(MPI_COMM_WORLD, &p->comm);
    return p;
}

static MPI_Request begin(const peers_ref &p, const void *mine, void *all, size_t bytes) {
    MPI_Request request;
    PMPI_Iallgather(mine, static_cast<int>(bytes), MPI_BYTE, all, static_cast<int>(bytes), MPI_BYTE,
                    p->comm, &request);
    return request;
}

static bool is_done(MPI_Request *request) {
    int done = 0;
    PMPI_Test(request, &done, MPI_STATUS_IGNORE);
    return done != 0;
}

/* As a device goes on while the host is in MPI, where it may wait for what a peer's device waits
 * for. Work stays as late as it can be: the host must first have waited for a while. */
static int wait(int started, MPI_Request *request, MPI_Status *status) {
    auto since = std::chrono::steady_clock::now();
    int done = 0, error = started;
    while (error == MPI_SUCCESS) {
        error = PMPI_Test(request, &done, status);
        if (done)
            break;
        if (std::chrono::steady_clock::now() - since > std::chrono::milliseconds(20))
            advance_all();
        sched_yield();
    }
    return error;
}

void gather_now(const peers_ref &p, const void *mine, void *all, size_t bytes) {
    if (p->comm == MPI_COMM_NULL) {
        memcpy(all, mine, bytes);
        return;
    }
    MPI_Request request = begin(p, mine, all, bytes);
    wait(MPI_SUCCESS, &request, MPI_STATUS_IGNORE);
}

attempt gather_begin(const peers_ref &p, const void *mine, void *all, size_t bytes) {
    if (p->comm == MPI_COMM_NULL) {
        memcpy(all, mine, bytes);
        return [] { return true; };
    }
    auto request = std::make_shared<MPI_Request>(begin(p, mine, all, bytes));
    return [p, request] { return is_done(request.get()); };
}

} // namespace emulation

using emulation::wait;

extern "C" {

int MPI_Wait(MPI_Request *request, MPI_Status *status) {
    return wait(MPI_SUCCESS, request, status);
}

int MPI_Barrier(MPI_Comm comm) {
    MPI_Request request;
    return wait(PMPI_Ibarrier(comm, &request), &request, MPI_STATUS_IGNORE);
}

int MPI_Bcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    MPI_Request request;
    return wait(PMPI_Ibcast(buffer, count, type, root, comm, &request), &request,
                MPI_STATUS_IGNORE);
}

int MPI_Allreduce(const void *from, void *to, int count, MPI_Datatype type, MPI_Op op,
                  MPI_Comm comm) {
    MPI_Request request;
    return wait(PMPI_Iallreduce(from, to, count, type, op, comm, &request), &request,
                MPI_STATUS_IGNORE);
}

int MPI_Allgather(const void *from, int count, MPI_Datatype type, void *to, int to_count,
                  MPI_Datatype to_type, MPI_Comm comm) {
    MPI_Request request;
    return wait(PMPI_Iallgather(from, count, type, to, to_count, to_type, comm, &request), &request,
                MPI_STATUS_IGNORE);
}
}
