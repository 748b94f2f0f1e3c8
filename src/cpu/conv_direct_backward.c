/* The gradients of a convolution, directly. dz is the gradient with respect to the linear map.
 *
 * The weights' gradient is a sum over pixels, formed a strip of rows at a time: the strip stays in
 * the first cache while all taps pass over it. The input's gradient is the convolution of dz, with
 * stride - 1 zeros between its pixels, by the kernel upside down, inputs and outputs exchanged. */
#include "conv_direct.h"

#include <math.h>
#include <string.h>

/* Floats of dz in a strip, about: as many of the image lie in the first cache beside them. */
enum { STRIP_FLOATS = 4096 };

struct backward {
    struct direct_layer layer; /* of the forward pass; its weights are not needed */
    struct frame frame;
    struct direct transposed; /* dz -> dx; not of a first block */
    int strip;                /* rows of dz */
    size_t taps, channels;    /* of the kernel; of the output, in whole vectors */
    /* [grains][taps + 1][channels]: the bias is the weight of one more tap, which is always 1. */
    float *gradient;
};

static size_t gradient_floats(const struct backward *backward) {
    return (backward->taps + 1) * backward->channels;
}

static enum status create_transposed(struct block_plan *plan, struct direct *transposed) {
    const struct block_desc *desc = &plan->desc;
    const int border = desc->kernel - 1;
    transposed->frame = (struct frame){
        .image = desc->linear, .offset = border - desc->padding, .dilation = desc->stride};
    TRY(frame_resize(desc, (long long)desc->input.height + border,
                     (long long)desc->input.width + border, &transposed->frame));
    transposed->layer = direct_layer_of(&transposed->frame, desc->input, desc->kernel, 1);
    return direct_create(plan, transposed);
}

static enum status create_gradient(struct block_plan *plan, struct backward *backward) {
    const struct shape z = plan->desc.linear;
    const int rows = STRIP_FLOATS / (z.width * z.channels);
    backward->strip = rows < 1 ? 1 : rows;
    backward->taps = (size_t)backward->layer.rows * (size_t)backward->layer.taps;
    backward->channels = whole_vectors(plan, z.channels);
    return arena_alloc(plan->arena, images_grains(plan), gradient_floats(backward) * sizeof(float),
                       (void **)&backward->gradient);
}

/* Scratch: dz of an image, then a frame: of the image, later of dz. */
static size_t dz_scratch(const struct block_plan *plan) {
    const size_t beyond = 2 * whole_vectors(plan, 1); /* that kernels may read */
    return whole_lines(shape_size(plan->desc.linear) + beyond);
}

static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    struct backward *backward;
    TRY(ARENA_ARRAY(plan->arena, 1, &backward));
    plan->backward = backward;
    TRY(frame_of_input(desc, &backward->frame));
    backward->layer = direct_layer_of(&backward->frame, desc->linear, desc->kernel, desc->stride);
    size_t frame = frame_scratch(&backward->frame);
    if (!plan->first) {
        TRY(create_transposed(plan, &backward->transposed));
        const size_t other = frame_scratch(&backward->transposed.frame);
        frame = frame > other ? frame : other;
    }
    *scratch_floats = dz_scratch(plan) + frame;
    return create_gradient(plan, backward);
}

static void backward_load(struct block_plan *plan) {
    if (plan->first)
        return;
    struct backward *backward = plan->backward;
    const ptrdiff_t kernel = plan->desc.kernel, area = kernel * kernel;
    const struct weight_view upside_down = {.first = plan->weights + area - 1,
                                            .output = area,
                                            .row = -kernel,
                                            .column = -1,
                                            .input = plan->desc.input.channels * area};
    direct_load(plan, &backward->transposed, upside_down);
}

/* One image as its strips see it. */
struct strips {
    const float *x; /* in its frame */
    const float *y, *dy;
    float *dz;            /* whole, or room for a strip at a time */
    bool mask, keep_dz;   /* dz is dy masked by relu, formed strip by strip; it is needed later */
    float *gradient;      /* of the image's grain */
    const uint8_t *blank; /* where dy is left out, or NULL; then dz is masked and not kept */
    float *left_out;
};

/* The columns of some rows between those that are all blank. */
static struct range seen_columns(const uint8_t *blank, int rows, int width) {
    struct range seen = {width, 0};
    for (int i = 0; i < rows; i++, blank += width)
        for (int j = 0; j < width; j++)
            if (blank[j] == 0) {
                seen.first = j < seen.first ? j : seen.first;
                seen.end = j >= seen.end ? j + 1 : seen.end;
            }
    return seen.end > 0 ? seen : (struct range){0, 0};
}

