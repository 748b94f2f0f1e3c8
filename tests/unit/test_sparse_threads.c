/* Layers of the poster's network and of lenet_300_100 in sparse form: the same bits with any number
 * of threads. */
#include "cases.h"
#include "on_backends.h"

#include <espalier/rng.h>
#include <string.h>

struct layer {
    struct block_case block;
    double density;
};

#define DENSE(h, w, c, count, act, drop, n)                                                        \
    {                                                                                              \
        .kind = BLOCK_DENSE, .input = {h, w, c}, .units = count, .activation = ACTIVATION_##act,   \
        .pool = 1, .dropout = drop, .samples = n                                                   \
    }
#define CONV(h, w, c, count, size, pooling, drop, n)                                               \
    {                                                                                              \
        .kind = BLOCK_CONV, .input = {h, w, c}, .units = count, .kernel = size, .stride = 1,       \
        .activation = ACTIVATION_RELU, .pool = pooling, .dropout = drop, .samples = n              \
    }

static const struct layer layers[] = {
    {DENSE(12, 12, 32, 128, RELU, 0.5F, 130), 0.1}, {DENSE(12, 12, 32, 128, RELU, 0, 20), 0.01},
    {DENSE(28, 28, 1, 300, RELU, 0, 96), 0.02},     {DENSE(1, 1, 128, 10, NONE, 0, 65), 0.3},
    {CONV(26, 26, 32, 32, 3, 2, 0.25F, 9), 0.1},    {CONV(28, 28, 1, 32, 3, 1, 0, 9), 0.5},
    {CONV(12, 12, 20, 50, 5, 2, 0, 10), 0.01},
};

enum { LAYERS = sizeof layers / sizeof layers[0] };

/* Host memory of one run. */
struct numbers {
    struct block_desc desc;
    size_t inputs, outputs, biases, count; /* of arrays; count: of survivors */
    uint32_t *indices;
    float *weights, *bias, *x, *dy, *y, *dweights, *dbias, *dx;
};

static void choose_survivors(const struct layer *l, struct numbers *n) {
    const size_t total = block_weights(&n->desc);
    float *weights = case_floats(5, 1, total);
    n->indices = malloc((total + 1) * sizeof *n->indices);
    n->weights = malloc((total + 1) * sizeof *n->weights);
    assert_true(n->indices != NULL && n->weights != NULL);
    for (uint32_t i = 0; i < total; i++) {
        uint32_t words[4];
        rng_philox(6, (struct rng_counter){.group = i}, words);
        if ((double)rng_uniform(words[0]) >= l->density)
            continue;
        n->indices[n->count] = i;
        n->weights[n->count++] = weights[i];
    }
    free(weights);
}

static struct numbers numbers_create(const struct layer *l) {
    struct numbers n = {.desc = case_desc(&l->block, 2)};
    const size_t samples = (size_t)l->block.samples, total = block_weights(&n.desc);
    n.inputs = samples * shape_size(n.desc.input);
    n.outputs = samples * shape_size(n.desc.output);
    n.biases = block_biases(&n.desc);
    choose_survivors(l, &n);
    n.bias = case_floats(5, 2, n.biases);
    n.x = case_floats(5, 3, n.inputs);
    n.dy = case_floats(5, 4, n.outputs);
    n.y = case_floats(5, 5, n.outputs);
    n.dweights = case_floats(5, 6, total);
    n.dbias = case_floats(5, 7, n.biases);
    n.dx = case_floats(5, 8, n.inputs);
    return n;
}

static void numbers_destroy(struct numbers *n) {
    void *const arrays[] = {n->indices, n->weights,  n->bias,  n->x, n->dy,
                            n->y,       n->dweights, n->dbias, n->dx};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
}

/* The CPU's device memory is host memory. */
static void run(struct backend *b, const struct layer *l, struct numbers *n) {
    struct block_plan *plan;
    uint32_t ids[256];
    for (int i = 0; i < l->block.samples; i++)
        ids[i] = case_sample_id(i);
    const struct block_pass pass = {
        .samples = l->block.samples, .training = true, .seed = 3, .sample_ids = ids};
    const struct block_survivors survivors = {n->indices, n->count, true};
    assert_ok(b->block_plan_create(b, &n->desc, l->block.samples, false, &plan));
    assert_ok(b->block_plan_set_survivors(plan, &survivors));
    assert_ok(b->block_plan_load_weights(plan, n->weights, n->bias));
    assert_ok(b->block_forward(plan, &pass, n->x, n->y));
    assert_ok(b->block_backward(plan, &pass, n->x, n->y, n->dy, n->dweights, n->dbias, n->dx,
                                (struct poll){NULL, NULL}));
    b->block_plan_destroy(plan);
}

static void assert_same(const struct numbers *a, const struct numbers *b) {
    assert_memory_equal(a->y, b->y, a->outputs * sizeof(float));
    assert_memory_equal(a->dweights, b->dweights, a->count * sizeof(float));
    assert_memory_equal(a->dbias, b->dbias, a->biases * sizeof(float));
    assert_memory_equal(a->dx, b->dx, a->inputs * sizeof(float));
}

static void threads_agree_in_sparse_form(void **state) {
    (void)state;
    const char *const *isas = kernels_available();
    for (int isa = 0; isas[isa] != NULL; isa++)
        for (int i = 0; i < LAYERS; i++) {
            struct numbers one = numbers_create(&layers[i]);
            struct backend *b = cpu_backend_with(isas[isa], NULL, 1);
            run(b, &layers[i], &one);
            b->destroy(b);
            for (int threads = 2; threads <= 5; threads++) {
                struct numbers more = numbers_create(&layers[i]);
                b = cpu_backend_with(isas[isa], NULL, threads);
                run(b, &layers[i], &more);
                b->destroy(b);
                assert_same(&more, &one);
                numbers_destroy(&more);
            }
            numbers_destroy(&one);
        }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_agree_in_sparse_form),
    };
    return RUN_TESTS(tests, argc, argv);
}
