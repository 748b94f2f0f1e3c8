#include "block_reference.h"
#include "regularisers_reference.h"

#include <espalier/rng.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double *reference_array(size_t count) {
    double *array = malloc((count + 1) * sizeof *array);
    if (array == NULL) {
        fprintf(stderr, "reference: out of memory for %zu doubles\n", count);
        abort();
    }
    for (size_t i = 0; i < count; i++)
        array[i] = NAN;
    return array;
}

static size_t at(struct shape s, int y, int x, int c) {
    return ((size_t)y * (size_t)s.width + (size_t)x) * (size_t)s.channels + (size_t)c;
}

/* One product w * x of a linear map: which output it is a term of. */
struct term {
    size_t output, weight, input;
};

typedef void visit_term(void *context, struct term term);

/* The input pixel under tap (i, j) of the window at (y, x); false in the zero padding. */
static bool tap_inside(const struct block_desc *d, int y, int x, int i, int j, int *row, int *col) {
    *row = y * d->stride + i - d->padding;
    *col = x * d->stride + j - d->padding;
    return *row >= 0 && *row < d->input.height && *col >= 0 && *col < d->input.width;
}

static void visit_conv_output(const struct block_desc *d, int y, int x, int k, visit_term *visit,
                              void *context) {
    int row, col, channels = d->input.channels;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < d->kernel; i++)
            for (int j = 0; j < d->kernel; j++)
                if (tap_inside(d, y, x, i, j, &row, &col)) {
                    size_t filter = (size_t)k * (size_t)channels + (size_t)c;
                    size_t tap = (size_t)i * (size_t)d->kernel + (size_t)j;
                    size_t area = (size_t)d->kernel * (size_t)d->kernel;
                    visit(context, (struct term){at(d->linear, y, x, k), filter * area + tap,
                                                 at(d->input, row, col, c)});
                }
}

/* Every product of one sample's linear map, output by output. */
static void visit_terms(const struct block_desc *d, visit_term *visit, void *context) {
    size_t inputs = shape_size(d->input);
    if (d->kind == BLOCK_DENSE)
        for (size_t k = 0; k < (size_t)d->linear.channels; k++)
            for (size_t j = 0; j < inputs; j++)
                visit(context, (struct term){k, k * inputs + j, j});
    if (d->kind == BLOCK_CONV)
        for (int y = 0; y < d->linear.height; y++)
            for (int x = 0; x < d->linear.width; x++)
                for (int k = 0; k < d->linear.channels; k++)
                    visit_conv_output(d, y, x, k, visit, context);
}

struct forward_context {
    const struct block_desc *desc;
    const struct block_pass *pass;
    int sample;
    const double *weights, *x;
    double *z;
};

static void add_forward(void *context, struct term t) {
    struct forward_context *f = context;
    f->z[t.output] += f->weights[t.weight] * f->x[t.input] *
                      reference_connect_factor(f->desc, f->pass, f->sample, t.weight);
}

/* The factor of the bias that output o gets. */
static double bias_factor(const struct block_desc *d, const struct block_pass *pass, int sample,
                          size_t output) {
    return reference_connect_factor(d, pass, sample,
                                    block_weights(d) + output % (size_t)d->linear.channels);
}

void reference_linear_forward(const struct block_desc *d, const struct block_pass *pass,
                              const double *weights, const double *bias, const double *x,
                              double *z) {
    int samples = pass->samples;
    size_t inputs = shape_size(d->input), outputs = shape_size(d->linear);
    if (d->kind == BLOCK_PASS) {
        if (samples > 0)
            memcpy(z, x, (size_t)samples * inputs * sizeof *z);
        return;
    }
    for (int n = 0; n < samples; n++) {
        struct forward_context f = {
            d, pass, n, weights, x + (size_t)n * inputs, z + (size_t)n * outputs};
        for (size_t o = 0; o < outputs; o++)
            f.z[o] = bias[o % (size_t)d->linear.channels] * bias_factor(d, pass, n, o);
        visit_terms(d, add_forward, &f);
    }
}

struct backward_context {
    const struct block_desc *desc;
    const struct block_pass *pass;
    int sample;
    const double *weights, *x, *dz;
    double *dweights, *dx;
};

static void add_weight_gradient(void *context, struct term t) {
    struct backward_context *b = context;
    b->dweights[t.weight] += b->dz[t.output] * b->x[t.input] *
                             reference_connect_factor(b->desc, b->pass, b->sample, t.weight);
}

static void add_input_gradient(void *context, struct term t) {
    struct backward_context *b = context;
    b->dx[t.input] += b->dz[t.output] * b->weights[t.weight] *
                      reference_connect_factor(b->desc, b->pass, b->sample, t.weight);
}

static void zero(double *array, size_t count) {
    for (size_t i = 0; array != NULL && i < count; i++)
        array[i] = 0;
}

static void sum_bias_gradient(const struct block_desc *d, const struct block_pass *pass,
                              const double *dz, double *dbias) {
    size_t outputs = shape_size(d->linear), channels = block_biases(d);
    zero(dbias, channels);
    for (size_t o = 0; channels > 0 && o < (size_t)pass->samples * outputs; o++)
        dbias[o % channels] += dz[o] * bias_factor(d, pass, (int)(o / outputs), o % outputs);
}

