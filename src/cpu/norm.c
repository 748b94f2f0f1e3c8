/* Batch normalisation (Ioffe & Szegedy 2015): z = b + w (x - mean) / sqrt(variance + epsilon) of
 * each channel, over the samples of all ranks and all pixels. Sums are grouped by grains of
 * samples. */
#include "cpu.h"

#include <math.h>
#include <string.h>

enum { GRAIN = 8 }; /* samples */

struct norm {
    size_t pixels, channels;
    double *grains;       /* [grains][2][channels]: each grain's sums */
    double *sums;         /* [1 + 2 channels]: samples, then two sums a channel, of all ranks */
    double count;         /* values of a channel in the batch, of all ranks */
    float *mean, *scale;  /* scale: w / sqrt(variance + epsilon) */
    float *inverse;       /* 1 / sqrt(variance + epsilon) */
    float *shift, *slope; /* of the input gradient, 0 where the statistics are given */
    float *dz;            /* of a first block, which has no dx to hold it; else NULL */
    float *statistics;    /* [2][channels], the caller's */
};

static enum status norm_create(struct block_plan *plan, size_t *scratch_floats) {
    struct norm *norm;
    const size_t linear = shape_size(plan->desc.linear), samples = (size_t)plan->max_samples;
    const size_t channels = (size_t)plan->desc.linear.channels;
    TRY(ARENA_ARRAY(plan->arena, 1, &norm));
    norm->channels = channels;
    norm->pixels = linear / channels;
    TRY(ARENA_ARRAY(plan->arena, (samples / GRAIN + 1) * 2 * channels, &norm->grains));
    TRY(ARENA_ARRAY(plan->arena, 1 + 2 * channels, &norm->sums));
    float **const vectors[] = {&norm->mean, &norm->scale, &norm->inverse, &norm->shift,
                               &norm->slope};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        TRY(ARENA_ARRAY(plan->arena, channels, vectors[i]));
    if (plan->first)
        TRY(ARENA_ARRAY(plan->arena, samples * linear, &norm->dz));
    plan->forward = norm;
    *scratch_floats = linear;
    return ST_OK;
}

/* No other forward kind pairs with it. */
static enum status norm_backward_create(struct block_plan *plan, size_t *scratch_floats) {
    plan->backward = plan->forward;
    *scratch_floats = 0;
    return ST_OK;
}

void norm_load_statistics(struct block_plan *plan, float *statistics) {
    ((struct norm *)plan->forward)->statistics = statistics;
}

/* ---- sums over a batch ---- */

/* What one grain adds: x, or x and dz, of its samples. */
static void sum_grain(const struct block_plan *plan, int grain, int samples, const float *x,
                      const float *dz) {
    const struct norm *norm = plan->forward;
    const struct norm_kernels *kernels = plan->kernels->norm;
    const size_t size = norm->pixels * norm->channels, first = (size_t)grain * GRAIN * size;
    const int left = samples - grain * GRAIN;
    const size_t pixels = (size_t)(left < GRAIN ? left : GRAIN) * norm->pixels;
    double *sums = norm->grains + (size_t)grain * 2 * norm->channels;
    memset(sums, 0, 2 * norm->channels * sizeof *sums);
    if (dz == NULL)
        kernels->add_moments(pixels, norm->channels, x + first, sums, sums + norm->channels);
    else
        kernels->add_gradients(pixels, norm->channels, norm->mean, x + first, dz + first, sums,
                               sums + norm->channels);
}

/* norm->sums of this rank. */
static void sum_batch(const struct block_plan *plan, int samples, const float *x, const float *dz) {
    const struct norm *norm = plan->forward;
    const int grains = (samples + GRAIN - 1) / GRAIN;
#pragma omp parallel for num_threads(plan->threads)
    for (int grain = 0; grain < grains; grain++)
        sum_grain(plan, grain, samples, x, dz);
    memset(norm->sums, 0, (1 + 2 * norm->channels) * sizeof *norm->sums);
    norm->sums[0] = samples;
    for (int grain = 0; grain < grains; grain++)
        for (size_t k = 0; k < 2 * norm->channels; k++)
            norm->sums[1 + k] += norm->grains[(size_t)grain * 2 * norm->channels + k];
}

static enum status sum_ranks(const struct block_plan *plan, const struct block_pass *pass) {
    const struct norm *norm = plan->forward;
    if (pass->ranks.add == NULL)
        return ST_OK;
    return pass->ranks.add(pass->ranks.context, norm->sums, 1 + 2 * norm->channels);
}

/* ---- forward ---- */

static void set_channel(const struct block_plan *plan, size_t k, double mean, double variance) {
    const struct norm *norm = plan->forward;
    const double inverse = 1 / sqrt(variance + (double)plan->desc.norm_epsilon);
    norm->mean[k] = (float)mean;
    norm->inverse[k] = (float)inverse;
    norm->scale[k] = (float)(inverse * (double)plan->weights[k]);
}

