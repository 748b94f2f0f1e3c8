/* For MAP_ANONYMOUS and MAP_NORESERVE. */
#define _DEFAULT_SOURCE
#include "backend_foreign.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, SUMS = 1 << 16 };
static const size_t CAPACITY = (size_t)8 << 30; /* addresses alone, until they are written to */

struct foreign {
    struct backend base;
    struct backend *cpu;
    char *memory; /* [CAPACITY]; open inside slots */
    size_t used;
    double *sums; /* device [SUMS]: the CPU backend's own are host memory */
};

struct block_plan {
    struct foreign *owner;
    struct block_plan *inner; /* the CPU backend's */
};

/* What lies before each allocation. */
struct header {
    size_t bytes;
};

static struct foreign *foreign_of(struct backend *backend) {
    return (struct foreign *)backend;
}

static void open_memory(struct foreign *f) {
    if (f->used > 0 && mprotect(f->memory, f->used, PROT_READ | PROT_WRITE) != 0)
        abort();
}

static void close_memory(struct foreign *f) {
    if (f->used > 0 && mprotect(f->memory, f->used, PROT_NONE) != 0)
        abort();
}

static enum status leave(struct foreign *f, enum status status) {
    close_memory(f);
    return status;
}

static bool is_inside(const struct foreign *f, const void *pointer) {
    const char *p = pointer;
    return p >= f->memory && p < f->memory + CAPACITY;
}

static enum status device(const struct foreign *f, const void *pointer, const char *slot) {
    if (pointer != NULL && !is_inside(f, pointer))
        FAIL(ST_USAGE, "foreign backend: %s was given a host pointer as a device pointer", slot);
    return ST_OK;
}

static enum status host(const struct foreign *f, const void *pointer, const char *slot) {
    if (is_inside(f, pointer))
        FAIL(ST_USAGE, "foreign backend: %s was given a device pointer as a host pointer", slot);
    return ST_OK;
}

#define DEVICE(f, pointer) TRY(device((f), (pointer), __func__))
#define HOST(f, pointer) TRY(host((f), (pointer), __func__))

/* Evaluate a call of the CPU backend with the memory open. */
#define INSIDE(f, call) (open_memory(f), leave((f), (call)))

/* ---- memory ---- */

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static enum status foreign_alloc(struct backend *backend, size_t bytes, void **memory) {
    struct foreign *f = foreign_of(backend);
    const size_t needed = ALIGNMENT + aligned(bytes);
    if (bytes > CAPACITY || needed > CAPACITY - f->used)
        FAIL(ST_MEMORY, "out of memory: %zu bytes", bytes);
    struct header *header = (struct header *)(void *)(f->memory + f->used);
    f->used += needed;
    open_memory(f);
    header->bytes = bytes;
    close_memory(f);
    *memory = (char *)header + ALIGNMENT;
    return ST_OK;
}

static void foreign_release(struct backend *backend, void *memory) {
    struct foreign *f = foreign_of(backend);
    if (memory == NULL)
        return;
    const struct header *header = (struct header *)(void *)((char *)memory - ALIGNMENT);
    open_memory(f);
    memset(memory, 0xFF, header->bytes);
    close_memory(f);
}

static enum status foreign_host_alloc(struct backend *backend, size_t bytes, void **memory) {
    struct backend *cpu = foreign_of(backend)->cpu;
    return cpu->host_alloc(cpu, bytes, memory);
}

static void foreign_host_release(struct backend *backend, void *memory) {
    struct backend *cpu = foreign_of(backend)->cpu;
    cpu->host_release(cpu, memory);
}

static enum status foreign_upload(struct backend *backend, void *to, const void *from,
                                  size_t bytes) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, to);
    HOST(f, from);
    return INSIDE(f, f->cpu->upload(f->cpu, to, from, bytes));
}

static enum status foreign_download(struct backend *backend, void *to, const void *from,
                                    size_t bytes) {
    struct foreign *f = foreign_of(backend);
    HOST(f, to);
    DEVICE(f, from);
    return INSIDE(f, f->cpu->download(f->cpu, to, from, bytes));
}

