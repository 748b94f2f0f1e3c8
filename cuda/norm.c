/* Batch normalisation (Ioffe & Szegedy 2015): the affine map is part of the epilogue. */
#include "plan.h"

#include <stdlib.h>

static enum status create(struct block_plan *plan) {
    const size_t channels = (size_t)plan->desc.linear.channels;
    struct norm_channels *norm = calloc(1, sizeof *norm);
    if (norm == NULL)
        FAIL(ST_MEMORY, "out of memory: batch normalisation");
    plan->linear = norm;
    norm->channels = plan->desc.linear.channels;
    norm->epsilon = plan->desc.norm_epsilon;
    norm->momentum = plan->desc.norm_momentum;
    TRY(PLAN_ARRAY(1 + channels, &norm->moments));
    TRY(PLAN_ARRAY(channels, &norm->squares));
    TRY(PLAN_ARRAY(2 * channels, &norm->gradients));
    TRY(PLAN_ARRAY(channels, &norm->mean));
    TRY(PLAN_ARRAY(channels, &norm->scale));
    return PLAN_ARRAY(channels, &norm->inverse);
}

static void destroy(struct block_plan *plan) {
    struct norm_channels *norm = plan->linear;
    if (norm == NULL)
        return;
    void *const memory[] = {norm->moments, norm->squares, norm->gradients,
                            norm->mean,    norm->scale,   norm->inverse};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        cuda_release(&plan->cuda->base, memory[i]);
    free(norm);
}

static enum status sum_ranks(const struct block_pass *pass, double *values, size_t count) {
    return pass->ranks.add == NULL ? ST_OK : pass->ranks.add(pass->ranks.context, values, count);
}

/* Mean and variance of the batch of all ranks, in two passes over it. */
static enum status of_batch(struct block_plan *plan, const struct block_pass *pass,
                            const float *x) {
    const struct norm_channels *norm = plan->linear;
    const size_t rows = plan_rows(plan, pass->samples), channels = (size_t)norm->channels;
    const cudaStream_t stream = plan->cuda->stream;
    TRY_CUDA(kernel_norm_moments(norm, x, rows, plan->columns, stream));
    TRY(sum_ranks(pass, norm->moments, 1 + channels));
    TRY_CUDA(kernel_norm_squares(norm, x, rows, plan->columns, stream));
    TRY(sum_ranks(pass, norm->squares, channels));
    TRY_CUDA(kernel_norm_of_batch(norm, plan->weights, plan->statistics, stream));
    return ST_OK;
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    const struct norm_channels *norm = plan->linear;
    (void)room;
    epilogue->bias = plan->bias;
    epilogue->mean = norm->mean;
    epilogue->scale = norm->scale;
    if (pass->training)
        return of_batch(plan, pass, x);
    TRY_CUDA(kernel_norm_of_running(norm, plan->weights, plan->statistics, plan->cuda->stream));
    return ST_OK;
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    const struct norm_channels *norm = plan->linear;
    const size_t rows = plan_rows(plan, pass->samples);
    const cudaStream_t stream = plan->cuda->stream;
    TRY_CUDA(kernel_norm_gradients(norm, to->x, dz, rows, plan->columns, to->dweights, to->dbias,
                                   stream));
    if (pass->training)
        TRY(sum_ranks(pass, norm->gradients, 2 * (size_t)norm->channels));
    if (to->dx != NULL)
        TRY_CUDA(kernel_norm_input(norm, pass->training, to->x, dz, rows, to->dx, stream));
    return ST_OK;
}

const struct linear_kind linear_norm = {.name = "norm",
                                        .in_place = true,
                                        .create = create,
                                        .destroy = destroy,
                                        .forward = forward,
                                        .backward = backward};
