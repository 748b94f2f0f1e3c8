/* Block plans: checks, memory, and the part that all blocks share. */
#include "cpu.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { CACHE_LINE_FLOATS = 16 };

/* ---- activations ---- */

/* An activation as loops over memory. Forward: a = value of v = z + bias, [pixels][channels].
 * Backward: g = dy * scale * slope, the slope from the activation a = y / scale (`keep` is
 * 1 / scale), so that nothing but y needs to be stored. */
struct activation_loops {
    void (*forward)(size_t pixels, size_t channels, const float *bias, const float *z, float *a);
    void (*backward)(size_t count, float keep, const float *y, const float *dy, float *g);
};

#define DEFINE_ACTIVATION(name, value, slope)                                                      \
    static void name##_forward(size_t pixels, size_t channels, const float *bias, const float *z,  \
                               float *output) {                                                    \
        for (size_t p = 0; p < pixels; p++, z += channels, output += channels)                     \
            for (size_t k = 0; k < channels; k++) {                                                \
                const float v = z[k] + bias[k];                                                    \
                output[k] = (value);                                                               \
            }                                                                                      \
    }                                                                                              \
    static void name##_backward(size_t count, float keep, const float *y, const float *dy,         \
                                float *g) {                                                        \
        const float scale = 1.0F / keep;                                                           \
        for (size_t i = 0; i < count; i++) {                                                       \
            const float a = y[i] * keep;                                                           \
            (void)a;                                                                               \
            g[i] = dy[i] * scale * (slope);                                                        \
        }                                                                                          \
    }

DEFINE_ACTIVATION(none, v, 1.0F)
DEFINE_ACTIVATION(relu, 0.0F > v ? 0.0F : v, (float)(a > 0.0F)) /* a NaN stays one */
DEFINE_ACTIVATION(sigmoid, 1.0F / (1.0F + expf(-v)), a *(1.0F - a))
DEFINE_ACTIVATION(tanh, tanhf(v), (1.0F - a) * (1.0F + a))

static const struct activation_loops activations[ACTIVATION_COUNT] = {
    [ACTIVATION_NONE] = {none_forward, none_backward},
    [ACTIVATION_RELU] = {relu_forward, relu_backward},
    [ACTIVATION_SIGMOID] = {sigmoid_forward, sigmoid_backward},
    [ACTIVATION_TANH] = {tanh_forward, tanh_backward},
};

/* ---- pooling ---- */

enum { CHANNELS_AT_ONCE = 64 }; /* of one window, in local arrays */

/* A window of up to CHANNELS_AT_ONCE channels. */
struct window {
    int pool, count;
    size_t row, column; /* floats to the next row and column of the image */
};

static void window_maximum(const struct window *w, const float *a, float *y, uint8_t *state) {
    float best[CHANNELS_AT_ONCE];
    int32_t place[CHANNELS_AT_ONCE] = {0};
    memcpy(best, a, (size_t)w->count * sizeof *best);
    for (int i = 0; i < w->pool; i++)
        for (int j = 0; j < w->pool; j++) {
            const float *candidate = a + (size_t)i * w->row + (size_t)j * w->column;
            const int32_t here = i * w->pool + j;
            for (int k = 0; k < w->count; k++) {
                const int32_t all_if_larger = -(candidate[k] > best[k]); /* no branch: a vector */
                place[k] = (here & all_if_larger) | (place[k] & ~all_if_larger);
                best[k] = candidate[k] > best[k] ? candidate[k] : best[k];
            }
        }
    for (int k = 0; k < w->count; k++) {
        y[k] = best[k];
        state[k] = (uint8_t)place[k];
    }
}

/* g goes to the place of each maximum; what is dropped (no place) and the rest get 0. */
static void window_spread(const struct window *w, const float *g, const uint8_t *state, float *dz) {
    for (int i = 0; i < w->pool; i++)
        for (int j = 0; j < w->pool; j++) {
            float *target = dz + (size_t)i * w->row + (size_t)j * w->column;
            const int here = i * w->pool + j;
            for (int k = 0; k < w->count; k++)
                target[k] = state[k] == here ? g[k] : 0.0F;
        }
}

