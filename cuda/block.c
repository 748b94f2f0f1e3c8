/* Block plans: their memory, and the part that all blocks share. */
#include "plan.h"

#include <espalier/rng.h>
#include <stdlib.h>

/* ---- blocks without a linear map ---- */

static enum status pass_create(struct block_plan *plan) {
    (void)plan;
    return ST_OK;
}

static void pass_destroy(struct block_plan *plan) {
    (void)plan;
}

static enum status pass_forward(struct block_plan *plan, const struct block_pass *pass,
                                const float *x, float *room, struct epilogue *epilogue) {
    (void)plan, (void)pass, (void)x, (void)room, (void)epilogue;
    return ST_OK;
}

static enum status pass_backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                                 const struct gradients *to) {
    (void)plan, (void)pass, (void)dz, (void)to;
    return ST_OK;
}

const struct linear_kind linear_pass = {.name = "pass",
                                        .in_place = true,
                                        .create = pass_create,
                                        .destroy = pass_destroy,
                                        .forward = pass_forward,
                                        .backward = pass_backward};

/* ---- plans ---- */

static const struct linear_kind *kind_of(const struct block_desc *desc) {
    static const struct linear_kind *const kinds[] = {[BLOCK_CONV] = &linear_conv,
                                                      [BLOCK_DENSE] = &linear_dense,
                                                      [BLOCK_PASS] = &linear_pass,
                                                      [BLOCK_NORM] = &linear_norm};
    return desc->dropconnect > 0 ? &linear_connect : kinds[desc->kind];
}

/* NULL: there is no sparse form. */
static const struct linear_kind *sparse_kind_of(const struct block_desc *desc) {
    static const struct linear_kind *const kinds[] = {[BLOCK_CONV] = &linear_sparse_conv,
                                                      [BLOCK_DENSE] = &linear_sparse_dense,
                                                      [BLOCK_NORM] = NULL};
    return desc->dropconnect > 0 ? NULL : kinds[desc->kind];
}

/* z and dz lie in y and dy where those have their size, or in x and dx. */
static bool needs_room(const struct block_plan *plan) {
    return plan->kind->in_place ? plan->first : plan->desc.pool > 1;
}

static struct epilogue epilogue_of(const struct block_plan *plan, const struct block_pass *pass) {
    const struct block_desc *d = &plan->desc;
    return (struct epilogue){
        .height = d->linear.height,
        .width = d->linear.width,
        .channels = d->linear.channels,
        .out_height = d->output.height,
        .out_width = d->output.width,
        .pool = d->pool,
        .activation = d->activation,
        .factor = 1,
        .dropout = pass->training ? d->dropout : 0,
        .seed = pass->seed,
        .stream = rng_stream(RNG_DROPOUT, d->layer),
        .ids = pass->sample_ids,
        .kept = d->kept,
        .layer_channels = d->layer_channels,
        .source = cuda_step_source(plan->cuda, (struct step_values){.update = pass->update})};
}

static enum status allocate(struct block_plan *plan) {
    const size_t samples = (size_t)plan->max_samples;
    const struct epilogue epilogue = epilogue_of(plan, &(struct block_pass){0});
    if (needs_room(plan))
        TRY(PLAN_ARRAY(samples * shape_size(plan->desc.linear), &plan->z));
    TRY(cuda_alloc(&plan->cuda->base, samples * shape_size(plan->desc.output),
                   (void **)&plan->state));
    TRY(PLAN_ARRAY(epilogue_scratch(&epilogue, plan->max_samples), &plan->columns));
    return plan->kind->create(plan);
}

enum status cuda_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                   int max_samples, bool first, struct block_plan **plan) {
    *plan = NULL;
    TRY(block_check(desc, max_samples));
    struct block_plan *p = calloc(1, sizeof *p);
    if (p == NULL)
        FAIL(ST_MEMORY, "out of memory: the plan of block %u", desc->layer);
    p->cuda = cuda_of(backend);
    p->cuda->preparations++;
    p->kind = kind_of(desc);
    p->desc = *desc;
    p->max_samples = max_samples;
    p->first = first;
    const enum status status = allocate(p);
    if (status == ST_OK)
        *plan = p;
    else
        cuda_block_plan_destroy(p);
    return status;
}

void cuda_block_plan_destroy(struct block_plan *plan) {
    if (plan == NULL)
        return;
    struct backend *backend = &plan->cuda->base;
    cuda_forget_steps(backend);
    plan->kind->destroy(plan);
    cuda_release(backend, plan->z);
    cuda_release(backend, plan->state);
    cuda_release(backend, plan->columns);
    free(plan);
}

void cuda_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                                const char **backward) {
    *forward = *backward = plan->kind->name;
    if (plan->kind->algorithms != NULL)
        plan->kind->algorithms(plan, forward, backward);
}

