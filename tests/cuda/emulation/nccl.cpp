/* NCCL: collectives as work on a stream, done when all ranks' devices have come to them. Sums are
 * made in the order of the ranks. */
#include "peers.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <nccl.h>

using namespace emulation;

/* Lives as long as a handle or queued work knows it. */
struct communication {
    peers_ref with;
    int rank, ranks;
    ncclResult_t error = ncclSuccess;
    bool aborted = false;
    int64_t recorded = 0; /* collectives that went into graphs */
};
using communication_ref = std::shared_ptr<communication>;

struct ncclComm {
    communication_ref shared;
};

#define ENTER_NCCL(usual)                                                                          \
    do {                                                                                           \
        int status_ = entered(__func__, usual);                                                    \
        if (status_ != 0)                                                                          \
            return static_cast<ncclResult_t>(status_);                                             \
        if (dropped(__func__))                                                                     \
            return ncclSuccess;                                                                    \
    } while (0)

/* What becomes of all ranks' bytes, one after the other, in `to`. */
using combine = std::function<void(const std::vector<char> &all, void *to)>;

struct collective {
    communication_ref c;
    const void *from;
    void *to;
    size_t bytes;
    combine finish;
    int64_t record = 0; /* which of the recorded ones it is; 0: none */
};

/* An asynchronous error: this rank never takes part, and says so when it is asked. */
static bool never_ends(communication &c) {
    int status = entered("ncclAsync", ncclRemoteError);
    if (status != 0)
        c.error = static_cast<ncclResult_t>(status);
    return c.error != ncclSuccess;
}

/* All ranks record a collective, or none does; what is replayed, all have recorded together. */
static void check_records(const collective &op, std::vector<char> &all) {
    const size_t part = sizeof op.record + op.bytes;
    for (int r = op.c->ranks - 1; r >= 0; r--) {
        auto begin = all.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(r) * part);
        int64_t record;
        memcpy(&record, &*begin, sizeof record);
        if (record != op.record)
            complain("a collective is recorded number %ld here, and %ld on rank %d (0: not in a "
                     "graph)",
                     static_cast<long>(op.record), static_cast<long>(record), r);
        all.erase(begin, begin + sizeof record);
    }
}

/* Peers read this rank's bytes as they were when its device came to the collective. */
static attempt begin(const collective &op) {
    struct state {
        std::vector<char> mine, all;
        attempt gathered;
    };
    auto s = std::make_shared<state>();
    return [op, s] {
        communication &c = *op.c;
        if (c.aborted)
            return true;
        if (!s->gathered && (c.error != ncclSuccess || never_ends(c)))
            return false;
        if (!s->gathered) {
            const char *from = static_cast<const char *>(op.from);
            const char *record = reinterpret_cast<const char *>(&op.record);
            s->mine.assign(record, record + sizeof op.record);
            s->mine.insert(s->mine.end(), from, from + op.bytes);
            s->all.resize(s->mine.size() * static_cast<size_t>(c.ranks));
            s->gathered = gather_begin(c.with, s->mine.data(), s->all.data(), s->mine.size());
        }
        if (!s->gathered())
            return false;
        check_records(op, s->all);
        op.finish(s->all, op.to);
        return true;
    };
}