/* The running statistics move towards the batch's. */
static void run_statistics(const struct block_plan *plan, size_t k, double mean, double variance) {
    const struct norm *norm = plan->forward;
    const double momentum = (double)plan->desc.norm_momentum, n = norm->count;
    float *running_mean = norm->statistics + k, *running_variance = running_mean + norm->channels;
    if (n < 2)
        return;
    *running_mean = (float)(momentum * (double)*running_mean + (1 - momentum) * mean);
    *running_variance =
        (float)(momentum * (double)*running_variance + (1 - momentum) * variance * n / (n - 1));
}

static enum status batch_statistics(struct block_plan *plan, const struct block_pass *pass,
                                    const float *x) {
    struct norm *norm = plan->forward;
    sum_batch(plan, pass->samples, x, NULL);
    TRY(sum_ranks(plan, pass));
    norm->count = norm->sums[0] * (double)norm->pixels;
    for (size_t k = 0; norm->count > 0 && k < norm->channels; k++) {
        const double mean = norm->sums[1 + k] / norm->count;
        const double square = norm->sums[1 + norm->channels + k] / norm->count;
        const double variance = square > mean * mean ? square - mean * mean : 0;
        set_channel(plan, k, mean, variance);
        run_statistics(plan, k, mean, variance);
    }
    return ST_OK;
}

static enum status norm_prepare(struct block_plan *plan, const struct block_pass *pass,
                                const float *x) {
    const struct norm *norm = plan->forward;
    if (pass->training)
        return batch_statistics(plan, pass, x);
    for (size_t k = 0; k < norm->channels; k++)
        set_channel(plan, k, (double)norm->statistics[k],
                    (double)norm->statistics[norm->channels + k]);
    return ST_OK;
}

static void norm_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                         float *y) {
    const struct norm *norm = plan->forward;
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        float *z = plan_scratch(plan);
        plan->kernels->norm->normalise(norm->pixels, norm->channels, norm->mean, norm->scale,
                                       x + (size_t)i * inputs, z);
        epilogue_forward(plan, pass, i, z, y + (size_t)i * outputs);
    }
}

/* ---- backward ---- */

static float *dz_of(const struct block_plan *plan, const struct backward_args *args) {
    return plan->first ? ((const struct norm *)plan->forward)->dz : args->dx;
}

/* dL/dw = sum dz (x - mean) inverse and dL/db = sum dz, of this rank's samples. */
static void parameter_gradients(const struct block_plan *plan, const struct backward_args *args) {
    const struct norm *norm = plan->forward;
    for (size_t k = 0; k < norm->channels; k++) {
        args->dbias[k] = (float)norm->sums[1 + k];
        args->dweights[k] = (float)(norm->sums[1 + norm->channels + k] * (double)norm->inverse[k]);
    }
}

/* dx = scale (dz - mean of dz - xhat * mean of dz xhat), xhat = (x - mean) inverse: the means are
 * of the batch of all ranks, which the statistics depend on; given statistics depend on nothing. */
static enum status input_gradient_terms(struct block_plan *plan, const struct block_pass *pass) {
    const struct norm *norm = plan->forward;
    if (pass->training)
        TRY(sum_ranks(plan, pass));
    const double share = pass->training && norm->count > 0 ? 1 / norm->count : 0;
    for (size_t k = 0; k < norm->channels; k++) {
        const double inverse = (double)norm->inverse[k];
        norm->shift[k] = (float)(share * norm->sums[1 + k]);
        norm->slope[k] = (float)(share * norm->sums[1 + norm->channels + k] * inverse * inverse);
    }
    return ST_OK;
}

static enum status norm_backward_prepare(struct block_plan *plan, const struct block_pass *pass,
                                         const struct backward_args *args) {
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
    float *dz = dz_of(plan, args);
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        const size_t o = (size_t)i * outputs;
        epilogue_backward(plan, pass, i, args->y + o, args->dy + o, dz + (size_t)i * inputs);
        poll_from_team(args->poll);
    }
    sum_batch(plan, pass->samples, args->x, dz);
    parameter_gradients(plan, args);
    return input_gradient_terms(plan, pass);
}

static void norm_backward(struct block_plan *plan, const struct block_pass *pass,
                          const struct backward_args *args) {
    const struct norm *norm = plan->forward;
    const size_t inputs = shape_size(plan->desc.input);
    if (plan->first)
        return;
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        const size_t o = (size_t)i * inputs;
        plan->kernels->norm->input_gradient(norm->pixels, norm->channels, norm->mean, norm->scale,
                                            norm->shift, norm->slope, args->x + o, args->dx + o,
                                            args->dx + o);
        poll_from_team(args->poll);
    }
}

const struct forward_kind forward_norm = {
    .name = "norm", .create = norm_create, .run = norm_forward, .prepare = norm_prepare};
const struct backward_kind backward_norm = {.name = "norm",
                                            .create = norm_backward_create,
                                            .run = norm_backward,
                                            .prepare = norm_backward_prepare};
