/* Dense layers by lists of the non-zero values of one factor, a panel of the other at a time. */
#include "dense.h"

/* Groups of rows in a tile: all, where there are several panels for each thread. */
enum { FEW_GROUPS = 4, ENOUGH_PANELS = 8, WEIGHT_GROUPS = 16 };

enum status dense_nonzero_create(struct block_plan *plan, size_t *scratch_floats) {
    struct dense *dense = dense_of(plan);
    const int samples = plan->max_samples, inputs = dense->inputs, units = dense->units;
    const size_t panel = (size_t)plan->kernels->nonzero->panel;
    const size_t panels = ((size_t)units + panel - 1) / panel;
    *scratch_floats = (NONZERO_COLUMNS + WEIGHT_GROUPS * NONZERO_ROWS) * panel;
    TRY(nonzeros_create(plan->arena, samples, inputs, &dense->x));
    TRY(nonzeros_create(plan->arena, inputs, samples, &dense->x_transposed));
    TRY(nonzeros_create(plan->arena, samples, units, &dense->dz));
    TRY(nonzeros_create(plan->arena, units, samples, &dense->dz_transposed));
    return ARENA_ARRAY(plan->arena, panels * panel * (size_t)inputs, &dense->weights);
}

static int panels_of(const struct block_plan *plan, int columns) {
    const int panel = plan->kernels->nonzero->panel;
    return (columns + panel - 1) / panel;
}

static int groups_in_tile(const struct block_plan *plan, int panels, int groups) {
    return panels < ENOUGH_PANELS * plan->threads ? smaller(FEW_GROUPS, groups) : groups;
}

/* Element [row][column] of a matrix. */
static size_t at(int row, int column, int columns) {
    return (size_t)row * (size_t)columns + (size_t)column;
}

/* ---- lists ---- */

