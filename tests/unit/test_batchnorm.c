/* Batch normalisation on every backend against the reference in double; the reference against
 * central differences. Ranks are in tests/mpi; the trajectory of PyTorch in test_golden.c. */
#include "block_reference.h"
#include "bounds.h"
#include "cases.h"
#include "on_backends.h"
#include "regularisers_reference.h"

#include <math.h>

enum { HEIGHT = 5, WIDTH = 3, CHANNELS = 7, SAMPLES = 19, SIZE = HEIGHT * WIDTH * CHANNELS };
enum { VALUES = SAMPLES * SIZE };

static const uint64_t seed = 4711;
static const double u = 0x1p-24;

static struct block_desc norm_desc(void) {
    const struct shape shape = {HEIGHT, WIDTH, CHANNELS};
    return (struct block_desc){.kind = BLOCK_NORM,
                               .input = shape,
                               .linear = shape,
                               .output = shape,
                               .activation = ACTIVATION_NONE,
                               .kernel = 1,
                               .stride = 1,
                               .pool = 1,
                               .norm_epsilon = 1e-3F,
                               .norm_momentum = 0.75F};
}

static float statistics_before[2 * CHANNELS];

/* x has means of up to 8 and deviations of about 1/2, so that means matter. */
static struct case_inputs inputs_create(void) {
    const struct block_desc desc = norm_desc();
    struct case_inputs in = case_inputs_create(&desc, SAMPLES, seed, case_floats);
    for (int i = 0; i < VALUES; i++)
        in.x[i] += (float)(i % CHANNELS * 3 - 10);
    for (int k = 0; k < CHANNELS; k++) {
        statistics_before[k] = (float)k;
        statistics_before[CHANNELS + k] = (float)(k + 1) / 4;
    }
    return in;
}

static struct block_pass pass_of(const struct case_inputs *in, bool training) {
    return (struct block_pass){
        .samples = SAMPLES, .training = training, .update = 3, .sample_ids = in->ids};
}

static double *widened(const float *values, size_t count) {
    double *wide = reference_array(count);
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i];
    return wide;
}

/* The exact results, and how far a float computation may be from them. */
struct expected {
    struct reference_statistics batch;
    double *weights, *bias, *x, *dz, *y, *dx, dweights[CHANNELS], dbias[CHANNELS];
    float statistics[2 * CHANNELS];
};

static struct expected expect(const struct case_inputs *in, bool training) {
    const struct block_desc desc = norm_desc();
    const struct block_pass pass = pass_of(in, training);
    struct expected e = {.weights = widened(in->weights, CHANNELS),
                         .bias = widened(in->bias, CHANNELS),
                         .x = widened(in->x, VALUES),
                         .dz = widened(in->dy, VALUES),
                         .y = reference_array(VALUES),
                         .dx = reference_array(VALUES)};
    memcpy(e.statistics, statistics_before, sizeof e.statistics);
    assert_ok(reference_statistics_of(&desc, &pass, e.x, e.statistics, &e.batch));
    reference_norm_forward(&desc, SAMPLES, &e.batch, e.weights, e.bias, e.x, e.y);
    assert_ok(reference_norm_backward(&desc, &pass, &e.batch, e.weights, e.x, e.dz, e.dweights,
                                      e.dbias, e.dx));
    return e;
}

static void expected_destroy(struct expected *e) {
    double *const arrays[] = {
        e->batch.mean, e->batch.variance, e->weights, e->bias, e->x, e->dz, e->y, e->dx};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
}

static void assert_within(const char *what, double got, double want, double error) {
    if (!(fabs(got - want) <= error))
        fail_msg("%s: %.9g, expected %.9g within %.3g", what, got, want, error);
}

/* The mean is rounded once to float, x - mean once, the scale twice, their product and the sum with
 * the bias once each. */
static double y_error(const struct expected *e, int i) {
    int k = i % CHANNELS;
    double scale = fabs(e->weights[k]) / sqrt(e->batch.variance[k] + (double)1e-3F);
    double from_mean = fabs(e->x[i] - e->batch.mean[k]) + u * fabs(e->batch.mean[k]);
    return scale * (u * fabs(e->batch.mean[k]) + 5 * u * from_mean) + 2 * u * fabs(e->y[i]);
}

/* dx is scale times a difference of three terms, each of up to 5 roundings; the last has x - mean.
 */
