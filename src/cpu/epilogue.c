/* What follows the linear map of a block, one sample at a time. */
#include "cpu.h"

#include <string.h>

void epilogue_dropout(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *y) {
    if (!plan_drops(plan, pass))
        return;
    const size_t units = shape_size(plan->desc.output);
    const struct rng_counter counter = {.sample = pass->sample_ids[sample],
                                        .time = pass->update,
                                        .stream = rng_stream(RNG_DROPOUT, plan->desc.layer)};
    plan->kernels->epilogue->drop(pass->seed, counter, &plan->desc, y,
                                  plan->state + (size_t)sample * units);
}

void epilogue_forward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *z, float *y) {
    const struct epilogue_kernels *kernels = plan->kernels->epilogue;
    const struct block_desc *desc = &plan->desc;
    const size_t units = shape_size(desc->output), channels = (size_t)desc->linear.channels;
    const size_t pixels = (size_t)desc->linear.height * (size_t)desc->linear.width;
    uint8_t *state = plan->state + (size_t)sample * units;
    float *a = desc->pool > 1 ? z : y;
    kernels->activate(desc->activation, pixels, channels, plan->bias, z, a);
    if (desc->pool > 1)
        kernels->pool(desc, a, y, state);
    else if (plan_drops(plan, pass))
        memset(state, 0, units);
    epilogue_dropout(plan, pass, sample, y);
}

static float fraction_kept(const struct block_plan *plan, const struct block_pass *pass) {
    return plan_drops(plan, pass) ? 1.0F - plan->desc.dropout : 1.0F;
}

void epilogue_gradient(const struct block_plan *plan, const struct block_pass *pass, int sample,
                       const float *y, const float *dy, float *g) {
    const struct epilogue_kernels *kernels = plan->kernels->epilogue;
    const size_t units = shape_size(plan->desc.output);
    kernels->activate_backward(plan->desc.activation, units, fraction_kept(plan, pass), y, dy, g);
    if (plan_drops(plan, pass))
        kernels->drop_backward(units, plan->state + (size_t)sample * units, g);
}

void epilogue_backward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                       const float *y, const float *dy, float *dz) {
    const struct block_desc *desc = &plan->desc;
    const uint8_t *state = plan->state + (size_t)sample * shape_size(desc->output);
    if (desc->pool > 1)
        plan->kernels->epilogue->pool_backward(desc, fraction_kept(plan, pass), state, y, dy, dz);
    else
        epilogue_gradient(plan, pass, sample, y, dy, dz);
}
