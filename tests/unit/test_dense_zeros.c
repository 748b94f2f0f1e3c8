/* Dense layers whose input or output gradient is mostly zeros: skipping them changes nothing. */
#include "cases.h"
#include "on_backends.h"

#include <espalier/rng.h>
#include <math.h>
#include <string.h>

struct layer {
    int inputs, units, samples;
    double x_density, dy_density;
};

/* Around what is listed or computed at once, and either side of where skipping pays. */
static const struct layer layers[] = {
    {127, 33, 15, 0.2, 1}, {128, 32, 16, 0.2, 1},   {129, 31, 17, 0.2, 1}, {300, 65, 33, 0.1, 1},
    {300, 129, 1, 0.1, 1}, {400, 150, 20, 0.2, .4}, {33, 50, 130, 0.3, 1}, {90, 40, 257, 0.05, 1},
    {257, 63, 9, 0.4, .1}, {257, 64, 35, 1, 0.1},   {65, 257, 9, 1, 0.25}, {31, 40, 20, 1, 0.1},
    {32, 10, 20, 1, 0.1},  {600, 47, 5, 1, 0.3},    {50, 60, 40, 0, 0},    {90, 70, 50, 0.5, 0.5}};
enum { LAYERS = sizeof layers / sizeof layers[0] };

/* Everything that goes into a layer and comes out of it, on the host. */
struct numbers {
    float *weights, *bias, *x, *dy;   /* in */
    float *y, *dweights, *dbias, *dx; /* out */
};

static size_t weights_of(const struct layer *l) {
    return (size_t)l->inputs * (size_t)l->units;
}
static size_t inputs_of(const struct layer *l) {
    return (size_t)l->samples * (size_t)l->inputs;
}
static size_t outputs_of(const struct layer *l) {
    return (size_t)l->samples * (size_t)l->units;
}

static void thin_out(float *values, size_t count, double density, uint32_t stream) {
    for (size_t i = 0; i < count; i++) {
        uint32_t words[4];
        rng_philox(3, (struct rng_counter){.group = (uint32_t)i, .stream = stream}, words);
        if ((double)rng_uniform(words[0]) >= density)
            values[i] = 0;
    }
}

typedef float *fill_values(uint64_t seed, uint32_t stream, size_t count);

static struct numbers numbers_create(const struct layer *l, fill_values *fill) {
    struct numbers n = {.weights = fill(7, 1, weights_of(l)),
                        .bias = fill(7, 2, (size_t)l->units),
                        .x = fill(7, 3, inputs_of(l)),
                        .dy = fill(7, 4, outputs_of(l)),
                        .y = fill(7, 5, outputs_of(l)),
                        .dweights = fill(7, 6, weights_of(l)),
                        .dbias = fill(7, 7, (size_t)l->units),
                        .dx = fill(7, 8, inputs_of(l))};
    thin_out(n.x, inputs_of(l), l->x_density, 1);
    thin_out(n.dy, outputs_of(l), l->dy_density, 2);
    return n;
}

