/* The parts of FSA on synthetic data, against closed forms, differences and brute force. */
#include "check.h"
#include <espalier/communicator.h>
#include <espalier/fsa.h>
#include <espalier/schedule.h>
#include <math.h>
#include <stdlib.h>

static void assert_near(double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%.17g is not %.17g within %g", found, expected, tolerance);
}

/* Away from the kinks: 1 of lorenz, 0.9 and 1.1 of huber_svm, whose second derivatives jump there.
 */
static const double margins[] = {-40, -3, -0.5, 0, 0.3, 0.85, 0.95, 1.05, 1.15, 2, 40};
enum { MARGINS = sizeof margins / sizeof margins[0] };

/* Central differences err by step^2 / 6 times the third derivative, below 1e-8 for these losses
 * (|l'''| <= 13, lorenz'), and by 2^-53 |l| / step, below 1e-10 up to l = 1681, squared's at -40.
 */
static void slopes_are_derivatives(void **state) {
    (void)state;
    const double step = 3e-5;
    for (int loss = 0; loss < FSA_LOSS_COUNT; loss++)
        for (int i = 0; i < MARGINS; i++) {
            double u = margins[i], slope = fsa_loss_slope(loss, u);
            double difference =
                (fsa_loss_value(loss, u + step) - fsa_loss_value(loss, u - step)) / (2 * step);
            if (!(fabs(slope - difference) <= 1e-8 * (1 + fabs(slope))))
                fail_msg("%s at %g: slope %.12g, differences %.12g", fsa_loss_names[loss], u, slope,
                         difference);
        }
}

static void losses_have_their_values(void **state) {
    (void)state;
    const struct {
        enum fsa_loss loss;
        double margin, value;
    } known[] = {{FSA_LOGISTIC, 0, 0.69314718055994531},
                 {FSA_LOGISTIC, -1000, 1000},
                 {FSA_LOGISTIC, 1000, 0},
                 {FSA_LOGISTIC, 1, 0.31326168751822286},
                 {FSA_LORENZ, 0, 0.69314718055994531},
                 {FSA_LORENZ, -1, 1.6094379124341003}, /* ln 5 */
                 {FSA_LORENZ, 3, 0},
                 {FSA_HUBER_SVM, -1, 2},
                 {FSA_HUBER_SVM, 0.9, 0.1},
                 {FSA_HUBER_SVM, 1, 0.025},
                 {FSA_HUBER_SVM, 1.1, 0},
                 {FSA_SQUARED, -2, 9},
                 {FSA_SQUARED, 3, 4}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_near(fsa_loss_value(known[i].loss, known[i].margin), known[i].value, 1e-12);
}

/* ---- synthetic data ---- */

enum { N = 20000 };

static const struct fsa_source source = {.seed = 7, .run = 3, .set = 0, .correlation = 0.9};

static double mean_product(const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += a[i] * b[i];
    return sum / N;
}

/* The sample covariance of two normals with correlation r has variance (1 + r^2) / N: five of its
 * standard deviations. */
static void covariance_is_a_power_of_the_distance(void **state) {
    (void)state;
    const int columns[] = {0, 1, 2, 4, 9, 40};
    enum { COUNT = sizeof columns / sizeof columns[0] };
    double *x = calloc((size_t)COUNT * N, sizeof *x);
    fsa_generate(&source, columns, COUNT, N, x);
    for (int a = 0; a < COUNT; a++)
        for (int b = a; b < COUNT; b++) {
            double r = pow(0.9, columns[b] - columns[a]);
            double found = mean_product(x + (size_t)a * N, x + (size_t)b * N);
            if (!(fabs(found - r) <= 5 * sqrt((1 + r * r) / N)))
                fail_msg("columns %d and %d: covariance %g, expected %g", columns[a], columns[b],
                         found, r);
        }
    free(x);
}

/* Moments of a standard normal, within five standard deviations of their estimates: variances of
 * x, x^3 and x^4 are 1, 15 and 96. */
static void values_are_normal(void **state) {
    (void)state;
    const int column = 5;
    double *x = calloc(N, sizeof *x), m1 = 0, m3 = 0, m4 = 0;
    fsa_generate(&source, &column, 1, N, x);
    for (int i = 0; i < N; i++) {
        m1 += x[i] / N;
        m3 += x[i] * x[i] * x[i] / N;
        m4 += x[i] * x[i] * x[i] * x[i] / N;
    }
    assert_near(m1, 0, 5 * sqrt(1.0 / N));
    assert_near(m3, 0, 5 * sqrt(15.0 / N));
    assert_near(m4, 3, 5 * sqrt(96.0 / N));
    free(x);
}

/* Runs, sets and seeds are independent: correlations within five standard deviations of 0. */
static void sources_are_independent(void **state) {
    (void)state;
    const int column = 0;
    const struct fsa_source others[] = {{7, 3, 1, 0.9}, {7, 4, 0, 0.9}, {8, 3, 0, 0.9}};
    double *x = calloc(N, sizeof *x), *other = calloc(N, sizeof *other);
    fsa_generate(&source, &column, 1, N, x);
    for (int i = 0; i < 3; i++) {
        fsa_generate(&others[i], &column, 1, N, other);
        assert_near(mean_product(x, other), 0, 5 * sqrt(1.0 / N));
    }
    fsa_generate(&source, &column, 1, N / 2, other); /* fewer samples are the first ones */
    assert_memory_equal(x, other, N / 2 * sizeof *x);
    free(x);
    free(other);
}

/* A coin agrees with the sign in half of the cases: 0.1 of noise flips 0.05. */
static void labels_are_signs_and_noise(void **state) {
    (void)state;
    const int column = 0;
    double *x = calloc(N, sizeof *x), *y = calloc(N, sizeof *y);
    int flipped = 0, positive = 0;
    fsa_generate(&source, &column, 1, N, x);
    fsa_label(&source, x, N, 0, y);
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (x[i] > 0 ? 1 : -1));
    fsa_label(&source, x, N, 0.1, y);
    for (int i = 0; i < N; i++)
        if (y[i] != (x[i] > 0 ? 1 : -1)) {
            flipped++;
            positive += y[i] > 0;
        }
    assert_near(flipped, 0.05 * N, 5 * sqrt(0.05 * 0.95 * N));
    assert_near(positive, flipped / 2.0, 5 * sqrt(flipped / 4.0));
    free(x);
    free(y);
}

