/* Convolutions of which few connections are left, one image at a time. Channels lie in planes,
 * whose pixels a connection multiplies as one stretch, rows and all: with rows as wide as the image
 * and its padding, what a tap sees of a plane is the plane from some place on. What such a stretch
 * holds between the rows of the output is computed in vain.
 *
 * Under a stride, a plane falls apart into one for each remainder of row and column. The gradient's
 * planes are zero around the output, so that the input's gradient is a stretch of them as well. */
#include "sparse.h"

#include <string.h>

/* Weights whose gradient a thread adds up at a time; values of a unit's state. */
enum { PART = 512, PLACES = 256 };

struct sparse_conv {
    int stride, phases;    /* planes of a channel */
    int height, width;     /* of a plane */
    size_t plane;          /* floats of it, in whole vectors */
    int stretch;           /* vectors of an output, in a plane's rows */
    size_t lead, gradient; /* floats before an output's gradient, and of its plane */
    size_t x_floats, dz_floats;
    int32_t places[PLACES];           /* of a window's maximum, in a plane, from its corner on */
    float *x;                         /* [threads][x_floats]: zero where no pixel is */
    float *dz;                        /* [threads][dz_floats]: zero where no output is */
    float *weight_gradient;           /* [grains][count], of the survivors' arena */
    float *bias_gradient;             /* [grains][filters] */
    int32_t *seen, *input, *reversed; /* the layout's */
    struct sparse_matrix matrix;
};

static struct sparse_conv *sparse_of(const struct block_plan *plan) {
    return plan->forward;
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

static size_t whole_vectors(size_t floats, int lanes) {
    return (floats + (size_t)lanes - 1) / (size_t)lanes * (size_t)lanes;
}

/* ---- the plan ---- */

static void shape_planes(struct sparse_conv *s, const struct block_desc *desc, int lanes) {
    const int reach = (desc->kernel - 1) / desc->stride; /* of a tap, in planes */
    s->stride = desc->stride;
    s->phases = desc->stride * desc->stride;
    s->height = divide_up(desc->input.height + 2 * desc->padding, desc->stride);
    s->width = divide_up(desc->input.width + 2 * desc->padding, desc->stride);
    s->plane = whole_vectors((size_t)s->height * (size_t)s->width, lanes);
    const int last = (desc->linear.height - 1) * s->width + desc->linear.width;
    s->stretch = divide_up(last, lanes);
    s->lead = whole_vectors((size_t)(reach * s->width + reach), lanes);
    s->gradient = s->lead + s->plane + (size_t)lanes;
    /* A stretch that begins inside the last plane may end behind it. */
    s->x_floats =
        (size_t)(desc->input.channels * s->phases) * s->plane + (size_t)(s->stretch * lanes);
    s->dz_floats = (size_t)desc->linear.channels * s->gradient;
}

/* With the largest vectors. */
static bool fits(const struct block_desc *desc) {
    enum { MOST_LANES = 16 };
    struct sparse_conv s;
    const long long height = desc->input.height + 2LL * desc->padding;
    const long long width = desc->input.width + 2LL * desc->padding;
    if (height > INT16_MAX || width > INT16_MAX)
        return false;
    shape_planes(&s, desc, MOST_LANES);
    return s.x_floats <= INT32_MAX && s.dz_floats <= INT32_MAX;
}

static void fill_layout(const struct sparse_conv *s, const struct block_desc *desc) {
    const int kernel = desc->kernel, stride = s->stride;
    int column = 0;
    for (int c = 0; c < desc->input.channels; c++)
        for (int i = 0; i < kernel; i++)
            for (int j = 0; j < kernel; j++, column++) {
                const int phase = i % stride * stride + j % stride;
                const int place = i / stride * s->width + j / stride;
                s->input[column] = c * s->phases + phase;
                s->seen[column] = s->input[column] * (int)s->plane + place;
                s->reversed[column] = (int)s->lead - place;
            }
}

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    const size_t threads = (size_t)plan->threads, filters = (size_t)desc->linear.channels;
    const size_t columns = block_weights(desc) / filters;
    struct sparse_conv *s;
    TRY(ARENA_ARRAY(plan->arena, 1, &s));
    plan->forward = s;
    shape_planes(s, desc, plan->kernels->lanes);
    TRY(ARENA_ARRAY(plan->arena, threads * s->x_floats, &s->x));
    TRY(ARENA_ARRAY(plan->arena, threads * s->dz_floats, &s->dz));
    TRY(ARENA_ARRAY(plan->arena, images_grains(plan) * filters, &s->bias_gradient));
    TRY(ARENA_ARRAY(plan->arena, columns, &s->seen));
    TRY(ARENA_ARRAY(plan->arena, columns, &s->input));
    TRY(ARENA_ARRAY(plan->arena, columns, &s->reversed));
    fill_layout(s, desc);
    for (int place = 0; place < desc->pool * desc->pool; place++) /* of what is dropped: 0 */
        s->places[place] = place / desc->pool * s->width + place % desc->pool;
    *scratch_floats =
        filters * (size_t)(s->stretch * plan->kernels->lanes) + shape_size(desc->linear);
    return ST_OK;
}