void reference_linear_backward(const struct block_desc *d, const struct block_pass *pass,
                               const double *weights, const double *x, const double *dz,
                               double *dweights, double *dbias, double *dx) {
    int samples = pass->samples;
    size_t inputs = shape_size(d->input), outputs = shape_size(d->linear);
    zero(dweights, block_weights(d));
    zero(dx, (size_t)samples * inputs);
    if (dbias != NULL)
        sum_bias_gradient(d, pass, dz, dbias);
    for (int n = 0; n < samples; n++) {
        struct backward_context b = {.desc = d,
                                     .pass = pass,
                                     .sample = n,
                                     .weights = weights,
                                     .x = x + (size_t)n * inputs,
                                     .dz = dz + (size_t)n * outputs,
                                     .dweights = dweights,
                                     .dx = dx == NULL ? NULL : dx + (size_t)n * inputs};
        if (dweights != NULL)
            visit_terms(d, add_weight_gradient, &b);
        if (dx != NULL && d->kind == BLOCK_PASS)
            memcpy(b.dx, b.dz, inputs * sizeof *dx);
        else if (dx != NULL)
            visit_terms(d, add_input_gradient, &b);
    }
}

double reference_activate(enum activation activation, double z) {
    switch (activation) {
    case ACTIVATION_RELU:
        return z < 0 ? 0 : z; /* a NaN stays one */
    case ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-z));
    case ACTIVATION_TANH:
        return tanh(z);
    default:
        return z;
    }
}

double reference_slope(enum activation activation, double a) {
    switch (activation) {
    case ACTIVATION_RELU:
        return a > 0 ? 1 : 0;
    case ACTIVATION_SIGMOID:
        return a * (1 - a);
    case ACTIVATION_TANH:
        return 1 - a * a;
    default:
        return 1;
    }
}

size_t reference_winner(const struct block_desc *d, const double *activated, size_t unit) {
    int channels = d->output.channels, k = (int)(unit % (size_t)channels);
    int pixel = (int)(unit / (size_t)channels);
    int top = pixel / d->output.width * d->pool, left = pixel % d->output.width * d->pool;
    size_t best = at(d->linear, top, left, k);
    for (int i = 0; i < d->pool; i++)
        for (int j = 0; j < d->pool; j++) {
            size_t candidate = at(d->linear, top + i, left + j, k);
            if (activated[candidate] > activated[best])
                best = candidate;
        }
    return best;
}

double reference_dropout_factor(const struct block_desc *d, const struct block_pass *pass,
                                int sample, size_t unit) {
    if (!pass->training || d->dropout == 0)
        return 1;
    uint32_t words[4];
    if (d->kept != NULL) {
        const size_t channels = (size_t)d->output.channels;
        unit = unit / channels * (size_t)d->layer_channels + d->kept[unit % channels];
    }
    struct rng_counter counter = {.group = (uint32_t)(unit / 4),
                                  .sample = pass->sample_ids[sample],
                                  .time = pass->update,
                                  .stream = rng_stream(RNG_DROPOUT, d->layer)};
    rng_philox(pass->seed, counter, words);
    return rng_uniform(words[unit % 4]) < d->dropout ? 0 : 1 / (1 - (double)d->dropout);
}

void reference_pool(const struct block_desc *d, const struct block_pass *pass,
                    const double *activated, double *y) {
    size_t linear = shape_size(d->linear), outputs = shape_size(d->output);
    for (int n = 0; n < pass->samples; n++) {
        const double *sample = activated + (size_t)n * linear;
        for (size_t u = 0; u < outputs; u++)
            y[(size_t)n * outputs + u] =
                sample[reference_winner(d, sample, u)] * reference_dropout_factor(d, pass, n, u);
    }
}

void reference_block_forward_double(const struct block_desc *d, const struct block_pass *pass,
                                    const double *weights, const double *bias, const double *x,
                                    double *y) {
    size_t linear = shape_size(d->linear);
    double *a = reference_array((size_t)pass->samples * linear);
    reference_linear_forward(d, pass, weights, bias, x, a);
    for (size_t i = 0; i < (size_t)pass->samples * linear; i++)
        a[i] = reference_activate(d->activation, a[i]);
    reference_pool(d, pass, a, y);
    free(a);
}

void reference_pointwise_backward(const struct block_desc *d, const struct block_pass *pass,
                                  const double *activated, const double *dy, double *dz) {
    size_t linear = shape_size(d->linear), outputs = shape_size(d->output);
    zero(dz, (size_t)pass->samples * linear);
    for (int n = 0; n < pass->samples; n++) {
        const double *sample = activated + (size_t)n * linear;
        for (size_t u = 0; u < outputs; u++) {
            size_t winner = reference_winner(d, sample, u);
            dz[(size_t)n * linear + winner] = dy[(size_t)n * outputs + u] *
                                              reference_dropout_factor(d, pass, n, u) *
                                              reference_slope(d->activation, sample[winner]);
        }
    }
}

void reference_block_backward_double(const struct block_desc *d, const struct block_pass *pass,
                                     const double *weights, const double *bias, const double *x,
                                     const double *dy, double *dweights, double *dbias,
                                     double *dx) {
    size_t count = (size_t)pass->samples * shape_size(d->linear);
    double *a = reference_array(count), *dz = reference_array(count);
    reference_linear_forward(d, pass, weights, bias, x, a);
    for (size_t i = 0; i < count; i++)
        a[i] = reference_activate(d->activation, a[i]);
    reference_pointwise_backward(d, pass, a, dy, dz);
    reference_linear_backward(d, pass, weights, x, dz, dweights, dbias, dx);
    free(a);
    free(dz);
}

double reference_cross_entropy_double(const double *logits, int classes, int label,
                                      double *dlogits) {
    double maximum = logits[0], sum = 0;
    for (int k = 1; k < classes; k++)
        maximum = logits[k] > maximum ? logits[k] : maximum;
    for (int k = 0; k < classes; k++)
        sum += exp(logits[k] - maximum);
    for (int k = 0; dlogits != NULL && k < classes; k++)
        dlogits[k] = exp(logits[k] - maximum) / sum - (k == label ? 1 : 0);
    return log(sum) - (logits[label] - maximum);
}
