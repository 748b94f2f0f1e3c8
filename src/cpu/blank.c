/* Maps of blank pixels, and what becomes of those in a forward pass. */
#include "blank.h"
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

/* Blank positions between others that are taken along with them: a span costs about as much. */
enum { SPAN_GAP = 3 };

enum status blank_choose(bool *on) {
    const char *wanted = getenv("ESPALIER_BLANK");
    if (wanted != NULL && strcmp(wanted, "0") != 0 && strcmp(wanted, "1") != 0)
        FAIL(ST_USAGE, "ESPALIER_BLANK=%s: expected 0 or 1", wanted);
    *on = wanted == NULL || wanted[0] == '1';
    return ST_OK;
}

/* ---- the plan ---- */

static size_t pixels_of(struct shape shape) {
    return (size_t)shape.height * (size_t)shape.width;
}

/* The pixels of the largest map that is eroded. */
static size_t largest_map(const struct block_desc *desc) {
    const size_t input = pixels_of(desc->input), linear = pixels_of(desc->linear);
    return input > linear ? input : linear;
}

enum status blank_create(struct block_plan *plan) {
    const struct block_desc *desc = &plan->desc;
    const size_t samples = (size_t)plan->max_samples;
    struct blank *b = &plan->blank;
    *b = (struct blank){.scratch_size = 3 * largest_map(desc)};
    if (desc->kind != BLOCK_CONV || !plan->skips_blank)
        return ST_OK;
    TRY(ARENA_ARRAY(plan->arena, samples * pixels_of(desc->linear), &b->linear));
    b->pooled = b->linear;
    if (desc->pool > 1)
        TRY(ARENA_ARRAY(plan->arena, samples * pixels_of(desc->output), &b->pooled));
    TRY(ARENA_ARRAY(plan->arena, samples, &b->counts));
    TRY(ARENA_ARRAY(plan->arena, (size_t)desc->input.channels, &b->input));
    TRY(ARENA_ARRAY(plan->arena, (size_t)desc->output.channels, &b->output));
    TRY(ARENA_ARRAY(plan->arena, images_grains(plan) * (size_t)desc->output.channels,
                    &b->left_out));
    TRY(ARENA_ARRAY(plan->arena, (size_t)desc->output.channels, &b->bias));
    return ARENA_ARRAY(plan->arena, (size_t)plan->threads * b->scratch_size, &b->scratch);
}

/* ---- maps ---- */

static void and_into(size_t count, const uint8_t *restrict from, uint8_t *restrict to) {
    for (size_t i = 0; i < count; i++)
        to[i] &= from[i];
}

/* map[p] &= the `count` - 1 values that follow p in steps; `copy` gets the map as it was. What
 * begins less than that before the map's end means nothing. */
static void and_ahead(size_t pixels, int count, size_t step, uint8_t *map, uint8_t *copy) {
    memcpy(copy, map, pixels);
    for (size_t ahead = step; ahead < (size_t)count * step && ahead < pixels; ahead += step)
        and_into(pixels - ahead, copy + ahead, map);
}

/* The places of a row of `count` windows that begin inside of `size` pixels and end there. */
static struct blank_span inside(const struct blank_windows *w, int size, int count) {
    const int first = (w->padding + w->stride - 1) / w->stride;
    const int last = size - w->kernel + w->padding;
    const int end = last < 0 ? 0 : last / w->stride + 1;
    return (struct blank_span){first, end < count ? end : count};
}

/* Every stride-th of a row's places, or all. */
static void pick(int stride, int count, const uint8_t *row, uint8_t *to) {
    if (stride == 1)
        memcpy(to, row, (size_t)count);
    else
        for (int j = 0; j < count; j++)
            to[j] = row[j * stride];
}

/* Windows are found everywhere first, also across the ends of rows, and then picked. */
void blank_erode(const struct block_plan *plan, const struct blank_windows *w, const uint8_t *map,
                 uint8_t *windows) {
    const struct blank *b = &plan->blank;
    const struct blank_span rows = inside(w, w->height, w->rows),
                            columns = inside(w, w->width, w->columns);
    const size_t pixels = (size_t)w->height * (size_t)w->width, width = (size_t)w->width;
    uint8_t *eroded = b->scratch + (size_t)omp_get_thread_num() * b->scratch_size;
    memcpy(eroded, map, pixels);
    and_ahead(pixels, w->kernel, 1, eroded, eroded + pixels);
    and_ahead(pixels, w->kernel, width, eroded, eroded + pixels);
    memset(windows, 0, (size_t)w->rows * (size_t)w->columns);
    if (columns.end <= columns.first)
        return;
    for (int i = rows.first; i < rows.end; i++)
        pick(w->stride, columns.end - columns.first,
             eroded + (size_t)(i * w->stride - w->padding) * width +
                 (size_t)(columns.first * w->stride - w->padding),
             windows + (size_t)i * (size_t)w->columns + (size_t)columns.first);
}

static int count_blank(const uint8_t *map, size_t pixels) {
    int count = 0;
    for (size_t p = 0; p < pixels; p++)
        count += map[p];
    return count;
}