/* The forward kind has created what both use: no other pairs with it. */
static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct sparse_conv *s = sparse_of(plan);
    const size_t planes = (size_t)(plan->desc.input.channels * s->phases) * s->plane;
    plan->backward = plan->forward;
    *scratch_floats = plan->first ? 0 : planes;
    return ST_OK;
}

static enum status set_survivors(struct block_plan *plan, const struct block_survivors *survivors) {
    struct sparse_conv *s = sparse_of(plan);
    const struct block_desc *desc = &plan->desc;
    const struct sparse_layout layout = {.outputs = desc->linear.channels,
                                         .columns =
                                             desc->input.channels * desc->kernel * desc->kernel,
                                         .inputs = desc->input.channels * s->phases,
                                         .seen = s->seen,
                                         .input = s->input,
                                         .reversed = s->reversed,
                                         .output_step = (int32_t)s->gradient};
    TRY(ARENA_ARRAY(plan->survivors_arena, images_grains(plan) * survivors->count,
                    &s->weight_gradient));
    return sparse_matrix_create(plan->survivors_arena, &layout, survivors, layout.columns,
                                !plan->first, &s->matrix);
}

/* ---- planes ---- */

/* The pixels of a row that belong to one remainder of columns: every stride-th from `first` on,
 * which lies in column `column` of a plane. */
struct pixels {
    int first, count, column;
};

static struct pixels pixels_of(const struct sparse_conv *s, const struct block_desc *desc,
                               int remainder) {
    const int begin = (remainder - desc->padding % s->stride + s->stride) % s->stride;
    const int count =
        begin < desc->input.width ? divide_up(desc->input.width - begin, s->stride) : 0;
    return (struct pixels){begin, count, (begin + desc->padding) / s->stride};
}

/* Where the row's pixels of a remainder lie in the planes of channel 0. */
static size_t place_of(const struct sparse_conv *s, const struct block_desc *desc, int row,
                       int remainder, int column) {
    const int padded = row + desc->padding;
    const size_t plane = (size_t)(padded % s->stride * s->stride + remainder);
    return plane * s->plane + (size_t)(padded / s->stride * s->width + column);
}

/* from[rows][columns], rows `from_step` apart, becomes to[columns][rows], likewise. */
static void transpose(const struct block_plan *plan, int rows, int columns, const float *from,
                      size_t from_step, float *to, size_t to_step) {
    plan->kernels->product->transpose(rows, columns, from, from_step, to, to_step);
}

/* x [h][w][c] -> planes. */
static void fill_x(const struct block_plan *plan, const float *x, float *planes) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct block_desc *desc = &plan->desc;
    const struct shape in = desc->input;
    const size_t channels = (size_t)in.channels, step = (size_t)s->phases * s->plane;
    if (s->stride == 1 && desc->padding == 0) {
        transpose(plan, in.height * in.width, in.channels, x, channels, planes, step);
        return;
    }
    for (int row = 0; row < in.height; row++, x += (size_t)in.width * channels)
        for (int r = 0; r < s->stride; r++) {
            const struct pixels p = pixels_of(s, desc, r);
            transpose(plan, p.count, in.channels, x + (size_t)p.first * channels,
                      (size_t)s->stride * channels, planes + place_of(s, desc, row, r, p.column),
                      step);
        }
}

