/* Convolution backward that skips what max-pooling, the activation and dropout zeroed.
 *
 * Of the pool * pool gradients of a window at most one is not zero: the one of the maximum, whose
 * place the forward pass left in the plan's state. With the others skipped, which is exact, an
 * image has one list of (place in the image, value) for each filter, and
 *     dW[f] = sum over the list of value * what the filter sees there,
 *     dX   += value * W[f] where the filter sees, for each entry of the list.
 * Both go through the image in slabs of one vector of channels, [h][w][lanes], and in bands of
 * rows, so that what is accessed at random fits the first-level cache. Without an input gradient,
 * a vector that would mostly be padding (an image of few channels) holds several pixels instead. */
#include "cpu.h"

#include <string.h>

/* Images whose weight gradients are added up one after the other by one thread; the sums of these
 * grains are then added in their order, whatever thread formed them. */
enum { GRAIN = 4 };

/* What is accessed at random: 24 of the 32 KiB that all first-level caches have. What is fetched
 * ahead: a quarter of a second level of 512 KiB, for each of x and dx. */
enum { CACHE_FLOATS = 6144, AHEAD_FLOATS = 32768, MOST_LANES = 16, PLACES = 256 };

struct sparse {
    struct sparse_slab slab;
    int slabs, taps;               /* of the image, and of a filter on one slab, in floats */
    int bands, band_rows;          /* of the pooled output */
    int32_t row_step, column_step; /* from one window to the next */
    int32_t places[PLACES];
    size_t slab_floats;     /* of scratch; the lists of all bands follow */
    size_t ahead_floats;    /* of an image, to be fetched while its lists are made */
    float *weights;         /* [slabs][filters][taps] */
    float *weight_gradient; /* [grains][slabs][filters][taps] */
    float *bias_gradient;   /* [grains][filters] */
};

static int grains(int samples) {
    return (samples + GRAIN - 1) / GRAIN;
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

bool backward_sparse_applies(const struct block_desc *desc) {
    const long long height = desc->input.height + 2LL * desc->padding;
    const long long width = desc->input.width + 2LL * desc->padding;
    /* Offsets are 32 bits, and a step may go beyond the last window. */
    return desc->pool > 1 && height <= INT32_MAX / (2 * MOST_LANES) / width;
}

/* ---- the plan ---- */

static void shape_slab(struct sparse *s, const struct block_desc *desc, int lanes, bool first) {
    const int channels = desc->input.channels;
    const int pixel = first && channels < lanes ? channels : lanes;
    s->slab = (struct sparse_slab){.height = desc->input.height,
                                   .width = desc->input.width,
                                   .channels = channels,
                                   .kernel = desc->kernel,
                                   .padding = desc->padding,
                                   .pixel = pixel,
                                   .vectors = divide_up(desc->kernel * pixel, lanes)};
    s->slab.row = (size_t)(desc->input.width + 2 * desc->padding) * (size_t)pixel;
    s->slabs = divide_up(channels, pixel);
    s->taps = desc->kernel * s->slab.vectors * lanes;
    s->slab_floats = (size_t)(desc->input.height + 2 * desc->padding) * s->slab.row + (size_t)lanes;
}

static void shape_bands(struct sparse *s, const struct block_desc *desc) {
    const int rows = CACHE_FLOATS / (int)s->slab.row; /* of the slab, in the cache */
    const int linear_rows = (rows - desc->kernel) / desc->stride + 1;
    const int fit = linear_rows < desc->pool ? 1 : linear_rows / desc->pool;
    s->bands = divide_up(desc->output.height, fit);
    s->band_rows = divide_up(desc->output.height, s->bands);
}

static void shape_windows(struct sparse *s, const struct block_desc *desc) {
    const int32_t right = desc->stride * s->slab.pixel;
    const int32_t down = desc->stride * (int32_t)s->slab.row;
    s->row_step = desc->pool * down;
    s->column_step = desc->pool * right;
    for (int i = 0; i < desc->pool; i++)
        for (int j = 0; j < desc->pool; j++)
            s->places[i * desc->pool + j] = i * down + j * right;
}

/* Room of one list. */
static int band_windows(const struct sparse *s, const struct block_desc *desc) {
    return s->band_rows * desc->output.width;
}

/* The lists of all bands, with their counts. */
static size_t lists_floats(const struct sparse *s, const struct block_desc *desc) {
    const size_t list =
        (size_t)band_windows(s, desc) * sizeof(struct sparse_entry) + sizeof(int32_t);
    return (size_t)s->bands * (size_t)desc->linear.channels * (list / sizeof(float));
}

static size_t taps_count(const struct block_plan *plan) {
    const struct sparse *s = plan->backward;
    return (size_t)s->slabs * (size_t)plan->desc.linear.channels * (size_t)s->taps;
}

static enum status sparse_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    const size_t partial = (size_t)grains(plan->max_samples);
    struct sparse *s;
    TRY(ARENA_ARRAY(plan->arena, 1, &s));
    plan->backward = s;
    shape_slab(s, desc, plan->kernels->lanes, plan->first);
    shape_bands(s, desc);
    shape_windows(s, desc);
    const size_t inputs = shape_size(desc->input);
    s->ahead_floats = inputs < AHEAD_FLOATS ? inputs : AHEAD_FLOATS;
    *scratch_floats = s->slab_floats + lists_floats(s, desc);
    TRY(ARENA_ARRAY(plan->arena, plan->first ? 0 : taps_count(plan), &s->weights));
    TRY(ARENA_ARRAY(plan->arena, partial * taps_count(plan), &s->weight_gradient));
    return ARENA_ARRAY(plan->arena, partial * (size_t)desc->linear.channels, &s->bias_gradient);
}

