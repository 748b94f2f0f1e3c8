/* Winograd's convolution: when it is chosen, what it must not lose, and that it depends on nothing
 * but the image. Its results are held in test_backend_blocks.c. */
#include "cases.h"
#include "on_backends.h"
#include "run_block.h"

#include <math.h>

static struct block_case conv(int side, int channels, int filters, int kernel, int stride) {
    return (struct block_case){.kind = BLOCK_CONV,
                               .input = {side, side, channels},
                               .units = filters,
                               .kernel = kernel,
                               .stride = stride,
                               .activation = ACTIVATION_RELU,
                               .pool = 1};
}

static const char *forward_of(struct backend *b, struct block_case row) {
    const struct block_desc desc = case_desc(&row, 0);
    struct block_plan *plan;
    const char *forward, *backward;
    assert_ok(b->block_plan_create(b, &desc, 1, false, &plan));
    b->block_plan_algorithms(plan, &forward, &backward);
    b->block_plan_destroy(plan);
    return forward;
}

static void is_chosen_where_it_pays(void **state) {
    (void)state;
    struct backend *b = cpu_backend_with(NULL, NULL, 1);
    assert_string_equal(forward_of(b, conv(26, 32, 32, 3, 1)), "winograd");
    assert_string_equal(forward_of(b, conv(10, 7, 5, 3, 1)), "winograd");
    assert_string_equal(forward_of(b, conv(28, 1, 32, 3, 1)), "direct"); /* few channels */
    assert_string_equal(forward_of(b, conv(7, 32, 32, 3, 1)), "direct"); /* tiles half empty */
    b->destroy(b);
}

static void is_chosen_by_name_where_it_applies(void **state) {
    (void)state;
    struct backend *named = cpu_backend_with(NULL, "winograd", 1);
    struct backend *other = cpu_backend_with(NULL, "direct", 1);
    assert_string_equal(forward_of(named, conv(28, 1, 32, 3, 1)), "winograd");
    assert_string_equal(forward_of(named, conv(26, 32, 32, 5, 1)), "direct");
    assert_string_equal(forward_of(named, conv(26, 32, 32, 3, 2)), "direct");
    assert_string_equal(forward_of(other, conv(26, 32, 32, 3, 1)), "direct");
    named->destroy(named);
    other->destroy(other);
}

/* ---- one image, many ways ---- */

enum { SIDE = 13, CHANNELS = 9, FILTERS = 10, MADE = SIDE - 2 };
static const uint32_t ids[5] = {0, 1, 2, 3, 4};

static struct block_desc plain(void) {
    struct block_case row = conv(SIDE, CHANNELS, FILTERS, 3, 1);
    row.activation = ACTIVATION_NONE;
    return case_desc(&row, 0);
}

/* The outputs of `samples` images of x under random weights. */
static float *outputs_of(struct backend *b, const float *x, int samples) {
    const struct block_desc desc = plain();
    const struct block_pass pass = {.samples = samples, .sample_ids = ids};
    float *w = case_floats(5, 1, block_weights(&desc)), *bias = case_floats(5, 2, FILTERS);
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){w, bias, x});
    free(w);
    free(bias);
    return y;
}

static void on_each_set(void (*test)(struct backend *)) {
    struct backend *backends[MOST_BACKENDS];
    const int count = cpu_backends_with("winograd", backends);
    for (int i = 0; i < count; i++) {
        test(backends[i]);
        backends[i]->destroy(backends[i]);
    }
}

/* A run that has gone wrong must show it: relu and pooling aside, what is no number reaches every
 * output that sees it (tiles may carry it to more). */
static void spoil(struct backend *b, float bad) {
    enum { ROW = 6, COLUMN = 9 };
    float *x = case_floats(5, 3, SIDE * SIDE * CHANNELS);
    x[(ROW * SIDE + COLUMN) * CHANNELS + 4] = bad;
    float *y = outputs_of(b, x, 1);
    for (int i = ROW - 2; i <= ROW; i++)
        for (int j = COLUMN - 2; j <= COLUMN; j++)
            for (int k = 0; k < FILTERS; k++)
                assert_false(isfinite(y[(i * MADE + j) * FILTERS + k]));
    for (int k = 0; k < FILTERS; k++)
        assert_true(isfinite(y[k]));
    free(x);
    free(y);
}

static void spoil_all(struct backend *b) {
    spoil(b, NAN);
    spoil(b, INFINITY);
}

static void keeps_what_is_no_number(void **state) {
    (void)state;
    on_each_set(spoil_all);
}

/* An image moved by a tile gives the same bits, a tile further on. */
static void move(struct backend *b) {
    enum { BY = 4 };
    float *x = case_floats(5, 3, SIDE * SIDE * CHANNELS);
    float *moved = case_floats(5, 4, SIDE * SIDE * CHANNELS);
    for (int i = 0; i + BY < SIDE; i++)
        for (int j = 0; j + BY < SIDE; j++)
            memcpy(moved + ((i + BY) * SIDE + j + BY) * CHANNELS, x + (i * SIDE + j) * CHANNELS,
                   CHANNELS * sizeof *x);
    float *y = outputs_of(b, x, 1), *z = outputs_of(b, moved, 1);
    for (int i = 0; i + BY < MADE; i++)
        for (int j = 0; j + BY < MADE; j++)
            assert_memory_equal(z + ((i + BY) * MADE + j + BY) * FILTERS,
                                y + (i * MADE + j) * FILTERS, FILTERS * sizeof *y);
    float *const memory[] = {x, moved, y, z};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        free(memory[i]);
}

static void moves_with_its_image_by_tiles(void **state) {
    (void)state;
    on_each_set(move);
}

/* Any number of threads, any other images beside it. */
static void an_image_has_the_same_bits_in_any_company(void **state) {
    (void)state;
    enum { SAMPLES = 5, IMAGE = SIDE * SIDE * CHANNELS, OUTPUT = MADE * MADE * FILTERS };
    float *x = case_floats(5, 3, SAMPLES * IMAGE);
    struct backend *b = cpu_backend_with(NULL, "winograd", 1);
    float *alone[SAMPLES];
    for (int n = 0; n < SAMPLES; n++)
        alone[n] = outputs_of(b, x + n * IMAGE, 1);
    b->destroy(b);
    for (int threads = 1; threads <= 3; threads++) {
        b = cpu_backend_with(NULL, "winograd", threads);
        float *y = outputs_of(b, x, SAMPLES);
        for (int n = 0; n < SAMPLES; n++)
            assert_memory_equal(y + n * OUTPUT, alone[n], OUTPUT * sizeof *y);
        b->destroy(b);
        free(y);
    }
    for (int n = 0; n < SAMPLES; n++)
        free(alone[n]);
    free(x);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_chosen_where_it_pays),
        cmocka_unit_test(is_chosen_by_name_where_it_applies),
        cmocka_unit_test(keeps_what_is_no_number),
        cmocka_unit_test(moves_with_its_image_by_tiles),
        cmocka_unit_test(an_image_has_the_same_bits_in_any_company),
    };
    return RUN_TESTS(tests, argc, argv);
}
