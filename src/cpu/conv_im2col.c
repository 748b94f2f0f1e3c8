/* Convolution as a matrix product per image.
 *
 * The image's columns are the matrix [pixels][taps] of what the kernel sees at each output pixel,
 * taps in the order (row of the kernel, column of the kernel, channel), so that a row of the
 * kernel is contiguous in the image and in the matrix. With W [filters][taps] in that order:
 *     z = columns W^T,   dW = dz^T columns,   dcolumns = dz W. */
#include "cpu.h"

#include <cblas.h>
#include <string.h>

/* Images whose weight gradients are added up one after the other by one thread; the sums of these
 * grains are then added in their order, whatever thread formed them. */
enum { GRAIN = 4 };

struct conv {
    int pixels, taps, filters;
    float *weights;         /* [filters][taps] */
    float *weight_gradient; /* [grains][filters][taps] */
    float *bias_gradient;   /* [grains][filters] */
};

static int grains(int samples) {
    return (samples + GRAIN - 1) / GRAIN;
}

static size_t weights_count(const struct conv *conv) {
    return (size_t)conv->filters * (size_t)conv->taps;
}

static enum status conv_create(struct block_plan *plan, struct conv **conv,
                               size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    TRY(ARENA_ARRAY(plan->arena, 1, conv));
    (*conv)->pixels = desc->linear.height * desc->linear.width;
    (*conv)->taps = desc->kernel * desc->kernel * desc->input.channels;
    (*conv)->filters = desc->linear.channels;
    *scratch_floats = (size_t)(*conv)->pixels * (size_t)((*conv)->taps + (*conv)->filters);
    return ARENA_ARRAY(plan->arena, weights_count(*conv), &(*conv)->weights);
}

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    return conv_create(plan, (struct conv **)&plan->forward, scratch_floats);
}

static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    TRY(conv_create(plan, (struct conv **)&plan->backward, scratch_floats));
    struct conv *conv = plan->backward;
    const size_t partial = (size_t)grains(plan->max_samples);
    TRY(ARENA_ARRAY(plan->arena, partial * weights_count(conv), &conv->weight_gradient));
    return ARENA_ARRAY(plan->arena, partial * (size_t)conv->filters, &conv->bias_gradient);
}

/* The canonical weights of a filter are [channels][positions of the kernel], ours its transpose. */
static void conv_load(const struct block_plan *plan, const struct conv *conv) {
    const int channels = plan->desc.input.channels, positions = conv->taps / channels;
    for (int f = 0; f < conv->filters; f++) {
        const float *canonical = plan->weights + (size_t)f * (size_t)conv->taps;
        float *ours = conv->weights + (size_t)f * (size_t)conv->taps;
        for (int t = 0; t < positions; t++)
            for (int c = 0; c < channels; c++)
                ours[t * channels + c] = canonical[c * positions + t];
    }
}

static void forward_load(struct block_plan *plan) {
    conv_load(plan, plan->forward);
}

static void backward_load(struct block_plan *plan) {
    if (!plan->first)
        conv_load(plan, plan->backward);
}

/* What a row of the kernel at one output pixel sees: taps begin .. end - 1 of its
 * kernel * channels taps lie in the image, at `offset` for begin; the others in the padding. */
struct kernel_row {
    size_t begin, end, offset;
};

static struct kernel_row kernel_row(const struct block_desc *desc, int y, int x) {
    const int channels = desc->input.channels, width = desc->input.width;
    if (y < 0 || y >= desc->input.height || x >= width || x + desc->kernel <= 0)
        return (struct kernel_row){0, 0, 0};
    const int begin = x < 0 ? -x : 0;
    const int end = x + desc->kernel > width ? width - x : desc->kernel;
    return (struct kernel_row){.begin = (size_t)begin * (size_t)channels,
                               .end = (size_t)end * (size_t)channels,
                               .offset = ((size_t)y * (size_t)width + (size_t)(x + begin)) *
                                         (size_t)channels};
}

static void image_to_columns(const struct block_desc *desc, const float *image, float *columns) {
    const size_t count = (size_t)desc->kernel * (size_t)desc->input.channels;
    for (int y = 0; y < desc->linear.height; y++)
        for (int x = 0; x < desc->linear.width; x++)
            for (int i = 0; i < desc->kernel; i++, columns += count) {
                const struct kernel_row row = kernel_row(desc, y * desc->stride + i - desc->padding,
                                                         x * desc->stride - desc->padding);
                if (row.end - row.begin < count)
                    memset(columns, 0, count * sizeof *columns);
                memcpy(columns + row.begin, image + row.offset,
                       (row.end - row.begin) * sizeof *columns);
            }
}