static void numbers_destroy(struct numbers *n) {
    float *const all[] = {n->weights, n->bias, n->x, n->dy, n->y, n->dweights, n->dbias, n->dx};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* A plan, and device memory for its numbers. */
struct device {
    struct backend *backend;
    struct block_plan *plan;
    struct numbers at;
};

static struct device device_create(struct backend *b, const struct layer *l, bool first,
                                   const struct numbers *n) {
    const struct block_desc desc = {.kind = BLOCK_DENSE,
                                    .input = {1, 1, l->inputs},
                                    .linear = {1, 1, l->units},
                                    .output = {1, 1, l->units},
                                    .activation = ACTIVATION_RELU,
                                    .pool = 1};
    const size_t f = sizeof(float);
    struct device d = {b,
                       NULL,
                       {.weights = device_of(b, n->weights, weights_of(l) * f),
                        .bias = device_of(b, n->bias, (size_t)l->units * f),
                        .x = device_of(b, n->x, inputs_of(l) * f),
                        .dy = device_of(b, n->dy, outputs_of(l) * f),
                        .y = device_of(b, n->y, outputs_of(l) * f),
                        .dweights = device_of(b, n->dweights, weights_of(l) * f),
                        .dbias = device_of(b, n->dbias, (size_t)l->units * f),
                        .dx = device_of(b, n->dx, inputs_of(l) * f)}};
    assert_ok(b->block_plan_create(b, &desc, l->samples, first, &d.plan));
    assert_ok(b->block_plan_load_weights(d.plan, d.at.weights, d.at.bias));
    return d;
}

static void device_destroy(struct device *d) {
    float *const all[] = {d->at.weights, d->at.bias,     d->at.x,     d->at.dy,
                          d->at.y,       d->at.dweights, d->at.dbias, d->at.dx};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        d->backend->release(d->backend, all[i]);
    d->backend->block_plan_destroy(d->plan);
}

/* Forward and backward; the results replace those in `n`. */
static void run(struct backend *b, const struct layer *l, bool first, struct numbers *n) {
    struct device d = device_create(b, l, first, n);
    const struct block_pass pass = {.samples = l->samples};
    assert_ok(b->block_forward(d.plan, &pass, d.at.x, d.at.y));
    assert_ok(b->block_backward(d.plan, &pass, d.at.x, d.at.y, d.at.dy, d.at.dweights, d.at.dbias,
                                first ? NULL : d.at.dx, (struct poll){NULL, NULL}));
    assert_ok(b->download(b, n->y, d.at.y, outputs_of(l) * sizeof(float)));
    assert_ok(b->download(b, n->dweights, d.at.dweights, weights_of(l) * sizeof(float)));
    assert_ok(b->download(b, n->dbias, d.at.dbias, (size_t)l->units * sizeof(float)));
    assert_ok(b->download(b, n->dx, d.at.dx, inputs_of(l) * sizeof(float)));
    device_destroy(&d);
}

/* The definition, over integers: all sums are exact. dz is dy where y > 0. */
static void expect(const struct layer *l, struct numbers *n) {
    memset(n->dweights, 0, weights_of(l) * sizeof(float));
    memset(n->dbias, 0, (size_t)l->units * sizeof(float));
    memset(n->dx, 0, inputs_of(l) * sizeof(float));
    for (int i = 0; i < l->samples; i++)
        for (int k = 0; k < l->units; k++) {
            const float *w = n->weights + (size_t)k * (size_t)l->inputs;
            const float *x = n->x + (size_t)i * (size_t)l->inputs;
            const size_t o = (size_t)i * (size_t)l->units + (size_t)k;
            float z = n->bias[k];
            for (int j = 0; j < l->inputs; j++)
                z += w[j] * x[j];
            n->y[o] = z > 0 ? z : 0;
            const float dz = z > 0 ? n->dy[o] : 0;
            n->dbias[k] += dz;
            for (int j = 0; j < l->inputs; j++) {
                n->dweights[(size_t)k * (size_t)l->inputs + (size_t)j] += dz * x[j];
                n->dx[(size_t)i * (size_t)l->inputs + (size_t)j] += dz * w[j];
            }
        }
}

static void assert_equal(const float *got, const float *want, size_t count) {
    for (size_t i = 0; i < count; i++)
        assert_true(got[i] == want[i]);
}

ON_EACH_BACKEND(zeros_are_skipped_exactly) {
    for (int i = 0; i < LAYERS; i++) {
        const struct layer *l = &layers[i];
        struct numbers got = numbers_create(l, case_integers);
        struct numbers want = numbers_create(l, case_integers);
        expect(l, &want);
        for (int first = 0; first <= 1; first++) {
            run(b, l, first == 1, &got);
            assert_equal(got.y, want.y, outputs_of(l));
            assert_equal(got.dweights, want.dweights, weights_of(l));
            assert_equal(got.dbias, want.dbias, (size_t)l->units);
            if (first == 0)
                assert_equal(got.dx, want.dx, inputs_of(l));
        }
        numbers_destroy(&got);
        numbers_destroy(&want);
    }
}

static void threads_agree_on_sparse_layers(void **state) {
    (void)state;
    for (int i = 0; i < LAYERS; i++) {
        const struct layer *l = &layers[i];
        struct numbers one = numbers_create(l, case_floats);
        struct backend *b = cpu_backend_with(NULL, NULL, 1);
        run(b, l, false, &one);
        b->destroy(b);
        for (int threads = 2; threads <= 4; threads++) {
            struct numbers more = numbers_create(l, case_floats);
            b = cpu_backend_with(NULL, NULL, threads);
            run(b, l, false, &more);
            b->destroy(b);
            assert_memory_equal(more.y, one.y, outputs_of(l) * sizeof(float));
            assert_memory_equal(more.dweights, one.dweights, weights_of(l) * sizeof(float));
            assert_memory_equal(more.dbias, one.dbias, (size_t)l->units * sizeof(float));
            assert_memory_equal(more.dx, one.dx, inputs_of(l) * sizeof(float));
            numbers_destroy(&more);
        }
        numbers_destroy(&one);
    }
}

/* A NaN is no zero: it reaches every output of its sample, every weight gradient of its input. */
ON_EACH_BACKEND(nans_are_not_skipped) {
    const struct layer l = {200, 50, 20, 0.1, 1};
    struct numbers n = numbers_create(&l, case_floats);
    n.x[7 * 200 + 150] = NAN;
    run(b, &l, true, &n);
    for (int i = 0; i < l.samples; i++)
        for (int k = 0; k < l.units; k++)
            assert_true((isnan(n.y[i * l.units + k]) != 0) == (i == 7));
    numbers_destroy(&n);
}

/* New weights are used whether or not the pass before needed the old ones' transpose. */
ON_EACH_BACKEND(new_weights_are_used) {
    const struct layer l = {150, 40, 20, 0.2, 1};
    const struct block_pass pass = {.samples = l.samples};
    struct numbers n = numbers_create(&l, case_integers), want = numbers_create(&l, case_integers);
    struct device d = device_create(b, &l, true, &n);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < weights_of(&l); i++)
            want.weights[i] += 1;
        assert_ok(b->upload(b, d.at.weights, want.weights, weights_of(&l) * sizeof(float)));
        assert_ok(b->block_plan_load_weights(d.plan, d.at.weights, d.at.bias));
        for (int again = 0; again < 2; again++) {
            assert_ok(b->block_forward(d.plan, &pass, d.at.x, d.at.y));
            assert_ok(b->download(b, n.y, d.at.y, outputs_of(&l) * sizeof(float)));
            expect(&l, &want);
            assert_equal(n.y, want.y, outputs_of(&l));
        }
    }
    device_destroy(&d);
    numbers_destroy(&n);
    numbers_destroy(&want);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_are_skipped_exactly),
        cmocka_unit_test(threads_agree_on_sparse_layers),
        cmocka_unit_test(nans_are_not_skipped),
        cmocka_unit_test(new_weights_are_used),
    };
    return RUN_TESTS(tests, argc, argv);
}