/* Where a filter's first weight of a channel lies in [slabs][filters][kernel][vectors][lanes]; the
 * kernel's columns and rows go on from there by steps. */
static size_t tap_offset(const struct block_plan *plan, int filter, int channel) {
    const struct sparse *s = plan->backward;
    const size_t slab = (size_t)(channel / s->slab.pixel), lane = (size_t)(channel % s->slab.pixel);
    const size_t block = slab * (size_t)plan->desc.linear.channels + (size_t)filter;
    return block * (size_t)s->taps + lane;
}

static void sparse_load(struct block_plan *plan) {
    const struct sparse *s = plan->backward;
    const int kernel = plan->desc.kernel, row = s->taps / kernel;
    const float *canonical = plan->weights;
    if (plan->first)
        return;
    for (int f = 0; f < plan->desc.linear.channels; f++)
        for (int c = 0; c < plan->desc.input.channels; c++) {
            float *ours = s->weights + tap_offset(plan, f, c);
            for (int i = 0; i < kernel; i++)
                for (int j = 0; j < kernel; j++)
                    ours[i * row + j * s->slab.pixel] = *canonical++;
        }
}

/* ---- one image ---- */

/* The calling thread's scratch. */
static struct sparse_lists band_lists(const struct block_plan *plan, int band) {
    const struct sparse *s = plan->backward;
    const int filters = plan->desc.linear.channels, capacity = band_windows(s, &plan->desc);
    const size_t lists = (size_t)s->bands * (size_t)filters, at = (size_t)band * (size_t)filters;
    struct sparse_entry *entries = (void *)(plan_scratch(plan) + s->slab_floats);
    int32_t *counts = (void *)(entries + lists * (size_t)capacity);
    return (struct sparse_lists){entries + at * (size_t)capacity, counts + at, filters, capacity};
}

/* Lists of all bands; meanwhile x and dx (or NULL) of the image are fetched, each band its share.
 */
static void list_bands(const struct block_plan *plan, const float *g, const uint8_t *state,
                       const float *x, const float *dx) {
    const struct sparse *s = plan->backward;
    const struct shape out = plan->desc.output;
    const size_t ahead = s->ahead_floats / (size_t)s->bands;
    for (int band = 0; band < s->bands; band++) {
        const int row = band * s->band_rows, left = out.height - row;
        const size_t at = (size_t)row * (size_t)out.width * (size_t)out.channels;
        const size_t next = (size_t)band * ahead;
        const struct sparse_windows windows = {.rows = left < s->band_rows ? left : s->band_rows,
                                               .columns = out.width,
                                               .first = row * s->row_step,
                                               .row_step = s->row_step,
                                               .column_step = s->column_step,
                                               .places = s->places,
                                               .ahead = {x + next, dx == NULL ? NULL : dx + next},
                                               .ahead_floats = ahead};
        const struct sparse_lists lists = band_lists(plan, band);
        plan->kernels->sparse->list_windows(&windows, g + at, state + at, &lists);
    }
}

/* An image that is a slab as it lies there, and needs no copy. */
static bool is_slab(const struct block_plan *plan) {
    return plan->desc.padding == 0 && plan->desc.input.channels == plan->kernels->lanes;
}

static void add_weight_gradient(const struct block_plan *plan, int channels, const float *x,
                                float *gradient) {
    const struct sparse *s = plan->backward;
    float *copy = plan_scratch(plan);
    if (!is_slab(plan))
        plan->kernels->sparse->fill_slab(&s->slab, channels, x, copy);
    for (int band = 0; band < s->bands; band++) {
        const struct sparse_lists lists = band_lists(plan, band);
        plan->kernels->sparse->weight_gradient(&s->slab, &lists, is_slab(plan) ? x : copy,
                                               gradient);
    }
}

