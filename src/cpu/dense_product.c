/* The matrix products of dense layers: a panel of the right factor at a time meets groups of rows
 * of the left one, which is listed without its zeros, or as it lies in memory. */
#include "dense.h"

/* Groups of rows in a tile: all, where there are several panels for each thread. */
enum { FEW_GROUPS = 4, ENOUGH_PANELS = 8, WEIGHT_GROUPS = 16 };

enum status dense_products_create(struct block_plan *plan, size_t *scratch_floats) {
    struct dense *dense = dense_of(plan);
    const int samples = plan->max_samples, inputs = dense->inputs, units = dense->units;
    const size_t panel = (size_t)plan->kernels->product->panel;
    const size_t panels = ((size_t)units + panel - 1) / panel;
    *scratch_floats = (NONZERO_COLUMNS + WEIGHT_GROUPS * NONZERO_ROWS) * panel;
    TRY(nonzeros_create(plan->arena, samples, inputs, &dense->x));
    TRY(nonzeros_create(plan->arena, inputs, samples, &dense->x_transposed));
    TRY(nonzeros_create(plan->arena, samples, units, &dense->dz));
    TRY(nonzeros_create(plan->arena, units, samples, &dense->dz_transposed));
    return ARENA_ARRAY(plan->arena, panels * panel * (size_t)inputs, &dense->weights);
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

static int groups_in_tile(const struct block_plan *plan, int columns, int groups) {
    const int panel = plan->kernels->product->panel, panels = (columns + panel - 1) / panel;
    return panels < ENOUGH_PANELS * plan->threads ? smaller(FEW_GROUPS, groups) : groups;
}

/* Element [row][column] of a matrix. */
static size_t at(int row, int column, int columns) {
    return (size_t)row * (size_t)columns + (size_t)column;
}

/* ---- preparations ---- */

void dense_transpose_weights(const struct block_plan *plan) {
    const struct product_kernels *kernels = plan->kernels->product;
    const struct dense *dense = dense_of(plan);
    const int inputs = dense->inputs, panel = kernels->panel;
#pragma omp for collapse(2) schedule(static) nowait
    for (int k = 0; k < dense->units; k += panel)
        for (int j = 0; j < inputs; j += NONZERO_COLUMNS)
            kernels->transpose(smaller(panel, dense->units - k),
                               smaller(NONZERO_COLUMNS, inputs - j),
                               plan->weights + at(k, j, inputs), (size_t)inputs,
                               dense->weights + at(k, 0, inputs) + at(j, 0, panel), (size_t)panel);
}

void dense_list(const struct block_plan *plan, struct nonzeros *lists, const float *matrix) {
#pragma omp for schedule(static) nowait
    for (int group = 0; group < nonzeros_groups(lists->rows); group++)
        nonzeros_collect(lists, plan->kernels->product, group, matrix);
}

void dense_list_transposed(const struct block_plan *plan, struct nonzeros *lists,
                           const float *transpose) {
#pragma omp for schedule(static) nowait
    for (int group = 0; group < nonzeros_groups(lists->rows); group++)
        nonzeros_collect_transposed(lists, plan->kernels->product, group, transpose);
}

/* ---- tiles ---- */

/* The left factor of a product: lists, or where they are NULL the matrix. */
struct left {
    const struct nonzeros *lists;
    struct matrix_rows matrix;
};

/* A panel of the right factor [columns of the left][columns]. */
struct right {
    const float *matrix;
    int columns, first, width; /* the panel's begin, and its columns */
};

/* Groups first .. end - 1 of the rows of the left factor, one block of its columns. */
static void multiply_block(const struct block_plan *plan, const struct left *left, int first,
                           int end, int block, const float *panel, int width, float *out,
                           int stride) {
    const struct product_kernels *kernels = plan->kernels->product;
    const bool add = block > 0;
    if (left->lists == NULL) {
        struct matrix_rows rows = left->matrix;
        rows.count = smaller(end * NONZERO_ROWS, rows.count) - first * NONZERO_ROWS;
        rows.columns = smaller(NONZERO_COLUMNS, rows.columns - block * NONZERO_COLUMNS);
        rows.values += (size_t)(first * NONZERO_ROWS) * rows.row_step +
                       (size_t)(block * NONZERO_COLUMNS) * rows.column_step;
        kernels->multiply(&rows, panel, width, add, out, (size_t)stride);
        return;
    }
    for (int group = first; group < end; group++, out += at(NONZERO_ROWS, 0, stride)) {
        const struct nonzero_rows rows = nonzeros_rows(left->lists, group, block);
        kernels->multiply_nonzero(&rows, panel, width, add, out, (size_t)stride);
    }
}

/* Groups first .. end - 1 of the rows of the product, to `out`. */
static void multiply(const struct block_plan *plan, const struct left *left,
                     const struct right *right, int first, int end, float *out, int stride) {
    const int columns = left->matrix.columns;
    float *panel = plan_scratch(plan);
    for (int block = 0; block < nonzeros_blocks(columns); block++) {
        const int row = block * NONZERO_COLUMNS;
        plan->kernels->product->copy(smaller(NONZERO_COLUMNS, columns - row), right->width,
                                     right->matrix + at(row, right->first, right->columns),
                                     (size_t)right->columns, panel);
        multiply_block(plan, left, first, end, block, panel, right->width, out, stride);
    }
}

/* ---- forward ---- */

static void forward_tile(const struct block_plan *plan, const struct left *left, int unit,
                         int first, int end, float *z) {
    const struct dense *dense = dense_of(plan);
    const int panel = plan->kernels->product->panel, width = smaller(panel, dense->units - unit);
    const float *weights = dense->weights + at(unit, 0, dense->inputs);
    for (int block = 0; block < nonzeros_blocks(dense->inputs); block++)
        multiply_block(plan, left, first, end, block,
                       weights + at(block * NONZERO_COLUMNS, 0, panel), width,
                       z + at(first * NONZERO_ROWS, unit, dense->units), dense->units);
}

/* Threads share out the samples, or the units where those are more: each then reads all of the
 * smaller factor, and its own part of the larger, which lies in its caches if it wrote that. */
void dense_forward_product(const struct block_plan *plan, int samples, const float *x, bool listed,
                           float *z) {
    const struct dense *dense = dense_of(plan);
    const struct left left = {listed ? &dense->x : NULL,
                              {samples, dense->inputs, x, (size_t)dense->inputs, 1}};
    const int groups = nonzeros_groups(samples), tile = groups_in_tile(plan, dense->units, groups);
    const int panel = plan->kernels->product->panel, panels = divide_up(dense->units, panel);
    const int tiles = divide_up(groups, tile);
#pragma omp for schedule(static) nowait
    for (int i = 0; i < panels * tiles; i++) {
        const bool by_units = samples < dense->units;
        const int k = by_units ? i / tiles : i % panels;
        const int first = tile * (by_units ? i % tiles : i / panels);
        forward_tile(plan, &left, k * panel, first, smaller(first + tile, groups), z);
    }
}

/* ---- backward ---- */

/* out = left * right, of whose columns `out` has as many. */
static void multiply_all(const struct block_plan *plan, const struct left *left, const float *right,
                         int columns, float *out, struct poll poll) {
    const int panel = plan->kernels->product->panel, groups = nonzeros_groups(left->matrix.count);
    const int tile = groups_in_tile(plan, columns, groups);
#pragma omp for collapse(2) schedule(static) nowait
    for (int j = 0; j < columns; j += panel)
        for (int group = 0; group < groups; group += tile) {
            multiply(plan, left, &(struct right){right, columns, j, smaller(panel, columns - j)},
                     group, smaller(group + tile, groups),
                     out + at(group * NONZERO_ROWS, j, columns), columns);
            poll_from_team(poll);
        }
}

void dense_weight_gradient(const struct block_plan *plan, int samples, bool listed,
                           const struct backward_args *args) {
    const struct dense *dense = dense_of(plan);
    const struct left left = {listed ? &dense->dz_transposed : NULL,
                              {dense->units, samples, args->dy, 1, (size_t)dense->units}};
    multiply_all(plan, &left, args->x, dense->inputs, args->dweights, args->poll);
}

void dense_input_gradient(const struct block_plan *plan, int samples, bool listed,
                          const struct backward_args *args) {
    const struct dense *dense = dense_of(plan);
    const struct left left = {listed ? &dense->dz : NULL,
                              {samples, dense->units, args->dy, (size_t)dense->units, 1}};
    multiply_all(plan, &left, plan->weights, dense->inputs, args->dx, args->poll);
}

/* Inputs of the groups first .. end - 1 of dW^T, in the scratch behind the panel, then transposed.
 */
static void weight_tile_by_x(const struct block_plan *plan, const struct left *left, int first,
                             int end, int unit, const struct backward_args *args) {
    const struct product_kernels *kernels = plan->kernels->product;
    const int units = dense_of(plan)->units, inputs = left->matrix.count;
    const int width = smaller(kernels->panel, units - unit), input = first * NONZERO_ROWS;
    float *tile = plan_scratch(plan) + at(NONZERO_COLUMNS, 0, kernels->panel);
    multiply(plan, left, &(struct right){args->dy, units, unit, width}, first, end, tile,
             kernels->panel);
    kernels->transpose(smaller(end * NONZERO_ROWS, inputs) - input, width, tile,
                       (size_t)kernels->panel, args->dweights + at(unit, input, inputs),
                       (size_t)inputs);
}

void dense_weight_gradient_by_x(const struct block_plan *plan, const struct backward_args *args) {
    const struct nonzeros *lists = &dense_of(plan)->x_transposed;
    const struct left left = {lists, {.count = lists->rows, .columns = lists->columns}};
    const int groups = nonzeros_groups(lists->rows);
    const int tiles =
        (groups + WEIGHT_GROUPS - 1) / WEIGHT_GROUPS; /* of as equal sizes as can be */
#pragma omp for collapse(2) schedule(static) nowait
    for (int k = 0; k < dense_of(plan)->units; k += plan->kernels->product->panel)
        for (int tile = 0; tile < tiles; tile++) {
            weight_tile_by_x(plan, &left, groups * tile / tiles, groups * (tile + 1) / tiles, k,
                             args);
            poll_from_team(args->poll);
        }
}
