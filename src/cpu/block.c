/* Block plans: memory, and the part that all blocks share. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

/* ---- the linear part of a block that has none ---- */

static enum status pass_create(struct block_plan *plan, size_t *scratch_floats) {
    float *zeros;
    TRY(ARENA_ARRAY(plan->arena, (size_t)plan->desc.linear.channels, &zeros));
    plan->bias = zeros;
    *scratch_floats = shape_size(plan->desc.linear);
    return ST_OK;
}

static void pass_image(const struct block_plan *plan, const struct block_pass *pass,
                       const struct image_values *image) {
    float *z = plan_scratch(plan);
    memcpy(z, image->x, shape_size(plan->desc.input) * sizeof *z);
    epilogue_forward(plan, pass, image->sample, z, image->y);
}

static void pass_backward(struct block_plan *plan, const struct block_pass *pass,
                          const struct backward_args *args) {
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
    if (plan->first)
        return;
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        const size_t o = (size_t)i * outputs;
        epilogue_backward(plan, pass, i, args->y + o, args->dy + o, args->dx + (size_t)i * inputs);
        poll_from_team(args->poll);
    }
}

static enum status pass_backward_create(struct block_plan *plan, size_t *scratch_floats) {
    (void)plan;
    *scratch_floats = 0;
    return ST_OK;
}

const struct forward_kind forward_pass = {
    .name = "pass", .create = pass_create, .run = images_forward, .image = pass_image};
const struct backward_kind backward_pass = {
    .name = "pass", .create = pass_backward_create, .run = pass_backward};

/* ---- plans ---- */

static enum status plan_allocate(struct block_plan *plan) {
    const size_t units = shape_size(plan->desc.output);
    size_t floats = 0, backward_floats = 0;
    TRY(plan->forward_kind->create(plan, &floats));
    TRY(plan->backward_kind->create(plan, &backward_floats));
    TRY(blank_create(plan));
    floats = floats > backward_floats ? floats : backward_floats;
    plan->scratch_size = (floats + CACHE_LINE_FLOATS - 1) / CACHE_LINE_FLOATS * CACHE_LINE_FLOATS;
    TRY(arena_alloc(plan->arena, (size_t)plan->threads, plan->scratch_size * sizeof(float),
                    (void **)&plan->scratch));
    TRY(images_create(plan));
    return arena_alloc(plan->arena, (size_t)plan->max_samples, units, (void **)&plan->state);
}

/* The kinds of a form (NULL: dense), and their memory in place of that of the kinds before. */
static enum status plan_choose(struct block_plan *plan, const struct sparse_form *form) {
    arena_destroy(plan->arena);
    plan->arena = NULL;
    plan->sparse = form;
    plan->forward_kind = form != NULL ? &form->forward : choose_forward(&plan->desc, plan->conv);
    plan->backward_kind = form != NULL ? &form->backward : choose_backward(&plan->desc, plan->conv);
    TRY(arena_create(&plan->arena));
    return plan_allocate(plan);
}

enum status cpu_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                  int max_samples, bool first, struct block_plan **plan) {
    *plan = NULL;
    TRY(block_check(desc, max_samples));
    struct block_plan *p = malloc(sizeof *p);
    if (p == NULL)
        FAIL(ST_MEMORY, "out of memory: the plan of block %u", desc->layer);
    *p = (struct block_plan){.desc = *desc,
                             .threads = backend->threads,
                             .max_samples = max_samples,
                             .first = first,
                             .conv = ((const struct cpu_backend *)backend)->conv,
                             .skips_blank = ((const struct cpu_backend *)backend)->skips_blank,
                             .kernels = cpu_kernels(backend),
                             .weights_count = block_weights(desc)};
    enum status status = plan_choose(p, NULL);
    if (status == ST_OK)
        *plan = p;
    else
        cpu_block_plan_destroy(p);
    return status;
}

