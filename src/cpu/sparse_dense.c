/* Dense layers of which few connections are left. Samples are innermost: X^T and dZ^T lie in panels
 * [panels][inputs or units][samples of a panel], so that a connection multiplies a stretch of its
 * input's samples. Inputs are cut into blocks, whose stretches stay in the cache. */
#include "sparse.h"

#include <string.h>

/* Floats of a panel at most; inputs in a chunk, units that tiles are multiples of. */
enum { PANEL = 64, CHUNK = 64, UNITS = 16, GROUP = 16 };

/* A block has so many inputs that a unit has this many connections to it; but its stretches take
 * no more than a part of the second cache. Weight gradients take several blocks at once. */
enum { BLOCK_ENTRIES = 16, LEAST_BLOCK = 96, MOST_BLOCK = 768, CACHE_FLOATS = 131072 };

struct sparse_dense {
    int inputs, units;
    int panel, vectors;               /* samples and vectors of a stretch */
    int tile;                         /* units that a thread takes at once */
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
    TRY(ARENA_ARRAY(plan->arena, samples * (size_t)s->inputs, &s->x));
    TRY(ARENA_ARRAY(plan->arena, samples * (size_t)s->units, &s->dz));
    TRY(ARENA_ARRAY(plan->arena, (size_t)divide_up(s->inputs, CHUNK), &s->used));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->seen));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->input));
    TRY(ARENA_ARRAY(plan->arena, (size_t)s->inputs, &s->reversed)); /* zeros */
    for (int j = 0; j < s->inputs; j++) {
        s->seen[j] = j * s->panel;
        s->input[j] = j;
    }
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
    *scratch_floats = (size_t)rows * (size_t)s->panel;
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
    return divide_up(s->inputs, divide_up(s->inputs, inputs));
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
    memset(s->used, 0, (size_t)divide_up(s->inputs, CHUNK) * sizeof *s->used);
    for (size_t e = 0; e < survivors->count; e++)
        s->used[survivors->indices[e] % (uint32_t)s->inputs / CHUNK] = true;
    return sparse_matrix_create(plan->survivors_arena, &layout, survivors,
                                block_inputs(s, survivors->count), !plan->first, &s->matrix);
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

static void fill_x(const struct block_plan *plan, int samples, const float *x) {
    const struct sparse_dense *s = sparse_of(plan);
    const size_t inputs = (size_t)s->inputs;
#pragma omp for collapse(2) schedule(static) nowait
    for (int first = 0; first < samples; first += s->panel)
        for (int j = 0; j < s->inputs; j += CHUNK)
            if (s->used[j / CHUNK])
                fill_panel(plan, smaller(s->panel, samples - first), smaller(CHUNK, s->inputs - j),
                           x + (size_t)first * inputs + j, inputs, 0, true,
                           s->x + (size_t)first * inputs + (size_t)j * (size_t)s->panel);
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
                         float *z) {
    const struct sparse_dense *s = sparse_of(plan);
    const int count = smaller(s->tile, s->units - unit);
    const float *x = s->x + (size_t)first * (size_t)s->inputs;
    for (int block = 0; block < s->matrix.blocks; block++) {
        const struct survivor_rows rows =
            sparse_rows(&s->matrix, plan->weights, unit, count, block, block + 1);
        plan->kernels->survivors->combine(&rows, x, s->vectors, block > 0, plan_scratch(plan),
                                          (size_t)s->panel);
    }
    drain(plan, count, first, samples, z + unit, (size_t)s->units);
}

static void forward_run(struct block_plan *plan, const struct block_pass *pass, const float *x,
                        float *y) {
    const struct sparse_dense *s = sparse_of(plan);
#pragma omp parallel num_threads(plan->threads)
    {
        fill_x(plan, pass->samples, x);
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
        for (int first = 0; first < pass->samples; first += s->panel)
            for (int k = 0; k < s->units; k += s->tile)
                forward_tile(plan, pass->samples, first, k, y);
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

/* Survivors of unused outputs are in no row: their gradient stays zero. */
static void clear_unused(const struct sparse_dense *s, float *dweights) {
    if (!s->matrix.complete)
        memset(dweights, 0, s->matrix.count * sizeof *dweights);
}

static void weight_gradient(const struct block_plan *plan, int samples,
                            const struct backward_args *args) {
    const struct sparse_dense *s = sparse_of(plan);
    const struct sparse_matrix *m = &s->matrix;
    const int panels = panels_of(s, samples), fit = CACHE_FLOATS / (panels * s->panel);
    const int blocks = fit > m->block_columns ? fit / m->block_columns : 1; /* at once */
    const size_t panel = (size_t)s->panel;
    struct survivor_factors factors = {.right = s->x,
                                       .row_step = panel,
                                       .left_step = (size_t)s->units * panel,
                                       .right_step = (size_t)s->inputs * panel,
                                       .pieces = panels,
                                       .vectors = s->vectors};
#pragma omp for collapse(2) schedule(dynamic) nowait
    for (int block = 0; block < m->blocks; block += blocks)
        for (int k = 0; k < s->units; k += UNITS) {
            const struct survivor_rows rows =
                sparse_rows(m, NULL, k, smaller(UNITS, s->units - k), block,
                            smaller(block + blocks, m->blocks));
            factors.left = s->dz + (size_t)k * panel;
            plan->kernels->survivors->correlate(&rows, &factors, false, args->dweights);
            poll_from_team(args->poll);
        }
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
#pragma omp single nowait
        clear_unused(s, args->dweights);
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
    .forward = {"sparse weights", forward_create, NULL, forward_run, NULL},
    .backward = {"sparse weights", backward_create, NULL, backward_run, NULL, NULL},
    .fits = fits,
    .set_survivors = set_survivors,
    .below = 0.2,
};