/* ---- AUC ---- */

static void auc_equals_brute_force(void **state) {
    (void)state;
    enum { COUNT = 101 };
    double scores[COUNT], y[COUNT], sorted[COUNT], ordered = 0;
    int pairs = 0;
    for (int i = 0; i < COUNT; i++) {
        scores[i] = i * 37 % 23; /* with ties */
        y[i] = i * 53 % 7 < 3 ? 1 : -1;
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++)
            if (y[i] > 0 && y[j] < 0) {
                pairs++;
                ordered += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
            }
    assert_near(fsa_auc(scores, y, COUNT, sorted), ordered / pairs, 1e-14);
}

static void auc_of_the_extremes(void **state) {
    (void)state;
    const double scores[] = {1, 2, 3, 4}, right[] = {-1, -1, 1, 1}, wrong[] = {1, 1, -1, -1};
    const double equal[] = {5, 5, 5, 5}, one_class[] = {1, 1, 1, 1};
    double sorted[4];
    assert_true(fsa_auc(scores, right, 4, sorted) == 1);
    assert_true(fsa_auc(scores, wrong, 4, sorted) == 0);
    assert_true(fsa_auc(equal, right, 4, sorted) == 0.5);
    assert_true(isnan(fsa_auc(scores, one_class, 4, sorted)));
}

/* ---- Algorithm 1 ---- */

static struct fsa_settings small(void) {
    return (struct fsa_settings){.samples = 60,
                                 .variables = 40,
                                 .keep = 3,
                                 .correlation = 0.9,
                                 .noise = 0.1,
                                 .rate = 0.1,
                                 .mu = 5,
                                 .iterations = 40,
                                 .runs = 6,
                                 .seed = 1,
                                 .threads = 2};
}

/* Everything again over dense arrays with a mask: no column moves, nothing is renumbered. */
static void fit_with_a_mask(const struct fsa_settings *s, const double *x, const double *y,
                            double *beta) {
    const struct schedule schedule = {SCHEDULE_FSA, .every = 1, .events = s->iterations / 2,
                                      .mu = s->mu, .keep = s->keep};
    bool gone[64] = {false};
    int survivors = s->variables;
    for (int e = 1; e <= s->iterations; e++) {
        double gradient[64] = {0};
        for (int i = 0; i < s->samples; i++) {
            double sum = 0;
            for (int j = 0; j < s->variables; j++)
                sum += beta[j] * x[j * s->samples + i];
            for (int j = 0; j < s->variables; j++)
                gradient[j] +=
                    fsa_loss_slope(s->loss, y[i] * sum) * y[i] * x[j * s->samples + i] / s->samples;
        }
        double rate = s->rate * pow((double)s->variables / survivors, s->growth);
        int left = 0, wanted = (int)schedule_survivors(&schedule, (size_t)s->variables, e);
        for (int j = 0; j < s->variables; j++) {
            beta[j] = gone[j] ? 0 : beta[j] - rate * gradient[j];
            left += !gone[j];
        }
        for (; left > wanted; left--) { /* the smallest goes; of equal ones the last */
            int smallest = -1;
            for (int j = 0; j < s->variables; j++)
                if (!gone[j] && (smallest < 0 || fabs(beta[j]) <= fabs(beta[smallest])))
                    smallest = j;
            gone[smallest] = true;
            beta[smallest] = 0;
        }
        survivors = left;
    }
}

