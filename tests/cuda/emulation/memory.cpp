/* Device and pinned memory: poisoned, between guard pages, out of the host's reach. */
#include "emulation_internal.h"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emulation {

enum { PAGE = 4096, ALIGNMENT = 256, POISON = 0xFF, CANARY = 0xA5 };

/* [guard page][pages: canary, the bytes, canary to the page's end][guard page] */
struct allocation {
    unsigned char *pages;
    size_t page_bytes, bytes;
    memory kind;
};

static std::map<uintptr_t, allocation> &allocations() {
    static std::map<uintptr_t, allocation> map;
    return map;
}
static size_t device_bytes;
static int depth;

static uintptr_t address(const void *pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
}

static void protect(const allocation &a, int protection) {
    if (mprotect(a.pages, a.page_bytes, protection) != 0)
        complain("cannot protect memory");
}

static void protect_all(int protection) {
    for (const auto &[at, a] : allocations()) {
        if (a.kind == memory::DEVICE)
            protect(a, protection);
    }
}

device_phase::device_phase() {
    if (depth++ == 0)
        protect_all(PROT_READ | PROT_WRITE);
}

device_phase::~device_phase() {
    if (--depth == 0)
        protect_all(PROT_NONE);
}

static const std::pair<const uintptr_t, allocation> *find(const void *pointer) {
    auto after = allocations().upper_bound(address(pointer));
    if (after == allocations().begin())
        return nullptr;
    return &*--after;
}

memory where(const void *pointer, size_t bytes) {
    const auto *found = find(pointer);
    if (found == nullptr || address(pointer) - found->first > found->second.bytes)
        return memory::NONE;
    size_t offset = address(pointer) - found->first;
    return bytes <= found->second.bytes - offset ? found->second.kind : memory::NONE;
}

bool is_device_range(const void *pointer, size_t bytes) {
    return where(pointer, bytes) != memory::NONE;
}

/* A wild access, told apart from the crash that it would be otherwise. */
static void tell_segfault(int, siginfo_t *info, void *) {
    const auto *found = find(info->si_addr);
    char text[200];
    bool near = found != nullptr &&
                address(info->si_addr) - found->first < found->second.bytes + ALIGNMENT + PAGE;
    snprintf(text, sizeof text, "emulated device: %s touched %p%s\n",
             depth > 0 ? "work on the device" : "the host", info->si_addr,
             near && depth == 0 ? ", which is device memory" : "");
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
}

/* Anew with each allocation: a test's framework puts its own in place. */
static void watch_segfaults() {
    struct sigaction action = {};
    action.sa_sigaction = tell_segfault;
    action.sa_flags = SA_SIGINFO | SA_RESETHAND;
    sigaction(SIGSEGV, &action, nullptr);
}

static cudaError_t allocate(void **pointer, size_t bytes, memory kind) {
    size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t page_bytes = (room + PAGE - 1) / PAGE * PAGE;
    if (bytes > set().memory || device_bytes + bytes > set().memory)
        return cudaErrorMemoryAllocation;
    watch_segfaults();
    void *map = mmap(nullptr, page_bytes + 2 * PAGE, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    allocation a = {static_cast<unsigned char *>(map) + PAGE, page_bytes, bytes, kind};
    protect(a, PROT_READ | PROT_WRITE);
    memset(a.pages, CANARY, page_bytes);
    unsigned char *memory_at = a.pages + page_bytes - room;
    memset(memory_at, POISON, bytes);
    ASAN_POISON_MEMORY_REGION(memory_at + bytes, room - bytes);
    if (kind == memory::DEVICE && depth == 0)
        protect(a, PROT_NONE);
    allocations()[address(memory_at)] = a;
    device_bytes += bytes;
    count_object(1);
    *pointer = memory_at;
    return cudaSuccess;
}

static void check_canaries(uintptr_t at, const allocation &a) {
    const unsigned char *begin = reinterpret_cast<const unsigned char *>(at);
    const unsigned char *end = begin + a.bytes;
    for (const unsigned char *byte = a.pages; byte < a.pages + a.page_bytes; byte++) {
        if (byte == begin)
            byte = end;
        if (byte < a.pages + a.page_bytes && *byte != CANARY)
            complain("something wrote %s an allocation of %zu bytes",
                     byte < begin ? "before" : "past the end of", a.bytes);
    }
}

static cudaError_t release(void *pointer, memory kind) {
    if (pointer == nullptr)
        return cudaSuccess;
    auto found = allocations().find(address(pointer));
    if (found == allocations().end() || found->second.kind != kind)
        return cudaErrorInvalidValue;
    allocation a = found->second;
    protect(a, PROT_READ | PROT_WRITE);
    ASAN_UNPOISON_MEMORY_REGION(a.pages, a.page_bytes);
    check_canaries(found->first, a);
    device_bytes -= a.bytes;
    allocations().erase(found);
    munmap(a.pages - PAGE, a.page_bytes + 2 * PAGE);
    count_object(-1);
    return cudaSuccess;
}

} // namespace emulation

using namespace emulation;

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    cudaError_t unsafe = unsafe_call();
    if (unsafe != cudaSuccess)
        return told(unsafe);
    if (bytes == 0) {
        *pointer = nullptr;
        return cudaSuccess;
    }
    return told(allocate(pointer, bytes, memory::DEVICE));
}

cudaError_t cudaFree(void *pointer) {
    ENTER_CUDA(0);
    cudaError_t unsafe = unsafe_call();
    if (unsafe != cudaSuccess)
        return told(unsafe);
    if (pointer != nullptr)
        finish_all();
    return told(release(pointer, memory::DEVICE));
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    return told(allocate(pointer, bytes == 0 ? 1 : bytes, memory::PINNED));
}

cudaError_t cudaHostAlloc(void **pointer, size_t bytes, unsigned int) {
    return cudaMallocHost(pointer, bytes);
}

cudaError_t cudaFreeHost(void *pointer) {
    ENTER_CUDA(0);
    if (pointer != nullptr)
        finish_all();
    return told(release(pointer, memory::PINNED));
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    ENTER_CUDA(cudaErrorInvalidValue);
    *total = set().memory;
    *available = set().memory - device_bytes;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
    ENTER_CUDA(cudaErrorInvalidValue);
    *attributes = {};
    memory kind = where(pointer, 0);
    attributes->type = kind == memory::DEVICE   ? cudaMemoryTypeDevice
                       : kind == memory::PINNED ? cudaMemoryTypeHost
                                                : cudaMemoryTypeUnregistered;
    if (kind != memory::NONE)
        attributes->devicePointer = const_cast<void *>(pointer);
    if (kind != memory::DEVICE)
        attributes->hostPointer = const_cast<void *>(pointer);
    return cudaSuccess;
}
}