void cpu_block_plan_destroy(struct block_plan *plan) {
    if (plan == NULL)
        return;
    arena_destroy(plan->survivors_arena);
    arena_destroy(plan->arena);
    free(plan);
}

double cpu_block_plan_sparse_below(const struct block_plan *plan) {
    const struct sparse_form *form = choose_sparse_form(&plan->desc);
    return form != NULL ? form->below : 0;
}

enum status cpu_block_plan_set_survivors(struct block_plan *plan,
                                         const struct block_survivors *survivors) {
    const struct sparse_form *form = survivors->sparse ? choose_sparse_form(&plan->desc) : NULL;
    if (survivors->sparse && (form == NULL || survivors->indices == NULL))
        FAIL(ST_SHAPE, "block %u: it has no sparse form%s", plan->desc.layer,
             form != NULL ? " while all weights are left" : "");
    arena_destroy(plan->survivors_arena);
    plan->survivors_arena = NULL;
    plan->weights_count = form != NULL ? survivors->count : block_weights(&plan->desc);
    if (plan->sparse != form)
        TRY(plan_choose(plan, form));
    if (form == NULL)
        return ST_OK;
    TRY(arena_create(&plan->survivors_arena));
    return form->set_survivors(plan, survivors);
}

void cpu_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                               const char **backward) {
    *forward = plan->forward_kind->name;
    *backward = plan->backward_kind->name;
}

enum status cpu_block_plan_join(struct block_plan *before, struct block_plan *after, bool *joined) {
    return images_join(before, after, joined);
}

void cpu_block_plan_part(struct block_plan *before, struct block_plan *after) {
    after->before = NULL;
    before->is_joined = false;
}

enum status cpu_block_plan_load_weights(struct block_plan *plan, const float *weights,
                                        const float *bias) {
    if (plan->desc.kind == BLOCK_PASS)
        return ST_OK;
    plan->weights = weights;
    plan->bias = bias;
    if (plan->forward_kind->load != NULL)
        plan->forward_kind->load(plan);
    if (plan->backward_kind->load != NULL)
        plan->backward_kind->load(plan);
    return ST_OK;
}

enum status cpu_block_plan_load_statistics(struct block_plan *plan, float *statistics) {
    if (plan->desc.kind == BLOCK_NORM)
        norm_load_statistics(plan, statistics);
    return ST_OK;
}

static enum status check_samples(const struct block_plan *plan, const struct block_pass *pass) {
    if (pass->samples < 0 || pass->samples > plan->max_samples)
        FAIL(ST_SHAPE, "block %u: a pass of %d samples, planned for 0 to %d", plan->desc.layer,
             pass->samples, plan->max_samples);
    return ST_OK;
}

enum status cpu_block_forward(struct block_plan *plan, const struct block_pass *pass,
                              const float *x, float *y) {
    TRY(check_samples(plan, pass));
    plan->x = x;
    plan->y = y;
    if (plan->is_joined)
        return ST_OK;
    if (plan->forward_kind->prepare != NULL)
        TRY(plan->forward_kind->prepare(plan, pass, x));
    if (pass->samples > 0)
        plan->forward_kind->run(plan, pass, x, y);
    return ST_OK;
}

enum status cpu_block_backward(struct block_plan *plan, const struct block_pass *pass,
                               const float *x, const float *y, float *dy, float *dweights,
                               float *dbias, float *dx, struct poll poll) {
    TRY(check_samples(plan, pass));
    const struct backward_args args = {x, y, dy, dweights, dbias, dx, poll};
    if (plan->backward_kind->prepare != NULL)
        TRY(plan->backward_kind->prepare(plan, pass, &args));
    if (pass->samples > 0)
        plan->backward_kind->run(plan, pass, &args);
    else if (plan->desc.kind != BLOCK_PASS) {
        memset(dweights, 0, plan->weights_count * sizeof *dweights);
        memset(dbias, 0, block_biases(&plan->desc) * sizeof *dbias);
    }
    return ST_OK;
}