static enum status foreign_clear(struct backend *backend, void *memory, size_t bytes) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, memory);
    return INSIDE(f, f->cpu->clear(f->cpu, memory, bytes));
}

static enum status foreign_copy(struct backend *backend, void *to, const void *from, size_t bytes) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, to);
    DEVICE(f, from);
    return INSIDE(f, f->cpu->copy(f->cpu, to, from, bytes));
}

static enum status foreign_synchronise(struct backend *backend) {
    struct backend *cpu = foreign_of(backend)->cpu;
    return cpu->synchronise(cpu);
}

/* ---- steps ---- */

/* There is nothing to choose. */
static enum status foreign_block_plan_choose(struct block_plan *plan, int samples, bool measure,
                                             uint32_t choices[BLOCK_CHOICES]) {
    (void)plan, (void)samples, (void)measure, (void)choices;
    return ST_OK;
}

static enum step_mode foreign_step_mode(struct backend *backend, uint64_t key) {
    (void)backend, (void)key;
    return STEP_PLAIN;
}

static enum status foreign_run_step(struct backend *backend, const struct step_values *values,
                                    const struct step_work *work) {
    HOST(foreign_of(backend), values);
    return work->call(work->context);
}

static void foreign_forget_steps(struct backend *backend) {
    struct backend *cpu = foreign_of(backend)->cpu;
    cpu->forget_steps(cpu);
}

/* ---- data and loss ---- */

static enum status foreign_gather_batch(struct backend *backend, const uint8_t *images,
                                        size_t pixels, const uint32_t *ids, int samples,
                                        float *out) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, images);
    DEVICE(f, ids);
    DEVICE(f, out);
    return INSIDE(f, f->cpu->gather_batch(f->cpu, images, pixels, ids, samples, out));
}

static enum status foreign_softmax_cross_entropy(struct backend *backend, const float *logits,
                                                 int classes, const uint8_t *labels,
                                                 const uint32_t *ids, int samples, float scale,
                                                 float *dlogits, struct loss_sums *sums) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, logits);
    DEVICE(f, labels);
    DEVICE(f, ids);
    DEVICE(f, dlogits);
    DEVICE(f, sums);
    return INSIDE(f, f->cpu->softmax_cross_entropy(f->cpu, logits, classes, labels, ids, samples,
                                                   scale, dlogits, sums));
}

/* ---- blocks ---- */

static enum status foreign_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                             int max_samples, bool first,
                                             struct block_plan **plan) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, desc->kept);
    struct block_plan *made = malloc(sizeof *made);
    if (made == NULL)
        FAIL(ST_MEMORY, "out of memory");
    made->owner = f;
    const enum status status =
        f->cpu->block_plan_create(f->cpu, desc, max_samples, first, &made->inner);
    if (status != ST_OK) {
        free(made);
        return status;
    }
    *plan = made;
    return ST_OK;
}

static void foreign_block_plan_destroy(struct block_plan *plan) {
    if (plan != NULL)
        plan->owner->cpu->block_plan_destroy(plan->inner);
    free(plan);
}

static void foreign_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                                          const char **backward) {
    plan->owner->cpu->block_plan_algorithms(plan->inner, forward, backward);
}

static enum status foreign_block_plan_join(struct block_plan *before, struct block_plan *after,
                                           bool *joined) {
    return before->owner->cpu->block_plan_join(before->inner, after->inner, joined);
}

static void foreign_block_plan_part(struct block_plan *before, struct block_plan *after) {
    before->owner->cpu->block_plan_part(before->inner, after->inner);
}

static enum status foreign_block_plan_set_survivors(struct block_plan *plan,
                                                    const struct block_survivors *survivors) {
    struct foreign *f = plan->owner;
    DEVICE(f, survivors->indices);
    return INSIDE(f, f->cpu->block_plan_set_survivors(plan->inner, survivors));
}

static double foreign_block_plan_sparse_below(const struct block_plan *plan) {
    return plan->owner->cpu->block_plan_sparse_below(plan->inner);
}