static ncclResult_t queue(collective op, cudaStream_t stream) {
    if (is_capturing(stream))
        op.record = ++op.c->recorded;
    if (!is_device_range(op.from, op.bytes) || !is_device_range(op.to, op.bytes))
        complain("NCCL is given memory that is not the device's");
    cudaError_t error = enqueue(stream, {nullptr, [op] { return begin(op); }, op.c.get()});
    return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

template <class T> static combine sums(size_t count, int ranks) {
    return [=](const std::vector<char> &all, void *to) {
        T *out = static_cast<T *>(to);
        memcpy(out, all.data(), count * sizeof(T));
        for (int r = 1; r < ranks; r++) {
            for (size_t i = 0; i < count; i++) {
                T value;
                memcpy(&value, &all[(static_cast<size_t>(r) * count + i) * sizeof(T)],
                       sizeof value);
                out[i] += value;
            }
        }
    };
}

struct number_type {
    size_t bytes;
    combine (*sums)(size_t count, int ranks);
};

static const number_type *type_of(ncclDataType_t type) {
    static const std::map<int, number_type> types = {
        {ncclFloat, {sizeof(float), sums<float>}},
        {ncclDouble, {sizeof(double), sums<double>}},
        {ncclInt32, {sizeof(int32_t), sums<int32_t>}},
        {ncclInt64, {sizeof(int64_t), sums<int64_t>}},
        {ncclUint8, {sizeof(uint8_t), sums<uint8_t>}},
        {ncclUint64, {sizeof(uint64_t), sums<uint64_t>}},
    };
    auto found = types.find(type);
    return found == types.end() ? nullptr : &found->second;
}

/* ---- communicators ---- */

struct introduction {
    ncclUniqueId id;
    int device;
};

static ncclResult_t compare(const communication &c, const introduction &mine) {
    std::vector<introduction> all(static_cast<size_t>(c.ranks));
    gather_now(c.with, &mine, all.data(), sizeof mine);
    std::vector<int> devices;
    for (const introduction &other : all) {
        if (memcmp(&other.id, &mine.id, sizeof mine.id) != 0)
            complain("ranks begin an NCCL communicator by different ids");
        devices.push_back(other.device);
    }
    std::sort(devices.begin(), devices.end());
    bool twice = std::adjacent_find(devices.begin(), devices.end()) != devices.end();
    return twice ? ncclInvalidUsage : ncclSuccess;
}

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    ENTER_NCCL(ncclSystemError);
    static unsigned char next = 1;
    memset(id, next++, sizeof *id);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    ENTER_NCCL(ncclSystemError);
    auto c = std::make_shared<communication>();
    c->with = meet(ranks);
    c->rank = rank;
    c->ranks = ranks;
    if (c->with == nullptr)
        return ncclInvalidArgument;
    introduction mine = {id, 0};
    cudaGetDevice(&mine.device);
    mine.device += set().first;
    ncclResult_t result = compare(*c, mine);
    if (result != ncclSuccess)
        return result;
    *comm = new ncclComm{c};
    count_object(1);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *) {
    return ncclCommInitRank(comm, ranks, id, rank);
}

ncclResult_t ncclCommFinalize(ncclComm_t) {
    finish_all();
    return ncclSuccess;
}

/* The library waits until the last graph with a collective in it is gone, here and in abort. */
static void check_graphs(ncclComm_t comm, const char *call) {
    if (graphs_hold(comm->shared.get()))
        complain("%s waits for ever: graphs hold collectives of the communicator", call);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    finish_all();
    check_graphs(comm, __func__);
    delete comm;
    count_object(-1);
    return ncclSuccess;
}

/* Collectives that are queued end at once, and leave what they should have written as it is. */
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    check_graphs(comm, __func__);
    comm->shared->aborted = true;
    delete comm;
    count_object(-1);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    ENTER_NCCL(ncclInvalidArgument);
    *error = comm->shared->error;
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    *count = comm->shared->ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    *rank = comm->shared->rank;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclSystemError:
        return "unhandled system error";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "an emulated NCCL error";
    }
}

const char *ncclGetLastError(ncclComm_t) {
    return "";
}

ncclResult_t ncclGroupStart(void) {
    ENTER_NCCL(ncclInvalidUsage);
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    ENTER_NCCL(ncclInvalidUsage);
    return ncclSuccess;
}

/* ---- collectives ---- */

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    ENTER_NCCL(ncclSystemError);
    const number_type *t = type_of(type);
    if (t == nullptr || op != ncclSum)
        return ncclInvalidArgument;
    return queue({comm->shared, from, to, count * t->bytes, t->sums(count, comm->shared->ranks)},
                 stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    ENTER_NCCL(ncclSystemError);
    const number_type *t = type_of(type);
    if (t == nullptr || root < 0 || root >= comm->shared->ranks)
        return ncclInvalidArgument;
    size_t bytes = count * t->bytes;
    combine take = [=](const std::vector<char> &all, void *out) {
        memcpy(out, all.data() + static_cast<size_t>(root) * bytes, bytes);
    };
    return queue({comm->shared, from, to, bytes, take}, stream);
}

ncclResult_t ncclBcast(void *buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    ENTER_NCCL(ncclSystemError);
    const number_type *t = type_of(type);
    if (t == nullptr)
        return ncclInvalidArgument;
    combine copy = [](const std::vector<char> &all, void *out) {
        memcpy(out, all.data(), all.size());
    };
    return queue({comm->shared, from, to, count * t->bytes, copy}, stream);
}
}
