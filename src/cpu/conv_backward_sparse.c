/* Convolution backward that skips what max-pooling, the activation and dropout zeroed.
 *
 * Of the pool * pool gradients of a window at most one is not zero: the one of the maximum, whose
 * place the forward pass left in the plan's state. With the others skipped, which is exact, an
 * image has one list of (place in the image, value) for each filter, and
 *     dW[f] = sum over the list of value * what the filter sees there,
 *     dX   += value * W[f] where the filter sees, for each entry of the list.
 * Both go through the image in bands of rows, and where a row is long in slabs of some of its
 * channels, so that what is accessed at random fits the first-level cache. Channels are filled up
 * to whole vectors; but without an input gradient, a vector that would mostly be padding (an image
 * of few channels) holds several pixels instead. */
#include "cpu.h"

#include <string.h>

/* What is accessed at random: 28 of the 32 KiB that all first-level caches have. What is fetched
 * ahead: a quarter of a second level of 512 KiB. */
enum { CACHE_FLOATS = 10240, AHEAD_FLOATS = 32768, MOST_LANES = 16, PLACES = 256 };

struct sparse {
    struct sparse_slab slab;
    int slabs, taps;      /* of the image, and of a filter on one slab, in floats */
    int bands, band_rows; /* of the pooled output */
    uint32_t row_step;    /* from one row of windows to the next */
    uint32_t *corners;    /* [a band's windows]: sparse_windows */
    uint32_t places[PLACES];
    int capacity;           /* of a list */
    size_t slab_floats;     /* of scratch; the lists of all bands follow */
    size_t ahead_floats;    /* of an image, to be fetched while its lists are made */
    float *weights;         /* [slabs][filters][taps] */
    float *weight_gradient; /* [grains][slabs][filters][taps] */
    float *bias_gradient;   /* [grains][filters] */
};

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

bool backward_sparse_applies(const struct block_desc *desc) {
    const long long height = desc->input.height + 2LL * desc->padding;
    const long long width = desc->input.width + 2LL * desc->padding;
    const long long pixel = desc->input.channels + MOST_LANES;
    /* Offsets are 32 bits, and a step may go beyond the last window. */
    return desc->pool > 1 && height <= INT32_MAX / (2 * pixel) / width;
}

/* ---- the plan ---- */

/* Rows of the slab that the cache holds, for pixels of so many floats. */
static int rows_in_cache(const struct block_desc *desc, int pixel) {
    const long long row = (desc->input.width + 2LL * desc->padding) * pixel;
    return (int)(CACHE_FLOATS / row);
}

/* Floats of a pixel: as many channels as leave room for the rows that a row of windows sees. */
static int choose_pixel(const struct block_desc *desc, int lanes, bool first) {
    const int channels = desc->input.channels, vectors = divide_up(channels, lanes);
    const int rows = (desc->pool - 1) * desc->stride + desc->kernel;
    if (first && channels < lanes)
        return channels;
    int fit = vectors;
    while (fit > 1 && rows_in_cache(desc, fit * lanes) < rows)
        fit--;
    return divide_up(vectors, divide_up(vectors, fit)) * lanes;
}

static void shape_slab(struct sparse *s, const struct block_desc *desc, int lanes, bool first) {
    const int channels = desc->input.channels, pixel = choose_pixel(desc, lanes, first);
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

static void shape_bands(struct sparse *s, const struct block_desc *desc, int lanes) {
    const int rows = rows_in_cache(desc, s->slab.pixel);
    const int linear_rows = (rows - desc->kernel) / desc->stride + 1;
    const int fit = linear_rows < desc->pool ? 1 : linear_rows / desc->pool;
    s->bands = divide_up(desc->output.height, fit);
    s->band_rows = divide_up(desc->output.height, s->bands);
    s->capacity = divide_up(s->band_rows * desc->output.width, lanes) * lanes + lanes;
}

static enum status shape_windows(struct block_plan *plan, struct sparse *s) {
    const struct block_desc *desc = &plan->desc;
    const uint32_t right = (uint32_t)(desc->stride * s->slab.pixel);
    const uint32_t down = (uint32_t)desc->stride * (uint32_t)s->slab.row;
    const uint32_t pool = (uint32_t)desc->pool, columns = (uint32_t)desc->output.width;
    const size_t windows = (size_t)s->band_rows * (size_t)columns;
    s->row_step = pool * down;
    for (uint32_t place = 0; place < pool * pool; place++)
        s->places[place] = place / pool * down + place % pool * right;
    TRY(ARENA_ARRAY(plan->arena, windows, &s->corners));
    for (uint32_t w = 0; w < windows; w++)
        s->corners[w] = w / columns * s->row_step + w % columns * pool * right;
    return ST_OK;
}

/* The lists of all bands, with their counts. */
static size_t lists_floats(const struct sparse *s, const struct block_desc *desc) {
    return (size_t)s->bands * (size_t)desc->linear.channels * (2 * (size_t)s->capacity + 1);
}

static size_t taps_count(const struct block_plan *plan) {
    const struct sparse *s = plan->backward;
    return (size_t)s->slabs * (size_t)plan->desc.linear.channels * (size_t)s->taps;
}

static enum status sparse_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    const size_t partial = images_grains(plan);
    struct sparse *s;
    TRY(ARENA_ARRAY(plan->arena, 1, &s));
    plan->backward = s;
    shape_slab(s, desc, plan->kernels->lanes, plan->first);
    shape_bands(s, desc, plan->kernels->lanes);
    TRY(shape_windows(plan, s));
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
    const int filters = plan->desc.linear.channels;
    const size_t lists = (size_t)s->bands * (size_t)filters, at = (size_t)band * (size_t)filters;
    const size_t capacity = (size_t)s->capacity;
    float *values = plan_scratch(plan) + s->slab_floats;
    uint32_t *offsets = (void *)(values + lists * capacity);
    int32_t *counts = (void *)(offsets + lists * capacity);
    return (struct sparse_lists){values + at * capacity, offsets + at * capacity, counts + at,
                                 filters, s->capacity};
}

