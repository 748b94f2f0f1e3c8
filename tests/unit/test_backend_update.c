/* Optimizer steps on every backend against the formulas in double, with derived bounds; selection
 * against a full sort. */
#include "backend_reference.h"
#include "bounds.h"
#include "cases.h"
#include "on_backends.h"

#include <espalier/bitmask.h>
#include <float.h>
#include <math.h>

/* More than one SIMD vector a thread, and a multiple of neither; so many that a team shares them.
 */
enum { COUNT = 1003, MANY = 10007 };
static const uint64_t seed = 20170501;

/* ---- optimizers: each step from the state that the backend itself has reached ---- */

/* One element before a step, and what the formulas make of it in double, with bounds. */
struct element {
    double w, g, s0, s1;
};

struct stepped {
    struct element value, error;
};

/* v and the direction are sums of two products; then lr times it, and w. */
static struct stepped step_sgd(const struct update_args *a, struct element e) {
    struct stepped s = {.value = e};
    double mu = a->momentum, v = mu * e.s0 + e.g, size = mu * fabs(e.s0) + fabs(e.g);
    double direction = a->nesterov ? e.g + mu * v : v;
    double direction_size = a->nesterov ? fabs(e.g) + mu * size : size;
    s.value.s0 = v;
    s.error.s0 = bound_gamma(2) * size + FLT_MIN;
    s.value.w = e.w - a->learning_rate * direction;
    s.error.w = bound_gamma(6) * (fabs(e.w) + a->learning_rate * direction_size) + FLT_MIN;
    return s;
}

/* a is a sum of positive products (5 roundings with 1 - rho); u adds two sums, two roots that
 * halve, a product and a quotient: below 10; u^2 doubles it. */
static struct stepped step_adadelta(const struct update_args *a, struct element e) {
    struct stepped s = {.value = e};
    double rho = a->rho, mean = rho * e.s0 + (1 - rho) * e.g * e.g;
    double u = e.g * sqrt(e.s1 + a->epsilon) / sqrt(mean + a->epsilon);
    s.value.s0 = mean;
    s.error.s0 = bound_gamma(5) * mean + FLT_MIN;
    s.value.s1 = rho * e.s1 + (1 - rho) * u * u;
    s.error.s1 = bound_gamma(25) * s.value.s1 + FLT_MIN;
    s.value.w = e.w - a->learning_rate * u;
    s.error.w = bound_gamma(1) * fabs(e.w) + bound_gamma(13) * a->learning_rate * fabs(u) + FLT_MIN;
    return s;
}

/* m may cancel, so its bound has |b1 m| + |(1-b1) g|; the rest of the quotient has below 12
 * roundings where the corrections 1 - b^t are computed in double. */
static struct stepped step_adam(const struct update_args *a, struct element e) {
    struct stepped s = {.value = e};
    double b1 = a->beta1, b2 = a->beta2, t = (double)a->step;
    double m = b1 * e.s0 + (1 - b1) * e.g, size = b1 * fabs(e.s0) + (1 - b1) * fabs(e.g);
    double v = b2 * e.s1 + (1 - b2) * e.g * e.g;
    double rate = a->learning_rate / (1 - pow(b1, t));
    double divisor = sqrt(v / (1 - pow(b2, t))) + a->epsilon;
    s.value.s0 = m;
    s.error.s0 = bound_gamma(3) * size + FLT_MIN;
    s.value.s1 = v;
    s.error.s1 = bound_gamma(5) * v + FLT_MIN;
    s.value.w = e.w - rate * m / divisor;
    s.error.w = bound_gamma(1) * fabs(e.w) + bound_gamma(15) * rate * size / divisor + FLT_MIN;
    return s;
}

typedef struct stepped step_rule(const struct update_args *args, struct element element);

struct optimizer_case {
    struct update_args args;
    int states, count;
    step_rule *rule;
};

/* Magnitudes from 1e-6 to 1e2, and zeros. */
static float *gradients(uint32_t stream, int count) {
    float *g = case_floats(seed, 100 + stream, (size_t)count);
    for (int i = 0; i < count; i++)
        g[i] *= i % 10 == 0 ? 0.0F : powf(10, (float)(i % 9 - 6));
    return g;
}

