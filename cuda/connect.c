/* Dense layers under DropConnect (Wan et al. 2013). */
#include "plan.h"

#include <espalier/rng.h>

static enum status create(struct block_plan *plan) {
    const size_t words =
        connect_words((int)shape_size(plan->desc.input), plan->desc.linear.channels);
    return cuda_allocate((size_t)plan->max_samples * words * sizeof(uint32_t), &plan->linear);
}

static void destroy(struct block_plan *plan) {
    cuda_release(&plan->cuda->base, plan->linear);
}

static struct connect connect_of(const struct block_plan *plan, const struct block_pass *pass) {
    const struct block_desc *d = &plan->desc;
    return (struct connect){
        .inputs = (int)shape_size(d->input),
        .units = d->linear.channels,
        .dropped = d->dropconnect,
        .draws = d->dropconnect_draws,
        .seed = pass->seed,
        .stream = rng_stream(RNG_DROPCONNECT, d->layer),
        .draws_stream = rng_stream(RNG_DROPCONNECT_DRAWS, d->layer),
        .ids = pass->sample_ids,
        .source = cuda_step_source(plan->cuda, (struct step_values){.update = pass->update}),
        .activation = d->activation};
}

/* Alg. 2: the mean, or activations of sampled sums. */
static enum status evaluate(struct block_plan *plan, const struct block_pass *pass, const float *x,
                            float *room, struct epilogue *epilogue) {
    const struct connect connect = connect_of(plan, pass);
    if (connect.draws > 0) {
        epilogue->activation = ACTIVATION_NONE;
        TRY_CUDA(kernel_connect_sample(&connect, pass->samples, plan->weights, plan->bias, x, room,
                                       plan->cuda->stream));
        return ST_OK;
    }
    epilogue->bias = plan->bias;
    epilogue->factor = 1 - plan->desc.dropconnect;
    return dense_product(plan, pass->samples, x, room);
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    const struct connect connect = connect_of(plan, pass);
    const cudaStream_t stream = plan->cuda->stream;
    if (!pass->training)
        return evaluate(plan, pass, x, room, epilogue);
    TRY_CUDA(kernel_connect_masks(&connect, pass->samples, plan->linear, stream));
    TRY_CUDA(kernel_connect_forward(&connect, pass->samples, plan->linear, plan->weights,
                                    plan->bias, x, room, stream));
    return ST_OK;
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    const struct connect connect = connect_of(plan, pass);
    TRY_CUDA(kernel_connect_backward(&connect, pass->samples, plan->linear, plan->weights, to->x,
                                     dz, to->dweights, to->dbias, to->dx, plan->cuda->stream));
    return ST_OK;
}

const struct linear_kind linear_connect = {.name = "dropconnect",
                                           .create = create,
                                           .destroy = destroy,
                                           .forward = forward,
                                           .backward = backward};