enum status cuda_block_plan_choose(struct block_plan *plan, int samples, bool measure,
                                   uint32_t choices[BLOCK_CHOICES]) {
    if (plan->kind->choose == NULL)
        return ST_OK;
    return plan->kind->choose(plan, samples, measure, choices);
}

enum status cuda_block_plan_join(struct block_plan *before, struct block_plan *after,
                                 bool *joined) {
    (void)before, (void)after;
    *joined = false;
    return ST_OK;
}

void cuda_block_plan_part(struct block_plan *before, struct block_plan *after) {
    (void)before, (void)after;
}

static enum status change_kind(struct block_plan *plan, const struct linear_kind *kind) {
    plan->kind->destroy(plan);
    plan->linear = NULL;
    plan->kind = kind;
    plan->cuda->preparations++; /* of kernels that may not have run yet */
    return kind->create(plan);
}

/* Dense form takes no notice of what is left. */
enum status cuda_block_plan_set_survivors(struct block_plan *plan,
                                          const struct block_survivors *survivors) {
    const struct linear_kind *sparse = sparse_kind_of(&plan->desc);
    const struct linear_kind *kind = survivors->sparse ? sparse : kind_of(&plan->desc);
    if (survivors->sparse && (sparse == NULL || survivors->indices == NULL))
        FAIL(ST_SHAPE, "block %u: it has no sparse form on the backend cuda%s", plan->desc.layer,
             sparse != NULL ? " while all weights are left" : "");
    cuda_forget_steps(&plan->cuda->base);
    if (kind != plan->kind)
        TRY(change_kind(plan, kind));
    return kind->set_survivors == NULL ? ST_OK : kind->set_survivors(plan, survivors);
}

double cuda_block_plan_sparse_below(const struct block_plan *plan) {
    const struct linear_kind *sparse = sparse_kind_of(&plan->desc);
    return sparse != NULL ? sparse->sparse_below(plan) : 0;
}

enum status cuda_block_plan_load_weights(struct block_plan *plan, const float *weights,
                                         const float *bias) {
    plan->weights = weights;
    plan->bias = bias;
    return plan->kind->load == NULL ? ST_OK : plan->kind->load(plan);
}

enum status cuda_block_plan_load_statistics(struct block_plan *plan, float *statistics) {
    plan->statistics = statistics;
    return ST_OK;
}

/* ---- passes ---- */

static enum status check_pass(const struct block_plan *plan, const struct block_pass *pass) {
    if (pass->samples < 0 || pass->samples > plan->max_samples)
        FAIL(ST_SHAPE, "block %u: a pass of %d samples, planned for 0 to %d", plan->desc.layer,
             pass->samples, plan->max_samples);
    return ST_OK;
}

/* Where the gradient with respect to z is the gradient itself. */
static bool is_identity(const struct epilogue *epilogue) {
    return epilogue->pool == 1 && epilogue->activation == ACTIVATION_NONE && epilogue->dropout == 0;
}

/* What is still to be done when z has been computed. */
static bool is_finished(const struct epilogue *epilogue) {
    return is_identity(epilogue) && epilogue->bias == NULL && epilogue->mean == NULL &&
           epilogue->factor == 1;
}

enum status cuda_block_forward(struct block_plan *plan, const struct block_pass *pass,
                               const float *x, float *y) {
    TRY(check_pass(plan, pass));
    struct epilogue epilogue = epilogue_of(plan, pass);
    float *room = needs_room(plan) ? plan->z : y;
    bool done = false;
    if (plan->kind->forward_whole != NULL)
        TRY(plan->kind->forward_whole(plan, pass, x, y, &epilogue, &done));
    if (done)
        return ST_OK;
    TRY(plan->kind->forward(plan, pass, x, room, &epilogue));
    const float *z = plan->kind->in_place ? x : room;
    if (z != y || !is_finished(&epilogue))
        TRY_CUDA(kernel_epilogue(&epilogue, pass->samples, z, y, plan->state, plan->cuda->stream));
    return ST_OK;
}

enum status cuda_block_backward(struct block_plan *plan, const struct block_pass *pass,
                                const float *x, const float *y, float *dy, float *dweights,
                                float *dbias, float *dx, struct poll poll) {
    (void)poll; /* nothing takes long: it is queued */
    TRY(check_pass(plan, pass));
    const struct epilogue epilogue = epilogue_of(plan, pass);
    const struct gradients to = {x, dweights, dbias, dx};
    float *dz = needs_room(plan) ? plan->z : plan->kind->in_place ? dx : dy;
    const bool same = dz == dy && is_identity(&epilogue);
    if (!same || plan->kind->biased)
        TRY_CUDA(kernel_epilogue_backward(&epilogue, pass->samples, y, plan->state, dy,
                                          same ? NULL : dz, plan->columns,
                                          plan->kind->biased ? dbias : NULL, plan->cuda->stream));
    return plan->kind->backward(plan, pass, dz, &to);
}
