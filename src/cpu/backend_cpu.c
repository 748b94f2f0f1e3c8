/* The CPU backend's table, and memory: device memory is host memory. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

static enum status cpu_alloc(struct backend *backend, size_t bytes, void **memory) {
    (void)backend;
    *memory = aligned_zeroed(bytes, 1);
    if (*memory == NULL)
        FAIL(ST_MEMORY, "out of memory: %zu bytes", bytes);
    return ST_OK;
}

static void cpu_release(struct backend *backend, void *memory) {
    (void)backend;
    free(memory);
}

/* Regions may be empty, and then their pointers NULL, which memcpy does not allow. */
static enum status cpu_copy(struct backend *backend, void *to, const void *from, size_t bytes) {
    (void)backend;
    if (bytes > 0)
        memcpy(to, from, bytes);
    return ST_OK;
}

static enum status cpu_clear(struct backend *backend, void *device, size_t bytes) {
    (void)backend;
    if (bytes > 0)
        memset(device, 0, bytes);
    return ST_OK;
}

static enum status cpu_synchronise(struct backend *backend) {
    (void)backend;
    return ST_OK;
}

/* There is nothing to choose. */
static enum status cpu_block_plan_choose(struct block_plan *plan, int samples, bool measure,
                                         uint32_t choices[BLOCK_CHOICES]) {
    (void)plan, (void)samples, (void)measure, (void)choices;
    return ST_OK;
}

static enum step_mode cpu_step_mode(struct backend *backend, uint64_t key) {
    (void)backend, (void)key;
    return STEP_PLAIN;
}

static enum status cpu_run_step(struct backend *backend, const struct step_values *values,
                                const struct step_work *work) {
    (void)backend;
    (void)values; /* the calls' arguments have them */
    return work->call(work->context);
}

static void cpu_forget_steps(struct backend *backend) {
    (void)backend;
}

static void cpu_destroy(struct backend *backend) {
    free(backend);
}

static const struct backend table = {
    .name = "cpu",
    .host_memory = true,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .host_alloc = cpu_alloc,
    .host_release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .clear = cpu_clear,
    .copy = cpu_copy,
    .synchronise = cpu_synchronise,
    .step_mode = cpu_step_mode,
    .block_plan_choose = cpu_block_plan_choose,
    .run_step = cpu_run_step,
    .forget_steps = cpu_forget_steps,
    .gather_batch = cpu_gather_batch,
    .block_plan_create = cpu_block_plan_create,
    .block_plan_destroy = cpu_block_plan_destroy,
    .block_plan_algorithms = cpu_block_plan_algorithms,
    .block_plan_join = cpu_block_plan_join,
    .block_plan_part = cpu_block_plan_part,
    .block_plan_set_survivors = cpu_block_plan_set_survivors,
    .block_plan_sparse_below = cpu_block_plan_sparse_below,
    .block_plan_load_weights = cpu_block_plan_load_weights,
    .block_plan_load_statistics = cpu_block_plan_load_statistics,
    .block_forward = cpu_block_forward,
    .block_backward = cpu_block_backward,
    .softmax_cross_entropy = cpu_softmax_cross_entropy,
    .gather = cpu_gather,
    .scatter = cpu_scatter,
    .compact = cpu_compact,
    .hash = cpu_hash,
    .update = cpu_update,
    .select_largest = cpu_select_largest,
    .destroy = cpu_destroy,
};

enum status backend_cpu_create(int threads, struct backend **backend) {
    if (threads < 1)
        FAIL(ST_USAGE, "cpu backend: %d threads, expected at least 1", threads);
    const struct kernels *kernels;
    TRY(kernels_choose(&kernels));
    const char *conv;
    TRY(choose_conv_name(&conv));
    bool skips_blank;
    TRY(blank_choose(&skips_blank));
    struct cpu_backend *cpu = malloc(sizeof *cpu);
    if (cpu == NULL)
        FAIL(ST_MEMORY, "out of memory");
    *cpu = (struct cpu_backend){
        .base = table, .kernels = kernels, .conv = conv, .skips_blank = skips_blank};
    cpu->base.threads = threads;
    *backend = &cpu->base;
    return ST_OK;
}
