/* Copies: from pageable memory as it was at the call, to memory that is poisoned until then. */
#include "emulation_internal.h"

#include <algorithm>
#include <cstring>

using namespace emulation;

/* Pinned memory that queued copies have still to read. */
struct read_later {
    const char *from;
    size_t bytes;
    std::weak_ptr<bool> unread;
};
static std::vector<read_later> reads;

static bool overlap(const void *a, const void *b, size_t bytes_a, size_t bytes_b) {
    uintptr_t x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
    return x < y + bytes_b && y < x + bytes_a;
}

static bool is_to_be_read(const void *memory_at, size_t bytes) {
    auto read = [](const read_later &r) { return r.unread.expired(); };
    reads.erase(std::remove_if(reads.begin(), reads.end(), read), reads.end());
    return std::any_of(reads.begin(), reads.end(), [&](const read_later &r) {
        return overlap(r.from, memory_at, r.bytes, bytes);
    });
}

static cudaMemcpyKind kind_of(const void *to, const void *from, size_t bytes) {
    bool to_device = where(to, bytes) == memory::DEVICE;
    bool from_device = where(from, bytes) == memory::DEVICE;
    return to_device && from_device ? cudaMemcpyDeviceToDevice
           : to_device              ? cudaMemcpyHostToDevice
           : from_device            ? cudaMemcpyDeviceToHost
                                    : cudaMemcpyHostToHost;
}

/* Host memory that begins in an allocation must lie in it. */
static bool is_host(const void *pointer, size_t bytes) {
    return where(pointer, bytes) == memory::PINNED || where(pointer, 0) == memory::NONE;
}

static bool fits(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    cudaMemcpyKind found = kind_of(to, from, bytes);
    if (kind != cudaMemcpyDefault && kind != found)
        return false;
    bool to_host = found == cudaMemcpyDeviceToHost || found == cudaMemcpyHostToHost;
    bool from_host = found == cudaMemcpyHostToDevice || found == cudaMemcpyHostToHost;
    return (!to_host || is_host(to, bytes)) && (!from_host || is_host(from, bytes));
}

/* The copy's source: what it holds now for pageable memory, what it will hold then otherwise. */
static std::function<void()> copier(void *to, const void *from, size_t bytes) {
    if (where(from, bytes) == memory::NONE) {
        const char *begin = static_cast<const char *>(from);
        auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
        return [=] { memcpy(to, staged->data(), bytes); };
    }
    if (where(from, bytes) == memory::DEVICE)
        return [=] { memcpy(to, from, bytes); };
    auto unread = std::make_shared<bool>(true);
    reads.push_back({static_cast<const char *>(from), bytes, unread});
    return [=] {
        memcpy(to, from, bytes);
        (void)unread;
    };
}

static task copy_task(void *to, const void *from, size_t bytes) {
    std::function<void()> poison;
    if (where(to, bytes) != memory::DEVICE)
        poison = [=] {
            if (!is_to_be_read(to, bytes))
                memset(to, 0xFF, bytes);
        };
    std::function<void()> copy = copier(to, from, bytes);
    attempt once = [copy] {
        copy();
        return true;
    };
    return {poison, [once] { return once; }};
}

static cudaError_t queue_copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                              cudaStream_t stream) {
    if (bytes == 0)
        return cudaSuccess;
    if (!fits(to, from, bytes, kind))
        return cudaErrorInvalidValue;
    if (kind_of(to, from, bytes) == cudaMemcpyDeviceToDevice && overlap(to, from, bytes, bytes))
        complain("a copy of %zu bytes onto itself", bytes);
    bool pageable = where(to, bytes) == memory::NONE || where(from, bytes) == memory::NONE;
    if (pageable && is_capturing(stream))
        return spoil_capture(stream, cudaErrorStreamCaptureUnsupported);
    return enqueue(stream, copy_task(to, from, bytes));
}

extern "C" {

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
    ENTER_CUDA(cudaErrorInvalidValue);
    return told(queue_copy(to, from, bytes, kind, stream));
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    ENTER_CUDA(cudaErrorIllegalAddress);
    cudaError_t error = unsafe_call();
    if (error == cudaSuccess)
        error = queue_copy(to, from, bytes, kind, nullptr);
    if (error != cudaSuccess)
        return told(error);
    finish(stream_of(nullptr)->last);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    ENTER_CUDA(cudaErrorInvalidValue);
    if (bytes == 0)
        return cudaSuccess;
    if (where(to, bytes) != memory::DEVICE)
        return told(cudaErrorInvalidValue);
    return told(enqueue(stream, [=] { memset(to, value, bytes); }));
}

cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    ENTER_CUDA(cudaErrorInvalidValue);
    return told(enqueue(stream, [=] { function(data); }));
}
}
