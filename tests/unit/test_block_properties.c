/* What a block must do, by numbers worked out by hand and by properties; on every backend. */
#include "block_reference.h"
#include "bounds_winograd.h"
#include "cases.h"
#include "on_backends.h"
#include "run_block.h"

#include <math.h>

static const uint32_t ids[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static struct block_pass pass_of(int samples) {
    return (struct block_pass){.samples = samples, .training = true, .sample_ids = ids};
}

static void assert_values(const float *got, const float *want, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (got[i] != want[i])
            fail_msg("[%zu] is %g, expected %g", i, (double)got[i], (double)want[i]);
}

/* A cross-correlation (no flip): 1*1 + 2*2 + 3*4 + 4*5 = 37, ... and bias -7. */
ON_EACH_BACKEND(conv_of_known_numbers) {
    const struct block_case row = {
        .kind = BLOCK_CONV, .input = {3, 3, 1}, .units = 1, .kernel = 2, .stride = 1, .pool = 1};
    struct block_desc desc = case_desc(&row, 0);
    const float x[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, w[4] = {1, 2, 3, 4}, bias[1] = {-7};
    const float want[4] = {30, 40, 60, 70};
    struct block_pass pass = pass_of(1);
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
    assert_values(y, want, 4);
    free(y);
}

/* Two channels interleaved in the image, apart in the weights; two filters interleaved again.
 * Padding 1 and stride 2 leave the four corners of a 2 x 2 image, each under another tap. */
ON_EACH_BACKEND(conv_of_known_channels) {
    const struct block_case row = {.kind = BLOCK_CONV,
                                   .input = {2, 2, 2},
                                   .units = 2,
                                   .kernel = 2,
                                   .stride = 2,
                                   .padding = 1,
                                   .pool = 1};
    struct block_desc desc = case_desc(&row, 0);
    const float x[8] = {1, 10, 2, 20, 3, 30, 4, 40};
    const float w[16] = {1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 0, 0, 0, 0, 1}, bias[2] = {0, 100};
    const float want[8] = {4 * 1 + 8 * 10, 110, 3 * 2 + 7 * 20, 100,
                           2 * 3 + 6 * 30, 100, 1 * 4 + 5 * 40, 104};
    struct block_pass pass = pass_of(1);
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
    assert_values(y, want, 8);
    free(y);
}

/* A weight that is no number is seen in every output of its unit, and in the loss: a run must not
 * go on with it. */
ON_EACH_BACKEND(a_nan_reaches_the_output) {
    static const struct block_case rows[] = {{.kind = BLOCK_CONV,
                                              .input = {7, 7, 1},
                                              .units = 2,
                                              .kernel = 3,
                                              .stride = 1,
                                              .activation = ACTIVATION_RELU,
                                              .pool = 1},
                                             {.kind = BLOCK_DENSE,
                                              .input = {1, 3, 3},
                                              .units = 2,
                                              .activation = ACTIVATION_RELU,
                                              .pool = 1}};
    float x[49], w[18] = {0};
    const float bias[2] = {1, 1};
    for (int i = 0; i < 49; i++)
        x[i] = 1;
    w[13] = NAN; /* of the second unit */
    for (int i = 0; i < 2; i++) {
        struct block_desc desc = case_desc(&rows[i], 0);
        struct block_pass pass = pass_of(1);
        float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
        for (size_t k = 0; k < shape_size(desc.output); k++)
            assert_true(k % 2 == 0 ? y[k] == 1 : isnan(y[k]));
        free(y);
    }
}

ON_EACH_BACKEND(dense_of_known_numbers) {
    const struct block_case row = {.kind = BLOCK_DENSE,
                                   .input = {1, 2, 2},
                                   .units = 2,
                                   .activation = ACTIVATION_RELU,
                                   .pool = 1};
    struct block_desc desc = case_desc(&row, 0);
    const float x[8] = {1, 2, 3, 4, 0, -1, 0, 1}, bias[2] = {1, -1};
    const float w[8] = {1, 10, 100, 1000, 1, 1, 1, -1};
    const float want[4] = {4322, 1, 991, 0};
    struct block_pass pass = pass_of(2);
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
    assert_values(y, want, 4);
    free(y);
}

/* A 3 x 5 image under a pool of 2: one row and one column are cut off. Ties go to the first in
 * row-major order: the first window is all equal, the second's maximum is in its last two. */
ON_EACH_BACKEND(first_maximum_takes_the_gradient) {
    const struct block_case row = {.kind = BLOCK_PASS, .input = {3, 5, 1}, .pool = 2};
    struct block_desc desc = case_desc(&row, 0);
    const float x[15] = {6, 6, 1, 2, 9, 6, 6, 3, 3, 9, 9, 9, 9, 9, 9};
    const float maxima[2] = {6, 3}, dy[2] = {5, -8};
    const float want[15] = {5, 0, 0, 0, 0, 0, 0, -8, 0, 0, 0, 0, 0, 0, 0};
    struct block_pass pass = pass_of(1);
    struct block_inputs in = {.x = x};
    float *y = run_block_forward(b, &desc, &pass, in);
    assert_values(y, maxima, 2);
    float *dx = run_block_backward(b, &desc, &pass, in, dy);
    assert_values(dx, want, 15);
    free(y);
    free(dx);
}

/* Where relu leaves zeros, even the maximum passes no gradient. */
ON_EACH_BACKEND(dead_window_passes_no_gradient) {
    const struct block_case row = {.kind = BLOCK_CONV,
                                   .input = {2, 2, 1},
                                   .units = 1,
                                   .kernel = 1,
                                   .stride = 1,
                                   .activation = ACTIVATION_RELU,
                                   .pool = 2};
    struct block_desc desc = case_desc(&row, 0);
    const float w = 1, bias = 0, dy[2] = {3, 3};
    const float x[8] = {-1, -2, 0, -3, -1, 2, 1, 0}, want[8] = {0, 0, 0, 0, 0, 3, 0, 0};
    struct block_pass pass = pass_of(2);
    float *dx = run_block_backward(b, &desc, &pass, (struct block_inputs){&w, &bias, x}, dy);
    assert_values(dx, want, 8);
    free(dx);
}

/* How far 2 f(p) + 3 f(q) and f(2 p + 3 q) may be apart: nothing where sums of small integers are
 * all there is, for which f is exact. */
static double *slack(struct backend *b, const struct block_desc *desc, int samples,
                     const float *weights, const float *p, const float *q) {
    size_t inputs = (size_t)samples * shape_size(desc->input);
    size_t outputs = (size_t)samples * shape_size(desc->output);
    double *bounds = calloc(outputs, sizeof *bounds);
    assert_non_null(bounds);
    if (!winograd_is_used(b, desc))
        return bounds;
    double *w = reference_array(block_weights(desc)), *x = reference_array(inputs);
    double *bias = calloc(block_biases(desc), sizeof *bias);
    for (size_t i = 0; i < block_weights(desc); i++)
        w[i] = weights[i];
    for (size_t i = 0; i < inputs; i++)
        x[i] = 2 * fabsf(p[i]) + 3 * fabsf(q[i]);
    double *errors = winograd_errors(desc, samples, w, bias, x);
    for (size_t i = 0; i < outputs; i++)
        bounds[i] = 2 * errors[i]; /* that of f(2 p + 3 q), and those of f(p) and f(q) together */
    double *const memory[] = {w, x, bias, errors};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
    return bounds;
}

/* conv(2 p + 3 q) = 2 conv(p) + 3 conv(q) without bias. */
static void check_linear(struct backend *b, const struct block_case *row) {
    enum { SAMPLES = 2 };
    struct block_desc desc = case_desc(row, 0);
    desc.activation = ACTIVATION_NONE;
    desc.dropout = 0;
    desc.pool = 1;
    desc.output = desc.linear;
    size_t inputs = SAMPLES * shape_size(desc.input), outputs = SAMPLES * shape_size(desc.output);
    float *p = case_integers(2, 1, inputs), *q = case_integers(2, 2, inputs);
    float *sum = case_integers(2, 3, inputs), *w = case_integers(2, 4, block_weights(&desc));
    float *bias = calloc(block_biases(&desc) + 1, sizeof *bias);
    assert_non_null(bias);
    for (size_t i = 0; i < inputs; i++)
        sum[i] = 2 * p[i] + 3 * q[i];
    struct block_pass pass = pass_of(SAMPLES);
    float *yp = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, p});
    float *yq = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, q});
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, sum});
    double *bounds = slack(b, &desc, SAMPLES, w, p, q);
    for (size_t i = 0; i < outputs; i++)
        assert_true(fabs(y[i] - (2 * (double)yp[i] + 3 * (double)yq[i])) <= bounds[i]);
    free(bounds);
    float *const memory[] = {p, q, sum, w, bias, yp, yq, y};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
}

