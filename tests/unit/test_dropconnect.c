/* DropConnect's inference by sampling. Its masks, gradients and mean are rows of the table of cases
 * (test_backend_blocks.c, test_gradients.c). */
#include "block_reference.h"
#include "bounds.h"
#include "cases.h"
#include "on_backends.h"
#include "regularisers_reference.h"
#include "run_block.h"

#include <math.h>

enum { INPUTS = 37, UNITS = 5, SAMPLES = 3 };
static const uint64_t seed = 815;

static struct block_desc connect_desc(enum activation activation, float rate, int draws) {
    return (struct block_desc){.kind = BLOCK_DENSE,
                               .input = {1, 1, INPUTS},
                               .linear = {1, 1, UNITS},
                               .output = {1, 1, UNITS},
                               .activation = activation,
                               .kernel = 1,
                               .stride = 1,
                               .pool = 1,
                               .dropconnect = rate,
                               .dropconnect_draws = draws,
                               .layer = 2};
}

/* A block's inputs, and the moments of its units' inputs over all masks. */
struct problem {
    float *weights, *bias, *x;
    uint32_t ids[SAMPLES];
    double mean[SAMPLES * UNITS], deviation[SAMPLES * UNITS], size[SAMPLES * UNITS];
};

static void find_moments(struct problem *p, double keep) {
    for (int n = 0; n < SAMPLES; n++)
        for (int k = 0; k < UNITS; k++) {
            double sum = p->bias[k], size = fabs(sum), squares = sum * sum;
            for (int j = 0; j < INPUTS; j++) {
                double product = (double)p->weights[k * INPUTS + j] * p->x[n * INPUTS + j];
                sum += product;
                size += fabs(product);
                squares += product * product;
            }
            p->mean[n * UNITS + k] = keep * sum;
            p->size[n * UNITS + k] = keep * size;
            p->deviation[n * UNITS + k] = sqrt(keep * (1 - keep) * squares);
        }
}

static struct problem problem_create(double keep) {
    struct problem p = {.weights = case_floats(seed, 1, UNITS * INPUTS),
                        .bias = case_floats(seed, 2, UNITS),
                        .x = case_floats(seed, 3, SAMPLES * INPUTS)};
    for (int i = 0; i < SAMPLES; i++)
        p.ids[i] = case_sample_id(i);
    find_moments(&p, keep);
    return p;
}

static void problem_destroy(struct problem *p) {
    free(p->weights);
    free(p->bias);
    free(p->x);
}

static float *evaluate(struct backend *b, const struct problem *p, struct block_desc desc) {
    const struct block_pass pass = {.samples = SAMPLES, .seed = seed, .sample_ids = p->ids};
    return run_block_forward(b, &desc, &pass, (struct block_inputs){p->weights, p->bias, p->x});
}

/* A draw's normal has a root, a logarithm, a cosine of an angle below 2 pi and a product: within 32
 * units of the last place of its largest possible value, sqrt(2 * 24 ln 2) < 6. The moments are
 * sums of INPUTS + 1 terms, the deviation's under a root; the activations are 1-Lipschitz. */
ON_EACH_BACKEND(it_samples_what_the_reference_does) {
    const struct block_desc desc = connect_desc(ACTIVATION_TANH, 0.25F, 33);
    struct problem p = problem_create(0.75);
    double weights[UNITS * INPUTS], bias[UNITS], x[SAMPLES * INPUTS], want[SAMPLES * UNITS];
    const struct block_pass pass = {.samples = SAMPLES, .seed = seed, .sample_ids = p.ids};
    for (int i = 0; i < UNITS * INPUTS; i++)
        weights[i] = p.weights[i];
    for (int i = 0; i < UNITS; i++)
        bias[i] = p.bias[i];
    for (int i = 0; i < SAMPLES * INPUTS; i++)
        x[i] = p.x[i];
    reference_connect_evaluate(&desc, &pass, weights, bias, x, want);
    float *y = evaluate(b, &p, desc);
    for (int i = 0; i < SAMPLES * UNITS; i++) {
        double error = bound_gamma(INPUTS + 4) * p.size[i] +
                       6 * p.deviation[i] * bound_gamma(INPUTS + 8 + 32) + bound_gamma(16);
        if (!(fabs(y[i] - want[i]) <= error))
            fail_msg("%s: unit %d is %.9g, expected %.9g within %.3g", b->name, i, (double)y[i],
                     want[i], error);
    }
    free(y);
    problem_destroy(&p);
}

