/* Dense layers under DropConnect (Wan et al. 2013): each sample has a mask of its own over the
 * connections, drawn in the forward pass and kept for the backward pass as bits. */
#include "cpu.h"

#include <math.h>
#include <string.h>

struct dropconnect {
    size_t inputs, units;
    size_t row;          /* 32-bit words of a unit's bits */
    uint32_t *bits;      /* [max_samples][units][row] */
    uint32_t *bias_bits; /* [max_samples][bias_row] */
    size_t bias_row;
    const float *bias; /* as loaded; the plan's own is zero, since it joins before the activation */
    float *zeros;      /* [units, or draws if more] */
};

static size_t words_for(size_t bits) {
    return (bits + 31) / 32;
}

static enum status create(struct block_plan *plan, size_t *scratch_floats) {
    struct dropconnect *drop;
    const size_t samples = (size_t)plan->max_samples, draws = (size_t)plan->desc.dropconnect_draws;
    TRY(ARENA_ARRAY(plan->arena, 1, &drop));
    drop->inputs = shape_size(plan->desc.input);
    drop->units = (size_t)plan->desc.linear.channels;
    drop->row = words_for(drop->inputs);
    drop->bias_row = words_for(drop->units);
    TRY(ARENA_ARRAY(plan->arena, samples * drop->units * drop->row, &drop->bits));
    TRY(ARENA_ARRAY(plan->arena, samples * drop->bias_row, &drop->bias_bits));
    TRY(ARENA_ARRAY(plan->arena, drop->units > draws ? drop->units : draws, &drop->zeros));
    plan->forward = drop;
    const size_t most = drop->inputs > drop->units ? drop->inputs : drop->units;
    const size_t words = 32 * words_for(most) + 4 + PHILOX_DRAWS_MOST;
    *scratch_floats = words > draws ? words : draws;
    return ST_OK;
}

/* No other forward kind pairs with it. */
static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    plan->backward = plan->forward;
    *scratch_floats = 0;
    return ST_OK;
}

static void load(struct block_plan *plan) {
    struct dropconnect *drop = plan->forward;
    drop->bias = plan->bias;
    plan->bias = drop->zeros;
}

static const float *weights_of(const struct block_plan *plan, size_t unit) {
    return plan->weights + unit * ((const struct dropconnect *)plan->forward)->inputs;
}

static uint32_t *bits_of(const struct dropconnect *drop, int sample, size_t unit) {
    return drop->bits + ((size_t)sample * drop->units + unit) * drop->row;
}

static bool keeps_bias(const struct dropconnect *drop, int sample, size_t unit) {
    return drop->bias_bits[(size_t)sample * drop->bias_row + unit / 32] >> unit % 32 & 1;
}

/* ---- training ---- */

static void train_sample(const struct block_plan *plan, const struct block_pass *pass, int sample,
                         const float *x, float *z) {
    const struct dropconnect *drop = plan->forward;
    const struct connect_kernels *kernels = plan->kernels->connect;
    const float rate = plan->desc.dropconnect;
    uint32_t *words = (uint32_t *)plan_scratch(plan);
    const struct rng_counter counter = {.sample = pass->sample_ids[sample],
                                        .time = pass->update,
                                        .stream = rng_stream(RNG_DROPCONNECT, plan->desc.layer)};
    kernels->draw(pass->seed, counter, (uint32_t)(drop->units * drop->inputs), rate, drop->units,
                  words, drop->bias_bits + (size_t)sample * drop->bias_row);
    for (size_t k = 0; k < drop->units; k++) {
        uint32_t *bits = bits_of(drop, sample, k);
        kernels->draw(pass->seed, counter, (uint32_t)(k * drop->inputs), rate, drop->inputs, words,
                      bits);
        z[k] = kernels->dot(drop->inputs, bits, weights_of(plan, k), x) +
               (keeps_bias(drop, sample, k) ? drop->bias[k] : 0.0F);
    }
}

/* ---- evaluation ---- */

/* The mean and the standard deviation of a unit's input over all masks. */
struct gaussian {
    float mean, deviation;
};

static struct gaussian input_of(const struct block_plan *plan, size_t unit, const float *x) {
    const struct dropconnect *drop = plan->forward;
    const float bias = drop->bias[unit], p = 1.0F - plan->desc.dropconnect;
    float sum, squares;
    plan->kernels->connect->moments(drop->inputs, weights_of(plan, unit), x, &sum, &squares);
    return (struct gaussian){p * (sum + bias), sqrtf(p * (1.0F - p) * (squares + bias * bias))};
}

/* Two standard normals of two words. */
static void normal_pair(const uint32_t *words, float *pair) {
    const float radius = sqrtf(-2.0F * logf(1.0F - rng_uniform(words[0])));
    const float angle = 6.2831853F * rng_uniform(words[1]);
    pair[0] = radius * cosf(angle);
    pair[1] = radius * sinf(angle);
}

