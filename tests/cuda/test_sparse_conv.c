/* The kernels of convolutions in sparse form: every cut into bands, chunks and parts, against the
 * sums themselves, with stride and padding, in both orders of threads. */
#include "../../cuda/sparse_conv.h"
#include "cases.h"
#include "on_backends.h"

#include <espalier/recipe.h>
#include <espalier/survivors.h>
#include <math.h>
#include <string.h>

enum { SAMPLES = 3, FILTERS = 19, CHANNELS = 70 };

/* Its last row and column of inputs are in no window; its channels do not fit into a block. */
static const struct block_desc desc = {.kind = BLOCK_CONV,
                                       .input = {14, 12, CHANNELS},
                                       .linear = {7, 6, FILTERS},
                                       .output = {7, 6, FILTERS},
                                       .kernel = 3,
                                       .stride = 2,
                                       .padding = 1,
                                       .pool = 1};

enum {
    INPUTS = 14 * 12 * CHANNELS,
    OUTPUTS = 7 * 6 * FILTERS,
    TAPS = 9,
    ALL = FILTERS * CHANNELS * TAPS
};

struct sides {
    struct arena *arena;
    uint32_t *indices;
    size_t count;
    float *values, *x, *dz; /* [count], [SAMPLES][INPUTS], [SAMPLES][OUTPUTS] */
    float *z, *dx, *gradient;
};

/* Adds what one weight does at one place. */
static void connect(struct sides *s, size_t e, int sample, int y, int x) {
    const int tap = (int)s->indices[e] % TAPS, filter = (int)s->indices[e] / TAPS / CHANNELS;
    const int row = 2 * y + tap / 3 - 1, column = 2 * x + tap % 3 - 1;
    if (row < 0 || row >= 14 || column < 0 || column >= 12)
        return;
    const int in =
        sample * INPUTS + (row * 12 + column) * CHANNELS + (int)s->indices[e] / TAPS % CHANNELS;
    const int out = sample * OUTPUTS + (y * 6 + x) * FILTERS + filter;
    s->z[out] += s->values[e] * s->x[in];
    s->dx[in] += s->values[e] * s->dz[out];
    s->gradient[e] += s->dz[out] * s->x[in];
}

/* Of small integers, so that sums are exact. Filter 3 and channel 5 are gone. */
static struct sides sides_create(void) {
    struct sides s = {.count = 0};
    float *draws = case_floats(9, 1, ALL);
    assert_ok(arena_create(&s.arena));
    assert_ok(ARENA_ARRAY(s.arena, ALL, &s.indices));
    for (uint32_t i = 0; i < ALL; i++)
        if (i / TAPS / CHANNELS != 3 && i / TAPS % CHANNELS != 5 && draws[i] < -0.7F)
            s.indices[s.count++] = i;
    free(draws);
    s.values = case_integers(9, 2, s.count);
    s.x = case_integers(9, 3, SAMPLES * INPUTS);
    s.dz = case_integers(9, 4, SAMPLES * OUTPUTS);
    assert_ok(ARENA_ARRAY(s.arena, SAMPLES * OUTPUTS, &s.z));
    assert_ok(ARENA_ARRAY(s.arena, SAMPLES * INPUTS, &s.dx));
    assert_ok(ARENA_ARRAY(s.arena, s.count, &s.gradient));
    for (size_t e = 0; e < s.count; e++)
        for (int i = 0; i < SAMPLES * 7 * 6; i++)
            connect(&s, e, i / 42, i / 6 % 7, i % 6);
    return s;
}

static void sides_destroy(struct sides *s) {
    free(s->values);
    free(s->x);
    free(s->dz);
    arena_destroy(s->arena);
}

/* And releases it. */
static void assert_equal_to(struct backend *b, float *device, const float *wanted, size_t count) {
    float *got = host_of(b, device, count * sizeof *got);
    for (size_t i = 0; i < count; i++)
        if (!(got[i] == wanted[i]))
            fail_msg("[%zu] is %g, not %g", i, (double)got[i], (double)wanted[i]);
    free(got);
    b->release(b, device);
}

/* What kernels are given. */
struct given {
    struct conv_window window;
    struct conv_list list;
    float *values, *x, *dz;
};

static struct given given_create(struct backend *b, const struct sides *s, bool forward,
                                 int bands) {
    struct sparse_lists lists;
    struct given g;
    assert_true(conv_window_cut(&desc, forward, bands, &g.window));
    assert_ok(conv_list_entries(s->arena, &desc, forward, &g.window, s->indices, s->count, &lists));
    const size_t begins = (size_t)(g.window.chunks + 1) * (size_t)g.window.rows;
    g.list = (struct conv_list){
        .count = s->count,
        .begin = device_of(b, lists.begin, begins * sizeof *lists.begin),
        .place = device_of(b, lists.column, s->count * sizeof *lists.column),
        .order = forward ? NULL : device_of(b, lists.order, s->count * sizeof *lists.order)};
    g.values = device_of(b, s->values, s->count * sizeof *s->values);
    g.x = device_of(b, s->x, SAMPLES * INPUTS * sizeof *s->x);
    g.dz = device_of(b, s->dz, SAMPLES * OUTPUTS * sizeof *s->dz);
    return g;
}