static enum status foreign_block_plan_load_weights(struct block_plan *plan, const float *weights,
                                                   const float *bias) {
    struct foreign *f = plan->owner;
    DEVICE(f, weights);
    DEVICE(f, bias);
    return INSIDE(f, f->cpu->block_plan_load_weights(plan->inner, weights, bias));
}

static enum status foreign_block_plan_load_statistics(struct block_plan *plan, float *statistics) {
    struct foreign *f = plan->owner;
    DEVICE(f, statistics);
    return INSIDE(f, f->cpu->block_plan_load_statistics(plan->inner, statistics));
}

/* What the CPU backend calls from inside a pass belongs to the host: it finds the memory closed,
 * and sums that lie in the device's memory. */
struct outside {
    struct foreign *f;
    struct rank_sum ranks;
    struct poll poll;
};

static enum status add_outside(void *context, double *values, size_t count) {
    const struct outside *o = context;
    double *sums = o->f->sums;
    if (count > SUMS)
        FAIL(ST_SHAPE, "foreign backend: a sum of %zu values", count);
    memcpy(sums, values, count * sizeof *sums);
    close_memory(o->f);
    const enum status status = o->ranks.add(o->ranks.context, sums, count);
    open_memory(o->f);
    memcpy(values, sums, count * sizeof *sums);
    return status;
}

static void poll_outside(void *context) {
    const struct outside *o = context;
    close_memory(o->f);
    o->poll.call(o->poll.context);
    open_memory(o->f);
}

/* The pass as the CPU backend is to see it. */
static struct block_pass wrap(struct outside *o, const struct block_pass *pass) {
    struct block_pass wrapped = *pass;
    o->ranks = pass->ranks;
    if (pass->ranks.add != NULL)
        wrapped.ranks = (struct rank_sum){add_outside, o};
    return wrapped;
}

static enum status foreign_block_forward(struct block_plan *plan, const struct block_pass *pass,
                                         const float *x, float *y) {
    struct foreign *f = plan->owner;
    struct outside o = {.f = f};
    const struct block_pass wrapped = wrap(&o, pass);
    DEVICE(f, pass->sample_ids);
    DEVICE(f, x);
    DEVICE(f, y);
    return INSIDE(f, f->cpu->block_forward(plan->inner, &wrapped, x, y));
}

static enum status foreign_block_backward(struct block_plan *plan, const struct block_pass *pass,
                                          const float *x, const float *y, float *dy,
                                          float *dweights, float *dbias, float *dx,
                                          struct poll poll) {
    struct foreign *f = plan->owner;
    struct outside o = {.f = f, .poll = poll};
    const struct block_pass wrapped = wrap(&o, pass);
    const struct poll inner = {poll.call == NULL ? NULL : poll_outside, &o};
    DEVICE(f, pass->sample_ids);
    DEVICE(f, x);
    DEVICE(f, y);
    DEVICE(f, dy);
    DEVICE(f, dweights);
    DEVICE(f, dbias);
    DEVICE(f, dx);
    return INSIDE(
        f, f->cpu->block_backward(plan->inner, &wrapped, x, y, dy, dweights, dbias, dx, inner));
}

/* ---- survivors ---- */

static enum status foreign_gather(struct backend *backend, const float *dense,
                                  const uint32_t *indices, size_t count, float *out) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, dense);
    DEVICE(f, indices);
    DEVICE(f, out);
    return INSIDE(f, f->cpu->gather(f->cpu, dense, indices, count, out));
}

static enum status foreign_scatter(struct backend *backend, const float *values,
                                   const uint32_t *indices, size_t count, float *dense) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, values);
    DEVICE(f, indices);
    DEVICE(f, dense);
    return INSIDE(f, f->cpu->scatter(f->cpu, values, indices, count, dense));
}

static enum status foreign_compact(struct backend *backend, const void *words, const uint64_t *mask,
                                   size_t first_bit, size_t count, void *kept) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, words);
    DEVICE(f, mask);
    DEVICE(f, kept);
    return INSIDE(f, f->cpu->compact(f->cpu, words, mask, first_bit, count, kept));
}

