/* Dense layers of which few connections are left. Samples are innermost: X^T and dZ^T lie in panels
 * [panels][inputs or units][samples of a panel], so that a connection multiplies a stretch of its
 * input's samples. Inputs are cut into blocks, whose stretches stay in the cache. A small X^T is
 * kept for the backward pass; of a large one, which memory would be slower to bring back than it is
 * to form, each block is formed where it is needed. */
#include "sparse.h"

#include <string.h>

/* Floats of a panel at most; inputs in a chunk, units that tiles are multiples of, panels at a
 * time. */
enum { PANEL = 64, CHUNK = 64, UNITS = 16, GROUP = 16, PAIR = 2 };

/* A block has so many inputs that a unit has this many connections to it; but a pair of panels
 * takes no more than a part of the second cache. */
enum { BLOCK_ENTRIES = 16, LEAST_BLOCK = 128, MOST_BLOCK = 1024, KEPT_FLOATS = 262144 };

struct sparse_dense {
    int inputs, units;
    int panel, vectors; /* samples and vectors of a stretch */
    int tile;           /* units that a thread takes at once */
    bool keeps_x;
    float *x, *dz;                    /* transposed, in panels */
    bool *used;                       /* [inputs / CHUNK]: which chunks have connections */
    int32_t *seen, *input, *reversed; /* the layout's */
    struct sparse_matrix matrix;
};

static struct sparse_dense *sparse_of(const struct block_plan *plan) {
    return plan->forward;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

static int panels_of(const struct sparse_dense *s, int samples) {
    return divide_up(samples, s->panel);
}

/* ---- the plan ---- */

static enum status allocate(struct block_plan *plan, struct sparse_dense *s) {
    const size_t samples = (size_t)panels_of(s, plan->max_samples) * (size_t)s->panel;
    TRY(ARENA_ARRAY(plan->arena, s->keeps_x ? samples * (size_t)s->inputs : 0, &s->x));
    TRY(ARENA_ARRAY(plan->arena, samples * (size_t)s->units, &s->dz));
    TRY(ARENA_ARRAY(plan->arena, (size_t)divide_up(s->inputs, CHUNK), &s->used));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->seen));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->input));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->reversed)); /* zeros */
    for (int j = 0; j < s->inputs; j++)
        s->input[j] = j;
    return ST_OK;
}

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    const int lanes = plan->kernels->lanes, most = plan->kernels->survivors->most_vectors * lanes;
    struct sparse_dense *s;
    TRY(ARENA_ARRAY(plan->arena, 1, &s));
    plan->forward = s;
    s->inputs = (int)shape_size(plan->desc.input);
    s->units = plan->desc.linear.channels;
    s->panel = smaller(PANEL, most);
    s->vectors = s->panel / lanes;
    const int panels = panels_of(s, plan->max_samples > 0 ? plan->max_samples : 1);
    const int parts = divide_up(plan->threads, panels); /* of the units, to keep threads busy */
    s->tile = divide_up(divide_up(s->units, parts), UNITS) * UNITS;
    const int rows = s->tile > CHUNK ? s->tile : CHUNK;
    s->keeps_x = (size_t)panels * (size_t)s->panel * (size_t)s->inputs <= KEPT_FLOATS;
    *scratch_floats = (size_t)(rows + (s->keeps_x ? 0 : PAIR * MOST_BLOCK)) * (size_t)s->panel;
    return allocate(plan, s);
}

/* The forward kind has created what both use: no other pairs with it. */
static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    plan->backward = plan->forward;
    *scratch_floats = 0;
    return ST_OK;
}

static int block_inputs(const struct sparse_dense *s, size_t count) {
    const double density = ((double)count + 1) / ((double)s->units * (double)s->inputs);
    const double wanted = BLOCK_ENTRIES / density;
    const int inputs = wanted < LEAST_BLOCK  ? LEAST_BLOCK
                       : wanted > MOST_BLOCK ? MOST_BLOCK
                                             : (int)wanted;
    const int even = divide_up(s->inputs, divide_up(s->inputs, inputs));
    return divide_up(even, CHUNK) * CHUNK;
}

static bool fits(const struct block_desc *desc) {
    const size_t inputs = shape_size(desc->input), units = (size_t)desc->linear.channels;
    return (inputs > units ? inputs : units) <= INT32_MAX / PANEL;
}

static enum status set_survivors(struct block_plan *plan, const struct block_survivors *survivors) {
    struct sparse_dense *s = sparse_of(plan);
    const struct sparse_layout layout = {.outputs = s->units,
                                         .inputs = s->inputs,
                                         .columns = s->inputs,
                                         .seen = s->seen,
                                         .input = s->input,
                                         .reversed = s->reversed,
                                         .output_step = s->panel};
    const int columns = block_inputs(s, survivors->count);
    for (int j = 0; j < s->inputs; j++)
        s->seen[j] = j % columns * s->panel;
    memset(s->used, 0, (size_t)divide_up(s->inputs, CHUNK) * sizeof *s->used);
    for (size_t e = 0; e < survivors->count; e++)
        s->used[survivors->indices[e] % (uint32_t)s->inputs / CHUNK] = true;
    return sparse_matrix_create(plan->survivors_arena, &layout, survivors, columns, !plan->first,
                                &s->matrix);
}