/* dz of some columns of a strip that begins at float `first`; the rest is left out. */
static void mask_columns(const struct block_plan *plan, const struct strips *strips,
                         const struct direct_layer *strip, size_t first, struct range columns) {
    const struct direct_kernels *kernels = plan->kernels->direct;
    const size_t channels = (size_t)strip->channels, width = (size_t)plan->desc.linear.width;
    const size_t from = (size_t)columns.first, end = (size_t)columns.end;
    float *dz = strips->dz;
    for (int i = 0; i < strip->height; i++, first += width * channels) {
        const float *dy = strips->dy + first;
        kernels->relu_backward((end - from) * channels, strips->y + first + from * channels,
                               dy + from * channels, dz);
        dz += (end - from) * channels;
        kernels->sum_pixels(from, channels, dy, strips->left_out);
        kernels->sum_pixels(width - end, channels, dy + end * channels, strips->left_out);
    }
}

static void backward_strip(const struct block_plan *plan, const struct strips *strips, int row) {
    const struct backward *backward = plan->backward;
    const struct direct_kernels *kernels = plan->kernels->direct;
    const int width = plan->desc.linear.width;
    const size_t line = (size_t)width * (size_t)plan->desc.linear.channels;
    const size_t first = (size_t)row * line;
    struct range columns = {0, width};
    struct direct_layer strip = backward->layer;
    strip.height = strip.height - row < backward->strip ? strip.height - row : backward->strip;
    float *dz = strips->mask && !strips->keep_dz ? strips->dz : strips->dz + first;
    if (strips->blank != NULL) {
        columns = seen_columns(strips->blank + (size_t)row * (size_t)width, strip.height, width);
        mask_columns(plan, strips, &strip, first, columns);
        strip.width = columns.end - columns.first;
    } else if (strips->mask)
        kernels->relu_backward((size_t)strip.height * line, strips->y + first, strips->dy + first,
                               dz);
    kernels->backward(&strip,
                      strips->x + (size_t)row * (size_t)strip.stride * strip.kernel_step +
                          (size_t)columns.first * strip.pixel_step,
                      dz, strips->gradient, strips->gradient + backward->taps * backward->channels);
}

static float *gradient_of(const struct block_plan *plan, int grain) {
    const struct backward *backward = plan->backward;
    return backward->gradient + (size_t)grain * gradient_floats(backward);
}

static void backward_begin(const struct block_plan *plan, int grain) {
    memset(gradient_of(plan, grain), 0, gradient_floats(plan->backward) * sizeof(float));
}

static void backward_image(const struct block_plan *plan, const struct image_gradient *image) {
    const struct backward *backward = plan->backward;
    float *dz = plan_scratch(plan), *frame = dz + dz_scratch(plan);
    const int grain = image->sample / GRAIN_IMAGES;
    const bool mask = direct_is_plain(plan, image->pass, ACTIVATION_RELU);
    struct strips strips = {.x = frame_view(&backward->frame, image->x, frame),
                            .y = image->y,
                            .dy = image->dy,
                            .dz = dz,
                            .mask = mask,
                            .keep_dz = !plan->first,
                            .gradient = gradient_of(plan, grain)};
    if (mask && plan->first)
        strips.blank = blank_to_leave_out(plan, image->sample);
    if (strips.blank != NULL)
        strips.left_out = blank_left_out(plan, grain);
    if (!mask)
        epilogue_backward(plan, image->pass, image->sample, image->y, image->dy, dz);
    for (int row = 0; row < plan->desc.linear.height; row += backward->strip)
        backward_strip(plan, &strips, row);
    if (plan->first)
        return;
    const struct direct *transposed = &backward->transposed;
    plan->kernels->direct->forward(&transposed->layer, frame_view(&transposed->frame, dz, frame),
                                   transposed->weights, transposed->zeros, -INFINITY, image->dx);
}

static size_t backward_parts(const struct block_plan *plan) {
    return ((const struct backward *)plan->backward)->taps + 1;
}

/* Add up the grains' gradients at one tap, in the first one's place, and hand them over. */
static void reduce_tap(const struct block_plan *plan, int count, size_t tap,
                       const struct backward_args *args) {
    const struct backward *backward = plan->backward;
    const size_t inputs = (size_t)plan->desc.input.channels;
    float *restrict sum = backward->gradient + tap * backward->channels;
    for (int g = 1; g < count; g++) {
        const float *restrict part = sum + (size_t)g * gradient_floats(backward);
        for (size_t k = 0; k < backward->channels; k++)
            sum[k] += part[k];
    }
    const bool bias = tap == backward->taps;
    const size_t canonical = tap % inputs * (backward->taps / inputs) + tap / inputs;
    float *to = bias ? args->dbias : args->dweights + canonical;
    const size_t step = bias ? 1 : backward->taps;
    for (int k = 0; k < plan->desc.linear.channels; k++)
        to[(size_t)k * step] = sum[k];
    if (bias && plan->blank.on)
        for (int k = 0; k < plan->desc.linear.channels; k++)
            to[k] += plan->blank.bias[k] +
                     (plan->blank.output[k] > 0.0F ? blank_sum(plan, count, k) : 0.0F);
}

static const struct images_kind images = {backward_begin, backward_image, reduce_tap,
                                          backward_parts};
const struct backward_kind backward_direct = {.name = "direct",
                                              .create = backward_create,
                                              .load = backward_load,
                                              .run = images_backward,
                                              .images = &images};