static void assert_within(double got, double want, double error) {
    if (!(fabs(got - want) <= error))
        fail_msg("%.9g, expected %.9g within %.3g", got, want, error);
}

static void check_step(struct backend *b, const struct optimizer_case *c,
                       const struct update_args *args, float *beta, float *states[2]) {
    const size_t count = (size_t)c->count, bytes = count * sizeof(float);
    float *g = gradients((uint32_t)args->step, c->count), *device = device_of(b, g, bytes);
    float *w = host_of(b, beta, bytes), *s[2] = {NULL, NULL}, *t[2] = {NULL, NULL};
    for (int i = 0; i < c->states; i++)
        s[i] = host_of(b, states[i], bytes);
    assert_ok(b->update(b, args, beta, device, states[0], states[1], count));
    float *updated = host_of(b, beta, bytes);
    for (int i = 0; i < c->states; i++)
        t[i] = host_of(b, states[i], bytes);
    for (size_t i = 0; i < count; i++) {
        struct element e = {w[i], g[i], s[0] == NULL ? 0 : s[0][i], s[1] == NULL ? 0 : s[1][i]};
        struct stepped want = c->rule(args, e);
        assert_within(updated[i], want.value.w, want.error.w);
        if (t[0] != NULL)
            assert_within(t[0][i], want.value.s0, want.error.s0);
        if (t[1] != NULL)
            assert_within(t[1][i], want.value.s1, want.error.s1);
    }
    float *const memory[] = {g, w, updated, s[0], s[1], t[0], t[1]};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
    b->release(b, device);
}

static void check_steps(struct backend *b, struct optimizer_case c) {
    enum { STEPS = 6 };
    const size_t bytes = (size_t)c.count * sizeof(float);
    float *initial = case_floats(seed, 31, (size_t)c.count), *states[2] = {NULL, NULL};
    float *beta = device_of(b, initial, bytes);
    for (int i = 0; i < c.states; i++)
        assert_ok(b->alloc(b, bytes, (void **)&states[i]));
    for (c.args.step = 1; c.args.step <= STEPS; c.args.step++)
        check_step(b, &c, &c.args, beta, states);
    assert_ok(b->update(b, &c.args, beta, beta, states[0], states[1], 0));
    b->release(b, beta);
    b->release(b, states[0]);
    b->release(b, states[1]);
    free(initial);
}

static void check_optimizer(struct backend *b, struct optimizer_case c) {
    c.count = COUNT;
    check_steps(b, c);
    c.count = MANY;
    check_steps(b, c);
}

ON_EACH_BACKEND(update_sgd) {
    struct optimizer_case c = {.rule = step_sgd,
                               .args = {.kind = OPTIMIZER_SGD, .learning_rate = 0.1F}};
    check_optimizer(b, c);
    c.args.nesterov = true;
    check_optimizer(b, c);
}

ON_EACH_BACKEND(update_sgd_momentum) {
    struct optimizer_case c = {
        .rule = step_sgd,
        .states = 1,
        .args = {.kind = OPTIMIZER_SGD, .learning_rate = 0.1F, .momentum = 0.9F}};
    check_optimizer(b, c);
    c.args.nesterov = true;
    check_optimizer(b, c);
}

ON_EACH_BACKEND(update_adadelta) {
    struct optimizer_case c = {
        .rule = step_adadelta,
        .states = 2,
        .args = {.kind = OPTIMIZER_ADADELTA, .learning_rate = 1, .rho = 0.95F, .epsilon = 1e-8F}};
    check_optimizer(b, c);
    c.args.epsilon = 1e-6F;
    check_optimizer(b, c);
}

ON_EACH_BACKEND(update_adam) {
    struct optimizer_case c = {.rule = step_adam,
                               .states = 2,
                               .args = {.kind = OPTIMIZER_ADAM,
                                        .learning_rate = 0.001F,
                                        .beta1 = 0.9F,
                                        .beta2 = 0.999F,
                                        .epsilon = 1e-8F}};
    check_optimizer(b, c);
}

/* ---- selection ---- */