/* Planes -> dx [h][w][c]. */
static void drain_dx(const struct block_plan *plan, const float *planes, float *dx) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct block_desc *desc = &plan->desc;
    const struct shape in = desc->input;
    const size_t channels = (size_t)in.channels, step = (size_t)s->phases * s->plane;
    if (s->stride == 1 && desc->padding == 0) {
        transpose(plan, in.channels, in.height * in.width, planes, step, dx, channels);
        return;
    }
    for (int row = 0; row < in.height; row++, dx += (size_t)in.width * channels)
        for (int r = 0; r < s->stride; r++) {
            const struct pixels p = pixels_of(s, desc, r);
            transpose(plan, in.channels, p.count, planes + place_of(s, desc, row, r, p.column),
                      step, dx + (size_t)p.first * channels, (size_t)s->stride * channels);
        }
}

/* dz [h][w][k] -> planes, in their rows. */
static void fill_dz_unpooled(const struct block_plan *plan, const float *dz, float *planes) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct shape out = plan->desc.linear;
    const size_t filters = (size_t)out.channels;
    for (int row = 0; row < out.height; row++, dz += (size_t)out.width * filters)
        transpose(plan, out.width, out.channels, dz, filters,
                  planes + s->lead + (size_t)(row * s->width), s->gradient);
}

/* The gradients g [windows][k] of the maxima, whose places the state has, -> planes of dz. */
static void fill_dz_pooled(const struct block_plan *plan, const float *g, const uint8_t *state,
                           float *planes) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct shape out = plan->desc.output, linear = plan->desc.linear;
    const int pool = plan->desc.pool, last = (linear.height - 1) * s->width + linear.width;
    for (int k = 0; k < out.channels; k++)
        memset(planes + s->lead + (size_t)k * s->gradient, 0, (size_t)last * sizeof *planes);
    for (int row = 0; row < out.height; row++)
        for (int column = 0; column < out.width; column++) {
            float *corner = planes + s->lead + (size_t)((row * s->width + column) * pool);
            for (int k = 0; k < out.channels; k++, corner += s->gradient)
                corner[s->places[state[k]]] = g[k];
            g += out.channels;
            state += out.channels;
        }
}

/* ---- stretches ---- */

/* All rows at `vectors` vectors of what they see, a part at a time that the registers hold. */
static void combine(const struct block_plan *plan, const struct survivor_rows *rows,
                    const float *in, int vectors, float *out, size_t stride) {
    const struct survivor_kernels *kernels = plan->kernels->survivors;
    const int parts = divide_up(vectors, kernels->most_vectors);
    for (int part = 0, first = 0; part < parts; part++) {
        const int count = divide_up(vectors - first, parts - part);
        const size_t at = (size_t)(first * plan->kernels->lanes);
        kernels->combine(rows, in + at, count, false, out + at, stride);
        first += count;
    }
}

static float *thread_x(const struct block_plan *plan) {
    return sparse_of(plan)->x + (size_t)omp_get_thread_num() * sparse_of(plan)->x_floats;
}

static float *thread_dz(const struct block_plan *plan) {
    return sparse_of(plan)->dz + (size_t)omp_get_thread_num() * sparse_of(plan)->dz_floats;
}

/* ---- forward ---- */

static void forward_image(const struct block_plan *plan, const struct block_pass *pass,
                          const struct image_values *image) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct shape out = plan->desc.linear;
    const int filters = out.channels;
    const size_t stretch = (size_t)(s->stretch * plan->kernels->lanes);
    float *planes = plan_scratch(plan), *z = planes + (size_t)filters * stretch;
    fill_x(plan, image->x, thread_x(plan));
    const struct survivor_rows rows = sparse_rows(&s->matrix, plan->weights, 0, filters, 0, 1);
    combine(plan, &rows, thread_x(plan), s->stretch, planes, stretch);
    for (int row = 0; row < out.height; row++)
        transpose(plan, filters, out.width, planes + (size_t)(row * s->width), stretch,
                  z + (size_t)(row * out.width) * (size_t)filters, (size_t)filters);
    epilogue_forward(plan, pass, image->sample, z, image->y);
}

/* ---- backward ---- */

