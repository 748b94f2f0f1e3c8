/* emulation_internal.h - what the emulation's parts know of each other. */
#ifndef ESPALIER_TESTS_EMULATION_INTERNAL_H
#define ESPALIER_TESTS_EMULATION_INTERNAL_H

#include "emulation.h"

#include <cuda_runtime_api.h>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace emulation {

/* ---- settings.cpp ---- */

struct settings {
    int devices, first; /* that this process sees, from the machine's `first` on */
    size_t memory;
    std::vector<int> capabilities; /* of the first devices, major * 10 + minor */
    bool reverse;
    bool loose; /* of cuDNN's engines, the first that can be taken loses NaNs */
    enum { LATE, OTHERS, NOW } streams;
};
settings &set();

/* Why a test must end: an error that a device would hide or turn into wrong numbers. */
[[noreturn]] void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* At the head of each function of a library: counts the call; the status that it must fail with,
 * `usual` where none was given, 0 to go on. */
int entered(const char *call, int usual);
/* True when the call must do nothing and say that it has. */
bool dropped(const char *call);
bool is_dropped(const std::string &place);

/* Objects that live: one more, one less. */
void count_object(int change);

/* ---- memory.cpp ---- */

/* While one lives, device memory can be touched. Otherwise it cannot: the caller is the host. */
struct device_phase {
    device_phase();
    ~device_phase();
    device_phase(const device_phase &) = delete;
};

enum class memory { NONE, DEVICE, PINNED };
/* Where `bytes` from `pointer` on lie; NONE unless all are in one live allocation. */
memory where(const void *pointer, size_t bytes);
/* True for what work on the device may be given. */
bool is_device_range(const void *pointer, size_t bytes);

/* ---- work.cpp ---- */

/* One run of a piece of work: false means not yet, call again (it waits for other ranks). */
using attempt = std::function<bool()>;

struct task {
    std::function<void()> queued; /* when it is queued, on the host; may be empty */
    std::function<attempt()> begin;
    const void *holds = nullptr; /* an object that must outlive the graphs that this is in */
};

struct work;
using work_ref = std::shared_ptr<work>;
struct work {
    attempt run; /* empty: only its order counts */
    std::vector<work_ref> after;
    bool done = false;
};

struct graph_node {
    task what;
    std::vector<size_t> after;
};

/* Whether a graph, one that is being captured too, has a task that holds the object. */
bool graphs_hold(const void *object);

struct capture {
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    std::vector<graph_node> nodes;
    std::vector<CUstream_st *> streams;
    bool invalid = false;
};

/* Queue a task on a stream, or record it in the stream's capture. */
cudaError_t enqueue(cudaStream_t stream, task what);
cudaError_t enqueue(cudaStream_t stream, std::function<void()> what);

/* Do everything before and including this; false: it waits for other ranks. */
bool advance(const work_ref &target);
/* The same until it is done. */
void finish(const work_ref &target);
/* What has been queued, as far as it goes; nothing waits. */
void advance_all();
void finish_all();
/* Forget what has been queued: the device has failed, and does nothing any more. */
void abandon_all();

/* What is done takes so long, as events see it: more than the host takes for it. */
enum { LAUNCH_MILLISECONDS = 500 };
void pass_time(double milliseconds);

/* Calls that are not allowed while a stream is captured, except in relaxed mode. */
cudaError_t unsafe_call();

/* The capture of a stream, if there is one, becomes invalid by this error. */
cudaError_t spoil_capture(cudaStream_t stream, cudaError_t error);
bool is_capturing(cudaStream_t stream);

/* The object behind a handle, for stream 0 too. */
CUstream_st *stream_of(cudaStream_t stream);

/* The last error of the runtime, kept as cudaGetLastError gives it. */
cudaError_t told(cudaError_t error);

} // namespace emulation

struct CUstream_st {
    bool blocking;
    emulation::work_ref last;
    std::shared_ptr<emulation::capture> recording;
    std::vector<size_t> frontier; /* nodes that the next one follows */
};

struct CUevent_st {
    bool timing;
    emulation::work_ref at;
    std::shared_ptr<double> milliseconds;
    std::shared_ptr<emulation::capture> recording; /* then `frontier` says where in it */
    std::vector<size_t> frontier;
};

struct CUgraph_st {
    std::vector<emulation::graph_node> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<emulation::graph_node>> nodes;
};

/* First line of a runtime function. */
#define ENTER_CUDA(usual)                                                                          \
    do {                                                                                           \
        int status_ = emulation::entered(__func__, usual);                                         \
        if (status_ == cudaErrorIllegalAddress)                                                    \
            emulation::abandon_all();                                                              \
        if (status_ != 0)                                                                          \
            return emulation::told(static_cast<cudaError_t>(status_));                             \
        if (emulation::dropped(__func__))                                                          \
            return cudaSuccess;                                                                    \
    } while (0)

#endif