static struct window window_of(const struct block_desc *desc, int channel) {
    const int left = desc->linear.channels - channel;
    return (struct window){
        .pool = desc->pool,
        .count = left < CHANNELS_AT_ONCE ? left : CHANNELS_AT_ONCE,
        .row = (size_t)desc->linear.width * (size_t)desc->linear.channels,
        .column = (size_t)desc->linear.channels,
    };
}

/* Offset into z of the window's first pixel. */
static size_t window_start(const struct block_desc *desc, int row, int column) {
    const size_t pixel = (size_t)row * (size_t)desc->pool * (size_t)desc->linear.width +
                         (size_t)column * (size_t)desc->pool;
    return pixel * (size_t)desc->linear.channels;
}

static void pool_forward(const struct block_desc *desc, const float *a, float *y, uint8_t *state) {
    const int channels = desc->output.channels;
    for (int row = 0; row < desc->output.height; row++)
        for (int column = 0; column < desc->output.width; column++) {
            const float *window = a + window_start(desc, row, column);
            for (int k = 0; k < channels; k += CHANNELS_AT_ONCE) {
                const struct window w = window_of(desc, k);
                window_maximum(&w, window + k, y + k, state + k);
            }
            y += channels;
            state += channels;
        }
}

static void pool_backward(const struct block_desc *desc, float keep, const uint8_t *state,
                          const float *y, const float *dy, float *dz) {
    const int channels = desc->output.channels;
    float g[CHANNELS_AT_ONCE];
    if (desc->linear.height % desc->pool != 0 || desc->linear.width % desc->pool != 0)
        memset(dz, 0, shape_size(desc->linear) * sizeof *dz); /* windows that were cut off */
    for (int row = 0; row < desc->output.height; row++)
        for (int column = 0; column < desc->output.width; column++) {
            float *window = dz + window_start(desc, row, column);
            for (int k = 0; k < channels; k += CHANNELS_AT_ONCE) {
                const struct window w = window_of(desc, k);
                activations[desc->activation].backward((size_t)w.count, keep, y + k, dy + k, g);
                window_spread(&w, g, state + k, window + k);
            }
            y += channels;
            dy += channels;
            state += channels;
        }
}

/* ---- dropout ---- */

static bool drops(const struct block_plan *plan, const struct block_pass *pass) {
    return pass->training && plan->desc.dropout > 0.0F;
}

void epilogue_dropout(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *y) {
    if (!drops(plan, pass))
        return;
    const float rate = plan->desc.dropout, scale = 1.0F / (1.0F - rate);
    const size_t units = shape_size(plan->desc.output);
    uint8_t *state = plan->state + (size_t)sample * units;
    struct rng_counter counter = {.sample = pass->sample_ids[sample],
                                  .time = pass->update,
                                  .stream = rng_stream(RNG_DROPOUT, plan->desc.layer)};
    for (size_t unit = 0; unit < units; unit += 4, counter.group++) {
        uint32_t words[4];
        rng_philox(pass->seed, counter, words);
        for (size_t lane = 0; lane < 4 && unit + lane < units; lane++) {
            const bool dropped = rng_uniform(words[lane]) < rate;
            y[unit + lane] = dropped ? 0.0F : y[unit + lane] * scale;
            state[unit + lane] = dropped ? STATE_DROPPED : state[unit + lane];
        }
    }
}

/* ---- the epilogue ---- */

void epilogue_forward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *z, float *y) {
    const struct block_desc *desc = &plan->desc;
    const size_t units = shape_size(desc->output), channels = (size_t)desc->linear.channels;
    const size_t pixels = (size_t)desc->linear.height * (size_t)desc->linear.width;
    uint8_t *state = plan->state + (size_t)sample * units;
    float *a = desc->pool > 1 ? z : y;
    activations[desc->activation].forward(pixels, channels, plan->bias, z, a);
    if (desc->pool > 1)
        pool_forward(desc, a, y, state);
    else if (drops(plan, pass))
        memset(state, 0, units);
    epilogue_dropout(plan, pass, sample, y);
}

void epilogue_backward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                       const float *y, const float *dy, float *dz) {
    const struct block_desc *desc = &plan->desc;
    const size_t units = shape_size(desc->output);
    const uint8_t *state = plan->state + (size_t)sample * units;
    const float keep = drops(plan, pass) ? 1.0F - desc->dropout : 1.0F;
    if (desc->pool > 1) {
        pool_backward(desc, keep, state, y, dy, dz);
        return;
    }
    activations[desc->activation].backward(units, keep, y, dy, dz);
    if (drops(plan, pass))
        for (size_t i = 0; i < units; i++)
            dz[i] = state[i] == STATE_DROPPED ? 0.0F : dz[i];
}