ON_EACH_BACKEND(linear_maps_are_linear) {
    for (int i = 0; i < block_cases_count; i++)
        if (block_cases[i].kind != BLOCK_PASS && block_cases[i].group != GROUP_POSTER)
            check_linear(b, &block_cases[i]);
}

/* An image moved by (1, 2) pixels gives the map moved by as much, where both are inside. */
ON_EACH_BACKEND(conv_moves_with_its_image) {
    const struct block_case row = {
        .kind = BLOCK_CONV, .input = {9, 11, 3}, .units = 5, .kernel = 3, .stride = 1, .pool = 1};
    enum { H = 9, W = 11, C = 3, OH = 7, OW = 9, K = 5, DOWN = 1, RIGHT = 2 };
    struct block_desc desc = case_desc(&row, 0);
    float *x = case_integers(3, 1, H * W * C), *moved = case_integers(3, 2, H * W * C);
    float *w = case_integers(3, 3, block_weights(&desc)), *bias = case_integers(3, 4, K);
    for (int i = 0; i + DOWN < H; i++)
        for (int j = 0; j + RIGHT < W; j++)
            for (int c = 0; c < C; c++)
                moved[((i + DOWN) * W + j + RIGHT) * C + c] = x[(i * W + j) * C + c];
    struct block_pass pass = pass_of(1);
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
    float *z = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, moved});
    for (int i = 0; i + DOWN < OH; i++)
        for (int j = 0; j + RIGHT < OW; j++)
            for (int k = 0; k < K; k++)
                assert_true(z[((i + DOWN) * OW + j + RIGHT) * K + k] == y[(i * OW + j) * K + k]);
    float *const memory[] = {x, moved, w, bias, y, z};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_of_known_numbers),
        cmocka_unit_test(conv_of_known_channels),
        cmocka_unit_test(a_nan_reaches_the_output),
        cmocka_unit_test(dense_of_known_numbers),
        cmocka_unit_test(first_maximum_takes_the_gradient),
        cmocka_unit_test(dead_window_passes_no_gradient),
        cmocka_unit_test(linear_maps_are_linear),
        cmocka_unit_test(conv_moves_with_its_image),
    };
    return RUN_TESTS(tests, argc, argv);
}
