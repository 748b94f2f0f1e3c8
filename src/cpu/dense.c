/* Dense layers: where enough of a factor of a product is zero, its zeros are skipped. Whether they
 * are is a function of the data alone. */
#include "dense.h"

#include <string.h>

/* Up to these fractions it is faster to skip zeros, from so many columns of the right factor on, as
 * measured with AVX2 and AVX-512 on layers of 300 to 4608 inputs: of x that is not zero, and of x
 * and of dz that is listed, where a value is if it or its neighbour is not zero. */
static const double forward_density = 0.45, by_x_density = 0.4, by_dz_density = 0.85;
enum { WIDE = 32 };

enum { SAMPLED_ROWS = 8 }; /* every so many rows of x tell its density */

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    struct dense *dense;
    TRY(ARENA_ARRAY(plan->arena, 1, &dense));
    dense->inputs = (int)shape_size(plan->desc.input);
    dense->units = plan->desc.linear.channels;
    plan->forward = dense;
    return dense_products_create(plan, scratch_floats);
}

static void forward_load(struct block_plan *plan) {
    dense_of(plan)->weights_stale = true;
}

/* The forward kind has created what both use: no other pairs with a dense layer. */
static enum status backward_create(struct block_plan *plan, size_t *scratch_floats) {
    plan->backward = plan->forward;
    *scratch_floats = 0;
    return ST_OK;
}

/* ---- forward ---- */

static bool is_sparse(const struct block_plan *plan, int samples, const float *x) {
    const size_t inputs = (size_t)dense_of(plan)->inputs;
    size_t rows = 0, nonzero = 0;
    for (int i = 0; i < samples; i += SAMPLED_ROWS, rows++)
        nonzero += plan->kernels->product->count_nonzero(x + (size_t)i * inputs, inputs);
    return (double)nonzero <= forward_density * (double)(rows * inputs);
}

static void dense_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                          float *y) {
    struct dense *dense = dense_of(plan);
    nonzeros_resize(&dense->x, pass->samples, dense->inputs);
    dense->x_is_listed = dense->units >= WIDE && is_sparse(plan, pass->samples, x);
#pragma omp parallel num_threads(plan->threads)
    {
        if (dense->weights_stale)
            dense_transpose_weights(plan);
        if (dense->x_is_listed)
            dense_list(plan, &dense->x, x);
#pragma omp barrier
        dense_forward_product(plan, pass->samples, x, dense->x_is_listed, y);
#pragma omp barrier
#pragma omp for nowait
        for (int i = 0; i < pass->samples; i++) {
            float *row = y + (size_t)i * (size_t)dense->units;
            epilogue_forward(plan, pass, i, row, row);
        }
    }
    dense->weights_stale = false;
}

/* ---- backward ---- */

static void bias_gradient(int samples, int units, const float *dz, float *restrict dbias) {
    memset(dbias, 0, (size_t)units * sizeof *dbias);
    for (int i = 0; i < samples; i++, dz += units)
        for (int k = 0; k < units; k++)
            dbias[k] += dz[k];
}

/* Activation and dropout leave zeros only where they can. */
static bool may_be_sparse(const struct block_desc *desc) {
    return desc->activation == ACTIVATION_RELU || desc->dropout > 0.0F;
}

/* dZ in place of dY, and its lists. */
static void prepare_dz(struct block_plan *plan, const struct block_pass *pass,
                       const struct backward_args *args) {
    struct dense *dense = dense_of(plan);
    const size_t units = (size_t)dense->units;
    float *dz = args->dy;
#pragma omp for schedule(static)
    for (int group = 0; group < nonzeros_groups(pass->samples); group++) {
        const int first = group * NONZERO_ROWS;
        for (int i = first; i < smaller(first + NONZERO_ROWS, pass->samples); i++) {
            const size_t o = (size_t)i * units;
            epilogue_backward(plan, pass, i, args->y + o, args->dy + o, dz + o);
        }
        if (may_be_sparse(&plan->desc))
            nonzeros_collect(&dense->dz, plan->kernels->product, group, dz);
    }
}

/* dW by the factor that has more zeros, if it has enough; all threads of the team decide alike. */
static void weight_gradient(struct block_plan *plan, int samples, double of_dz,
                            const struct backward_args *args) {
    struct dense *dense = dense_of(plan);
    const double of_x = dense->x_is_listed ? nonzeros_density(&dense->x) : 1.0;
    if (of_x <= by_x_density && of_x < of_dz) {
        dense_list_transposed(plan, &dense->x_transposed, args->x);
#pragma omp barrier
        dense_weight_gradient_by_x(plan, args);
    } else if (of_dz <= by_dz_density && dense->inputs >= WIDE) {
        dense_list_transposed(plan, &dense->dz_transposed, args->dy);
#pragma omp barrier
        dense_weight_gradient(plan, samples, true, args);
    } else
        dense_weight_gradient(plan, samples, false, args);
}

static void dense_backward(struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args) {
    struct dense *dense = dense_of(plan);
    const int samples = pass->samples;
    nonzeros_resize(&dense->x_transposed, dense->inputs, samples);
    nonzeros_resize(&dense->dz, samples, dense->units);
    nonzeros_resize(&dense->dz_transposed, dense->units, samples);
#pragma omp parallel num_threads(plan->threads)
    {
        prepare_dz(plan, pass, args);
        const double of_dz = may_be_sparse(&plan->desc) ? nonzeros_density(&dense->dz) : 1.0;
#pragma omp single nowait
        bias_gradient(samples, dense->units, args->dy, args->dbias);
        weight_gradient(plan, samples, of_dz, args);
        if (!plan->first)
            dense_input_gradient(plan, samples, of_dz <= by_dz_density && dense->inputs >= WIDE,
                                 args);
    }
}

const struct forward_kind forward_dense = {
    .name = "dense", .create = forward_create, .load = forward_load, .run = dense_forward};
const struct backward_kind backward_dense = {
    .name = "dense", .create = backward_create, .run = dense_backward};
