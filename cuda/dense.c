/* Dense products, by cuBLAS: what is row-major here is its transpose there; those of few units by
 * kernels of our own. */
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

/* Where cuBLAS takes as long as for many units: its tiles stay empty. */
static bool is_small(const struct block_plan *plan) {
    enum { UNITS_MOST = 32, INPUTS_MOST = 1024 };
    return plan->desc.linear.channels <= UNITS_MOST && inputs_of(plan) <= INPUTS_MOST;
}

static struct small_product small_of(const struct block_plan *plan) {
    return (struct small_product){.inputs = inputs_of(plan),
                                  .units = plan->desc.linear.channels,
                                  .activation = ACTIVATION_NONE};
}

/* With bias and activation where nothing but those follows. */
static enum status forward_small(struct block_plan *plan, const struct block_pass *pass,
                                 const float *x, float *room, struct epilogue *epilogue) {
    struct small_product product = small_of(plan);
    if (plan->desc.dropout == 0) {
        product.bias = plan->bias;
        product.activation = plan->desc.activation;
        epilogue->activation = ACTIVATION_NONE;
    } else {
        epilogue->bias = plan->bias;
    }
    TRY_CUDA(
        kernel_small_forward(&product, pass->samples, x, plan->weights, room, plan->cuda->stream));
    return ST_OK;
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    if (is_small(plan))
        return forward_small(plan, pass, x, room, epilogue);
    epilogue->bias = plan->bias;
    return dense_product(plan, pass->samples, x, room);
}

static enum status backward_small(struct block_plan *plan, int samples, const float *dz,
                                  const struct gradients *to) {
    const struct small_product product = small_of(plan);
    cudaStream_t stream = plan->cuda->stream;
    TRY_CUDA(kernel_small_weights(&product, samples, to->x, dz, to->dweights, stream));
    if (to->dx != NULL)
        TRY_CUDA(kernel_small_inputs(&product, samples, plan->weights, dz, to->dx, stream));
    return ST_OK;
}

static enum status backward_large(struct block_plan *plan, int samples, const float *dz,
                                  const struct gradients *to) {
    const int inputs = inputs_of(plan), units = plan->desc.linear.channels;
    struct cuda_backend *cuda = plan->cuda;
    const float one = 1, zero = 0;
    if (samples == 0)
        return cuda_clear(&cuda->base, to->dweights, block_weights(&plan->desc) * sizeof *dz);
    TRY_CUBLAS(cublasSgemm(cuda->cublas, CUBLAS_OP_N, CUBLAS_OP_T, inputs, units, samples, &one,
                           to->x, inputs, dz, units, &zero, to->dweights, inputs));
    if (to->dx != NULL)
        TRY_CUBLAS(cublasSgemm(cuda->cublas, CUBLAS_OP_N, CUBLAS_OP_N, inputs, samples, units, &one,
                               plan->weights, inputs, dz, units, &zero, to->dx, inputs));
    return ST_OK;
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    return (is_small(plan) ? backward_small : backward_large)(plan, pass->samples, dz, to);
}

static void algorithms(const struct block_plan *plan, const char **forward, const char **backward) {
    *forward = *backward = is_small(plan) ? "direct" : "cublas";
}

const struct linear_kind linear_dense = {.name = "cublas",
                                         .biased = true,
                                         .create = create,
                                         .destroy = destroy,
                                         .algorithms = algorithms,
                                         .forward = forward,
                                         .backward = backward};