/* Standard normals of the units first .. first + count - 1 of the counter's draws. */
static void draw_normals(uint64_t seed, struct rng_counter counter, size_t first, size_t count,
                         float *normals) {
    for (size_t unit = first / 4 * 4; unit < first + count; unit += 4) {
        uint32_t words[4];
        float four[4];
        counter.group = (uint32_t)(unit / 4);
        rng_philox(seed, counter, words);
        normal_pair(words, four);
        normal_pair(words + 2, four + 2);
        for (size_t i = 0; i < 4; i++)
            if (unit + i >= first && unit + i < first + count)
                normals[unit + i - first] = four[i];
    }
}

/* The mean of the activation over draws of the unit's input. */
static float mean_activation(const struct block_plan *plan, struct gaussian input, uint64_t seed,
                             struct rng_counter counter, size_t unit) {
    const struct dropconnect *drop = plan->forward;
    const size_t draws = (size_t)plan->desc.dropconnect_draws;
    float *a = plan_scratch(plan);
    double sum = 0;
    draw_normals(seed, counter, unit * draws, draws, a);
    for (size_t d = 0; d < draws; d++)
        a[d] = input.mean + input.deviation * a[d];
    plan->kernels->epilogue->activate(plan->desc.activation, 1, draws, drop->zeros, a, a);
    for (size_t d = 0; d < draws; d++)
        sum += (double)a[d];
    return (float)(sum / (double)draws);
}

static void evaluate_sample(const struct block_plan *plan, const struct block_pass *pass,
                            int sample, const float *x, float *y) {
    const struct dropconnect *drop = plan->forward;
    const struct rng_counter counter = {.sample = pass->sample_ids[sample],
                                        .stream =
                                            rng_stream(RNG_DROPCONNECT_DRAWS, plan->desc.layer)};
    for (size_t k = 0; k < drop->units; k++) {
        const struct gaussian input = input_of(plan, k, x);
        y[k] = plan->desc.dropconnect_draws == 0
                   ? input.mean
                   : mean_activation(plan, input, pass->seed, counter, k);
    }
    if (plan->desc.dropconnect_draws == 0)
        plan->kernels->epilogue->activate(plan->desc.activation, 1, drop->units, drop->zeros, y, y);
}

static void forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                    float *y) {
    const struct dropconnect *drop = plan->forward;
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        const float *row = x + (size_t)i * drop->inputs;
        float *out = y + (size_t)i * drop->units;
        if (!pass->training) {
            evaluate_sample(plan, pass, i, row, out);
            continue;
        }
        train_sample(plan, pass, i, row, out);
        epilogue_forward(plan, pass, i, out, out);
    }
}

/* ---- backward ---- */

/* Gradients of one unit's weights and bias. */
static void unit_gradient(const struct block_plan *plan, int samples, size_t unit,
                          const struct backward_args *args) {
    const struct dropconnect *drop = plan->forward;
    float *dweights = args->dweights + unit * drop->inputs, dbias = 0.0F;
    memset(dweights, 0, drop->inputs * sizeof *dweights);
    for (int i = 0; i < samples; i++) {
        const float dz = args->dy[(size_t)i * drop->units + unit];
        if (dz == 0.0F)
            continue;
        plan->kernels->connect->add(drop->inputs, bits_of(drop, i, unit), dz,
                                    args->x + (size_t)i * drop->inputs, dweights);
        dbias += keeps_bias(drop, i, unit) ? dz : 0.0F;
    }
    args->dbias[unit] = dbias;
}

static void sample_gradient(const struct block_plan *plan, int sample,
                            const struct backward_args *args) {
    const struct dropconnect *drop = plan->forward;
    const float *dz = args->dy + (size_t)sample * drop->units;
    float *dx = args->dx + (size_t)sample * drop->inputs;
    memset(dx, 0, drop->inputs * sizeof *dx);
    for (size_t k = 0; k < drop->units; k++)
        if (dz[k] != 0.0F)
            plan->kernels->connect->add(drop->inputs, bits_of(drop, sample, k), dz[k],
                                        weights_of(plan, k), dx);
}

static void backward(struct block_plan *plan, const struct block_pass *pass,
                     const struct backward_args *args) {
    const struct dropconnect *drop = plan->forward;
#pragma omp parallel num_threads(plan->threads)
    {
#pragma omp for
        for (int i = 0; i < pass->samples; i++) {
            const size_t o = (size_t)i * drop->units;
            epilogue_backward(plan, pass, i, args->y + o, args->dy + o, args->dy + o);
        }
#pragma omp for nowait
        for (size_t k = 0; k < drop->units; k++) {
            unit_gradient(plan, pass->samples, k, args);
            poll_from_team(args->poll);
        }
#pragma omp for
        for (int i = 0; i < pass->samples; i++)
            if (!plan->first)
                sample_gradient(plan, i, args);
    }
}

bool dropconnect_applies(const struct block_desc *desc) {
    return desc->dropconnect > 0.0F;
}

const struct forward_kind forward_dropconnect = {
    .name = "dropconnect", .create = create, .load = load, .run = forward};
const struct backward_kind backward_dropconnect = {
    .name = "dropconnect", .create = backward_create, .run = backward};