/* ---- panels ---- */

/* from[rows][stride] as columns `at` .. at + rows - 1 of panel[columns][s->panel]; what is beyond
 * the last sample is zero. */
static void fill_panel(const struct block_plan *plan, int rows, int columns, const float *from,
                       size_t stride, int at, bool last, float *panel) {
    const struct sparse_dense *s = sparse_of(plan);
    plan->kernels->product->transpose(rows, columns, from, stride, panel + at, (size_t)s->panel);
    const int end = at + rows;
    for (int j = 0; last && end < s->panel && j < columns; j++)
        memset(panel + (size_t)j * (size_t)s->panel + end, 0,
               (size_t)(s->panel - end) * sizeof *panel);
}

/* The panel of inputs `input` .. `end` - 1 that begins with sample `first`. */
static void fill_inputs(const struct block_plan *plan, int first, int samples, int input, int end,
                        const float *x, float *panel) {
    const struct sparse_dense *s = sparse_of(plan);
    const size_t inputs = (size_t)s->inputs;
    const int rows = smaller(s->panel, samples - first);
    x += (size_t)first * inputs;
    for (int j = input; j < end; j += CHUNK) {
        if (s->used[j / CHUNK])
            fill_panel(plan, rows, smaller(CHUNK, end - j), x + j, inputs, 0, true,
                       panel + (size_t)(j - input) * (size_t)s->panel);
    }
}

static float *kept_x(const struct sparse_dense *s, int first, int input) {
    return s->x + (size_t)first * (size_t)s->inputs + (size_t)input * (size_t)s->panel;
}

static void keep_x(const struct block_plan *plan, int samples, const float *x) {
    const struct sparse_dense *s = sparse_of(plan);
#pragma omp for collapse(2) schedule(static)
    for (int first = 0; first < samples; first += s->panel)
        for (int j = 0; j < s->inputs; j += CHUNK)
            fill_inputs(plan, first, samples, j, smaller(j + CHUNK, s->inputs), x,
                        kept_x(s, first, j));
}

/* A block of X^T for as many samples as `count` panels have: kept, or formed in the scratch behind
 * the tile. *step: from one panel to the next. */
static const float *block_of_x(const struct block_plan *plan, int first, int count, int samples,
                               int block, const float *x, size_t *step) {
    const struct sparse_dense *s = sparse_of(plan);
    const int input = block * s->matrix.block_columns;
    const int end = smaller(input + s->matrix.block_columns, s->inputs);
    if (s->keeps_x) {
        *step = (size_t)s->inputs * (size_t)s->panel;
        return kept_x(s, first, input);
    }
    const int rows = s->tile > CHUNK ? s->tile : CHUNK;
    float *formed = plan_scratch(plan) + (size_t)rows * (size_t)s->panel;
    *step = (size_t)s->matrix.block_columns * (size_t)s->panel;
    for (int p = 0; p < count; p++)
        fill_inputs(plan, first + p * s->panel, samples, input, end, x, formed + (size_t)p * *step);
    return formed;
}

/* rows [count][panel] of the panel that begins with sample `first`, to out[samples][stride]. */
static void drain(const struct block_plan *plan, int count, int first, int samples, float *out,
                  size_t stride) {
    const struct sparse_dense *s = sparse_of(plan);
    plan->kernels->product->transpose(count, smaller(s->panel, samples - first), plan_scratch(plan),
                                      (size_t)s->panel, out + (size_t)first * stride, stride);
}

/* ---- forward ---- */

static void forward_tile(const struct block_plan *plan, int samples, int first, int unit,
                         const float *x, float *z) {
    const struct sparse_dense *s = sparse_of(plan);
    const int count = smaller(s->tile, s->units - unit);
    for (int block = 0; block < s->matrix.blocks; block++) {
        size_t step;
        const float *seen = block_of_x(plan, first, 1, samples, block, x, &step);
        const struct survivor_rows rows =
            sparse_rows(&s->matrix, plan->weights, unit, count, block, block + 1);
        plan->kernels->survivors->combine(&rows, seen, s->vectors, block > 0, plan_scratch(plan),
                                          (size_t)s->panel);
    }
    drain(plan, count, first, samples, z + unit, (size_t)s->units);
}