/* Pixels whose channels are all zero; returns how many. */
static int find_zeros(size_t pixels, int channels, const float *restrict x, uint8_t *restrict map) {
    for (size_t p = 0; p < pixels; p++)
        map[p] = x[p * (size_t)channels] == 0.0F;
    for (int c = 1; c < channels; c++)
        for (size_t p = 0; p < pixels; p++)
            map[p] &= x[p * (size_t)channels + (size_t)c] == 0.0F;
    return count_blank(map, pixels);
}

static const uint8_t *input_map(const struct block_plan *plan, int sample, const float *x) {
    const struct blank *b = &plan->blank;
    const struct shape in = plan->desc.input;
    if (plan->before != NULL)
        return blank_outputs(plan->before, sample);
    uint8_t *map =
        b->scratch + (size_t)omp_get_thread_num() * b->scratch_size + 2 * largest_map(&plan->desc);
    return find_zeros(pixels_of(in), in.channels, x, map) > 0 ? map : NULL;
}

void blank_image(const struct block_plan *plan, int sample, const float *x) {
    const struct blank *b = &plan->blank;
    const struct block_desc *d = &plan->desc;
    const struct shape in = d->input, z = d->linear, out = d->output;
    if (!b->on)
        return;
    uint8_t *linear = b->linear + (size_t)sample * pixels_of(z);
    const uint8_t *map = input_map(plan, sample, x);
    b->counts[sample] = 0;
    if (map == NULL)
        return;
    blank_erode(plan,
                &(struct blank_windows){in.height, in.width, d->kernel, d->stride, d->padding,
                                        z.height, z.width},
                map, linear);
    b->counts[sample] = count_blank(linear, pixels_of(z));
    if (b->counts[sample] > 0 && d->pool > 1)
        blank_erode(
            plan,
            &(struct blank_windows){z.height, z.width, d->pool, d->pool, 0, out.height, out.width},
            linear, b->pooled + (size_t)sample * pixels_of(out));
}

static bool has_blank(const struct block_plan *plan, int sample) {
    return plan->blank.on && plan->blank.counts[sample] > 0;
}

const uint8_t *blank_positions(const struct block_plan *plan, int sample) {
    return has_blank(plan, sample)
               ? plan->blank.linear + (size_t)sample * pixels_of(plan->desc.linear)
               : NULL;
}

const uint8_t *blank_outputs(const struct block_plan *plan, int sample) {
    return has_blank(plan, sample)
               ? plan->blank.pooled + (size_t)sample * pixels_of(plan->desc.output)
               : NULL;
}

struct blank_span blank_next(const uint8_t *row, int width, int first) {
    while (first < width && row[first] != 0)
        first++;
    struct blank_span span = {first, first};
    for (int j = first, gap = 0; j < width && gap <= SPAN_GAP; j++) {
        gap = row[j] != 0 ? gap + 1 : 0;
        if (gap == 0)
            span.end = j + 1;
    }
    return span;
}

/* ---- a pass ---- */

void blank_begin(struct block_plan *plan, const struct block_pass *pass) {
    struct blank *b = &plan->blank;
    const struct block_plan *before = plan->before;
    if (before != NULL)
        blank_begin(plan->before, pass);
    if (b->linear != NULL)
        memset(b->bias, 0, (size_t)plan->desc.output.channels * sizeof *b->bias);
    b->on = b->linear != NULL && plan->forward_kind->blank != NULL &&
            (before != NULL ? before->blank.on && before->blank.goes_on : plan->first);
    if (!b->on)
        return;
    if (before != NULL) /* else zeros, for good */
        memcpy(b->input, before->blank.output, (size_t)plan->desc.input.channels * sizeof(float));
    b->goes_on = plan->forward_kind->blank(plan, pass) && !plan_drops(plan, pass);
}

/* ---- a backward pass ---- */

const uint8_t *blank_to_leave_out(const struct block_plan *plan, int sample) {
    const uint8_t *map = blank_outputs(plan, sample);
    return map != NULL && (plan->first || plan->before->first) ? map : NULL;
}

float *blank_left_out(const struct block_plan *plan, int grain) {
    return plan->blank.left_out + (size_t)grain * (size_t)plan->desc.output.channels;
}

void blank_clear(const struct block_plan *plan, int grain) {
    if (plan->blank.on)
        memset(blank_left_out(plan, grain), 0, (size_t)plan->desc.output.channels * sizeof(float));
}

float blank_sum(const struct block_plan *plan, int grains, int channel) {
    float sum = 0.0F;
    for (int g = 0; plan->blank.on && g < grains; g++)
        sum += blank_left_out(plan, g)[channel];
    return sum;
}

/* All taps of a filter saw blank pixels wherever its gradient was left out. */
void blank_hand_down(const struct block_plan *plan, int grains) {
    const struct block_plan *before = plan->before;
    const size_t taps = (size_t)plan->desc.kernel * (size_t)plan->desc.kernel;
    const int channels = plan->desc.input.channels;
    const float *weights = plan->weights;
    if (before == NULL || !before->first || !plan->blank.on)
        return;
    float *bias = before->blank.bias;
    memset(bias, 0, (size_t)channels * sizeof *bias);
    for (int f = 0; f < plan->desc.linear.channels; f++) {
        const float sum = blank_sum(plan, grains, f);
        for (int c = 0; c < channels; c++)
            for (size_t t = 0; t < taps; t++)
                bias[c] += sum * *weights++;
    }
    plan->kernels->epilogue->activate_backward(before->desc.activation, (size_t)channels, 1,
                                               before->blank.output, bias, bias);
}