static double dx_error(const struct expected *e, int i) {
    int k = i % CHANNELS;
    double inverse = 1 / sqrt(e->batch.variance[k] + (double)1e-3F), n = e->batch.count;
    double mean = n > 0 ? fabs(e->dbias[k]) / n : 0, slope = n > 0 ? fabs(e->dweights[k]) / n : 0;
    double from_mean = fabs(e->x[i] - e->batch.mean[k]) * inverse;
    double terms = fabs(e->dz[i]) + mean + from_mean * slope;
    return fabs(e->weights[k]) * inverse *
           (6 * u * terms + 2 * u * fabs(e->batch.mean[k]) * inverse * (slope + mean)) * 2;
}

/* Sums are of doubles; their terms have x - mean as float. */
static double dweights_error(const struct expected *e, int k) {
    double inverse = 1 / sqrt(e->batch.variance[k] + (double)1e-3F), sum = 0;
    for (int i = k; i < VALUES; i += CHANNELS)
        sum += fabs(e->dz[i]) *
               (u * fabs(e->batch.mean[k]) + u * fabs(e->x[i] - e->batch.mean[k])) * inverse;
    return 2 * sum + 3 * u * fabs(e->dweights[k]);
}

/* Everything that a plan computes, downloaded. */
struct result {
    float *y, *dx, *dweights, *dbias, *statistics;
};

static struct result run(struct backend *b, const struct case_inputs *in, bool training) {
    const struct block_desc desc = norm_desc();
    const size_t bytes = VALUES * sizeof(float), few = CHANNELS * sizeof(float);
    struct block_plan *plan;
    struct block_pass pass = pass_of(in, training);
    float *weights = device_of(b, in->weights, few), *bias = device_of(b, in->bias, few);
    float *x = device_of(b, in->x, bytes), *dy = device_of(b, in->dy, bytes);
    float *y = device_of(b, in->x, bytes), *dx = device_of(b, in->x, bytes);
    float *dweights = device_of(b, in->x, few), *dbias = device_of(b, in->x, few);
    float *statistics = device_of(b, statistics_before, 2 * few);
    uint32_t *ids = device_of(b, in->ids, SAMPLES * sizeof *in->ids);
    pass.sample_ids = ids;
    assert_ok(b->block_plan_create(b, &desc, SAMPLES + 3, false, &plan));
    assert_ok(b->block_plan_load_weights(plan, weights, bias));
    assert_ok(b->block_plan_load_statistics(plan, statistics));
    assert_ok(b->block_forward(plan, &pass, x, y));
    struct result r = {.y = host_of(b, y, bytes)};
    assert_ok(
        b->block_backward(plan, &pass, x, y, dy, dweights, dbias, dx, (struct poll){NULL, NULL}));
    r.dx = host_of(b, dx, bytes);
    r.dweights = host_of(b, dweights, few);
    r.dbias = host_of(b, dbias, few);
    r.statistics = host_of(b, statistics, 2 * few);
    b->block_plan_destroy(plan);
    void *const memory[] = {weights, bias, x, dy, y, dx, dweights, dbias, statistics, ids};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
    return r;
}

static void result_destroy(struct result *r) {
    float *const arrays[] = {r->y, r->dx, r->dweights, r->dbias, r->statistics};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
}

static void compare(const struct result *r, const struct expected *e) {
    for (int i = 0; i < VALUES; i++) {
        assert_within("y", r->y[i], e->y[i], y_error(e, i));
        assert_within("dx", r->dx[i], e->dx[i], dx_error(e, i));
    }
    for (int k = 0; k < CHANNELS; k++) {
        assert_within("dweights", r->dweights[k], e->dweights[k], dweights_error(e, k));
        assert_within("dbias", r->dbias[k], e->dbias[k], 2 * u * fabs(e->dbias[k]) + 1e-14);
    }
    for (int k = 0; k < 2 * CHANNELS; k++)
        assert_within("statistics", r->statistics[k], e->statistics[k],
                      2 * u * fabs((double)e->statistics[k]));
}

ON_EACH_BACKEND(in_training_it_is_the_reference) {
    struct case_inputs in = inputs_create();
    struct expected e = expect(&in, true);
    struct result r = run(b, &in, true);
    compare(&r, &e);
    for (int k = 0; k < 2 * CHANNELS; k++)
        assert_true(r.statistics[k] != statistics_before[k]);
    result_destroy(&r);
    expected_destroy(&e);
    case_inputs_destroy(&in);
}

