/* The reference's gradients against central differences of its forward pass, in double.
 *
 * The loss is sum c_u y_u. For a parameter t that enters each linear output z_o with coefficient
 * k_o (an input, a weight or 1), (L(t + h) - L(t - h)) / 2h differs from dL/dt by at most
 *
 *   truncation    h^2 / 6 * sup |f'''| * sum_o |c_o| |k_o|^3   (f the activation; the sum is the
 *                 linear map's adjoint over absolute cubes)
 *   cancellation  2 gamma_n S / h, gamma_n = n u / (1 - n u), u = 2^-53: S = sum |c| (|a| + sum
 *                 |terms of z|) is what L's rounding is relative to, n the roundings on its way;
 *                 the 2 allows for S at t +- h
 *
 * h is a power of two far above the inputs' last bit (2^-23), so t +- h is exact. Outputs whose
 * relu or maximum could change within h get c = 0. */
#include "block_reference.h"
#include "bounds.h"
#include "cases.h"
#include "check.h"

#include <math.h>
#include <stdlib.h>

static const double h = 0x1p-13;
static const uint64_t seed = 99;
enum { SAMPLES_MOST = 2, COST_MOST = 12000000 /* products of one check, for the tests' time */ };

/* sup |f'''|: tanh''' = -2 at 0, sigmoid''' = -1/8 at 0. */
static double third_derivative(enum activation activation) {
    return activation == ACTIVATION_TANH ? 2 : activation == ACTIVATION_SIGMOID ? 0.125 : 0;
}

struct check {
    struct block_desc desc;
    struct block_pass pass;
    uint32_t ids[SAMPLES_MOST];
    size_t weights, biases, inputs, linear, outputs;
    double *w, *b, *x, *c, *y;
    double cancellation;
};

static double *doubles(uint32_t stream, size_t count) {
    float *narrow = case_floats(seed, stream, count);
    double *wide = reference_array(count);
    for (size_t i = 0; i < count; i++)
        wide[i] = narrow[i];
    free(narrow);
    return wide;
}

static double loss(const struct check *k) {
    double sum = 0;
    reference_block_forward_double(&k->desc, &k->pass, k->w, k->b, k->x, k->y);
    for (size_t u = 0; u < k->outputs; u++)
        sum += k->c[u] * k->y[u];
    return sum;
}

static double *mapped(const double *values, size_t count, double power) {
    double *result = reference_array(count);
    for (size_t i = 0; i < count; i++)
        result[i] = pow(fabs(values[i]), power);
    return result;
}

/* c = 0 where t +- h could decide otherwise: all coefficients are within 1, so z moves by h. */
static void silence_undecided(struct check *k, const double *z, const double *a) {
    size_t linear = shape_size(k->desc.linear), outputs = shape_size(k->desc.output), silent = 0;
    double *moved = reference_array(linear);
    for (size_t i = 0; i < linear; i++)
        moved[i] = h;
    for (size_t u = 0; u < k->outputs; u++) {
        size_t first = u / outputs * linear;
        struct decision sample = {z + first, moved, a + first, moved};
        if (!bound_is_decided(&k->desc, sample, u % outputs)) {
            k->c[u] = 0;
            silent++;
        }
    }
    assert_true(silent * 10 <= k->outputs);
    free(moved);
}

/* |c| with dropout's factor, at each output's winner. */
static double *upstream(const struct check *k, const double *a) {
    struct block_desc straight = k->desc;
    straight.activation = ACTIVATION_NONE;
    double *c = mapped(k->c, k->outputs, 1), *da = reference_array(k->linear);
    reference_pointwise_backward(&straight, &k->pass, a, c, da);
    free(c);
    return da;
}

static double cancellation(const struct check *k, const double *a, const double *da) {
    double *w = mapped(k->w, k->weights, 1), *b = mapped(k->b, k->biases, 1);
    double *x = mapped(k->x, k->inputs, 1), *terms = reference_array(k->linear), size = 0;
    reference_linear_forward(&k->desc, &k->pass, w, b, x, terms);
    for (size_t i = 0; i < k->linear; i++)
        size += da[i] * (fabs(a[i]) + terms[i]);
    double roundings = (double)(k->weights + k->outputs + 16) * 0x1p-53;
    free(w);
    free(b);
    free(x);
    free(terms);
    return 2 * roundings / (1 - roundings) * size / h;
}

static void compare(struct check *k, const char *what, double *values, size_t count,
                    const double *gradient, const double *cubes) {
    double truncation = h * h / 6 * third_derivative(k->desc.activation);
    for (size_t i = 0; i < count; i++) {
        double kept = values[i], up, down;
        values[i] = kept + h;
        up = loss(k);
        values[i] = kept - h;
        down = loss(k);
        values[i] = kept;
        double difference = (up - down) / (2 * h), bound = truncation * cubes[i] + k->cancellation;
        if (!(fabs(difference - gradient[i]) <= bound))
            fail_msg("%s[%zu] is %.12g, differences give %.12g, within %.3g", what, i, gradient[i],
                     difference, bound);
    }
}