static void given_destroy(struct backend *b, struct given *g) {
    void *const memory[] = {(void *)g->list.begin,
                            (void *)g->list.place,
                            (void *)g->list.order,
                            g->values,
                            g->x,
                            g->dz};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
}

/* Not zeroed. */
static float *floats_of(struct backend *b, size_t count) {
    float *memory, *nans = malloc(count * sizeof *nans);
    assert_non_null(nans);
    for (size_t i = 0; i < count; i++)
        nans[i] = NAN;
    memory = device_of(b, nans, count * sizeof *nans);
    free(nans);
    return memory;
}

static void hold_combine(struct backend *b, const struct sides *s, bool forward, int bands,
                         int parts) {
    struct given g = given_create(b, s, forward, bands);
    const size_t count = forward ? SAMPLES * OUTPUTS : SAMPLES * INPUTS;
    const cudaStream_t stream = cuda_of(b)->stream;
    float *sums = floats_of(b, (size_t)g.window.chunks * count), *z = floats_of(b, count);
    assert_true((g.window.chunks > 1) == (forward && bands == 1));
    assert_int_equal(kernel_conv_combine(&g.window, &g.list, parts, g.values, forward ? g.x : g.dz,
                                         SAMPLES, sums, stream),
                     0);
    assert_int_equal(kernel_add_parts(sums, g.window.chunks, count, z, stream), 0);
    assert_equal_to(b, z, forward ? s->z : s->dx, count);
    b->release(b, sums);
    given_destroy(b, &g);
}

static void hold_correlate(struct backend *b, const struct sides *s, int bands,
                           struct conv_parts parts) {
    struct given g = given_create(b, s, true, bands);
    const cudaStream_t stream = cuda_of(b)->stream;
    float *sums = floats_of(b, (size_t)parts.bands * s->count), *all = floats_of(b, s->count);
    assert_int_equal(
        kernel_conv_correlate(&g.window, &g.list, parts, g.x, g.dz, SAMPLES, sums, stream), 0);
    assert_int_equal(kernel_add_parts(sums, parts.bands, s->count, all, stream), 0);
    assert_equal_to(b, all, s->gradient, s->count);
    b->release(b, sums);
    given_destroy(b, &g);
}

ON_EACH_BACKEND(convolutions_are_the_sums_of_survivors) {
    struct sides s = sides_create();
    for (int bands = 1; bands <= 13; bands += 6)
        for (int parts = 1; parts <= 3; parts++) {
            hold_combine(b, &s, true, bands, parts);
            hold_combine(b, &s, false, bands, parts);
        }
    hold_correlate(b, &s, 1, (struct conv_parts){1, 1});
    hold_correlate(b, &s, 1, (struct conv_parts){SAMPLES, 3});
    hold_correlate(b, &s, 5, (struct conv_parts){4, 2});
    sides_destroy(&s);
}

/* ---- plans ---- */

static void set_survivors(struct backend *b, struct block_plan *plan, const struct sides *s,
                          size_t count) {
    void *indices = device_of(b, s->indices, count * sizeof *s->indices);
    const struct block_survivors survivors = {indices, count, true};
    assert_ok(b->block_plan_set_survivors(plan, &survivors));
    b->release(b, indices);
}

/* z, dx and the gradient. */
static float *run_layer(struct backend *b, struct block_plan *plan, const struct sides *s) {
    const size_t z = SAMPLES * OUTPUTS, x = SAMPLES * INPUTS, count = s->count;
    const struct block_pass pass = {.samples = SAMPLES, .training = true};
    float *all = floats_of(b, z + x + count + FILTERS), *bias;
    float *weights = device_of(b, s->values, count * sizeof *weights);
    float *in = device_of(b, s->x, x * sizeof *in), *dy = device_of(b, s->dz, z * sizeof *dy);
    assert_ok(b->alloc(b, FILTERS * sizeof *bias, (void **)&bias));
    assert_ok(b->block_plan_load_weights(plan, weights, bias));
    assert_ok(b->block_forward(plan, &pass, in, all));
    assert_ok(b->block_backward(plan, &pass, in, all, dy, all + z + x, all + z + x + count, all + z,
                                (struct poll){NULL, NULL}));
    float *host = host_of(b, all, (z + x + count) * sizeof *host);
    void *const memory[] = {all, weights, bias, in, dy};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
    return host;
}