static enum status foreign_hash(struct backend *backend, const void *words, size_t count,
                                uint64_t *hash) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, words);
    HOST(f, hash);
    return INSIDE(f, f->cpu->hash(f->cpu, words, count, hash));
}

/* ---- optimizer and selection ---- */

static enum status foreign_update(struct backend *backend, const struct update_args *args,
                                  float *beta, float *gradient, float *state0, float *state1,
                                  size_t count) {
    struct foreign *f = foreign_of(backend);
    DEVICE(f, beta);
    DEVICE(f, gradient);
    DEVICE(f, state0);
    DEVICE(f, state1);
    return INSIDE(f, f->cpu->update(f->cpu, args, beta, gradient, state0, state1, count));
}

static enum status foreign_select_largest(struct backend *backend, const struct segment *segments,
                                          int count, size_t keep, uint64_t *mask) {
    struct foreign *f = foreign_of(backend);
    HOST(f, segments);
    DEVICE(f, mask);
    for (int i = 0; i < count; i++)
        DEVICE(f, segments[i].values);
    return INSIDE(f, f->cpu->select_largest(f->cpu, segments, count, keep, mask));
}

/* ---- life ---- */

static void foreign_destroy(struct backend *backend) {
    struct foreign *f = foreign_of(backend);
    f->cpu->destroy(f->cpu);
    munmap(f->memory, CAPACITY);
    free(f);
}

static const struct backend table = {
    .name = "foreign",
    .host_memory = false,
    .alloc = foreign_alloc,
    .release = foreign_release,
    .host_alloc = foreign_host_alloc,
    .host_release = foreign_host_release,
    .upload = foreign_upload,
    .download = foreign_download,
    .clear = foreign_clear,
    .copy = foreign_copy,
    .synchronise = foreign_synchronise,
    .step_mode = foreign_step_mode,
    .block_plan_choose = foreign_block_plan_choose,
    .run_step = foreign_run_step,
    .forget_steps = foreign_forget_steps,
    .gather_batch = foreign_gather_batch,
    .block_plan_create = foreign_block_plan_create,
    .block_plan_destroy = foreign_block_plan_destroy,
    .block_plan_algorithms = foreign_block_plan_algorithms,
    .block_plan_join = foreign_block_plan_join,
    .block_plan_part = foreign_block_plan_part,
    .block_plan_set_survivors = foreign_block_plan_set_survivors,
    .block_plan_sparse_below = foreign_block_plan_sparse_below,
    .block_plan_load_weights = foreign_block_plan_load_weights,
    .block_plan_load_statistics = foreign_block_plan_load_statistics,
    .block_forward = foreign_block_forward,
    .block_backward = foreign_block_backward,
    .softmax_cross_entropy = foreign_softmax_cross_entropy,
    .gather = foreign_gather,
    .scatter = foreign_scatter,
    .compact = foreign_compact,
    .hash = foreign_hash,
    .update = foreign_update,
    .select_largest = foreign_select_largest,
    .destroy = foreign_destroy,
};

static enum status reserve(struct foreign *f) {
    void *memory =
        mmap(NULL, CAPACITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        FAIL(ST_MEMORY, "out of addresses");
    f->memory = memory;
    return ST_OK;
}

enum status backend_foreign_create(int threads, struct backend **backend) {
    struct foreign *f = calloc(1, sizeof *f);
    if (f == NULL)
        FAIL(ST_MEMORY, "out of memory");
    f->base = table;
    enum status status = backend_cpu_create(threads, &f->cpu);
    if (status == ST_OK)
        status = reserve(f);
    if (status == ST_OK)
        status = foreign_alloc(&f->base, SUMS * sizeof *f->sums, (void **)&f->sums);
    if (status != ST_OK) {
        if (f->cpu != NULL)
            f->cpu->destroy(f->cpu);
        free(f);
        return status;
    }
    f->base.threads = f->cpu->threads;
    *backend = &f->base;
    return ST_OK;
}
