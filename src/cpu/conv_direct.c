/* Direct convolution: packed weights, frames, and the forward pass. */
#include "conv_direct.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { LINE_FLOATS = 16 };

size_t whole_lines(size_t count) {
    return (count + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

size_t whole_vectors(const struct block_plan *plan, int count) {
    const size_t lanes = (size_t)plan->kernels->lanes;
    return ((size_t)count + lanes - 1) / lanes * lanes;
}

bool direct_is_plain(const struct block_plan *plan, const struct block_pass *pass,
                     enum activation activation) {
    const struct block_desc *desc = &plan->desc;
    return desc->activation == activation && desc->pool == 1 && !plan_drops(plan, pass);
}

/* ---- frames ---- */

/* Those of `count` pixels along a side that a frame of `size` holds. */
static struct range held(const struct frame *frame, int count, int size) {
    struct range range = {0, count};
    while (range.first < count && frame->offset + range.first * frame->dilation < 0)
        range.first++;
    while (range.end > range.first && frame->offset + (range.end - 1) * frame->dilation >= size)
        range.end--;
    return range;
}

enum status frame_resize(const struct block_desc *desc, long long height, long long width,
                         struct frame *frame) {
    const int channels = frame->image.channels;
    if (height > INT_MAX || width > INT_MAX / channels / height)
        FAIL(ST_SHAPE, "block %u: %lldx%lldx%d with padding, expected at most %d values",
             desc->layer, height, width, channels, INT_MAX);
    frame->size = (struct shape){(int)height, (int)width, channels};
    frame->rows = held(frame, frame->image.height, frame->size.height);
    frame->columns = held(frame, frame->image.width, frame->size.width);
    return ST_OK;
}

enum status frame_of_input(const struct block_desc *desc, struct frame *frame) {
    const long long border = 2LL * desc->padding;
    *frame = (struct frame){.image = desc->input, .offset = desc->padding, .dilation = 1};
    return frame_resize(desc, desc->input.height + border, desc->input.width + border, frame);
}

static bool is_image(const struct frame *frame) {
    return frame->offset == 0 && frame->dilation == 1 &&
           frame->size.height == frame->image.height && frame->size.width == frame->image.width;
}

size_t frame_scratch(const struct frame *frame) {
    return is_image(frame) ? 0 : whole_lines(shape_size(frame->size));
}

static size_t at(const struct frame *frame, int i) {
    return (size_t)(frame->offset + i * frame->dilation);
}

const float *frame_view(const struct frame *frame, const float *image, float *scratch) {
    if (is_image(frame))
        return image;
    const struct range rows = frame->rows, columns = frame->columns;
    const size_t channels = (size_t)frame->image.channels;
    const size_t run = frame->dilation == 1 ? (size_t)(columns.end - columns.first) : 1;
    memset(scratch, 0, shape_size(frame->size) * sizeof *scratch);
    for (int i = rows.first; i < rows.end; i++)
        for (int j = columns.first; j < columns.end; j += (int)run) {
            const size_t from = (size_t)i * (size_t)frame->image.width + (size_t)j;
            const size_t to = at(frame, i) * (size_t)frame->size.width + at(frame, j);
            memcpy(scratch + to * channels, image + from * channels,
                   run * channels * sizeof *scratch);
        }
    return scratch;
}

struct direct_layer direct_layer_of(const struct frame *frame, struct shape output, int kernel,
                                    int stride) {
    const int channels = frame->size.channels, dilation = frame->dilation;
    const bool any = frame->rows.first < frame->rows.end;
    return (struct direct_layer){.height = output.height,
                                 .width = output.width,
                                 .channels = output.channels,
                                 .rows = kernel,
                                 .taps = kernel * channels,
                                 .stride = stride,
                                 .pixel_step = (size_t)stride * (size_t)channels,
                                 .kernel_step = (size_t)frame->size.width * (size_t)channels,
                                 .top = any ? frame->offset + frame->rows.first * dilation : 0,
                                 .bottom =
                                     any ? frame->offset + (frame->rows.end - 1) * dilation + 1 : 0,
                                 .dilation = dilation};
}

/* ---- weights ---- */

/* Output channels of a convolution, in whole pairs of vectors. */
static size_t whole_pairs(const struct block_plan *plan, int channels) {
    return whole_vectors(plan, (channels + 1) / 2) * 2;
}

enum status direct_create(struct block_plan *plan, struct direct *conv) {
    const size_t channels = whole_pairs(plan, conv->layer.channels);
    const size_t taps = (size_t)conv->layer.rows * (size_t)conv->layer.taps;
    TRY(ARENA_ARRAY(plan->arena, channels, &conv->zeros));
    return arena_alloc(plan->arena, taps, channels * sizeof(float), (void **)&conv->weights);
}

/* The weights of `count` output channels, `width` to a tap, from those of the first. */
static void load_block(const struct direct *conv, struct weight_view view, int count, size_t width,
                       float *packed) {
    const int inputs = conv->frame.size.channels, columns = conv->layer.taps / inputs;
    for (int i = 0; i < conv->layer.rows; i++)
        for (int j = 0; j < columns; j++)
            for (int c = 0; c < inputs; c++, packed += width) {
                const float *w = view.first + i * view.row + j * view.column + c * view.input;
                for (int k = 0; k < count; k++)
                    packed[k] = w[k * view.output];
            }
}

void direct_load(const struct block_plan *plan, struct direct *conv, struct weight_view view) {
    const int channels = conv->layer.channels, pair = 2 * plan->kernels->lanes;
    const float *first = view.first;
    const size_t taps = (size_t)conv->layer.rows * (size_t)conv->layer.taps;
    for (int k = 0; k < channels; k += pair) {
        const int count = channels - k < pair ? channels - k : pair;
        view.first = first + k * view.output;
        load_block(conv, view, count, whole_vectors(plan, count), conv->weights + (size_t)k * taps);
    }
}

/* ---- forward ---- */

struct forward {
    struct direct conv;
    float *bias;  /* [padded channels] */
    float *blank; /* a row of the linear map where it is blank, as the kernel leaves it */
    float *seen;  /* blank pixels that one output sees */
};

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    struct forward *forward;
    TRY(ARENA_ARRAY(plan->arena, 1, &forward));
    plan->forward = forward;
    struct direct *conv = &forward->conv;
    TRY(frame_of_input(desc, &conv->frame));
    conv->layer = direct_layer_of(&conv->frame, desc->linear, desc->kernel, desc->stride);
    TRY(direct_create(plan, conv));
    *scratch_floats = frame_scratch(&conv->frame) + shape_size(desc->linear);
    TRY(ARENA_ARRAY(plan->arena, (size_t)desc->linear.width * (size_t)desc->linear.channels,
                    &forward->blank));
    TRY(ARENA_ARRAY(plan->arena, (size_t)conv->layer.rows * (size_t)conv->layer.taps,
                    &forward->seen));
    return ARENA_ARRAY(plan->arena, whole_pairs(plan, desc->linear.channels), &forward->bias);
}

static void forward_load(struct block_plan *plan) {
    struct forward *forward = plan->forward;
    const ptrdiff_t kernel = plan->desc.kernel, area = kernel * kernel;
    const struct weight_view view = {.first = plan->weights,
                                     .output = plan->desc.input.channels * area,
                                     .row = kernel,
                                     .column = 1,
                                     .input = area};
    direct_load(plan, &forward->conv, view);
    memcpy(forward->bias, plan->bias, (size_t)plan->desc.linear.channels * sizeof *plan->bias);
}

/* True when bias and activation come on the way to y, which is all. */
static bool is_all(const struct block_plan *plan, const struct block_pass *pass) {
    return direct_is_plain(plan, pass, ACTIVATION_RELU) ||
           direct_is_plain(plan, pass, ACTIVATION_NONE);
}

/* Some of the outputs of a pass: from x in its frame to z, or where that is all to y. */
static void convolve(const struct block_plan *plan, const struct block_pass *pass,
                     const struct direct_layer *layer, const float *x, float *z) {
    const struct forward *forward = plan->forward;
    const bool plain = is_all(plan, pass);
    const float floor = plain && plan->desc.activation == ACTIVATION_RELU ? 0.0F : -INFINITY;
    plan->kernels->direct->forward(layer, x, forward->conv.weights,
                                   plain ? forward->bias : forward->conv.zeros, floor, z);
}

static void copy_floats(size_t count, const float *from, float *to) {
    memcpy(to, from, count * sizeof *to);
}

/* A row of the outputs, of which some positions are blank. */
static void convolve_row(const struct block_plan *plan, const struct block_pass *pass,
                         const struct direct_layer *row, const uint8_t *blank, const float *x,
                         float *z) {
    const struct forward *forward = plan->forward;
    const int width = row->width;
    const size_t channels = (size_t)row->channels;
    struct direct_layer part = *row;
    for (int from = 0; from < width;) {
        const struct blank_span span = blank_next(blank, width, from);
        const size_t first = (size_t)span.first;
        copy_floats((first - (size_t)from) * channels, forward->blank, z + (size_t)from * channels);
        part.width = span.end - span.first;
        if (part.width > 0)
            convolve(plan, pass, &part, x + first * row->pixel_step, z + first * channels);
        from = part.width > 0 ? span.end : width;
    }
}

static void convolve_rows(const struct block_plan *plan, const struct block_pass *pass,
                          const uint8_t *blank, const float *x, float *z) {
    const struct direct_layer *layer = &((const struct forward *)plan->forward)->conv.layer;
    const size_t row_floats = (size_t)layer->width * (size_t)layer->channels;
    struct direct_layer row = *layer;
    row.height = 1;
    for (int i = 0; i < layer->height; i++) {
        convolve_row(plan, pass, &row, blank, x, z);
        row.top -= layer->stride;
        row.bottom -= layer->stride;
        x += (size_t)layer->stride * layer->kernel_step;
        z += row_floats;
        blank += layer->width;
    }
}

static void forward_image(const struct block_plan *plan, const struct block_pass *pass,
                          const struct image_values *image) {
    const struct direct *conv = &((const struct forward *)plan->forward)->conv;
    const uint8_t *blank = blank_positions(plan, image->sample);
    float *scratch = plan_scratch(plan);
    const float *x = frame_view(&conv->frame, image->x, scratch);
    float *z = plan->desc.pool == 1 ? image->y : scratch + frame_scratch(&conv->frame);
    if (blank == NULL)
        convolve(plan, pass, &conv->layer, x, z);
    else
        convolve_rows(plan, pass, blank, x, z);
    if (!is_all(plan, pass))
        epilogue_forward(plan, pass, image->sample, z, image->y);
}

/* One output that sees blank pixels, then a row of it. The maximum of equals is the first. */
static bool forward_blank(struct block_plan *plan, const struct block_pass *pass) {
    const struct forward *forward = plan->forward;
    const struct block_desc *desc = &plan->desc;
    const size_t inputs = (size_t)desc->input.channels, outputs = (size_t)desc->linear.channels;
    struct direct_layer one = forward->conv.layer;
    one.height = one.width = one.dilation = 1;
    one.top = 0;
    one.bottom = one.rows;
    one.kernel_step = (size_t)one.taps;
    for (size_t p = 0; p < (size_t)desc->kernel * (size_t)desc->kernel; p++)
        copy_floats(inputs, plan->blank.input, forward->seen + p * inputs);
    convolve(plan, pass, &one, forward->seen, forward->blank);
    for (size_t p = 1; p < (size_t)desc->linear.width; p++)
        copy_floats(outputs, forward->blank, forward->blank + p * outputs);
    if (is_all(plan, pass))
        copy_floats(outputs, forward->blank, plan->blank.output);
    else
        plan->kernels->epilogue->activate(desc->activation, 1, outputs, plan->bias, forward->blank,
                                          plan->blank.output);
    return true;
}

const struct forward_kind forward_direct = {.name = "direct",
                                            .create = forward_create,
                                            .load = forward_load,
                                            .run = images_forward,
                                            .image = forward_image,
                                            .blank = forward_blank};
