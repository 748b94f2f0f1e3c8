#include "bounds.h"
#include "block_reference.h"
#include "bounds_winograd.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

static const double unit_roundoff = 0x1p-24;

/* Roundings of one sigmoid, tanh or slope; of the output's way back to an activation. */
enum { POINTWISE_ROUNDINGS = 8, DROPOUT_ROUNDINGS = 4 };

double bound_gamma(double roundings) {
    double product = roundings * unit_roundoff;
    return product / (1 - product);
}

static size_t terms_of_output(const struct block_desc *d) {
    if (d->kind == BLOCK_PASS)
        return 0;
    return block_weights(d) / (size_t)d->linear.channels;
}

static size_t terms_of_weight(const struct block_desc *d, int samples) {
    return (size_t)samples * (size_t)d->linear.height * (size_t)d->linear.width;
}

static size_t terms_of_input(const struct block_desc *d) {
    size_t area = d->kind == BLOCK_CONV ? (size_t)d->kernel * (size_t)d->kernel : 1;
    return d->kind == BLOCK_PASS ? 0 : area * (size_t)d->linear.channels;
}

static double *widen(const float *values, size_t count) {
    double *wide = reference_array(count);
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i];
    return wide;
}

static double *magnitudes(const double *values, size_t count) {
    double *absolute = reference_array(count);
    for (size_t i = 0; i < count; i++)
        absolute[i] = fabs(values[i]);
    return absolute;
}

/* gamma_{n+1} of sums of n products and a bias; products that underflow lose FLT_MIN each. The mean
 * under DropConnect is scaled once more, by 1 - p. */
static void bound_linear(struct block_bounds *b, const struct block_pass *pass, size_t linear) {
    const struct block_desc *d = &b->desc;
    size_t inputs = (size_t)b->pass.samples * shape_size(d->input);
    double *w = magnitudes(b->weights, block_weights(d));
    double *bias = magnitudes(b->bias, block_biases(d)), *x = magnitudes(b->x, inputs);
    double terms = (double)terms_of_output(d), scaling = d->dropconnect > 0 ? 2 : 0;
    reference_linear_forward(d, pass, w, bias, x, b->z_error);
    for (size_t i = 0; i < linear; i++)
        b->z_error[i] =
            terms == 0 ? 0 : bound_gamma(terms + 1 + scaling) * b->z_error[i] + terms * FLT_MIN;
    free(w);
    free(bias);
    free(x);
}

static void bound_activation(struct block_bounds *b, size_t linear) {
    enum activation activation = b->desc.activation;
    bool smooth = activation == ACTIVATION_SIGMOID || activation == ACTIVATION_TANH;
    for (size_t i = 0; i < linear; i++) {
        b->activated[i] = reference_activate(activation, b->z[i]);
        b->activated_error[i] = b->z_error[i] + (smooth ? bound_gamma(POINTWISE_ROUNDINGS) : 0);
    }
}

static double largest_error(const struct block_desc *d, const double *error, size_t unit) {
    return error[reference_winner(d, error, unit)];
}

static void bound_output(const struct block_bounds *b, const struct block_pass *pass, double *y,
                         double *y_error) {
    const struct block_desc *d = &b->desc;
    size_t linear = shape_size(d->linear), outputs = shape_size(d->output);
    for (int n = 0; n < pass->samples; n++)
        for (size_t u = 0; u < outputs; u++) {
            const double *a = b->activated + (size_t)n * linear;
            double error = largest_error(d, b->activated_error + (size_t)n * linear, u);
            double factor = reference_dropout_factor(d, pass, n, u);
            double value = a[reference_winner(d, a, u)];
            double rounding = factor == 1 ? 0 : bound_gamma(DROPOUT_ROUNDINGS);
            y[(size_t)n * outputs + u] = value * factor;
            y_error[(size_t)n * outputs + u] = factor * (error + rounding * (fabs(value) + error));
        }
}

static void bound_winograd(struct block_bounds *b) {
    free(b->z_error);
    b->z_error = winograd_errors(&b->desc, b->pass.samples, b->weights, b->bias, b->x);
}