static void input_gradient(const struct block_plan *plan, int channels, const float *weights,
                           float *dx) {
    const struct sparse *s = plan->backward;
    float *slab = is_slab(plan) ? dx : plan_scratch(plan);
    const size_t floats = s->slab_floats - (size_t)plan->kernels->lanes;
    memset(slab, 0, floats * sizeof *slab);
    for (int band = 0; band < s->bands; band++) {
        const struct sparse_lists lists = band_lists(plan, band);
        plan->kernels->sparse->input_gradient(&s->slab, &lists, weights, slab);
    }
    if (!is_slab(plan))
        plan->kernels->sparse->drain_slab(&s->slab, channels, slab, dx);
}

/* sum [filters] += the rows of g [windows][filters]. */
static void add_bias_gradient(int windows, int filters, const float *g, float *restrict sum) {
    for (int w = 0; w < windows; w++, g += filters)
        for (int f = 0; f < filters; f++)
            sum[f] += g[f];
}

static void backward_image(const struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args, int n) {
    const struct sparse *s = plan->backward;
    const struct block_desc *desc = &plan->desc;
    const int filters = desc->linear.channels, channels = desc->input.channels;
    const size_t grain = (size_t)(n / GRAIN), slab_taps = (size_t)filters * (size_t)s->taps;
    const size_t in = (size_t)n * shape_size(desc->input);
    const size_t out = (size_t)n * shape_size(desc->output);
    float *g = args->dy + out; /* in its place */
    epilogue_gradient(plan, pass, n, args->y + out, g, g);
    add_bias_gradient(desc->output.height * desc->output.width, filters, g,
                      s->bias_gradient + grain * (size_t)filters);
    list_bands(plan, g, plan->state + out, args->x + in, plan->first ? NULL : args->dx + in);
    for (int b = 0; b < s->slabs; b++) {
        const int first = b * s->slab.pixel, left = channels - first;
        const int count = left < s->slab.pixel ? left : s->slab.pixel;
        const size_t taps = (size_t)b * slab_taps;
        add_weight_gradient(plan, count, args->x + in + first,
                            s->weight_gradient + grain * taps_count(plan) + taps);
        if (!plan->first)
            input_gradient(plan, count, s->weights + taps, args->dx + in + first);
    }
}

/* ---- the batch ---- */

static void backward_grain(const struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args, int grain) {
    const struct sparse *s = plan->backward;
    const size_t filters = (size_t)plan->desc.linear.channels, taps = taps_count(plan);
    const int end = (grain + 1) * GRAIN;
    memset(s->bias_gradient + (size_t)grain * filters, 0, filters * sizeof(float));
    memset(s->weight_gradient + (size_t)grain * taps, 0, taps * sizeof(float));
    for (int n = grain * GRAIN; n < end && n < pass->samples; n++) {
        backward_image(plan, pass, args, n);
        poll_from_team(args->poll);
    }
}

/* Add up the grains' gradients of one filter on one slab, in the first one's place. */
static void reduce_taps(const struct block_plan *plan, int count, size_t block) {
    const struct sparse *s = plan->backward;
    float *restrict sum = s->weight_gradient + block * (size_t)s->taps;
    for (int g = 1; g < count; g++) {
        const float *restrict part = sum + (size_t)g * taps_count(plan);
        for (int t = 0; t < s->taps; t++)
            sum[t] += part[t];
    }
}

/* Hand the sums of one filter over, in the canonical order. */
static void reduce_filter(const struct block_plan *plan, int count, int filter,
                          const struct backward_args *args) {
    const struct sparse *s = plan->backward;
    const int kernel = plan->desc.kernel, row = s->taps / kernel;
    const int channels = plan->desc.input.channels, filters = plan->desc.linear.channels;
    float *canonical = args->dweights + (size_t)filter * (size_t)(channels * kernel * kernel);
    float bias = 0.0F;
    for (int b = 0; b < s->slabs; b++)
        reduce_taps(plan, count, (size_t)b * (size_t)filters + (size_t)filter);
    for (int c = 0; c < channels; c++) {
        const float *ours = s->weight_gradient + tap_offset(plan, filter, c);
        for (int i = 0; i < kernel; i++)
            for (int j = 0; j < kernel; j++)
                *canonical++ = ours[i * row + j * s->slab.pixel];
    }
    for (int g = 0; g < count; g++)
        bias += s->bias_gradient[(size_t)g * (size_t)filters + (size_t)filter];
    args->dbias[filter] = bias;
}

static void sparse_run(struct block_plan *plan, const struct block_pass *pass,
                       const struct backward_args *args) {
    const int count = grains(pass->samples);
#pragma omp parallel num_threads(plan->threads)
    {
#pragma omp for schedule(dynamic)
        for (int g = 0; g < count; g++)
            backward_grain(plan, pass, args, g);
#pragma omp for
        for (int f = 0; f < plan->desc.linear.channels; f++)
            reduce_filter(plan, count, f, args);
    }
}

const struct backward_kind backward_sparse = {"sparse", sparse_create, sparse_load, sparse_run,
                                              NULL};