static void forward_run(struct block_plan *plan, const struct block_pass *pass, const float *x,
                        float *y) {
    const struct sparse_dense *s = sparse_of(plan);
#pragma omp parallel num_threads(plan->threads)
    {
        if (s->keeps_x)
            keep_x(plan, pass->samples, x);
#pragma omp for collapse(2) schedule(static)
        for (int first = 0; first < pass->samples; first += s->panel)
            for (int k = 0; k < s->units; k += s->tile)
                forward_tile(plan, pass->samples, first, k, x, y);
#pragma omp for schedule(static) nowait
        for (int i = 0; i < pass->samples; i++) {
            float *row = y + (size_t)i * (size_t)s->units;
            epilogue_forward(plan, pass, i, row, row);
        }
    }
}

/* ---- backward ---- */

/* dZ in place of dY, and transposed; a group of samples at a time. */
static void prepare_dz(struct block_plan *plan, const struct block_pass *pass,
                       const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
    const size_t units = (size_t)s->units;
#pragma omp for schedule(static) nowait
    for (int first = 0; first < pass->samples; first += GROUP) {
        const int count = smaller(GROUP, pass->samples - first), at = first % s->panel;
        for (int i = first; i < first + count; i++) {
            float *dz = args->dy + (size_t)i * units;
            epilogue_backward(plan, pass, i, args->y + (size_t)i * units, dz, dz);
        }
        fill_panel(plan, count, s->units, args->dy + (size_t)first * units, units, at,
                   first + count == pass->samples, s->dz + (size_t)(first - at) * units);
    }
}

static void bias_gradient(int samples, int units, const float *dz, float *restrict dbias) {
    memset(dbias, 0, (size_t)units * sizeof *dbias);
    for (int i = 0; i < samples; i++, dz += units)
        for (int k = 0; k < units; k++)
            dbias[k] += dz[k];
}

/* Units first .. end - 1 and one block, a pair of panels at a time. */
static void weight_tile(const struct block_plan *plan, int samples, int block, int unit, int end,
                        const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
    const size_t panel = (size_t)s->panel;
    const struct survivor_rows rows =
        sparse_rows(&s->matrix, NULL, unit, end - unit, block, block + 1);
    for (int first = 0; first < samples; first += PAIR * s->panel) {
        const int count = smaller(PAIR, panels_of(s, samples - first));
        struct survivor_factors factors = {.left = s->dz + (size_t)first * (size_t)s->units +
                                                   (size_t)unit * panel,
                                           .row_step = panel,
                                           .left_step = (size_t)s->units * panel,
                                           .pieces = count,
                                           .vectors = s->vectors};
        factors.right =
            block_of_x(plan, first, count, samples, block, args->x, &factors.right_step);
        plan->kernels->survivors->correlate(&rows, &factors, first > 0, args->dweights);
    }
    poll_from_team(args->poll);
}

static void weight_gradient(const struct block_plan *plan, int samples,
                            const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
    const int units = s->keeps_x ? UNITS : s->units; /* what is formed serves all of them */
#pragma omp for collapse(2) schedule(dynamic) nowait
    for (int block = 0; block < s->matrix.blocks; block++)
        for (int k = 0; k < s->units; k += units)
            weight_tile(plan, samples, block, k, smaller(k + units, s->units), args);
}

static void input_gradient(const struct block_plan *plan, int samples,
                           const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
#pragma omp for collapse(2) schedule(static) nowait
    for (int first = 0; first < samples; first += s->panel)
        for (int j = 0; j < s->inputs; j += CHUNK) {
            const int count = smaller(CHUNK, s->inputs - j);
            const struct survivor_rows rows = sparse_input_rows(&s->matrix, j, count);
            plan->kernels->survivors->combine(&rows, s->dz + (size_t)first * (size_t)s->units,
                                              s->vectors, false, plan_scratch(plan),
                                              (size_t)s->panel);
            drain(plan, count, first, samples, args->dx + j, (size_t)s->inputs);
            poll_from_team(args->poll);
        }
}

static void backward_run(struct block_plan *plan, const struct block_pass *pass,
                         const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
#pragma omp parallel num_threads(plan->threads)
    {
        prepare_dz(plan, pass, args);
        if (!plan->first)
            sparse_order_values(&s->matrix, plan->weights);
#pragma omp barrier
#pragma omp single nowait
        bias_gradient(pass->samples, s->units, args->dy, args->dbias);
        if (!plan->first)
            input_gradient(plan, pass->samples, args);
        weight_gradient(plan, pass->samples, args);
    }
}

/* Measured on the layers of ann_a and lenet_300_100, AVX2 and AVX-512, one thread and two. */
const struct sparse_form sparse_form_dense = {
    .forward = {.name = "sparse weights", .create = forward_create, .run = forward_run},
    .backward = {.name = "sparse weights", .create = backward_create, .run = backward_run},
    .fits = fits,
    .set_survivors = set_survivors,
    .below = 0.2,
};