static void bound_activated(struct block_bounds *b, const struct block_pass *pass, size_t linear) {
    reference_linear_forward(&b->desc, pass, b->weights, b->bias, b->x, b->z);
    if (b->winograd)
        bound_winograd(b);
    else
        bound_linear(b, pass, linear);
    bound_activation(b, linear);
}

void bounds_create(struct block_bounds *b, const struct block_desc *desc,
                   const struct block_pass *pass, bool winograd, const float *weights,
                   const float *bias, const float *x) {
    size_t samples = (size_t)pass->samples, inputs = samples * shape_size(desc->input);
    size_t linear = samples * shape_size(desc->linear),
           outputs = samples * shape_size(desc->output);
    *b = (struct block_bounds){.desc = *desc,
                               .pass = *pass,
                               .winograd = winograd,
                               .weights = widen(weights, block_weights(desc)),
                               .bias = widen(bias, block_biases(desc)),
                               .x = widen(x, inputs),
                               .z = reference_array(linear),
                               .z_error = reference_array(linear),
                               .activated = reference_array(linear),
                               .activated_error = reference_array(linear),
                               .y = reference_array(outputs),
                               .y_error = reference_array(outputs),
                               .y_evaluated = reference_array(outputs),
                               .y_evaluated_error = reference_array(outputs),
                               .dweights = reference_array(block_weights(desc)),
                               .dweights_error = reference_array(block_weights(desc)),
                               .dbias = reference_array(block_biases(desc)),
                               .dbias_error = reference_array(block_biases(desc)),
                               .dx = reference_array(inputs),
                               .dx_error = reference_array(inputs)};
    struct block_pass evaluation = *pass;
    evaluation.training = false;
    if (desc->dropconnect > 0)
        bound_activated(b, &evaluation, linear);
    else
        bound_activated(b, pass, linear);
    bound_output(b, &evaluation, b->y_evaluated, b->y_evaluated_error);
    if (desc->dropconnect > 0)
        bound_activated(b, pass, linear);
    bound_output(b, pass, b->y, b->y_error);
}

/* ---- decisions ---- */

struct window {
    size_t first, row_step, column_step; /* into one sample's linear output */
};

static struct window window_of(const struct block_desc *d, size_t unit) {
    size_t channels = (size_t)d->output.channels, pixel = unit / channels;
    size_t y = pixel / (size_t)d->output.width * (size_t)d->pool;
    size_t x = pixel % (size_t)d->output.width * (size_t)d->pool;
    size_t width = (size_t)d->linear.width;
    return (struct window){(y * width + x) * channels + unit % channels, width * channels,
                           channels};
}

bool bound_is_decided(const struct block_desc *d, struct decision s, size_t unit) {
    size_t winner = reference_winner(d, s.activated, unit);
    double floor = s.activated[winner] - s.activated_error[winner];
    bool alone = true, off = d->activation == ACTIVATION_RELU;
    struct window window = window_of(d, unit);
    for (size_t i = 0; i < (size_t)d->pool; i++)
        for (size_t j = 0; j < (size_t)d->pool; j++) {
            size_t at = window.first + i * window.row_step + j * window.column_step;
            off = off && s.z[at] + s.z_error[at] < 0;
            if (at != winner)
                alone = alone && s.activated[at] + s.activated_error[at] < floor;
        }
    bool on = d->activation != ACTIVATION_RELU || s.z[winner] - s.z_error[winner] > 0;
    return off || (alone && on);
}

static void silence_undecided(struct block_bounds *b, float *dy) {
    size_t linear = shape_size(b->desc.linear), outputs = shape_size(b->desc.output);
    b->ambiguous = 0;
    for (size_t n = 0; n < (size_t)b->pass.samples; n++) {
        size_t first = n * linear;
        struct decision sample = {b->z + first, b->z_error + first, b->activated + first,
                                  b->activated_error + first};
        for (size_t u = 0; u < outputs; u++)
            if (!bound_is_decided(&b->desc, sample, u)) {
                dy[n * outputs + u] = 0;
                b->ambiguous++;
            }
    }
}

/* ---- backward ---- */

/* Lipschitz constant of the slope as a function of the activation's value. */
static double slope_sensitivity(enum activation activation) {
    return activation == ACTIVATION_SIGMOID ? 1 : activation == ACTIVATION_TANH ? 2 : 0;
}