/* sum [filters] += the rows of dz [pixels][filters]. */
static void add_bias_gradient(int pixels, int filters, const float *dz, float *restrict sum) {
    for (int p = 0; p < pixels; p++, dz += filters)
        for (int f = 0; f < filters; f++)
            sum[f] += dz[f];
}

static void input_gradient(const struct block_plan *plan, float *planes, float *dx) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct survivor_rows rows = sparse_input_rows(&s->matrix, 0, s->matrix.inputs);
    combine(plan, &rows, thread_dz(plan), (int)s->plane / plan->kernels->lanes, planes, s->plane);
    drain_dx(plan, planes, dx);
}

static void backward_load(struct block_plan *plan) {
    if (!plan->first)
        sparse_order_values(&sparse_of(plan)->matrix, plan->weights);
}

static void backward_begin(const struct block_plan *plan, int grain) {
    const struct sparse_conv *s = sparse_of(plan);
    const size_t filters = (size_t)plan->desc.linear.channels, count = s->matrix.count;
    memset(s->bias_gradient + (size_t)grain * filters, 0, filters * sizeof(float));
    memset(s->weight_gradient + (size_t)grain * count, 0, count * sizeof(float));
}

static void backward_image(const struct block_plan *plan, const struct image_gradient *image) {
    const struct sparse_conv *s = sparse_of(plan);
    const struct shape out = plan->desc.output;
    const size_t grain = (size_t)(image->sample / GRAIN_IMAGES);
    float *g = image->dy; /* in its place */
    epilogue_gradient(plan, image->pass, image->sample, image->y, g, g);
    add_bias_gradient(out.height * out.width, out.channels, g,
                      s->bias_gradient + grain * (size_t)out.channels);
    if (plan->desc.pool > 1)
        fill_dz_pooled(plan, g, plan->state + (size_t)image->sample * shape_size(out),
                       thread_dz(plan));
    else
        fill_dz_unpooled(plan, g, thread_dz(plan));
    fill_x(plan, image->x, thread_x(plan));
    const struct survivor_rows rows = sparse_rows(&s->matrix, NULL, 0, out.channels, 0, 1);
    const struct survivor_factors factors = {.left = thread_dz(plan) + s->lead,
                                             .right = thread_x(plan),
                                             .row_step = s->gradient,
                                             .pieces = 1,
                                             .vectors = s->stretch};
    plan->kernels->survivors->correlate(&rows, &factors, true,
                                        s->weight_gradient + grain * s->matrix.count);
    if (!plan->first)
        input_gradient(plan, plan_scratch(plan), image->dx);
}

/* Weights in parts, then the biases. */
static size_t backward_parts(const struct block_plan *plan) {
    return (sparse_of(plan)->matrix.count + PART - 1) / PART + 1;
}

/* The sum over grains of parts [grains][step], `size` elements of each. */
static void add_grains(int count, size_t size, const float *parts, size_t step,
                       float *restrict sum) {
    memcpy(sum, parts, size * sizeof *sum);
    for (int g = 1; g < count; g++) {
        parts += step;
        for (size_t e = 0; e < size; e++)
            sum[e] += parts[e];
    }
}

static void backward_reduce(const struct block_plan *plan, int grains, size_t part,
                            const struct backward_args *args) {
    const struct sparse_conv *s = sparse_of(plan);
    const size_t filters = (size_t)plan->desc.linear.channels, count = s->matrix.count;
    const size_t first = part * PART, left = count > first ? count - first : 0;
    if (part + 1 == backward_parts(plan))
        add_grains(grains, filters, s->bias_gradient, filters, args->dbias);
    else
        add_grains(grains, left < PART ? left : PART, s->weight_gradient + first, count,
                   args->dweights + first);
}

static const struct images_kind images = {backward_begin, backward_image, backward_reduce,
                                          backward_parts};

/* Measured on the second layer of ann_a, AVX2 and AVX-512, one thread and two. */
const struct sparse_form sparse_form_conv = {
    .forward = {.name = "sparse weights",
                .create = forward_create,
                .run = images_forward,
                .image = forward_image},
    .backward = {.name = "sparse weights",
                 .create = backward_create,
                 .load = backward_load,
                 .run = images_backward,
                 .images = &images},
    .fits = fits,
    .set_survivors = set_survivors,
    .below = 0.1,
};