/* ---- the linear part of a block that has none ---- */

static enum status pass_create(struct block_plan *plan, size_t *scratch_floats) {
    float *zeros;
    TRY(ARENA_ARRAY(plan->arena, (size_t)plan->desc.linear.channels, &zeros));
    plan->bias = zeros;
    *scratch_floats = shape_size(plan->desc.linear);
    return ST_OK;
}

static void pass_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                         float *y) {
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
#pragma omp parallel for num_threads(plan->threads)
    for (int i = 0; i < pass->samples; i++) {
        float *z = plan_scratch(plan);
        memcpy(z, x + (size_t)i * inputs, inputs * sizeof *z);
        epilogue_forward(plan, pass, i, z, y + (size_t)i * outputs);
    }
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

const struct forward_kind forward_pass = {"pass", pass_create, NULL, pass_forward};
const struct backward_kind backward_pass = {"pass", pass_backward_create, NULL, pass_backward};

/* ---- checks ---- */

static enum status check_positive(const struct block_desc *desc, const char *what, struct shape s) {
    if (s.height < 1 || s.width < 1 || s.channels < 1 ||
        (size_t)s.height * (size_t)s.width > INT_MAX / (size_t)s.channels)
        FAIL(ST_SHAPE,
             "block %u: %s of %dx%dx%d, expected sizes of at least 1 and at most %d values",
             desc->layer, what, s.height, s.width, s.channels, INT_MAX);
    return ST_OK;
}

/* Places of a kernel along one side of the image; 0 when it does not fit. */
static int places(const struct block_desc *desc, int side) {
    const long long room = (long long)side + 2LL * desc->padding - desc->kernel;
    return room < 0 ? 0 : (int)(room / desc->stride + 1);
}

static enum status check_conv(const struct block_desc *desc) {
    if (desc->kernel < 1 || desc->stride < 1 || desc->padding < 0)
        FAIL(ST_SHAPE, "block %u: kernel %d, stride %d, padding %d, expected at least 1, 1 and 0",
             desc->layer, desc->kernel, desc->stride, desc->padding);
    const long long positions = (long long)desc->kernel * desc->kernel;
    if (positions > INT_MAX / desc->input.channels)
        FAIL(ST_SHAPE, "block %u: kernel %d on %d channels is too large", desc->layer, desc->kernel,
             desc->input.channels);
    const int height = places(desc, desc->input.height), width = places(desc, desc->input.width);
    if (desc->linear.height != height || desc->linear.width != width)
        FAIL(ST_SHAPE, "block %u: kernel %d, stride %d, padding %d on %dx%d gives %dx%d, not %dx%d",
             desc->layer, desc->kernel, desc->stride, desc->padding, desc->input.height,
             desc->input.width, height, width, desc->linear.height, desc->linear.width);
    return ST_OK;
}

static enum status check_dense(const struct block_desc *desc) {
    if (desc->linear.height != 1 || desc->linear.width != 1)
        FAIL(ST_SHAPE, "block %u: dense units in the shape %dx%dx%d, expected 1x1x%d", desc->layer,
             desc->linear.height, desc->linear.width, desc->linear.channels, desc->linear.channels);
    return ST_OK;
}

static enum status check_pass(const struct block_desc *desc) {
    const struct shape in = desc->input, z = desc->linear;
    if (in.height != z.height || in.width != z.width || in.channels != z.channels)
        FAIL(ST_SHAPE, "block %u: no linear map, yet %dx%dx%d becomes %dx%dx%d", desc->layer,
             in.height, in.width, in.channels, z.height, z.width, z.channels);
    return ST_OK;
}

static enum status check_epilogue(const struct block_desc *desc) {
    const struct shape z = desc->linear, out = desc->output;
    if (desc->pool < 1 || desc->pool > 15)
        FAIL(ST_SHAPE, "block %u: pool %d, expected 1 to 15", desc->layer, desc->pool);
    if (out.height != z.height / desc->pool || out.width != z.width / desc->pool ||
        out.channels != z.channels)
        FAIL(ST_SHAPE, "block %u: pool %d of %dx%dx%d gives %dx%dx%d, not %dx%dx%d", desc->layer,
             desc->pool, z.height, z.width, z.channels, z.height / desc->pool, z.width / desc->pool,
             z.channels, out.height, out.width, out.channels);
    if (!(desc->dropout >= 0.0F && desc->dropout < 1.0F))
        FAIL(ST_SHAPE, "block %u: dropout %g, expected at least 0 and less than 1", desc->layer,
             (double)desc->dropout);
    return ST_OK;
}

static enum status (*const checks[])(const struct block_desc *desc) = {
    [BLOCK_CONV] = check_conv,
    [BLOCK_DENSE] = check_dense,
    [BLOCK_PASS] = check_pass,
};

static enum status check(const struct block_desc *desc, int max_samples) {
    if (max_samples < 0)
        FAIL(ST_SHAPE, "block %u: passes of %d samples", desc->layer, max_samples);
    TRY(check_positive(desc, "an input", desc->input));
    TRY(check_positive(desc, "a linear map", desc->linear));
    TRY(checks[desc->kind](desc));
    TRY(check_epilogue(desc));
    return check_positive(desc, "an output", desc->output);
}

/* ---- plans ---- */

static enum status plan_allocate(struct block_plan *plan) {
    const size_t units = shape_size(plan->desc.output);
    size_t floats = 0, backward_floats = 0;
    TRY(plan->forward_kind->create(plan, &floats));
    TRY(plan->backward_kind->create(plan, &backward_floats));
    floats = floats > backward_floats ? floats : backward_floats;
    plan->scratch_size = (floats + CACHE_LINE_FLOATS - 1) / CACHE_LINE_FLOATS * CACHE_LINE_FLOATS;
    TRY(arena_alloc(plan->arena, (size_t)plan->threads, plan->scratch_size * sizeof(float),
                    (void **)&plan->scratch));
    return arena_alloc(plan->arena, (size_t)plan->max_samples, units, (void **)&plan->state);
}

enum status cpu_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                  int max_samples, bool first, struct block_plan **plan) {
    const char *conv = ((const struct cpu_backend *)backend)->conv;
    struct arena *arena;
    *plan = NULL;
    TRY(check(desc, max_samples));
    TRY(arena_create(&arena));
    struct block_plan *p;
    enum status status;
    TRY_OUT(ARENA_ARRAY(arena, 1, &p));
    *p = (struct block_plan){.desc = *desc,
                             .threads = backend->threads,
                             .max_samples = max_samples,
                             .first = first,
                             .kernels = cpu_kernels(backend),
                             .forward_kind = choose_forward(desc, conv),
                             .backward_kind = choose_backward(desc, conv),
                             .arena = arena};
    TRY_OUT(plan_allocate(p));
    *plan = p;
    return ST_OK;
out:
    arena_destroy(arena);
    return status;
}