/* Survivors become fewer, and the plan was in dense form between. */
ON_EACH_BACKEND(other_survivors_leave_nothing_behind) {
    const struct block_survivors all = {NULL, ALL, false};
    struct sides s = sides_create();
    struct block_plan *plan;
    assert_ok(b->block_plan_create(b, &desc, SAMPLES, false, &plan));
    assert_true(b->block_plan_sparse_below(plan) > 0);
    for (int dense = 0; dense <= 1; dense++) {
        if (dense == 1)
            assert_ok(b->block_plan_set_survivors(plan, &all));
        else
            set_survivors(b, plan, &s, s.count / 2);
        set_survivors(b, plan, &s, s.count);
        float *got = run_layer(b, plan, &s);
        assert_memory_equal(got, s.z, SAMPLES * OUTPUTS * sizeof *got);
        assert_memory_equal(got + SAMPLES * OUTPUTS, s.dx, SAMPLES * INPUTS * sizeof *got);
        assert_memory_equal(got + SAMPLES * (OUTPUTS + INPUTS), s.gradient, s.count * sizeof *got);
        free(got);
    }
    b->block_plan_destroy(plan);
    sides_destroy(&s);
}

/* Rows of more pixels than a block has threads. */
ON_EACH_BACKEND(wide_images_have_no_sparse_form) {
    static const uint32_t first = 0;
    struct block_desc wide = desc;
    struct block_plan *plan;
    wide.input = (struct shape){3, 600, 1};
    wide.linear = wide.output = (struct shape){2, 300, FILTERS};
    assert_ok(b->block_plan_create(b, &wide, 1, false, &plan));
    assert_true(b->block_plan_sparse_below(plan) == 0);
    void *index = device_of(b, &first, sizeof first);
    assert_fails(b->block_plan_set_survivors(plan, &(struct block_survivors){index, 1, true}),
                 ST_SHAPE, "its images are too large for sparse form");
    b->release(b, index);
    b->block_plan_destroy(plan);
}

/* A checkpoint of a CPU has a threshold for such a layer, too: it stays in dense form. */
ON_EACH_BACKEND(thresholds_of_others_do_not_bring_it) {
    const char *text = "network = ( { type = \"conv\"; filters = 2; kernel = 3; },"
                       " { type = \"dense\"; units = 10; } );";
    struct recipe recipe;
    struct network *network;
    struct bitmask mask;
    assert_ok(recipe_parse("r.cfg", text, NULL, 0, &recipe));
    assert_ok(network_create(&recipe, (struct shape){3, 600, 1}, 1, b, &network));
    const struct survivors_scope scope = {1, {network->blocks[0].weight}};
    network->blocks[0].sparse_below = 0.5;
    assert_ok(bitmask_create(2 * TAPS, &mask));
    bitmask_set(mask.words, 7);
    assert_ok(survivors_keep(network, &scope, &mask, NULL, 0));
    assert_int_equal(network->parameters[scope.parameters[0]].count, 1);
    assert_false(network->parameters[scope.parameters[0]].sparse);
    bitmask_destroy(&mask);
    network_destroy(network);
    recipe_destroy(&recipe);
}

/* The poster's second convolution is worth it below a fifth in FP32, and gains less from it where
 * its dense form is faster; the first one never is. */
static void break_even_follows_the_work(void **state) {
    (void)state;
    const struct device_numbers h100 = {90, 132, 1980000}, a100 = {80, 108, 1410000};
    struct device_rates fp32, tf32, slower;
    device_rates_of(&h100, false, &fp32);
    device_rates_of(&h100, true, &tf32);
    device_rates_of(&a100, false, &slower);
    struct block_desc conv = desc;
    conv.stride = 1, conv.padding = 0;
    conv.input = (struct shape){26, 26, 32};
    conv.linear = (struct shape){24, 24, 32};
    const struct conv_layer second = {&conv, 128, false};
    const double below = conv_break_even(&fp32, &second);
    assert_true(below > 0.2 && below < 0.3);
    assert_true(conv_break_even(&tf32, &second) < below);
    assert_true(conv_break_even(&slower, &second) > below);
    conv.input = (struct shape){28, 28, 1};
    conv.linear = (struct shape){26, 26, 32};
    const struct conv_layer first = {&conv, 128, true};
    assert_true(conv_break_even(&fp32, &first) < 0.001);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_are_the_sums_of_survivors),
        cmocka_unit_test(other_survivors_leave_nothing_behind),
        cmocka_unit_test(wide_images_have_no_sparse_form),
        cmocka_unit_test(thresholds_of_others_do_not_bring_it),
        cmocka_unit_test(break_even_follows_the_work),
    };
    return RUN_TESTS(tests, argc, argv);
}
