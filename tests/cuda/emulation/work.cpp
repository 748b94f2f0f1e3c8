/* Queued work as a graph: each piece follows others, and nothing is done before it must be. */
#include "emulation_internal.h"

#include <algorithm>
#include <chrono>
#include <sched.h>
#include <set>

namespace emulation {

/* ---- doing it ---- */

static std::vector<work_ref> &pending() {
    static std::vector<work_ref> list;
    return list;
}

static void forget_done() {
    auto &list = pending();
    list.erase(std::remove_if(list.begin(), list.end(), [](const work_ref &w) { return w->done; }),
               list.end());
}

static bool run(const work_ref &w) {
    if (w->run && !w->run())
        return false;
    w->done = true;
    w->run = nullptr;
    w->after.clear();
    return true;
}

/* One that must be done before w, nullptr when w can run: the first, or the last in reverse. */
static work_ref before(const work_ref &w) {
    auto undone = [](const work_ref &other) { return !other->done; };
    if (set().reverse) {
        auto found = std::find_if(w->after.rbegin(), w->after.rend(), undone);
        return found == w->after.rend() ? nullptr : *found;
    }
    auto found = std::find_if(w->after.begin(), w->after.end(), undone);
    return found == w->after.end() ? nullptr : *found;
}

static bool run_with_all_before(const work_ref &target) {
    std::vector<work_ref> path{target};
    while (!path.empty()) {
        work_ref w = path.back();
        work_ref first = w->done ? nullptr : before(w);
        if (first != nullptr) {
            path.push_back(first);
            continue;
        }
        if (!w->done && !run(w))
            return false;
        path.pop_back();
    }
    return true;
}

static std::set<work *> all_before(const work_ref &target) {
    std::set<work *> found{target.get()};
    std::vector<work_ref> next{target};
    while (!next.empty()) {
        work_ref w = next.back();
        next.pop_back();
        for (const work_ref &other : w->after) {
            if (!other->done && found.insert(other.get()).second)
                next.push_back(other);
        }
    }
    return found;
}

/* Everything that can be done without the target and what it follows, the latest first. */
static void run_others(const work_ref &target) {
    std::set<work *> needed = all_before(target);
    for (bool moved = true; moved;) {
        moved = false;
        std::vector<work_ref> list = pending();
        for (auto w = list.rbegin(); w != list.rend(); ++w) {
            if (!(*w)->done && needed.count(w->get()) == 0 && before(*w) == nullptr)
                moved |= run(*w);
        }
    }
}

bool advance(const work_ref &target) {
    if (target == nullptr || target->done)
        return true;
    device_phase phase;
    if (set().streams == settings::OTHERS)
        run_others(target);
    bool done = run_with_all_before(target);
    forget_done();
    return done;
}

void advance_all() {
    device_phase phase;
    for (const work_ref &w : std::vector<work_ref>(pending())) {
        if (!w->done)
            run_with_all_before(w);
    }
    forget_done();
}

/* A device goes on with everything while the host waits for one thing: so does this, when other
 * ranks let it wait long. */
void finish(const work_ref &target) {
    using clock = std::chrono::steady_clock;
    auto begin = clock::now();
    while (!advance(target)) {
        if (clock::now() - begin > std::chrono::milliseconds(20))
            advance_all();
        sched_yield();
    }
}

void finish_all() {
    for (const work_ref &w : std::vector<work_ref>(pending()))
        finish(w);
}

void abandon_all() {
    for (const work_ref &w : pending()) {
        w->done = true;
        w->run = nullptr;
        w->after.clear();
    }
    pending().clear();
}

/* ---- streams ---- */

static CUstream_st legacy = {true, nullptr, nullptr, {}};

static std::vector<CUstream_st *> &streams() {
    static std::vector<CUstream_st *> list;
    return list;
}

CUstream_st *stream_of(cudaStream_t stream) {
    if (stream == nullptr || stream == cudaStreamLegacy)
        return &legacy;
    if (std::find(streams().begin(), streams().end(), stream) == streams().end())
        complain("%p is no stream", static_cast<void *>(stream));
    return stream;
}

bool is_capturing(cudaStream_t stream) {
    return stream_of(stream)->recording != nullptr;
}

cudaError_t spoil_capture(cudaStream_t stream, cudaError_t error) {
    if (is_capturing(stream))
        stream_of(stream)->recording->invalid = true;
    return error;
}

cudaError_t unsafe_call() {
    for (CUstream_st *s : streams()) {
        if (s->recording != nullptr && s->recording->mode != cudaStreamCaptureModeRelaxed)
            return spoil_capture(s, cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

static cudaError_t record(CUstream_st *s, task what) {
    capture &c = *s->recording;
    if (c.invalid)
        return cudaErrorStreamCaptureInvalidated;
    c.nodes.push_back({std::move(what), s->frontier});
    s->frontier = {c.nodes.size() - 1};
    return cudaSuccess;
}

/* Stream 0 waits for all blocking streams, and they for it. */
static void follow_blocking(const CUstream_st *s, work &w) {
    if (s->last != nullptr)
        w.after.push_back(s->last);
    if (s == &legacy) {
        for (const CUstream_st *other : streams()) {
            if (other->blocking && other->last != nullptr)
                w.after.push_back(other->last);
        }
    } else if (s->blocking && legacy.last != nullptr) {
        w.after.push_back(legacy.last);
    }
}

static bool blocking_capture_is_on() {
    return std::any_of(streams().begin(), streams().end(),
                       [](const CUstream_st *s) { return s->blocking && s->recording != nullptr; });
}

static cudaError_t queue(CUstream_st *s, attempt run, const work_ref &also_after) {
    if (s == &legacy && blocking_capture_is_on())
        return cudaErrorStreamCaptureImplicit;
    work_ref w = std::make_shared<work>();
    w->run = std::move(run);
    follow_blocking(s, *w);
    if (also_after != nullptr && !also_after->done)
        w->after.push_back(also_after);
    s->last = w;
    pending().push_back(w);
    if (set().streams == settings::NOW)
        finish(w);
    return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, task what) {
    CUstream_st *s = stream_of(stream);
    if (s->recording != nullptr)
        return record(s, std::move(what));
    if (what.queued)
        what.queued();
    return queue(s, what.begin(), nullptr);
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> what) {
    attempt once = [what = std::move(what)] {
        what();
        return true;
    };
    return enqueue(stream, {nullptr, [once] { return once; }});
}

static double passed_milliseconds;

void pass_time(double milliseconds) {
    passed_milliseconds += milliseconds;
}

} // namespace emulation

using namespace emulation;

long emulation_pending(void) {
    return std::count_if(pending().begin(), pending().end(),
                         [](const work_ref &w) { return !w->done; });
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    *stream = new CUstream_st{(flags & cudaStreamNonBlocking) == 0, nullptr, nullptr, {}};
    streams().push_back(*stream);
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned int flags, int) {
    return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    ENTER_CUDA(0);
    CUstream_st *s = stream_of(stream);
    if (s == &legacy)
        return told(cudaErrorInvalidResourceHandle);
    streams().erase(std::find(streams().begin(), streams().end(), s));
    delete s;
    count_object(-1);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    if (is_capturing(stream))
        return told(spoil_capture(stream, cudaErrorStreamCaptureUnsupported));
    cudaError_t unsafe = unsafe_call();
    if (unsafe != cudaSuccess)
        return told(unsafe);
    finish(stream_of(stream)->last);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    if (is_capturing(stream))
        return told(spoil_capture(stream, cudaErrorStreamCaptureUnsupported));
    return advance(stream_of(stream)->last) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize(void) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    cudaError_t unsafe = unsafe_call();
    if (unsafe != cudaSuccess)
        return told(unsafe);
    finish_all();
    return cudaSuccess;
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    *event = new CUevent_st{(flags & cudaEventDisableTiming) == 0, nullptr, nullptr, nullptr, {}};
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    ENTER_CUDA(0);
    delete event;
    count_object(-1);
    return cudaSuccess;
}

static double now_milliseconds() {
    auto since = std::chrono::steady_clock::now().time_since_epoch();
    return passed_milliseconds + std::chrono::duration<double, std::milli>(since).count();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    ENTER_CUDA(cudaErrorInvalidResourceHandle);
    CUstream_st *s = stream_of(stream);
    event->recording = s->recording;
    event->frontier = s->frontier;
    event->at = nullptr;
    if (s->recording != nullptr)
        return cudaSuccess;
    auto time = std::make_shared<double>(0);
    event->milliseconds = time;
    cudaError_t error = enqueue(stream, [time] { *time = now_milliseconds(); });
    event->at = s->last;
    return told(error);
}

static cudaError_t wait_in_capture(CUstream_st *s, CUevent_st *event) {
    if (event->recording != s->recording && s->recording != nullptr)
        return spoil_capture(s, event->recording == nullptr ? cudaErrorStreamCaptureIsolation
                                                            : cudaErrorStreamCaptureMerge);
    if (s->recording == nullptr) {
        s->recording = event->recording;
        s->frontier.clear();
        s->recording->streams.push_back(s);
    }
    for (size_t node : event->frontier) {
        if (std::find(s->frontier.begin(), s->frontier.end(), node) == s->frontier.end())
            s->frontier.push_back(node);
    }
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int) {
    ENTER_CUDA(cudaErrorInvalidResourceHandle);
    CUstream_st *s = stream_of(stream);
    if (event->recording != nullptr && event->recording->origin == nullptr)
        return told(cudaErrorCapturedEvent);
    if (event->recording != nullptr || s->recording != nullptr)
        return told(wait_in_capture(s, event));
    if (event->at == nullptr || event->at->done)
        return cudaSuccess;
    return told(queue(s, nullptr, event->at));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    if (event->recording != nullptr)
        return told(cudaErrorCapturedEvent);
    finish(event->at);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    if (event->recording != nullptr)
        return told(cudaErrorCapturedEvent);
    return advance(event->at) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    ENTER_CUDA(cudaErrorInvalidValue);
    if (!from->timing || !to->timing || from->at == nullptr || to->at == nullptr)
        return told(cudaErrorInvalidResourceHandle);
    if (!from->at->done || !to->at->done)
        return cudaErrorNotReady;
    *milliseconds = static_cast<float>(*to->milliseconds - *from->milliseconds);
    return cudaSuccess;
}
}
