/* A launch: blocks one after the other, a block's threads as fibers that take turns at barriers. */
#include "../emulated_device.h"
#include "emulation_internal.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <sys/mman.h>

/* Saves what a function call must keep on the stack, changes stacks, and goes on there. */
extern "C" void emulation_switch(void **save, void *load);
asm(".text\n"
    ".globl emulation_switch\n"
    ".type emulation_switch, @function\n"
    "emulation_switch:\n"
    "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"
    "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n    popq %r14\n    popq %r13\n"
    "    popq %r12\n    popq %rbx\n    popq %rbp\n"
    "    ret\n"
    ".size emulation_switch, .-emulation_switch\n");

namespace emulation {

thread_place current;

enum { MOST_THREADS = 1024, LANES = 32, STACK_BYTES = 64 << 10, GUARD_BYTES = 4096 };
enum { SHARED_BYTES_MOST = 48 << 10, RED_ZONE = 32, POISON = 0xFF, RED = 0xA5 };

enum class state { NEW, READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
    void *stack_pointer = nullptr;
};

struct thread {
    state at = state::NEW;
    fiber *runs_on = nullptr;
    const site *where = nullptr;
    unsigned mask = 0;
};

struct shared_array {
    const void *key;
    size_t offset, bytes;
};

static thread threads[MOST_THREADS];
static unsigned thread_count, self;
static unsigned warp_first, warp_end, warp_started; /* of the warp whose threads begin */
static const std::function<void()> *body;
static uint64_t exchange_slots[MOST_THREADS / LANES][LANES];
static int block_count;
static std::vector<fiber *> &idle_fibers = *new std::vector<fiber *>; /* outlives all threads */
static fiber scheduler, *running;

/* ---- places in the source ---- */

static std::string place_name(const site &s) {
    std::string file = s.file;
    file = file.substr(file.rfind('/') + 1) + ":";
    return s.kernel == nullptr ? "barrier@" + file + std::to_string(s.line)
                               : "block@" + file + s.kernel;
}

struct place_list {
    std::set<std::string> names;
    ~place_list() {
        const char *path = getenv("EMULATED_SITES");
        FILE *file = path == nullptr ? nullptr : fopen(path, "a");
        if (file == nullptr)
            return;
        for (const std::string &name : names)
            fprintf(file, "%s\n", name.c_str());
        fclose(file);
    }
};

static bool leaves_out(site &s) {
    static place_list places;
    if (!s.known) {
        std::string name = place_name(s);
        places.names.insert(name);
        s.dropped = is_dropped(name);
        s.known = true;
    }
    return s.dropped;
}

/* ---- fibers ---- */

static unsigned in_order(unsigned i, unsigned count) {
    return set().reverse ? count - 1 - i : i;
}

static void place_thread(unsigned t) {
    const dim3 b = current.block;
    self = t;
    current.thread_index = {t % b.x, t / b.x % b.y, t / b.x / b.y};
    current.lane = t % LANES;
    current.warp = t / LANES;
}

static void leave(fiber *to) {
    fiber *from = running;
    running = to;
    emulation_switch(&from->stack_pointer, to->stack_pointer);
}

/* Runs the warp's threads that have not begun until none is left; one that waits takes the fiber
 * with it. */
static void fiber_main() {
    for (;;) {
        while (warp_first + warp_started < warp_end) {
            unsigned count = warp_end - warp_first;
            place_thread(warp_first + in_order(warp_started++, count));
            (*body)();
            threads[self].at = state::DONE;
        }
        idle_fibers.push_back(running);
        leave(&scheduler);
    }
}

static fiber *new_fiber() {
    size_t bytes = STACK_BYTES + GUARD_BYTES;
    char *stack = static_cast<char *>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (stack == MAP_FAILED || mprotect(stack, GUARD_BYTES, PROT_NONE) != 0)
        complain("no memory for a thread's stack");
    void **top = reinterpret_cast<void **>(stack + bytes) - 2;
    *--top = nullptr; /* the return address of a function that never returns */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    fiber *f = new fiber;
    f->stack_pointer = top;
    return f;
}

static void run_idle_fiber() {
    if (idle_fibers.empty())
        idle_fibers.push_back(new_fiber());
    fiber *f = idle_fibers.back();
    idle_fibers.pop_back();
    leave(f);
}

static void resume(unsigned t) {
    threads[t].at = state::READY;
    place_thread(t);
    leave(threads[t].runs_on);
}

static void wait_at(state at, const site *where, unsigned mask) {
    unsigned me = self;
    threads[me] = {at, running, where, mask};
    leave(&scheduler);
    place_thread(me);
}

/* ---- barriers ---- */

/* Lets the lanes of a warp go whose whole mask has arrived; true when it did. */
static bool release_warp(unsigned first) {
    unsigned arrived = 0, wanted = 0, gone = 0, live = 0;
    for (unsigned l = 0; l < LANES && first + l < thread_count; l++) {
        const thread &t = threads[first + l];
        live |= 1U << l;
        gone |= (unsigned)(t.at == state::DONE) << l;
        if (t.at == state::AT_WARP) {
            arrived |= 1U << l;
            wanted |= t.mask;
        }
    }
    wanted &= live;
    if (arrived == 0)
        return false;
    if ((wanted & gone) != 0)
        complain("a warp waits for lanes that have ended: mask %08x, ended %08x", wanted, gone);
    if ((arrived & wanted) != wanted)
        return false;
    for (unsigned l = 0; l < LANES; l++) {
        if (arrived >> l & 1)
            threads[first + l].at = state::READY;
    }
    return true;
}

/* Lets the block go when all of its threads are at one barrier. */
static bool release_block() {
    unsigned arrived = 0, gone = 0;
    const site *where = nullptr;
    for (unsigned t = 0; t < thread_count; t++) {
        if (threads[t].at == state::DONE)
            gone++;
        if (threads[t].at != state::AT_BLOCK)
            continue;
        if (where != nullptr && where != threads[t].where)
            complain("threads of a block wait at different barriers: lines %d and %d of %s",
                     where->line, threads[t].where->line, where->file);
        where = threads[t].where;
        arrived++;
    }
    if (arrived == 0 || arrived + gone < thread_count)
        return false;
    if (gone > 0)
        complain("%s:%d: %u threads of the block have ended without this barrier", where->file,
                 where->line, gone);
    for (unsigned t = 0; t < thread_count; t++)
        threads[t].at = state::READY;
    return true;
}

static bool all_done() {
    return std::all_of(threads, threads + thread_count,
                       [](const thread &t) { return t.at == state::DONE; });
}

void sync_block(site &here) {
    if (!leaves_out(here))
        wait_at(state::AT_BLOCK, &here, 0);
}

void sync_warp(site &here, unsigned mask) {
    if (!leaves_out(here))
        wait_at(state::AT_WARP, &here, mask);
}

int count_block(site &here, int predicate) {
    sync_block(here);
    block_count = 0;
    sync_block(here);
    block_count += predicate != 0;
    sync_block(here);
    return block_count;
}

uint64_t exchange(unsigned mask, uint64_t value, unsigned source) {
    unsigned warp = current.warp, lane = current.lane;
    if ((mask >> lane & 1) == 0)
        complain("lane %u exchanges under the mask %08x, which leaves it out", lane, mask);
    if (source != lane && (mask >> source & 1) == 0)
        complain("lane %u reads lane %u, which the mask %08x leaves out", lane, source, mask);
    exchange_slots[warp][lane] = value;
    wait_at(state::AT_WARP, nullptr, mask);
    uint64_t result = exchange_slots[warp][source];
    wait_at(state::AT_WARP, nullptr, mask);
    return result;
}

unsigned vote(unsigned mask, bool mine) {
    unsigned warp = current.warp, lane = current.lane, result = 0;
    if ((mask >> lane & 1) == 0)
        complain("lane %u votes under the mask %08x, which leaves it out", lane, mask);
    exchange_slots[warp][lane] = mine;
    wait_at(state::AT_WARP, nullptr, mask);
    for (unsigned l = 0; l < LANES && warp * LANES + l < thread_count; l++)
        result |= (mask >> l & 1) != 0 && exchange_slots[warp][l] != 0 ? 1U << l : 0;
    wait_at(state::AT_WARP, nullptr, mask);
    return result;
}

/* ---- shared memory: poisoned, with red zones between arrays ---- */

alignas(16) static unsigned char shared_bytes[SHARED_BYTES_MOST + 64 * RED_ZONE];
static std::vector<shared_array> shared_arrays;
static size_t shared_used, shared_total;

static void forget_shared() {
    for (const shared_array &a : shared_arrays) {
        ASAN_UNPOISON_MEMORY_REGION(shared_bytes + a.offset + a.bytes, RED_ZONE);
        for (size_t i = 0; i < RED_ZONE; i++) {
            if (shared_bytes[a.offset + a.bytes + i] != RED)
                complain("a block wrote past the end of %zu bytes of shared memory", a.bytes);
        }
    }
    shared_arrays.clear();
    shared_used = shared_total = 0;
    ASAN_POISON_MEMORY_REGION(shared_bytes, sizeof shared_bytes);
}

void *shared_memory(const void *key, size_t bytes) {
    for (const shared_array &a : shared_arrays) {
        if (a.key == key)
            return shared_bytes + a.offset;
    }
    size_t offset = (shared_used + 15) / 16 * 16;
    shared_total += bytes;
    if (shared_total > SHARED_BYTES_MOST || offset + bytes + RED_ZONE > sizeof shared_bytes)
        complain("a block wants %zu bytes of shared memory: %d are there", shared_total,
                 SHARED_BYTES_MOST);
    ASAN_UNPOISON_MEMORY_REGION(shared_bytes + offset, bytes + RED_ZONE);
    memset(shared_bytes + offset, POISON, bytes);
    memset(shared_bytes + offset + bytes, RED, RED_ZONE);
    ASAN_POISON_MEMORY_REGION(shared_bytes + offset + bytes, RED_ZONE);
    shared_arrays.push_back({key, offset, bytes});
    shared_used = offset + bytes + RED_ZONE;
    return shared_bytes + offset;
}

void *dynamic_shared() {
    return shared_memory(nullptr, 0);
}

/* ---- launches ---- */

/* A warp goes as far as it can before the next one comes: further ahead than on a device. */
static void run_warp(unsigned first) {
    warp_first = first;
    warp_end = std::min<unsigned>(first + LANES, thread_count);
    warp_started = threads[first].at == state::NEW ? 0 : LANES;
    while (warp_first + warp_started < warp_end)
        run_idle_fiber();
    unsigned count = warp_end - first;
    do {
        for (unsigned i = 0; i < count; i++) {
            unsigned t = first + in_order(i, count);
            if (threads[t].at == state::READY)
                resume(t);
        }
    } while (release_warp(first));
}

static void run_block(size_t dynamic_bytes) {
    forget_shared();
    shared_memory(nullptr, dynamic_bytes);
    for (unsigned t = 0; t < thread_count; t++)
        threads[t].at = state::NEW;
    unsigned warps = (thread_count + LANES - 1) / LANES;
    do {
        for (unsigned i = 0; i < warps; i++)
            run_warp(in_order(i, warps) * LANES);
    } while (release_block());
    if (!all_done())
        complain("a block's threads wait for each other");
    forget_shared();
}

static void run_grid(dim3 grid, dim3 block, size_t dynamic_bytes, bool without_last,
                     const std::function<void()> &thread_body) {
    unsigned blocks = grid.x * grid.y * grid.z;
    thread_count = block.x * block.y * block.z;
    body = &thread_body;
    running = &scheduler;
    current.grid = grid;
    current.block = block;
    for (unsigned i = 0; i < blocks; i++) {
        unsigned b = in_order(i, blocks);
        current.block_index = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        if (!without_last || b + 1 < blocks)
            run_block(dynamic_bytes);
    }
}

void check_argument(const site &here, const void *pointer) {
    if (pointer != nullptr && !is_device_range(pointer, 0))
        complain("%s:%d: a kernel is given %p, which is no device memory", here.file, here.line,
                 pointer);
}

static bool is_legal(dim3 grid, dim3 block) {
    unsigned long per_block = (unsigned long)block.x * block.y * block.z;
    return grid.x > 0 && grid.y > 0 && grid.z > 0 && per_block > 0 && per_block <= MOST_THREADS &&
           block.z <= 64 && grid.x <= 2147483647U && grid.y <= 65535 && grid.z <= 65535;
}

void launch_kernel(site &here, dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream,
                   std::function<void()> thread_body) {
    int status = entered("launch", cudaErrorLaunchOutOfResources);
    if (status == 0 && !is_legal(grid, block))
        status = cudaErrorInvalidConfiguration;
    if (status == 0 && dynamic_bytes > SHARED_BYTES_MOST)
        status = cudaErrorInvalidValue;
    if (status != 0) {
        told(static_cast<cudaError_t>(status));
        return;
    }
    bool without_last = leaves_out(here);
    told(enqueue(stream, [=] {
        run_grid(grid, block, dynamic_bytes, without_last, thread_body);
        pass_time(LAUNCH_MILLISECONDS);
    }));
}

} // namespace emulation