/* Lists of all bands, and the bias' gradient. */
static void list_bands(const struct block_plan *plan, const float *g, const uint8_t *state,
                       const float *x, float *bias) {
    const struct sparse *s = plan->backward;
    const struct shape out = plan->desc.output;
    const size_t ahead = s->ahead_floats / (size_t)s->bands;
    for (int band = 0; band < s->bands; band++) {
        const int row = band * s->band_rows;
        const size_t at = (size_t)row * (size_t)out.width * (size_t)out.channels;
        const struct sparse_windows windows = {.count = smaller(out.height - row, s->band_rows) *
                                                        out.width,
                                               .first = (uint32_t)row * s->row_step,
                                               .corners = s->corners,
                                               .places = s->places,
                                               .ahead = x + (size_t)band * ahead,
                                               .ahead_floats = ahead};
        const struct sparse_lists lists = band_lists(plan, band);
        plan->kernels->sparse->list_windows(&windows, g + at, state + at, &lists, bias);
    }
}

/* An image that is a slab as it lies there, and needs no copy. */
static bool is_slab(const struct block_plan *plan) {
    const struct sparse *s = plan->backward;
    return plan->desc.padding == 0 && plan->desc.input.channels == s->slab.pixel &&
           s->slab.pixel % plan->kernels->lanes == 0;
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

/* Blank windows count for no list. */
static void leave_out(const struct block_plan *plan, int sample, float *g) {
    const uint8_t *map = blank_to_leave_out(plan, sample);
    const size_t filters = (size_t)plan->desc.linear.channels;
    const size_t windows = shape_size(plan->desc.output) / filters;
    for (size_t w = 0, end; map != NULL && w < windows; w = end + 1) {
        for (end = w; end < windows && map[end] != 0;)
            end++;
        plan->kernels->direct->sum_pixels(end - w, filters, g + w * filters,
                                          blank_left_out(plan, sample / GRAIN_IMAGES));
        memset(g + w * filters, 0, (end - w) * filters * sizeof *g);
    }
}

static void sparse_begin(const struct block_plan *plan, int grain) {
    const struct sparse *s = plan->backward;
    const size_t filters = (size_t)plan->desc.linear.channels, taps = taps_count(plan);
    memset(s->bias_gradient + (size_t)grain * filters, 0, filters * sizeof(float));
    memset(s->weight_gradient + (size_t)grain * taps, 0, taps * sizeof(float));
}

static void sparse_image(const struct block_plan *plan, const struct image_gradient *image) {
    const struct sparse *s = plan->backward;
    const size_t filters = (size_t)plan->desc.linear.channels;
    const size_t grain = (size_t)(image->sample / GRAIN_IMAGES);
    const uint8_t *state = plan->state + (size_t)image->sample * shape_size(plan->desc.output);
    float *g = image->dy; /* in its place */
    epilogue_gradient(plan, image->pass, image->sample, image->y, g, g);
    leave_out(plan, image->sample, g);
    list_bands(plan, g, state, image->x, s->bias_gradient + grain * filters);
    for (int b = 0; b < s->slabs; b++) {
        const int first = b * s->slab.pixel;
        const int count = smaller(plan->desc.input.channels - first, s->slab.pixel);
        const size_t taps = (size_t)b * filters * (size_t)s->taps;
        add_weight_gradient(plan, count, image->x + first,
                            s->weight_gradient + grain * taps_count(plan) + taps);
        if (!plan->first)
            input_gradient(plan, count, s->weights + taps, image->dx + first);
    }
}

/* ---- the batch ---- */

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
static void reduce_filter(const struct block_plan *plan, int count, size_t filter,
                          const struct backward_args *args) {
    const struct sparse *s = plan->backward;
    const int kernel = plan->desc.kernel, row = s->taps / kernel;
    const int channels = plan->desc.input.channels, filters = plan->desc.linear.channels;
    const struct blank *blank = &plan->blank;
    float *canonical = args->dweights + filter * (size_t)(channels * kernel * kernel);
    const float left_out = blank_sum(plan, count, (int)filter);
    float bias = blank->on ? left_out + blank->bias[filter] : 0.0F;
    for (int b = 0; b < s->slabs; b++)
        reduce_taps(plan, count, (size_t)b * (size_t)filters + filter);
    for (int c = 0; c < channels; c++) {
        const float *ours = s->weight_gradient + tap_offset(plan, (int)filter, c);
        const float seen = blank->on ? left_out * blank->input[c] : 0.0F;
        for (int i = 0; i < kernel; i++)
            for (int j = 0; j < kernel; j++)
                *canonical++ = ours[i * row + j * s->slab.pixel] + seen;
    }
    for (int g = 0; g < count; g++)
        bias += s->bias_gradient[(size_t)g * (size_t)filters + filter];
    args->dbias[filter] = bias;
}

static size_t sparse_parts(const struct block_plan *plan) {
    return (size_t)plan->desc.linear.channels;
}

static const struct images_kind images = {sparse_begin, sparse_image, reduce_filter, sparse_parts};
const struct backward_kind backward_sparse = {.name = "sparse",
                                              .create = sparse_create,
                                              .load = sparse_load,
                                              .run = images_backward,
                                              .images = &images};
