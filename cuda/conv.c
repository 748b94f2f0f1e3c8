/* Convolutions: a pass by the backend's own kernels, or by cuDNN: then by execution plans for each
 * number of samples that has come. */
#include "conv_direct.h"
#include "conv_tune.h"
#include "plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In place of a choice for the pass with bias and relu: they are faster apart. */
#define CONV_APART UINT32_MAX
enum { NAME_MOST = 64 };
_Static_assert((int)BLOCK_CHOICES == (int)CONV_PASSES, "a choice for each pass");

/* The plans of passes of so many samples; NULL where none has run yet, or there is none. */
struct variant {
    int samples;
    bool sought[CONV_PASSES];
    struct conv_plan *plans[CONV_PASSES];
    struct variant *next;
};

struct conv {
    bool fuses;                                /* bias and relu are all that follows */
    float *weights;                            /* [filters][kernel][kernel][channels] */
    float *dweights;                           /* likewise */
    float *bias;                               /* where cuDNN can read it */
    float *forward_weights, *backward_weights; /* in the order of the backend's own kernels */
    struct variant *variants;
    uint32_t choices[BLOCK_CHOICES];
    char forward[NAME_MOST], backward[NAME_MOST]; /* of the choices, for people */
};

static bool has_pass(const struct block_plan *plan, enum conv_pass pass) {
    const struct conv *conv = plan->linear;
    return (pass != CONV_FORWARD_RELU || conv->fuses) &&
           (pass != CONV_BACKWARD_DATA || !plan->first);
}

static enum conv_pass forward_pass(const struct conv *conv) {
    const bool apart = !conv->fuses || conv->choices[CONV_FORWARD_RELU] == CONV_APART;
    return apart ? CONV_FORWARD : CONV_FORWARD_RELU;
}

/* Whether the backend's own kernels compute a pass that there is. */
static bool takes_direct(const struct block_plan *plan, enum conv_pass pass) {
    const struct conv *conv = plan->linear;
    const struct cuda_backend *cuda = plan->cuda;
    const uint32_t choice = conv->choices[pass];
    if (cuda->conv_wish == CONV_WISH_CUDNN || !has_pass(plan, pass) ||
        !conv_direct_takes(&plan->desc, pass, plan->max_samples))
        return false;
    /* Tensor cores do not help where one channel is read: what is written bounds it. */
    const bool is_default = !cuda->tf32 || plan->desc.input.channels == 1;
    return cuda->conv_wish == CONV_WISH_DIRECT || choice == CONV_DIRECT ||
           (choice == CONV_HEURISTICS && is_default);
}

/* ---- names ---- */

static void add(char name[NAME_MOST], const char *format, ...) {
    const size_t length = strlen(name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name + length, NAME_MOST - length, format, arguments);
    va_end(arguments);
}

/* "cudnn 28.1": the first configuration of engine 28; what is cuDNN's again adds its number. */
static void add_name(char name[NAME_MOST], const struct block_plan *plan, enum conv_pass pass) {
    const struct conv *conv = plan->linear;
    const uint32_t choice = conv->choices[pass];
    const char *who = takes_direct(plan, pass) ? "direct" : "cudnn";
    if (strstr(name, who) == NULL)
        add(name, name[0] == 0 ? "%s" : ", %s", who);
    if (!takes_direct(plan, pass) && choice != CONV_HEURISTICS && choice != CONV_DIRECT)
        add(name, " %d.%d", (int)(choice >> 8) - 1, (int)(choice & 0xff));
}

static void name_choices(struct block_plan *plan) {
    struct conv *conv = plan->linear;
    conv->forward[0] = conv->backward[0] = 0;
    add_name(conv->forward, plan, forward_pass(conv));
    if (!plan->first)
        add_name(conv->backward, plan, CONV_BACKWARD_DATA);
    add_name(conv->backward, plan, CONV_BACKWARD_FILTER);
}

/* ---- plans ---- */

static enum status create(struct block_plan *plan) {
    struct conv *conv = calloc(1, sizeof *conv);
    if (conv == NULL)
        FAIL(ST_MEMORY, "out of memory: a convolution");
    const struct block_desc *d = &plan->desc;
    conv->fuses = d->activation == ACTIVATION_RELU && d->pool == 1 && d->dropout == 0;
    plan->linear = conv;
    name_choices(plan);
    if (conv_direct_takes(d, CONV_BACKWARD_FILTER, plan->max_samples))
        TRY(conv_direct_prepare(plan->cuda, d, CONV_BACKWARD_FILTER, plan->max_samples));
    TRY(PLAN_ARRAY(conv_direct_weights(d, CONV_FORWARD), &conv->forward_weights));
    TRY(PLAN_ARRAY(conv_direct_weights(d, CONV_BACKWARD_DATA), &conv->backward_weights));
    TRY(PLAN_ARRAY(block_biases(d), &conv->bias));
    TRY(PLAN_ARRAY(block_weights(d), &conv->weights));
    return PLAN_ARRAY(block_weights(d), &conv->dweights);
}

