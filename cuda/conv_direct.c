#include "conv_direct.h"

#include <stdlib.h>
#include <string.h>

enum status conv_direct_wish(enum conv_wish *wish) {
    static const char *const names[] = {[CONV_WISH_CUDNN] = "cudnn", [CONV_WISH_DIRECT] = "direct"};
    const char *wanted = getenv("ESPALIER_CUDA_CONV");
    *wish = CONV_WISH_NONE;
    if (wanted == NULL)
        return ST_OK;
    for (int i = CONV_WISH_CUDNN; i <= CONV_WISH_DIRECT; i++)
        if (strcmp(wanted, names[i]) == 0)
            *wish = (enum conv_wish)i;
    if (*wish == CONV_WISH_NONE)
        FAIL(ST_USAGE, "ESPALIER_CUDA_CONV=%s: no such convolution, expected one of cudnn, direct",
             wanted);
    return ST_OK;
}

static struct convolution forward_of(const struct block_desc *d) {
    return (struct convolution){.height = d->input.height,
                                .width = d->input.width,
                                .channels = d->input.channels,
                                .out_height = d->linear.height,
                                .out_width = d->linear.width,
                                .filters = d->linear.channels,
                                .kernel = d->kernel,
                                .stride = d->stride,
                                .padding = d->padding,
                                .activation = ACTIVATION_NONE};
}

/* Of a stride of 1. Padding may become less than 0: what lies beyond the input is left out. */
static struct convolution backward_of(const struct block_desc *d) {
    return (struct convolution){.height = d->linear.height,
                                .width = d->linear.width,
                                .channels = d->linear.channels,
                                .out_height = d->input.height,
                                .out_width = d->input.width,
                                .filters = d->input.channels,
                                .kernel = d->kernel,
                                .stride = 1,
                                .padding = d->kernel - 1 - d->padding,
                                .activation = ACTIVATION_NONE};
}

static struct convolution pass_of(const struct block_desc *desc, enum conv_pass pass) {
    return pass == CONV_BACKWARD_DATA ? backward_of(desc) : forward_of(desc);
}

bool conv_direct_takes(const struct block_desc *desc, enum conv_pass pass, int samples) {
    if (pass == CONV_BACKWARD_DATA && desc->stride > 1)
        return false;
    const struct convolution convolution = pass_of(desc, pass);
    return pass == CONV_BACKWARD_FILTER ? convolution_gradient_fits(&convolution)
                                        : convolution_fits(&convolution, samples);
}

enum status conv_direct_prepare(struct cuda_backend *cuda, const struct block_desc *desc,
                                enum conv_pass pass, int samples) {
    const struct convolution convolution = pass_of(desc, pass);
    if (pass != CONV_BACKWARD_FILTER)
        return ST_OK;
    return cuda_reserve_workspace(cuda, convolution_gradient_scratch(&convolution, samples) *
                                            sizeof(float));
}

size_t conv_direct_weights(const struct block_desc *desc, enum conv_pass pass) {
    const struct convolution convolution = pass_of(desc, pass);
    return convolution_weights(&convolution);
}

enum status conv_direct_load(struct cuda_backend *cuda, const struct block_desc *desc,
                             const float *weights, float *forward, float *backward) {
    TRY_CUDA(kernel_convolution_weights(weights, desc->linear.channels, desc->input.channels,
                                        desc->kernel * desc->kernel, forward, backward,
                                        cuda->stream));
    return ST_OK;
}

enum status conv_direct_run(struct cuda_backend *cuda, const struct block_desc *desc,
                            enum conv_pass pass, int samples,
                            const struct conv_arguments *arguments) {
    struct convolution convolution = pass_of(desc, pass);
    const bool back = pass == CONV_BACKWARD_DATA;
    if (pass == CONV_BACKWARD_FILTER) {
        TRY_CUDA(kernel_convolution_gradient(&convolution, samples, arguments->x, arguments->y,
                                             cuda->workspace, (float *)arguments->w, cuda->stream));
        return ST_OK;
    }
    convolution.bias = arguments->bias;
    if (arguments->bias != NULL)
        convolution.activation = desc->activation;
    TRY_CUDA(kernel_convolution(&convolution, samples, back ? arguments->y : arguments->x,
                                arguments->w, (float *)(back ? arguments->x : arguments->y),
                                cuda->stream));
    return ST_OK;
}

enum status conv_direct_block(struct cuda_backend *cuda, const struct block_desc *desc, int samples,
                              const struct conv_arguments *arguments,
                              const struct epilogue *epilogue, uint8_t *state, bool *done) {
    const struct convolution convolution = forward_of(desc);
    *done = convolution_finishes(&convolution, epilogue);
    if (*done)
        TRY_CUDA(kernel_convolution_block(&convolution, epilogue, samples, arguments->x,
                                          arguments->w, (float *)arguments->y, state,
                                          cuda->stream));
    return ST_OK;
}