void cpu_block_plan_destroy(struct block_plan *plan) {
    if (plan != NULL)
        arena_destroy(plan->arena); /* which holds the plan itself */
}

void cpu_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                               const char **backward) {
    *forward = plan->forward_kind->name;
    *backward = plan->backward_kind->name;
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

static enum status check_samples(const struct block_plan *plan, const struct block_pass *pass) {
    if (pass->samples < 0 || pass->samples > plan->max_samples)
        FAIL(ST_SHAPE, "block %u: a pass of %d samples, planned for 0 to %d", plan->desc.layer,
             pass->samples, plan->max_samples);
    return ST_OK;
}

enum status cpu_block_forward(struct block_plan *plan, const struct block_pass *pass,
                              const float *x, float *y) {
    TRY(check_samples(plan, pass));
    if (pass->samples > 0)
        plan->forward_kind->run(plan, pass, x, y);
    return ST_OK;
}

enum status cpu_block_backward(struct block_plan *plan, const struct block_pass *pass,
                               const float *x, const float *y, float *dy, float *dweights,
                               float *dbias, float *dx, struct poll poll) {
    TRY(check_samples(plan, pass));
    const struct backward_args args = {x, y, dy, dweights, dbias, dx, poll};
    if (pass->samples > 0)
        plan->backward_kind->run(plan, pass, &args);
    else if (plan->desc.kind != BLOCK_PASS) {
        memset(dweights, 0, block_weights(&plan->desc) * sizeof *dweights);
        memset(dbias, 0, block_biases(&plan->desc) * sizeof *dbias);
    }
    return ST_OK;
}