static void destroy_variant(struct variant *variant) {
    for (int i = 0; i < CONV_PASSES; i++)
        conv_plan_destroy(variant->plans[i]);
    free(variant);
}

static void destroy_variants(struct conv *conv) {
    while (conv->variants != NULL) {
        struct variant *next = conv->variants->next;
        destroy_variant(conv->variants);
        conv->variants = next;
    }
}

static void destroy(struct block_plan *plan) {
    struct conv *conv = plan->linear;
    if (conv == NULL)
        return;
    destroy_variants(conv);
    float *const memory[] = {conv->weights, conv->dweights, conv->bias, conv->forward_weights,
                             conv->backward_weights};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        cuda_release(&plan->cuda->base, memory[i]);
    free(conv);
}

/* In the order of each pass that reads them. */
static enum status load(struct block_plan *plan) {
    const struct block_desc *d = &plan->desc;
    const struct conv *conv = plan->linear;
    const bool forward = takes_direct(plan, forward_pass(conv));
    const bool backward = takes_direct(plan, CONV_BACKWARD_DATA);
    if (forward || backward)
        TRY(conv_direct_load(plan->cuda, d, plan->weights, forward ? conv->forward_weights : NULL,
                             backward ? conv->backward_weights : NULL));
    if (!forward || (!plan->first && !backward))
        TRY_CUDA(kernel_swap_inner(plan->weights, d->linear.channels, d->input.channels,
                                   d->kernel * d->kernel, conv->weights, plan->cuda->stream));
    if (forward)
        return ST_OK;
    return cuda_copy(&plan->cuda->base, conv->bias, plan->bias, block_biases(d) * sizeof(float));
}

static enum status find_variant(struct conv *conv, int samples, struct variant **variant) {
    for (*variant = conv->variants; *variant != NULL; *variant = (*variant)->next)
        if ((*variant)->samples == samples)
            return ST_OK;
    *variant = calloc(1, sizeof **variant);
    if (*variant == NULL)
        FAIL(ST_MEMORY, "out of memory: a convolution's plans");
    (*variant)->samples = samples;
    (*variant)->next = conv->variants;
    conv->variants = *variant;
    return ST_OK;
}

/* *prepared is NULL where cuDNN has no engine for the pass. */
static enum status prepare(struct block_plan *plan, enum conv_pass pass, int samples,
                           struct conv_plan **prepared) {
    struct cuda_backend *cuda = plan->cuda;
    const struct conv *conv = plan->linear;
    const uint32_t choice = conv->choices[pass];
    const struct conv_target target = {.handle = cuda->cudnn,
                                       .tf32 = cuda->tf32,
                                       .choice = choice == CONV_DIRECT ? CONV_HEURISTICS : choice};
    struct variant *variant;
    TRY(find_variant(plan->linear, samples, &variant));
    if (!variant->sought[pass]) {
        cuda->preparations++;
        TRY((pass == CONV_FORWARD_RELU ? conv_plan_find : conv_plan_create)(
            &target, pass, &plan->desc, samples, &variant->plans[pass]));
        if (variant->plans[pass] != NULL)
            TRY(cuda_reserve_workspace(cuda, conv_plan_workspace(variant->plans[pass])));
        variant->sought[pass] = true;
    }
    *prepared = variant->plans[pass];
    return ST_OK;
}

static enum status run(struct block_plan *plan, enum conv_pass pass, int samples,
                       const struct conv_arguments *arguments) {
    struct conv_plan *prepared;
    TRY(prepare(plan, pass, samples, &prepared));
    return conv_plan_run(prepared, plan->cuda->cudnn, arguments, plan->cuda->workspace);
}

/* The state is all zeros where bias and activation alone follow: it need not be written. */
static bool ends_in_activation(const struct block_desc *desc) {
    return desc->pool == 1 && desc->dropout == 0;
}

/* By the backend's own kernel, where it can do what follows as well. */
static enum status forward_whole(struct block_plan *plan, const struct block_pass *pass,
                                 const float *x, float *y, const struct epilogue *epilogue,
                                 bool *done) {
    const struct conv *conv = plan->linear;
    const struct conv_arguments arguments = {x, conv->forward_weights, y, plan->bias};
    struct epilogue biased = *epilogue;
    biased.bias = plan->bias;
    if (pass->samples == 0 || !takes_direct(plan, forward_pass(conv)))
        return ST_OK;
    if (!ends_in_activation(&plan->desc))
        return conv_direct_block(plan->cuda, &plan->desc, pass->samples, &arguments, &biased,
                                 plan->state, done);
    *done = true;
    return conv_direct_run(plan->cuda, &plan->desc, CONV_FORWARD, pass->samples, &arguments);
}

static enum status forward_direct(struct block_plan *plan, int samples, const float *x,
                                  float *room) {
    const struct conv *conv = plan->linear;
    const struct conv_arguments arguments = {x, conv->forward_weights, room, NULL};
    return conv_direct_run(plan->cuda, &plan->desc, CONV_FORWARD, samples, &arguments);
}