static void bound_pointwise(const struct block_bounds *b, const double *dy, const double *dz,
                            double *dz_error) {
    const struct block_desc *d = &b->desc;
    size_t linear = shape_size(d->linear), outputs = shape_size(d->output);
    double sensitivity = slope_sensitivity(d->activation);
    double way_back = bound_gamma(POINTWISE_ROUNDINGS);
    for (size_t i = 0; i < (size_t)b->pass.samples * linear; i++)
        dz_error[i] = bound_gamma(POINTWISE_ROUNDINGS) * fabs(dz[i]);
    for (int n = 0; n < b->pass.samples; n++)
        for (size_t u = 0; u < outputs; u++) {
            const double *a = b->activated + (size_t)n * linear;
            size_t winner = reference_winner(d, a, u), at = (size_t)n * linear + winner;
            double da = dy[(size_t)n * outputs + u] * reference_dropout_factor(d, &b->pass, n, u);
            dz_error[at] +=
                fabs(da) * sensitivity * (b->activated_error[at] * (1 + way_back) + 2 * way_back);
        }
}

/* gamma_{terms+1} (|dz| + error) + error: what a sum of `terms` products loses per unit of the
 * other factor. */
static double *lost(const double *dz, const double *dz_error, size_t count, size_t terms) {
    double *sum = reference_array(count), gamma = bound_gamma((double)terms + 1);
    for (size_t i = 0; i < count; i++)
        sum[i] = gamma * (fabs(dz[i]) + dz_error[i]) + dz_error[i];
    return sum;
}

static void add_underflow(double *error, size_t count, size_t terms) {
    for (size_t i = 0; i < count; i++)
        error[i] += (double)terms * (double)FLT_MIN;
}

static void bound_gradients(struct block_bounds *b, const double *dz, const double *dz_error) {
    const struct block_desc *d = &b->desc;
    int samples = b->pass.samples;
    size_t linear = (size_t)samples * shape_size(d->linear);
    size_t inputs = (size_t)samples * shape_size(d->input);
    double *w = magnitudes(b->weights, block_weights(d)), *x = magnitudes(b->x, inputs);
    size_t over_samples = terms_of_weight(d, samples), over_units = terms_of_input(d);
    double *lost_samples = lost(dz, dz_error, linear, over_samples);
    double *lost_units = lost(dz, dz_error, linear, over_units);
    reference_linear_backward(d, &b->pass, w, x, lost_samples, b->dweights_error, b->dbias_error,
                              NULL);
    reference_linear_backward(d, &b->pass, w, x, lost_units, NULL, NULL, b->dx_error);
    add_underflow(b->dweights_error, block_weights(d), over_samples);
    add_underflow(b->dbias_error, block_biases(d), over_samples);
    add_underflow(b->dx_error, inputs, over_units);
    free(w);
    free(x);
    free(lost_samples);
    free(lost_units);
}

void bounds_backward(struct block_bounds *b, float *dy) {
    const struct block_desc *d = &b->desc;
    size_t linear = (size_t)b->pass.samples * shape_size(d->linear);
    silence_undecided(b, dy);
    double *wide = widen(dy, (size_t)b->pass.samples * shape_size(d->output));
    double *dz = reference_array(linear), *dz_error = reference_array(linear);
    reference_pointwise_backward(d, &b->pass, b->activated, wide, dz);
    reference_linear_backward(d, &b->pass, b->weights, b->x, dz, b->dweights, b->dbias, b->dx);
    bound_pointwise(b, wide, dz, dz_error);
    bound_gradients(b, dz, dz_error);
    free(wide);
    free(dz);
    free(dz_error);
}

void bounds_destroy(struct block_bounds *b) {
    double *const arrays[] = {b->weights,
                              b->bias,
                              b->x,
                              b->z,
                              b->z_error,
                              b->activated,
                              b->activated_error,
                              b->y,
                              b->y_error,
                              b->y_evaluated,
                              b->y_evaluated_error,
                              b->dweights,
                              b->dweights_error,
                              b->dbias,
                              b->dbias_error,
                              b->dx,
                              b->dx_error};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
}
