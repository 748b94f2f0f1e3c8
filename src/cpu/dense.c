/* Dense layers: products over tiles of fixed size, so that the rounding does not depend on how
 * many threads share them. X [samples][inputs], W [units][inputs], Z and dZ [samples][units]. */
#include "cpu.h"

#include <cblas.h>
#include <string.h>

enum { TILE_SAMPLES = 64, TILE_UNITS = 64, TILE_INPUTS = 512 };

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static enum status dense_create(struct block_plan *plan, size_t *scratch_floats) {
    (void)plan;
    *scratch_floats = 0;
    return ST_OK;
}

static void dense_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                          float *y) {
    const int samples = pass->samples, units = plan->desc.linear.channels;
    const int inputs = (int)shape_size(plan->desc.input);
#pragma omp parallel num_threads(plan->threads)
    {
#pragma omp for collapse(2) schedule(dynamic)
        for (int i = 0; i < samples; i += TILE_SAMPLES)
            for (int k = 0; k < units; k += TILE_UNITS)
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans,
                            smaller(TILE_SAMPLES, samples - i), smaller(TILE_UNITS, units - k),
                            inputs, 1.0F, x + (size_t)i * (size_t)inputs, inputs,
                            plan->weights + (size_t)k * (size_t)inputs, inputs, 0.0F,
                            y + (size_t)i * (size_t)units + k, units);
#pragma omp for
        for (int i = 0; i < samples; i++) {
            float *row = y + (size_t)i * (size_t)units;
            epilogue_forward(plan, pass, i, row, row);
        }
    }
}

/* dW = dZ^T X. */
static void weight_gradient(const struct block_plan *plan, int samples, const float *dz,
                            const struct backward_args *args) {
    const int units = plan->desc.linear.channels, inputs = (int)shape_size(plan->desc.input);
#pragma omp for collapse(2) schedule(dynamic)
    for (int k = 0; k < units; k += TILE_UNITS)
        for (int j = 0; j < inputs; j += TILE_INPUTS) {
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, smaller(TILE_UNITS, units - k),
                        smaller(TILE_INPUTS, inputs - j), samples, 1.0F, dz + k, units, args->x + j,
                        inputs, 0.0F, args->dweights + (size_t)k * (size_t)inputs + j, inputs);
            poll_from_team(args->poll);
        }
}

/* dX = dZ W. */
static void input_gradient(const struct block_plan *plan, int samples, const float *dz,
                           const struct backward_args *args) {
    const int units = plan->desc.linear.channels, inputs = (int)shape_size(plan->desc.input);
#pragma omp for collapse(2) schedule(dynamic)
    for (int i = 0; i < samples; i += TILE_SAMPLES)
        for (int j = 0; j < inputs; j += TILE_INPUTS) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans,
                        smaller(TILE_SAMPLES, samples - i), smaller(TILE_INPUTS, inputs - j), units,
                        1.0F, dz + (size_t)i * (size_t)units, units, plan->weights + j, inputs,
                        0.0F, args->dx + (size_t)i * (size_t)inputs + j, inputs);
            poll_from_team(args->poll);
        }
}

static void bias_gradient(const struct block_plan *plan, int samples, const float *dz,
                          float *restrict dbias) {
    const int units = plan->desc.linear.channels;
    memset(dbias, 0, (size_t)units * sizeof *dbias);
    for (int i = 0; i < samples; i++, dz += units)
        for (int k = 0; k < units; k++)
            dbias[k] += dz[k];
}

static void dense_backward(struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args) {
    const size_t units = (size_t)plan->desc.linear.channels;
    float *dz = args->dy; /* in its place */
#pragma omp parallel num_threads(plan->threads)
    {
#pragma omp for
        for (int i = 0; i < pass->samples; i++) {
            const size_t o = (size_t)i * units;
            epilogue_backward(plan, pass, i, args->y + o, args->dy + o, dz + o);
        }
#pragma omp single nowait
        bias_gradient(plan, pass->samples, dz, args->dbias);
        weight_gradient(plan, pass->samples, dz, args);
        if (!plan->first)
            input_gradient(plan, pass->samples, dz, args);
    }
}

const struct forward_kind forward_dense = {"dense", dense_create, NULL, dense_forward};
const struct backward_kind backward_dense = {"dense", dense_create, NULL, dense_backward};