ON_EACH_BACKEND(in_evaluation_it_goes_by_the_running_statistics) {
    struct case_inputs in = inputs_create();
    struct expected e = expect(&in, false);
    struct result r = run(b, &in, false);
    compare(&r, &e);
    assert_memory_equal(r.statistics, statistics_before, sizeof statistics_before);
    result_destroy(&r);
    expected_destroy(&e);
    case_inputs_destroy(&in);
}

/* What it is for: each channel of the batch has the mean and the deviation that it learned. */
ON_EACH_BACKEND(a_batch_has_the_mean_and_deviation_of_its_parameters) {
    struct case_inputs in = inputs_create();
    struct result r = run(b, &in, true);
    for (int k = 0; k < CHANNELS; k++) {
        double sum = 0, squares = 0, n = VALUES / CHANNELS;
        for (int i = k; i < VALUES; i += CHANNELS)
            sum += r.y[i];
        for (int i = k; i < VALUES; i += CHANNELS)
            squares += pow(r.y[i] - sum / n, 2);
        assert_within("mean", sum / n, in.bias[k], 1e-5);
        assert_within("deviation", sqrt(squares / n), fabsf(in.weights[k]),
                      0.01 * fabs((double)in.weights[k])); /* epsilon takes up to 0.2 % */
    }
    result_destroy(&r);
    case_inputs_destroy(&in);
}

static void threads_do_not_change_the_bits(void **state) {
    (void)state;
    struct case_inputs in = inputs_create();
    struct result results[3];
    for (int threads = 1; threads <= 3; threads++) {
        struct backend *b;
        assert_ok(backend_cpu_create(threads, &b));
        results[threads - 1] = run(b, &in, true);
        b->destroy(b);
    }
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(results[0].y, results[i].y, VALUES * sizeof(float));
        assert_memory_equal(results[0].dx, results[i].dx, VALUES * sizeof(float));
        assert_memory_equal(results[0].dweights, results[i].dweights, CHANNELS * sizeof(float));
    }
    for (int i = 0; i < 3; i++)
        result_destroy(&results[i]);
    case_inputs_destroy(&in);
}

/* ---- the reference's gradient ---- */

static double loss(const double *weights, const double *bias, const double *x, const double *c) {
    const struct block_desc desc = norm_desc();
    const struct block_pass pass = {.samples = SAMPLES, .training = true};
    struct reference_statistics batch;
    float running[2 * CHANNELS] = {0};
    double *y = reference_array(VALUES), sum = 0;
    assert_ok(reference_statistics_of(&desc, &pass, x, running, &batch));
    reference_norm_forward(&desc, SAMPLES, &batch, weights, bias, x, y);
    for (int i = 0; i < VALUES; i++)
        sum += c[i] * y[i];
    free(batch.mean);
    free(batch.variance);
    free(y);
    return sum;
}

/* h = 1e-4: the loss is smooth on the scale of a deviation, 1/2, so that truncation, h^2 / 6 of the
 * third derivative, is about 1e-7, and cancellation below 1e-9; a lost term shows at 1e-2. */
static void check_differences(const char *what, const struct expected *e, double *values, int count,
                              int step, const double *gradient) {
    const double h = 1e-4;
    for (int i = 0; i < count; i += step) {
        double kept = values[i], up, down;
        values[i] = kept + h;
        up = loss(e->weights, e->bias, e->x, e->dz);
        values[i] = kept - h;
        down = loss(e->weights, e->bias, e->x, e->dz);
        values[i] = kept;
        assert_within(what, gradient[i], (up - down) / (2 * h), 1e-6);
    }
}

static void the_reference_has_the_gradient_that_differences_have(void **state) {
    (void)state;
    struct case_inputs in = inputs_create();
    struct expected e = expect(&in, true);
    check_differences("dweights", &e, e.weights, CHANNELS, 1, e.dweights);
    check_differences("dbias", &e, e.bias, CHANNELS, 1, e.dbias);
    check_differences("dx", &e, e.x, VALUES, 11, e.dx);
    expected_destroy(&e);
    case_inputs_destroy(&in);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_training_it_is_the_reference),
        cmocka_unit_test(in_evaluation_it_goes_by_the_running_statistics),
        cmocka_unit_test(a_batch_has_the_mean_and_deviation_of_its_parameters),
        cmocka_unit_test(threads_do_not_change_the_bits),
        cmocka_unit_test(the_reference_has_the_gradient_that_differences_have),
    };
    return RUN_TESTS(tests, argc, argv);
}