static void transpose_weights(const struct block_plan *plan) {
    const struct nonzero_kernels *kernels = plan->kernels->nonzero;
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

void dense_prepare_forward(struct block_plan *plan, const float *x) {
    struct dense *dense = dense_of(plan);
    if (dense->weights_stale)
        transpose_weights(plan);
#pragma omp for schedule(static) nowait
    for (int group = 0; group < nonzeros_groups(dense->x.rows); group++)
        nonzeros_collect(&dense->x, plan->kernels->nonzero, group, x);
}

static void transpose_lists(const struct block_plan *plan, struct nonzeros *lists,
                            const float *transpose) {
#pragma omp for schedule(static) nowait
    for (int group = 0; group < nonzeros_groups(lists->rows); group++)
        nonzeros_collect_transposed(lists, plan->kernels->nonzero, group, transpose);
}

void dense_transpose_x(struct block_plan *plan, const float *x) {
    transpose_lists(plan, &dense_of(plan)->x_transposed, x);
}

void dense_transpose_dz(struct block_plan *plan, const float *dz) {
    transpose_lists(plan, &dense_of(plan)->dz_transposed, dz);
}

/* ---- products ---- */

/* A factor [lists->columns][columns], and which of its columns count. */
struct factor {
    const float *matrix;
    int columns, first, width;
};

/* The rows of a factor that a block of the lists meets, as a panel in the thread's scratch. */
static const float *copy_panel(const struct block_plan *plan, const struct nonzeros *lists,
                               struct factor factor, int block) {
    const int first = block * NONZERO_COLUMNS;
    float *panel = plan_scratch(plan);
    plan->kernels->nonzero->copy(smaller(NONZERO_COLUMNS, lists->columns - first), factor.width,
                                 factor.matrix + at(first, factor.first, factor.columns),
                                 (size_t)factor.columns, panel);
    return panel;
}

/* Groups first .. end - 1 of the rows of the product, from `out` on, which are `stride` apart. */
static void multiply(const struct block_plan *plan, const struct nonzeros *lists,
                     struct factor factor, int first, int end, float *out, int stride) {
    for (int block = 0; block < nonzeros_blocks(lists->columns); block++) {
        const float *panel = copy_panel(plan, lists, factor, block);
        for (int group = first; group < end; group++) {
            const struct nonzero_rows rows = nonzeros_rows(lists, group, block);
            plan->kernels->nonzero->gather(&rows, panel, factor.width, block > 0,
                                           out + at((group - first) * NONZERO_ROWS, 0, stride),
                                           (size_t)stride);
        }
    }
}

static void forward_tile(const struct block_plan *plan, int unit, int first, int end, float *z) {
    const struct nonzero_kernels *kernels = plan->kernels->nonzero;
    const struct dense *dense = dense_of(plan);
    const float *panel = dense->weights + at(unit, 0, dense->inputs);
    for (int block = 0; block < nonzeros_blocks(dense->inputs); block++)
        for (int group = first; group < end; group++) {
            const struct nonzero_rows rows = nonzeros_rows(&dense->x, group, block);
            kernels->gather(&rows, panel + at(block * NONZERO_COLUMNS, 0, kernels->panel),
                            smaller(kernels->panel, dense->units - unit), block > 0,
                            z + at(group * NONZERO_ROWS, unit, dense->units), (size_t)dense->units);
        }
}

void dense_forward_nonzero(const struct block_plan *plan, float *z) {
    const struct dense *dense = dense_of(plan);
    const int panel = plan->kernels->nonzero->panel, groups = nonzeros_groups(dense->x.rows);
    const int tile = groups_in_tile(plan, panels_of(plan, dense->units), groups);
#pragma omp for collapse(2) schedule(static) nowait
    for (int k = 0; k < dense->units; k += panel)
        for (int group = 0; group < groups; group += tile)
            forward_tile(plan, k, group, smaller(group + tile, groups), z);
}

/* Some inputs of dW^T, in the scratch behind the panel, then transposed. */
static void weight_tile_by_x(const struct block_plan *plan, int group, int unit, const float *dz,
                             float *dweights) {
    const struct nonzero_kernels *kernels = plan->kernels->nonzero;
    const struct dense *dense = dense_of(plan);
    const struct nonzeros *lists = &dense->x_transposed;
    const int end = smaller(group + WEIGHT_GROUPS, nonzeros_groups(lists->rows));
    const int width = smaller(kernels->panel, dense->units - unit), input = group * NONZERO_ROWS;
    float *tile = plan_scratch(plan) + at(NONZERO_COLUMNS, 0, kernels->panel);
    multiply(plan, lists, (struct factor){dz, dense->units, unit, width}, group, end, tile,
             kernels->panel);
    kernels->transpose(smaller(end * NONZERO_ROWS, dense->inputs) - input, width, tile,
                       (size_t)kernels->panel, dweights + at(unit, input, dense->inputs),
                       (size_t)dense->inputs);
}

void dense_weight_gradient_by_x(const struct block_plan *plan, const float *dz,
                                const struct backward_args *args) {
    const struct dense *dense = dense_of(plan);
    const int panel = plan->kernels->nonzero->panel;
#pragma omp for collapse(2) schedule(static) nowait
    for (int k = 0; k < dense->units; k += panel)
        for (int group = 0; group < nonzeros_groups(dense->inputs); group += WEIGHT_GROUPS) {
            weight_tile_by_x(plan, group, k, dz, args->dweights);
            poll_from_team(args->poll);
        }
}

/* lists * factor, all columns of it: `out` has as many. */
static void multiply_all(const struct block_plan *plan, const struct nonzeros *lists,
                         const float *factor, int columns, float *out, struct poll poll) {
    const int panel = plan->kernels->nonzero->panel, groups = nonzeros_groups(lists->rows);
    const int tile = groups_in_tile(plan, panels_of(plan, columns), groups);
#pragma omp for collapse(2) schedule(static) nowait
    for (int j = 0; j < columns; j += panel)
        for (int group = 0; group < groups; group += tile) {
            multiply(plan, lists, (struct factor){factor, columns, j, smaller(panel, columns - j)},
                     group, smaller(group + tile, groups),
                     out + at(group * NONZERO_ROWS, j, columns), columns);
            poll_from_team(poll);
        }
}

void dense_weight_gradient_by_dz(const struct block_plan *plan, const struct backward_args *args) {
    const struct dense *dense = dense_of(plan);
    multiply_all(plan, &dense->dz_transposed, args->x, dense->inputs, args->dweights, args->poll);
}

void dense_input_gradient_by_dz(const struct block_plan *plan, const struct backward_args *args) {
    const struct dense *dense = dense_of(plan);
    multiply_all(plan, &dense->dz, plan->weights, dense->inputs, args->dx, args->poll);
}
