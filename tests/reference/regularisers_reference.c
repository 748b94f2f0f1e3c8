#include "regularisers_reference.h"
#include "block_reference.h"

#include <espalier/rng.h>
#include <math.h>
#include <stdlib.h>

/* ---- batch normalisation ---- */

static size_t channels_of(const struct block_desc *d) {
    return (size_t)d->linear.channels;
}

static enum status sum_ranks(const struct block_pass *pass, double *values, size_t count) {
    return pass->ranks.add == NULL ? ST_OK : pass->ranks.add(pass->ranks.context, values, count);
}

/* Of the batch, in two passes over the data: the mean, then the squares around it. */
static enum status batch_statistics(const struct block_desc *d, const struct block_pass *pass,
                                    const double *x, struct reference_statistics *s) {
    size_t channels = channels_of(d), values = (size_t)pass->samples * shape_size(d->input);
    s->count = (double)values / (double)channels;
    for (size_t i = 0; i < values; i++)
        s->mean[i % channels] += x[i];
    TRY(sum_ranks(pass, &s->count, 1));
    TRY(sum_ranks(pass, s->mean, channels));
    for (size_t k = 0; k < channels; k++)
        s->mean[k] /= s->count;
    for (size_t i = 0; i < values; i++)
        s->variance[i % channels] += pow(x[i] - s->mean[i % channels], 2);
    TRY(sum_ranks(pass, s->variance, channels));
    for (size_t k = 0; k < channels; k++)
        s->variance[k] /= s->count;
    return ST_OK;
}

static void move_running(const struct block_desc *d, const struct reference_statistics *s,
                         float *running) {
    double momentum = d->norm_momentum;
    for (size_t k = 0; s->count > 1 && k < channels_of(d); k++) {
        float *mean = running + k, *variance = running + channels_of(d) + k;
        double unbiased = s->variance[k] * s->count / (s->count - 1);
        *mean = (float)(momentum * *mean + (1 - momentum) * s->mean[k]);
        *variance = (float)(momentum * *variance + (1 - momentum) * unbiased);
    }
}

enum status reference_statistics_of(const struct block_desc *d, const struct block_pass *pass,
                                    const double *x, float *running,
                                    struct reference_statistics *s) {
    size_t channels = channels_of(d);
    *s = (struct reference_statistics){reference_array(channels), reference_array(channels), 0};
    for (size_t k = 0; k < channels; k++) {
        s->mean[k] = pass->training ? 0 : running[k];
        s->variance[k] = pass->training ? 0 : running[channels + k];
    }
    if (!pass->training)
        return ST_OK;
    TRY(batch_statistics(d, pass, x, s));
    move_running(d, s, running);
    return ST_OK;
}

static double deviation(const struct block_desc *d, const struct reference_statistics *s,
                        size_t k) {
    return sqrt(s->variance[k] + (double)d->norm_epsilon);
}

void reference_norm_forward(const struct block_desc *d, int samples,
                            const struct reference_statistics *s, const double *weights,
                            const double *bias, const double *x, double *z) {
    for (size_t i = 0; i < (size_t)samples * shape_size(d->input); i++) {
        size_t k = i % channels_of(d);
        z[i] = bias[k] + weights[k] * (x[i] - s->mean[k]) / deviation(d, s, k);
    }
}

enum status reference_norm_backward(const struct block_desc *d, const struct block_pass *pass,
                                    const struct reference_statistics *s, const double *weights,
                                    const double *x, const double *dz, double *dweights,
                                    double *dbias, double *dx) {
    size_t channels = channels_of(d), values = (size_t)pass->samples * shape_size(d->input);
    double *sums = reference_array(2 * channels); /* of dz, and of dz xhat */
    for (size_t k = 0; k < 2 * channels; k++)
        sums[k] = 0;
    for (size_t i = 0; i < values; i++) {
        size_t k = i % channels;
        sums[k] += dz[i];
        sums[channels + k] += dz[i] * (x[i] - s->mean[k]) / deviation(d, s, k);
    }
    for (size_t k = 0; k < channels; k++) {
        dbias[k] = sums[k];
        dweights[k] = sums[channels + k];
    }
    enum status status = pass->training ? sum_ranks(pass, sums, 2 * channels) : ST_OK;
    for (size_t i = 0; dx != NULL && i < values; i++) {
        size_t k = i % channels;
        double xhat = (x[i] - s->mean[k]) / deviation(d, s, k);
        double mean = s->count > 0 ? sums[k] / s->count : 0;
        double slope = s->count > 0 ? sums[channels + k] / s->count : 0;
        dx[i] = weights[k] / deviation(d, s, k) * (dz[i] - mean - xhat * slope);
    }
    free(sums);
    return status;
}

/* ---- DropConnect ---- */

double reference_connect_factor(const struct block_desc *d, const struct block_pass *pass,
                                int sample, size_t unit) {
    if (d->dropconnect == 0)
        return 1;
    if (!pass->training)
        return 1 - (double)d->dropconnect;
    uint32_t words[4];
    struct rng_counter counter = {.group = (uint32_t)(unit / 4),
                                  .sample = pass->sample_ids[sample],
                                  .time = pass->update,
                                  .stream = rng_stream(RNG_DROPCONNECT, d->layer)};
    rng_philox(pass->seed, counter, words);
    return rng_uniform(words[unit % 4]) < d->dropconnect ? 0 : 1;
}

/* Number `unit` of the normals that evaluation draws for a sample. */
static double normal(const struct block_desc *d, const struct block_pass *pass, int sample,
                     size_t unit) {
    uint32_t words[4];
    struct rng_counter counter = {.group = (uint32_t)(unit / 4),
                                  .sample = pass->sample_ids[sample],
                                  .stream = rng_stream(RNG_DROPCONNECT_DRAWS, d->layer)};
    rng_philox(pass->seed, counter, words);
    const uint32_t *pair = words + unit % 4 / 2 * 2;
    double radius = sqrt(-2 * log(1 - (double)rng_uniform(pair[0])));
    double angle = 2 * acos(-1) * (double)rng_uniform(pair[1]);
    return radius * (unit % 2 == 0 ? cos(angle) : sin(angle));
}

static double evaluate_unit(const struct block_desc *d, const struct block_pass *pass, int sample,
                            size_t unit, double mean, double deviation) {
    size_t draws = (size_t)d->dropconnect_draws;
    double sum = 0;
    if (draws == 0)
        return reference_activate(d->activation, mean);
    for (size_t i = 0; i < draws; i++)
        sum += reference_activate(d->activation,
                                  mean + deviation * normal(d, pass, sample, unit * draws + i));
    return sum / (double)draws;
}

void reference_connect_evaluate(const struct block_desc *d, const struct block_pass *pass,
                                const double *weights, const double *bias, const double *x,
                                double *y) {
    size_t inputs = shape_size(d->input), units = channels_of(d);
    double p = 1 - (double)d->dropconnect;
    for (int n = 0; n < pass->samples; n++)
        for (size_t k = 0; k < units; k++) {
            double sum = bias[k], squares = bias[k] * bias[k];
            for (size_t j = 0; j < inputs; j++) {
                double product = weights[k * inputs + j] * x[(size_t)n * inputs + j];
                sum += product;
                squares += product * product;
            }
            y[(size_t)n * units + k] =
                evaluate_unit(d, pass, n, k, p * sum, sqrt(p * (1 - p) * squares));
        }
}