static void compare_all(struct check *k, const double *da) {
    double *w3 = mapped(k->w, k->weights, 3), *x3 = mapped(k->x, k->inputs, 3);
    double *cubes[3] = {reference_array(k->weights), reference_array(k->biases),
                        reference_array(k->inputs)};
    double *gradient[3] = {reference_array(k->weights), reference_array(k->biases),
                           reference_array(k->inputs)};
    reference_linear_backward(&k->desc, &k->pass, w3, x3, da, cubes[0], cubes[1], cubes[2]);
    reference_block_backward_double(&k->desc, &k->pass, k->w, k->b, k->x, k->c, gradient[0],
                                    gradient[1], gradient[2]);
    compare(k, "dweights", k->w, k->weights, gradient[0], cubes[0]);
    compare(k, "dbias", k->b, k->biases, gradient[1], cubes[1]);
    compare(k, "dx", k->x, k->inputs, gradient[2], cubes[2]);
    for (int i = 0; i < 3; i++) {
        free(cubes[i]);
        free(gradient[i]);
    }
    free(w3);
    free(x3);
}

static void check_run(struct check *k) {
    double *z = reference_array(k->linear), *a = reference_array(k->linear);
    reference_linear_forward(&k->desc, &k->pass, k->w, k->b, k->x, z);
    for (size_t i = 0; i < k->linear; i++)
        a[i] = reference_activate(k->desc.activation, z[i]);
    silence_undecided(k, z, a);
    double *da = upstream(k, a);
    k->cancellation = cancellation(k, a, da);
    compare_all(k, da);
    free(z);
    free(a);
    free(da);
}

/* Products of two forward passes for every parameter. */
static double cost(const struct block_desc *d, int samples) {
    double outputs = (double)shape_size(d->linear), inputs = (double)shape_size(d->input);
    double terms = outputs * (double)block_weights(d) / d->linear.channels + outputs;
    return 2 * samples * terms * ((double)block_weights(d) + samples * inputs);
}

static bool check_row(const struct block_case *row) {
    int samples = row->samples < SAMPLES_MOST ? row->samples : SAMPLES_MOST;
    struct check k = {.desc = case_desc(row, 2), .ids = {case_sample_id(0), case_sample_id(1)}};
    while (samples > 1 && cost(&k.desc, samples) > COST_MOST)
        samples--;
    if (samples == 0 || cost(&k.desc, samples) > COST_MOST)
        return false;
    k.pass = (struct block_pass){.samples = samples, .training = true, .seed = seed, .update = 5};
    k.pass.sample_ids = k.ids;
    k.weights = block_weights(&k.desc);
    k.biases = block_biases(&k.desc);
    k.inputs = (size_t)samples * shape_size(k.desc.input);
    k.linear = (size_t)samples * shape_size(k.desc.linear);
    k.outputs = (size_t)samples * shape_size(k.desc.output);
    k.w = doubles(1, k.weights);
    k.b = doubles(2, k.biases);
    k.x = doubles(3, k.inputs);
    k.c = doubles(4, k.outputs);
    k.y = reference_array(k.outputs);
    check_run(&k);
    double *const arrays[] = {k.w, k.b, k.x, k.c, k.y};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
    return true;
}

static void check_group(enum case_group group, int at_least) {
    int checked = 0;
    for (int i = 0; i < block_cases_count; i++)
        if (block_cases[i].group == group)
            checked += check_row(&block_cases[i]);
    assert_true(checked >= at_least);
}

#define GROUP_TEST(name, group, at_least)                                                          \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        check_group(group, at_least);                                                              \
    }

GROUP_TEST(conv_kernel, GROUP_CONV_KERNEL, 7)
GROUP_TEST(conv_stride, GROUP_CONV_STRIDE, 4)
GROUP_TEST(conv_padding, GROUP_CONV_PADDING, 5)
GROUP_TEST(conv_pool, GROUP_CONV_POOL, 5)
GROUP_TEST(conv_activation, GROUP_CONV_ACTIVATION, 8)
GROUP_TEST(dense, GROUP_DENSE, 7)
GROUP_TEST(pass, GROUP_PASS, 5)
GROUP_TEST(dropout, GROUP_DROPOUT, 6)
GROUP_TEST(dropconnect, GROUP_DROPCONNECT, 5)

/* The third derivative of log-sum-exp in one logit is p(1-p)(1-2p), at most 1/(6 sqrt 3). */
static void softmax_cross_entropy(void **state) {
    (void)state;
    enum { CLASSES = 10 };
    double *logits = doubles(9, CLASSES), gradient[CLASSES], size = log(CLASSES);
    for (int k = 0; k < CLASSES; k++) {
        logits[k] *= 4;
        size += 2 * fabs(logits[k]);
    }
    double bound = h * h / 6 / (6 * sqrt(3)) + 2 * (CLASSES + 16) * 0x1p-53 * size / h;
    for (int label = 0; label < CLASSES; label++) {
        reference_cross_entropy_double(logits, CLASSES, label, gradient);
        for (int k = 0; k < CLASSES; k++) {
            double kept = logits[k], up, down;
            logits[k] = kept + h;
            up = reference_cross_entropy_double(logits, CLASSES, label, NULL);
            logits[k] = kept - h;
            down = reference_cross_entropy_double(logits, CLASSES, label, NULL);
            logits[k] = kept;
            assert_true(fabs((up - down) / (2 * h) - gradient[k]) <= bound);
        }
    }
    free(logits);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_kernel),
        cmocka_unit_test(conv_stride),
        cmocka_unit_test(conv_padding),
        cmocka_unit_test(conv_pool),
        cmocka_unit_test(conv_activation),
        cmocka_unit_test(dense),
        cmocka_unit_test(pass),
        cmocka_unit_test(dropout),
        cmocka_unit_test(dropconnect),
        cmocka_unit_test(softmax_cross_entropy),
    };
    return RUN_TESTS(tests, argc, argv);
}