/* With bias and relu, where there is an engine for it: then nothing is left to follow. */
static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    const struct conv *conv = plan->linear;
    const struct conv_arguments arguments = {x, conv->weights, room, NULL};
    struct conv_plan *fused = NULL;
    if (pass->samples == 0)
        return ST_OK;
    epilogue->bias = plan->bias;
    if (takes_direct(plan, forward_pass(conv)))
        return forward_direct(plan, pass->samples, x, room);
    if (forward_pass(conv) == CONV_FORWARD_RELU)
        TRY(prepare(plan, CONV_FORWARD_RELU, pass->samples, &fused));
    if (fused != NULL) {
        const struct conv_arguments with_bias = {x, conv->weights, room, conv->bias};
        epilogue->activation = ACTIVATION_NONE;
        epilogue->bias = NULL;
        return conv_plan_run(fused, plan->cuda->cudnn, &with_bias, plan->cuda->workspace);
    }
    return run(plan, CONV_FORWARD, pass->samples, &arguments);
}

static enum status backward_filter(struct block_plan *plan, int samples, const float *dz,
                                   const struct gradients *to) {
    const struct block_desc *d = &plan->desc;
    const struct conv *conv = plan->linear;
    const bool direct = takes_direct(plan, CONV_BACKWARD_FILTER);
    const struct conv_arguments arguments = {to->x, direct ? to->dweights : conv->dweights, dz,
                                             NULL};
    if (direct)
        return conv_direct_run(plan->cuda, d, CONV_BACKWARD_FILTER, samples, &arguments);
    TRY(run(plan, CONV_BACKWARD_FILTER, samples, &arguments));
    TRY_CUDA(kernel_swap_inner(conv->dweights, d->linear.channels, d->kernel * d->kernel,
                               d->input.channels, to->dweights, plan->cuda->stream));
    return ST_OK;
}

static enum status backward_data(struct block_plan *plan, int samples, const float *dz,
                                 const struct gradients *to) {
    const struct conv *conv = plan->linear;
    const bool direct = takes_direct(plan, CONV_BACKWARD_DATA);
    const struct conv_arguments arguments = {
        to->dx, direct ? conv->backward_weights : conv->weights, dz, NULL};
    if (direct)
        return conv_direct_run(plan->cuda, &plan->desc, CONV_BACKWARD_DATA, samples, &arguments);
    return run(plan, CONV_BACKWARD_DATA, samples, &arguments);
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    const struct block_desc *d = &plan->desc;
    struct cuda_backend *cuda = plan->cuda;
    if (pass->samples == 0)
        return cuda_clear(&cuda->base, to->dweights, block_weights(d) * sizeof *dz);
    TRY(backward_filter(plan, pass->samples, dz, to));
    return to->dx == NULL ? ST_OK : backward_data(plan, pass->samples, dz, to);
}

/* ---- choices ---- */

static enum status measure_passes(struct block_plan *plan, int samples,
                                  uint32_t choices[BLOCK_CHOICES]) {
    const struct conv *conv = plan->linear;
    float milliseconds[CONV_PASSES], apart;
    for (int pass = 0; pass < CONV_PASSES; pass++) {
        choices[pass] = CONV_HEURISTICS;
        if (has_pass(plan, (enum conv_pass)pass))
            TRY(conv_tune(plan->cuda, (enum conv_pass)pass, &plan->desc, samples, &choices[pass],
                          &milliseconds[pass]));
    }
    if (!conv->fuses)
        return ST_OK;
    TRY(conv_tune_epilogue(plan->cuda, &plan->desc, samples, &apart));
    if (milliseconds[CONV_FORWARD_RELU] >= milliseconds[CONV_FORWARD] + apart)
        choices[CONV_FORWARD_RELU] = CONV_APART;
    return ST_OK;
}

static enum status choose(struct block_plan *plan, int samples, bool measure,
                          uint32_t choices[BLOCK_CHOICES]) {
    struct conv *conv = plan->linear;
    if (measure)
        return measure_passes(plan, samples, choices);
    memcpy(conv->choices, choices, sizeof conv->choices);
    name_choices(plan);
    destroy_variants(conv);
    cuda_forget_steps(&plan->cuda->base);
    plan->cuda->preparations++;
    return plan->weights == NULL ? ST_OK : load(plan);
}

static void algorithms(const struct block_plan *plan, const char **forward, const char **backward) {
    const struct conv *conv = plan->linear;
    *forward = conv->forward;
    *backward = conv->backward;
}

const struct linear_kind linear_conv = {.name = "conv",
                                        .biased = true,
                                        .create = create,
                                        .destroy = destroy,
                                        .choose = choose,
                                        .algorithms = algorithms,
                                        .load = load,
                                        .forward_whole = forward_whole,
                                        .forward = forward,
                                        .backward = backward};