/* Against the reference's full sort, cut into three segments of which one is empty. */
static void check_select(struct backend *b, const float *values, size_t count, size_t keep) {
    struct backend *reference;
    assert_ok(backend_reference_create(&reference));
    uint64_t want[COUNT / 64 + 1], got[COUNT / 64 + 1];
    struct segment host[3] = {{values, count / 3}, {values, 0}, {values + count / 3, 0}};
    host[2].count = count - count / 3;
    assert_ok(reference->select_largest(reference, host, 3, keep, want));
    reference->destroy(reference);
    struct segment device[3];
    for (int s = 0; s < 3; s++)
        device[s] = (struct segment){device_of(b, host[s].values, host[s].count * sizeof *values),
                                     host[s].count};
    memset(got, 0xff, sizeof got); /* must be overwritten */
    uint64_t *mask = device_of(b, got, sizeof got);
    assert_ok(b->select_largest(b, device, 3, keep, mask));
    assert_ok(b->download(b, got, mask, bitmask_words(count) * sizeof *got));
    assert_memory_equal(got, want, bitmask_words(count) * sizeof *got);
    assert_int_equal(bitmask_count_range(got, 0, count), keep);
    for (int s = 0; s < 3; s++)
        b->release(b, (void *)(uintptr_t)device[s].values);
    b->release(b, mask);
}

typedef float value_at(size_t i);

static float tied_value(size_t i) {
    return (float)((int)(i * 7919 % 5) - 2);
}

static float equal_value(size_t i) {
    return i % 2 == 0 ? 0.25F : -0.25F;
}

static float denormal_value(size_t i) {
    return (float)(i * 31 % 97) * 0x1p-149F * (i % 3 == 0 ? -1.0F : 1.0F);
}

static float zero_value(size_t i) {
    return i % 3 == 0 ? 0.0F : -0.0F;
}

static float wide_value(size_t i) {
    return ldexpf(1 + (float)(i % 11) / 16, (int)(i * 37 % 250) - 125) *
           (i % 2 == 0 ? 1.0F : -1.0F);
}

static float neighbour_value(size_t i) { /* differ in the last bits only */
    return 1 + (float)(i * 13 % 1000) * 0x1p-23F;
}

static float largest_value(size_t i) {
    return i % 4 == 0 ? FLT_MAX : FLT_MIN;
}

ON_EACH_BACKEND(select_largest_equals_a_full_sort) {
    static value_at *const kinds[] = {tied_value, equal_value,     denormal_value, zero_value,
                                      wide_value, neighbour_value, largest_value};
    static const size_t counts[] = {0, 1, 2, 64, 65, COUNT};
    float values[COUNT];
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (size_t i = 0; i < COUNT; i++)
            values[i] = kinds[k](i);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
            for (size_t part = 0; part <= 7; part++)
                check_select(b, values, counts[c], counts[c] * part / 7);
    }
    float *random = case_floats(seed, 41, COUNT);
    for (size_t keep = 0; keep <= COUNT; keep += 59)
        check_select(b, random, COUNT, keep);
    free(random);
}

/* The rule spelled out, not by the reference: of equal magnitudes the lower index wins. */
ON_EACH_BACKEND(select_largest_breaks_ties_to_the_lower_index) {
    const float values[6] = {-1, 2, 1, -2, 0.0F, -0.0F};
    static const uint64_t masks[7] = {0, 2, 10, 11, 15, 31, 63};
    float *device = device_of(b, values, sizeof values);
    uint64_t *mask = device_of(b, masks, sizeof masks[0]), got;
    struct segment segment = {device, 6};
    for (size_t keep = 0; keep <= 6; keep++) {
        assert_ok(b->select_largest(b, &segment, 1, keep, mask));
        assert_ok(b->download(b, &got, mask, sizeof got));
        assert_true(got == masks[keep]);
    }
    b->release(b, device);
    b->release(b, mask);
}

ON_EACH_BACKEND(select_largest_refuses_what_is_no_number) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float values[70] = {0};
    uint64_t zero[3] = {0};
    for (int i = 0; i < 3; i++) {
        values[66] = bad[i];
        struct segment segments[2] = {{device_of(b, values, 40), 10},
                                      {device_of(b, values, sizeof values), 70}};
        uint64_t *mask = device_of(b, zero, sizeof zero);
        assert_fails(b->select_largest(b, segments, 2, 5, mask), ST_NUMERIC, "segment 1");
        assert_fails(b->select_largest(b, segments, 2, 0, mask), ST_NUMERIC, "index 66");
        assert_fails(b->select_largest(b, segments, 1, 11, mask), ST_SHAPE, "11");
        for (int s = 0; s < 2; s++)
            b->release(b, (void *)(uintptr_t)segments[s].values);
        b->release(b, mask);
    }
}

