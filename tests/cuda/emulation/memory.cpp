/* Device and pinned memory: poisoned, between guard pages, out of the host's reach. */
#include "emulation_internal.h"

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <list>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emulation {

enum { PAGE = 4096, ALIGNMENT = 256, POISON = 0xFF, CANARY = 0xA5 };
enum { PHASES_GUARDED = 64, PHASES_BETWEEN = 16 };
static const size_t poisoned_bytes = 1 << 20, kept_bytes = 16 << 20;

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

/* To change what a page may be used for is slow: after a program's first phases, the host is kept
 * out of the device's memory after every sixteenth. What it does wrong, it does again and again. */
static bool guarded = true;

device_phase::device_phase() {
    if (depth++ == 0 && guarded)
        protect_all(PROT_READ | PROT_WRITE);
}

device_phase::~device_phase() {
    static long phases;
    if (--depth > 0)
        return;
    guarded = ++phases <= PHASES_GUARDED || phases % PHASES_BETWEEN == 0;
    if (guarded)
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

/* Pages of freed memory, out of reach, the oldest first: to map new ones is slow. */
struct freed {
    unsigned char *map;
    size_t bytes;
};
static std::list<freed> &freed_maps = *new std::list<freed>;
static size_t freed_bytes;

static unsigned char *take_freed(size_t bytes) {
    for (auto f = freed_maps.begin(); f != freed_maps.end(); ++f) {
        if (f->bytes != bytes)
            continue;
        unsigned char *map = f->map;
        freed_bytes -= bytes;
        freed_maps.erase(f);
        return map;
    }
    return nullptr;
}

static unsigned char *new_map(size_t bytes) {
    unsigned char *map = take_freed(bytes);
    if (map != nullptr)
        return map;
    void *fresh =
        mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return fresh == MAP_FAILED ? nullptr : static_cast<unsigned char *>(fresh);
}

static void keep_freed(unsigned char *map, size_t bytes) {
    freed_maps.push_back({map, bytes});
    freed_bytes += bytes;
    while (freed_bytes > kept_bytes) {
        munmap(freed_maps.front().map, freed_maps.front().bytes);
        freed_bytes -= freed_maps.front().bytes;
        freed_maps.pop_front();
    }
}

/* Of much memory, the ends. */
static void poison(unsigned char *begin, size_t bytes) {
    size_t end = bytes < poisoned_bytes ? bytes : poisoned_bytes;
    memset(begin, POISON, end);
    memset(begin + bytes - end, POISON, end);
}

static cudaError_t allocate(void **pointer, size_t bytes, memory kind) {
    if (bytes > set().memory || device_bytes + bytes > set().memory)
        return cudaErrorMemoryAllocation;
    size_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t page_bytes = (room + PAGE - 1) / PAGE * PAGE;
    watch_segfaults();
    unsigned char *map = new_map(page_bytes + 2 * PAGE);
    if (map == nullptr)
        return cudaErrorMemoryAllocation;
    allocation a = {map + PAGE, page_bytes, bytes, kind};
    protect(a, PROT_READ | PROT_WRITE);
    unsigned char *begin = a.pages + page_bytes - room;
    memset(a.pages, CANARY, page_bytes - room);
    memset(begin + bytes, CANARY, room - bytes);
    poison(begin, bytes);
    ASAN_POISON_MEMORY_REGION(begin + bytes, room - bytes);
    if (kind == memory::DEVICE && depth == 0 && guarded)
        protect(a, PROT_NONE);
    allocations()[address(begin)] = a;
    device_bytes += bytes;
    count_object(1);
    *pointer = begin;
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
    protect(a, PROT_NONE);
    keep_freed(a.pages - PAGE, a.page_bytes + 2 * PAGE);
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