static void columns_to_image(const struct block_desc *desc, const float *columns, float *image) {
    const size_t count = (size_t)desc->kernel * (size_t)desc->input.channels;
    memset(image, 0, shape_size(desc->input) * sizeof *image);
    for (int y = 0; y < desc->linear.height; y++)
        for (int x = 0; x < desc->linear.width; x++)
            for (int i = 0; i < desc->kernel; i++, columns += count) {
                const struct kernel_row row = kernel_row(desc, y * desc->stride + i - desc->padding,
                                                         x * desc->stride - desc->padding);
                float *restrict target = image + row.offset;
                const float *restrict source = columns + row.begin;
                for (size_t t = 0; t < row.end - row.begin; t++)
                    target[t] += source[t];
            }
}

static void conv_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                         float *y) {
    const struct conv *conv = plan->forward;
    const size_t inputs = shape_size(plan->desc.input), outputs = shape_size(plan->desc.output);
#pragma omp parallel for num_threads(plan->threads) schedule(dynamic)
    for (int n = 0; n < pass->samples; n++) {
        float *columns = plan_scratch(plan);
        float *z = columns + (size_t)conv->pixels * (size_t)conv->taps;
        image_to_columns(&plan->desc, x + (size_t)n * inputs, columns);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, conv->pixels, conv->filters,
                    conv->taps, 1.0F, columns, conv->taps, conv->weights, conv->taps, 0.0F, z,
                    conv->filters);
        epilogue_forward(plan, pass, n, z, y + (size_t)n * outputs);
    }
}

static void add_bias_gradient(const struct conv *conv, const float *dz, float *restrict gradient) {
    for (int p = 0; p < conv->pixels; p++, dz += conv->filters)
        for (int f = 0; f < conv->filters; f++)
            gradient[f] += dz[f];
}

static void backward_image(const struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args, int n) {
    const struct conv *conv = plan->backward;
    const size_t inputs = shape_size(plan->desc.input), grain = (size_t)(n / GRAIN);
    const size_t o = (size_t)n * shape_size(plan->desc.output);
    float *columns = plan_scratch(plan);
    float *dz = columns + (size_t)conv->pixels * (size_t)conv->taps;
    epilogue_backward(plan, pass, n, args->y + o, args->dy + o, dz);
    image_to_columns(&plan->desc, args->x + (size_t)n * inputs, columns);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, conv->filters, conv->taps, conv->pixels,
                1.0F, dz, conv->filters, columns, conv->taps, n % GRAIN == 0 ? 0.0F : 1.0F,
                conv->weight_gradient + grain * weights_count(conv), conv->taps);
    add_bias_gradient(conv, dz, conv->bias_gradient + grain * (size_t)conv->filters);
    if (plan->first)
        return;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, conv->pixels, conv->taps, conv->filters,
                1.0F, dz, conv->filters, conv->weights, conv->taps, 0.0F, columns, conv->taps);
    columns_to_image(&plan->desc, columns, args->dx + (size_t)n * inputs);
}

static void backward_grain(const struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args, int grain) {
    const struct conv *conv = plan->backward;
    const int end = (grain + 1) * GRAIN;
    memset(conv->bias_gradient + (size_t)grain * (size_t)conv->filters, 0,
           (size_t)conv->filters * sizeof *conv->bias_gradient);
    for (int n = grain * GRAIN; n < end && n < pass->samples; n++) {
        backward_image(plan, pass, args, n);
        poll_from_team(args->poll);
    }
}

/* Add up the grains' gradients of one filter, in the first one's place, and hand them over. */
static void reduce_filter(const struct block_plan *plan, int count, int filter,
                          const struct backward_args *args) {
    const struct conv *conv = plan->backward;
    const int channels = plan->desc.input.channels, positions = conv->taps / channels;
    const size_t at = (size_t)filter * (size_t)conv->taps;
    float *restrict sum = conv->weight_gradient + at;
    float bias = conv->bias_gradient[filter];
    for (int g = 1; g < count; g++) {
        const float *restrict part = sum + (size_t)g * weights_count(conv);
        for (int t = 0; t < conv->taps; t++)
            sum[t] += part[t];
        bias += conv->bias_gradient[(size_t)g * (size_t)conv->filters + (size_t)filter];
    }
    for (int c = 0; c < channels; c++)
        for (int t = 0; t < positions; t++)
            args->dweights[at + (size_t)(c * positions + t)] = sum[t * channels + c];
    args->dbias[filter] = bias;
}

static void conv_backward(struct block_plan *plan, const struct block_pass *pass,
                          const struct backward_args *args) {
    const struct conv *conv = plan->backward;
    const int count = grains(pass->samples);
#pragma omp parallel num_threads(plan->threads)
    {
#pragma omp for schedule(dynamic)
        for (int g = 0; g < count; g++)
            backward_grain(plan, pass, args, g);
#pragma omp for
        for (int f = 0; f < conv->filters; f++)
            reduce_filter(plan, count, f, args);
    }
}

const struct forward_kind forward_im2col = {"im2col", forward_create, forward_load, conv_forward};
const struct backward_kind backward_im2col = {"im2col", backward_create, backward_load,
                                              conv_backward};