/* w - lr (g + l1 sign(w) + l2 w): six roundings. The gradient itself is what was added up. */
ON_EACH_BACKEND(decay_pulls_weights_to_zero) {
    const struct update_args args = {
        .kind = OPTIMIZER_SGD, .learning_rate = 0.5F, .l1 = 0.125F, .l2 = 0.3F};
    const size_t bytes = COUNT * sizeof(float);
    float *w = case_floats(seed, 7, COUNT), *g = gradients(1, COUNT);
    for (int i = 0; i < COUNT; i += 5)
        w[i] = i % 2 == 0 ? 0.0F : -0.0F;
    float *beta = device_of(b, w, bytes), *gradient = device_of(b, g, bytes);
    assert_ok(b->update(b, &args, beta, gradient, NULL, NULL, COUNT));
    float *updated = host_of(b, beta, bytes);
    for (int i = 0; i < COUNT; i++) {
        double sign = (w[i] > 0) - (w[i] < 0), l2 = (double)0.3F;
        double size = fabs((double)g[i]) + 0.125 + l2 * fabs((double)w[i]);
        assert_within(updated[i], w[i] - 0.5 * (g[i] + 0.125 * sign + l2 * w[i]),
                      bound_gamma(6) * (fabs((double)w[i]) + 0.5 * size));
    }
    free(w);
    free(g);
    free(updated);
    b->release(b, beta);
    b->release(b, gradient);
}

/* Each element alone gets the bits that it gets among others. */
ON_EACH_BACKEND(elements_do_not_depend_on_their_place) {
    for (int variant = 0; variant < 2 * OPTIMIZER_COUNT; variant++) {
        enum { FEW = 61 };
        float *host[4], *all[4], *one[4];
        const bool decays = variant % 2;
        const struct update_args args = {.kind = (enum optimizer_kind)(variant / 2),
                                         .learning_rate = 0.3F,
                                         .momentum = 0.9F,
                                         .nesterov = true,
                                         .rho = 0.95F,
                                         .beta1 = 0.9F,
                                         .beta2 = 0.999F,
                                         .epsilon = 1e-6F,
                                         .l1 = decays ? 0.01F : 0,
                                         .l2 = decays ? 0.3F : 0,
                                         .step = 3};
        for (int v = 0; v < 4; v++) {
            host[v] = case_floats(seed, (uint32_t)(40 + v), FEW);
            for (int i = 0; v > 1 && i < FEW; i++)
                host[v][i] = fabsf(host[v][i]);
            all[v] = device_of(b, host[v], FEW * sizeof(float));
            one[v] = device_of(b, host[v], FEW * sizeof(float));
        }
        assert_ok(b->update(b, &args, all[0], all[1], all[2], all[3], FEW));
        for (int i = 0; i < FEW; i++)
            assert_ok(b->update(b, &args, one[0] + i, one[1] + i, one[2] + i, one[3] + i, 1));
        for (int v = 0; v < 4; v++) {
            float *among = host_of(b, all[v], FEW * sizeof(float));
            float *alone = host_of(b, one[v], FEW * sizeof(float));
            if (v != 1)
                assert_memory_equal(among, alone, FEW * sizeof(float));
            free(among);
            free(alone);
            free(host[v]);
            b->release(b, all[v]);
            b->release(b, one[v]);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(update_sgd),
        cmocka_unit_test(update_sgd_momentum),
        cmocka_unit_test(update_adadelta),
        cmocka_unit_test(update_adam),
        cmocka_unit_test(elements_do_not_depend_on_their_place),
        cmocka_unit_test(decay_pulls_weights_to_zero),
        cmocka_unit_test(select_largest_equals_a_full_sort),
        cmocka_unit_test(select_largest_breaks_ties_to_the_lower_index),
        cmocka_unit_test(select_largest_refuses_what_is_no_number),
    };
    return RUN_TESTS(tests, argc, argv);
}
