/* Dense products, by cuBLAS: what is row-major here is its transpose there. */
#include "plan.h"

static int inputs_of(const struct block_plan *plan) {
    return (int)shape_size(plan->desc.input);
}

enum status dense_product(const struct block_plan *plan, int samples, const float *x, float *z) {
    const int inputs = inputs_of(plan), units = plan->desc.linear.channels;
    const float one = 1, zero = 0;
    if (samples > 0)
        TRY_CUBLAS(cublasSgemm(plan->cuda->cublas, CUBLAS_OP_T, CUBLAS_OP_N, units, samples, inputs,
                               &one, plan->weights, inputs, x, inputs, &zero, z, units));
    return ST_OK;
}

static enum status create(struct block_plan *plan) {
    (void)plan;
    return ST_OK;
}

static void destroy(struct block_plan *plan) {
    (void)plan;
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    epilogue->bias = plan->bias;
    return dense_product(plan, pass->samples, x, room);
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    struct cuda_backend *cuda = plan->cuda;
    const int inputs = inputs_of(plan), units = plan->desc.linear.channels;
    const int samples = pass->samples;
    const float one = 1, zero = 0;
    TRY_CUDA(kernel_column_sums(dz, plan_rows(plan, samples), units, plan->columns, to->dbias,
                                cuda->stream));
    if (samples == 0)
        return cuda_clear(&cuda->base, to->dweights, block_weights(&plan->desc) * sizeof *dz);
    TRY_CUBLAS(cublasSgemm(cuda->cublas, CUBLAS_OP_N, CUBLAS_OP_T, inputs, units, samples, &one,
                           to->x, inputs, dz, units, &zero, to->dweights, inputs));
    if (to->dx != NULL)
        TRY_CUBLAS(cublasSgemm(cuda->cublas, CUBLAS_OP_N, CUBLAS_OP_N, inputs, samples, units, &one,
                               plan->weights, inputs, dz, units, &zero, to->dx, inputs));
    return ST_OK;
}

const struct linear_kind linear_dense = {.name = "cublas",
                                         .create = create,
                                         .destroy = destroy,
                                         .forward = forward,
                                         .backward = backward};