/* The mean of relu of a normal: m Phi(m/s) + s phi(m/s); of its square: (m^2 + s^2) Phi + m s phi.
 */
static void relu_moments(double m, double s, double *mean, double *deviation) {
    double phi = exp(-m * m / (2 * s * s)) / sqrt(2 * acos(-1)),
           below = 0.5 * erfc(-m / s / sqrt(2));
    *mean = m * below + s * phi;
    *deviation = sqrt((m * m + s * s) * below + m * s * phi - *mean * *mean);
}

ON_EACH_BACKEND(many_draws_have_the_closed_form_of_relu) {
    enum { DRAWS = 20000 };
    struct problem p = problem_create(0.5);
    float *y = evaluate(b, &p, connect_desc(ACTIVATION_RELU, 0.5F, DRAWS));
    for (int i = 0; i < SAMPLES * UNITS; i++) {
        double mean, deviation;
        relu_moments(p.mean[i], p.deviation[i], &mean, &deviation);
        double error = 5 * deviation / sqrt(DRAWS); /* 15 units on 5 backends: one in 2e4 runs */
        if (!(fabs(y[i] - mean) <= error))
            fail_msg("%s: unit %d is %.6g, expected %.6g within %.3g", b->name, i, (double)y[i],
                     mean, error);
    }
    free(y);
    problem_destroy(&p);
}

/* More units over all samples than a device's grid takes at once: each is the image's only pixel,
 * but where its connection is dropped, or with a deviation of a thousandth of it. */
ON_EACH_BACKEND(there_may_be_many_samples) {
    enum { MANY = 700, FEW = 3 };
    const struct block_desc desc = {.kind = BLOCK_DENSE,
                                    .input = {1, 1, 1},
                                    .linear = {1, 1, FEW},
                                    .output = {1, 1, FEW},
                                    .pool = 1,
                                    .dropconnect = 1e-6F,
                                    .dropconnect_draws = 1};
    const float weights[FEW] = {1, 1, 1}, bias[FEW] = {0};
    float *x = malloc(MANY * sizeof *x);
    uint32_t *ids = malloc(MANY * sizeof *ids);
    assert_true(x != NULL && ids != NULL);
    for (int i = 0; i < MANY; i++) {
        x[i] = (float)(i + 1);
        ids[i] = (uint32_t)i;
    }
    for (int training = 0; training <= 1; training++) {
        const struct block_pass pass = {
            .samples = MANY, .training = training == 1, .seed = seed, .sample_ids = ids};
        float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){weights, bias, x});
        int dropped = 0;
        for (int i = 0; i < MANY * FEW; i++) {
            dropped += y[i] == 0;
            assert_true(y[i] == 0 || fabsf(y[i] - x[i / FEW]) <= 0.01F * x[i / FEW]);
        }
        assert_true(dropped <= 3);
        free(y);
    }
    free(ids);
    free(x);
}

/* Masks: about the rate's part of the connections, and other ones for every sample and update. */
ON_EACH_BACKEND(each_sample_drops_its_own_connections) {
    enum { WIDE = 4000 };
    const float rate = 0.25F;
    float *ones = malloc(WIDE * sizeof *ones), bias = 0;
    uint32_t ids[] = {17, 18};
    for (int i = 0; i < WIDE; i++)
        ones[i] = 1;
    float both[2 * WIDE];
    for (int i = 0; i < 2 * WIDE; i++)
        both[i] = 1;
    struct block_desc desc = connect_desc(ACTIVATION_NONE, rate, 0);
    desc.input.channels = WIDE;
    desc.linear.channels = desc.output.channels = 1;
    float kept[2][2];
    for (uint32_t update = 0; update < 2; update++) {
        const struct block_pass pass = {
            .samples = 2, .training = true, .seed = 5, .update = update, .sample_ids = ids};
        float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){ones, &bias, both});
        memcpy(kept[update], y, sizeof kept[update]);
        free(y);
    }
    double error = 5 * sqrt(WIDE * rate * (1 - rate));
    for (int i = 0; i < 4; i++)
        assert_true(fabs(kept[i / 2][i % 2] - WIDE * (1 - (double)rate)) <= error);
    assert_true(kept[0][0] != kept[0][1] && kept[0][0] != kept[1][0]);
    free(ones);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_samples_what_the_reference_does),
        cmocka_unit_test(many_draws_have_the_closed_form_of_relu),
        cmocka_unit_test(there_may_be_many_samples),
        cmocka_unit_test(each_sample_drops_its_own_connections),
    };
    return RUN_TESTS(tests, argc, argv);
}
