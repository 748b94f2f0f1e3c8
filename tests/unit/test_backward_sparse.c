/* The backward pass over lists of the gradients that are not zero: when it is chosen, and what it
 * must not skip. Its results are held in test_backend_blocks.c. */
#include "on_backends.h"

#include <math.h>

enum { SIDE = 6, FILTERS = 2, KERNEL = 3, WINDOWS = 4, TAPS = KERNEL * KERNEL };

static struct block_desc pooled(int pool) {
    return (struct block_desc){.kind = BLOCK_CONV,
                               .input = {SIDE, SIDE, 1},
                               .linear = {4, 4, FILTERS},
                               .output = {4 / pool, 4 / pool, FILTERS},
                               .kernel = KERNEL,
                               .stride = 1,
                               .activation = ACTIVATION_RELU,
                               .pool = pool};
}

static const char *backward_of(struct backend *b, struct block_desc desc) {
    struct block_plan *plan;
    const char *forward, *backward;
    assert_ok(b->block_plan_create(b, &desc, 1, false, &plan));
    b->block_plan_algorithms(plan, &forward, &backward);
    b->block_plan_destroy(plan);
    return backward;
}

static void is_chosen_where_there_is_pooling(void **state) {
    (void)state;
    struct backend *b = cpu_backend_with(NULL, NULL, 1);
    assert_string_equal(backward_of(b, pooled(2)), "sparse");
    assert_string_equal(backward_of(b, pooled(4)), "sparse");
    assert_string_not_equal(backward_of(b, pooled(1)), "sparse");
    b->destroy(b);
}

/* dW and db of one image of ones under weights of ones, from dy [windows][filters]. */
static void gradients(struct backend *b, const float *dy, float *dweights, float *dbias) {
    const struct block_desc desc = pooled(2);
    const struct block_pass pass = {.samples = 1};
    float x[SIDE * SIDE], weights[FILTERS * TAPS], y[WINDOWS * FILTERS], dz[WINDOWS * FILTERS];
    float dx[SIDE * SIDE];
    const float bias[FILTERS] = {0};
    for (int i = 0; i < SIDE * SIDE; i++)
        x[i] = 1;
    for (int i = 0; i < FILTERS * TAPS; i++)
        weights[i] = 1;
    memcpy(dz, dy, sizeof dz);
    struct block_plan *plan;
    assert_ok(b->block_plan_create(b, &desc, 1, false, &plan));
    assert_ok(b->block_plan_load_weights(plan, weights, bias));
    assert_ok(b->block_forward(plan, &pass, x, y));
    assert_ok(
        b->block_backward(plan, &pass, x, y, dz, dweights, dbias, dx, (struct poll){NULL, NULL}));
    b->block_plan_destroy(plan);
}

/* A run that has gone wrong must show it: what is no number is not a zero. */
static void keeps_what_is_no_number(void **state) {
    (void)state;
    struct backend *backends[MOST_BACKENDS];
    const int count = cpu_backends_with("sparse", backends);
    for (int i = 0; i < count; i++) {
        float dweights[FILTERS * TAPS], dbias[FILTERS];
        gradients(backends[i], (float[WINDOWS * FILTERS]){[3] = NAN, [4] = 2}, dweights, dbias);
        for (int t = 0; t < TAPS; t++) {
            assert_true(dweights[t] == 2);
            assert_true(isnan(dweights[TAPS + t]));
        }
        assert_true(dbias[0] == 2 && isnan(dbias[1]));
        backends[i]->destroy(backends[i]);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_chosen_where_there_is_pooling),
        cmocka_unit_test(keeps_what_is_no_number),
    };
    return RUN_TESTS(tests, argc, argv);
}