static void fill(const struct fsa_settings *s, struct fsa_workspace *w) {
    int columns[64];
    for (int j = 0; j < s->variables; j++)
        columns[j] = j;
    fsa_generate(&source, columns, s->variables, s->samples, w->x);
    fsa_label(&source, w->x + 9 * s->samples, s->samples, s->noise, w->y);
}

/* Sums over 60 samples and 40 variables in another order, 40 steps: well below 1e-10. */
static void fit_equals_a_masked_one(void **state) {
    (void)state;
    struct fsa_settings s = small();
    struct fsa_workspace w;
    assert_ok(fsa_workspace_create(s.samples, s.variables, &w));
    double *x = calloc((size_t)(s.samples * s.variables), sizeof *x);
    for (int loss = 0; loss < FSA_LOSS_COUNT; loss++) {
        double beta[64] = {0};
        s.loss = (enum fsa_loss)loss;
        s.rate = loss == FSA_SQUARED ? 0.01 : 0.1;
        s.growth = loss == FSA_LORENZ ? 0.5 : 0;
        fill(&s, &w);
        memcpy(x, w.x, (size_t)(s.samples * s.variables) * sizeof *x);
        fit_with_a_mask(&s, x, w.y, beta);
        assert_int_equal(fsa_fit(&s, &w), 0);
        assert_int_equal(w.count, s.keep);
        for (int c = 0; c < w.count; c++) {
            assert_true(beta[w.variables[c]] != 0);
            assert_near(w.weights[c], beta[w.variables[c]], 1e-10);
            assert_memory_equal(w.x + c * s.samples, x + w.variables[c] * s.samples,
                                (size_t)s.samples * sizeof *x);
        }
    }
    free(x);
    fsa_workspace_destroy(&w);
}

/* Columns are equal in pairs, so weights are: the lower index stays. */
static void ties_keep_the_lower_index(void **state) {
    (void)state;
    struct fsa_settings s = small();
    struct fsa_workspace w;
    assert_ok(fsa_workspace_create(s.samples, s.variables, &w));
    fill(&s, &w);
    for (int j = 1; j < s.variables; j += 2)
        memcpy(w.x + j * s.samples, w.x + (j - 1) * s.samples, (size_t)s.samples * sizeof *w.x);
    s.keep = 1;
    assert_int_equal(fsa_fit(&s, &w), 0);
    assert_int_equal(w.variables[0] % 2, 0);
    fsa_workspace_destroy(&w);
}

static void too_large_a_rate_is_told(void **state) {
    (void)state;
    struct fsa_settings s = small();
    struct communicator communicator;
    struct fsa_result result;
    s.loss = FSA_SQUARED;
    s.rate = 1e200;
    assert_ok(communicator_single(&communicator));
    assert_fails(fsa_simulate(&s, &communicator, &result), ST_NUMERIC, "run 0, iteration 2: ");
    communicator.destroy(&communicator);
}

/* ---- the simulation ---- */

static void threads_change_nothing(void **state) {
    (void)state;
    struct fsa_settings s = small();
    struct communicator communicator;
    struct fsa_result results[3];
    assert_ok(communicator_single(&communicator));
    for (int threads = 1; threads <= 3; threads++) {
        s.threads = threads;
        assert_ok(fsa_simulate(&s, &communicator, &results[threads - 1]));
    }
    assert_memory_equal(&results[0], &results[1], sizeof results[0]);
    assert_memory_equal(&results[0], &results[2], sizeof results[0]);
    communicator.destroy(&communicator);
}

/* Much data of few variables: everything is found. */
static void easy_problem_is_solved(void **state) {
    (void)state;
    struct fsa_settings s = small();
    struct communicator communicator;
    struct fsa_result result;
    s.samples = 500;
    s.noise = 0;
    s.rate = 10;
    s.iterations = 100;
    assert_ok(communicator_single(&communicator));
    assert_ok(fsa_simulate(&s, &communicator, &result));
    assert_true(result.all_found == 1 && result.found == 1);
    assert_true(result.auc > 0.99 && result.auc <= 1);
    communicator.destroy(&communicator);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_are_derivatives),
        cmocka_unit_test(losses_have_their_values),
        cmocka_unit_test(covariance_is_a_power_of_the_distance),
        cmocka_unit_test(values_are_normal),
        cmocka_unit_test(sources_are_independent),
        cmocka_unit_test(labels_are_signs_and_noise),
        cmocka_unit_test(auc_equals_brute_force),
        cmocka_unit_test(auc_of_the_extremes),
        cmocka_unit_test(fit_equals_a_masked_one),
        cmocka_unit_test(ties_keep_the_lower_index),
        cmocka_unit_test(too_large_a_rate_is_told),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(easy_problem_is_solved),
    };
    return RUN_TESTS(tests, argc, argv);
}
