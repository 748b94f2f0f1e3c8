/* The CPU backend gives the same bits with any number of threads. */
#include "check.h"

#include <espalier/backend.h>
#include <espalier/bitmask.h>
#include <espalier/digest.h>
#include <espalier/rng.h>
#include <stdlib.h>

enum { THREADS_MAX = 4, SAMPLES_MAX = 70, IDS_MAX = 1000 };

/* Reproducible numbers in [-1/2, 1/2). */
static void fill(float *values, size_t count, uint32_t stream) {
    for (size_t i = 0; i < count; i++) {
        uint32_t words[4];
        rng_philox(11, (struct rng_counter){.group = (uint32_t)(i / 4), .stream = stream}, words);
        values[i] = rng_uniform(words[i % 4]) - 0.5F;
    }
}

static float *numbers(size_t count, uint32_t stream) {
    float *values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    fill(values, count, stream);
    return values;
}

static struct backend *cpu(int threads) {
    struct backend *backend;
    assert_ok(backend_cpu_create(threads, &backend));
    assert_int_equal(backend->threads, threads);
    return backend;
}

/* Everything that a block's forward and backward pass computes, as one hash each. */
struct outcome {
    uint64_t y, dweights, dbias, dx;
};

static struct outcome run_block(const struct block_desc *desc, int samples, int threads) {
    struct backend *backend = cpu(threads);
    const size_t in = shape_size(desc->input) * (size_t)samples;
    const size_t out = shape_size(desc->output) * (size_t)samples;
    const size_t weights_count = block_weights(desc), biases_count = block_biases(desc);
    float *weights = numbers(weights_count, 1), *bias = numbers(biases_count, 2);
    float *x = numbers(in, 3), *dy = numbers(out, 4), *y = numbers(out, 5);
    float *dweights = numbers(weights_count, 6), *dbias = numbers(biases_count, 7);
    float *dx = numbers(in, 8);
    uint32_t ids[SAMPLES_MAX];
    for (int i = 0; i < samples; i++)
        ids[i] = (uint32_t)(i * i + 5);
    const struct block_pass pass = {
        .samples = samples, .training = true, .seed = 99, .update = 3, .sample_ids = ids};
    struct block_plan *plan;
    assert_ok(backend->block_plan_create(backend, desc, samples, false, &plan));
    assert_ok(backend->block_plan_load_weights(plan, weights, bias));
    assert_ok(backend->block_forward(plan, &pass, x, y));
    struct outcome outcome = {.y = hash_words(y, out)};
    assert_ok(backend->block_backward(plan, &pass, x, y, dy, dweights, dbias, dx,
                                      (struct poll){NULL, NULL}));
    outcome.dweights = hash_words(dweights, weights_count);
    outcome.dbias = hash_words(dbias, biases_count);
    outcome.dx = hash_words(dx, in);
    backend->block_plan_destroy(plan);
    float *all[] = {weights, bias, x, dy, y, dweights, dbias, dx};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    backend->destroy(backend);
    return outcome;
}

static void compare_block(const struct block_desc *desc, int samples) {
    const struct outcome one = run_block(desc, samples, 1);
    for (int threads = 2; threads <= THREADS_MAX; threads++) {
        const struct outcome more = run_block(desc, samples, threads);
        assert_int_equal(more.y, one.y);
        assert_int_equal(more.dweights, one.dweights);
        assert_int_equal(more.dbias, one.dbias);
        assert_int_equal(more.dx, one.dx);
    }
}

static void threads_agree_on_conv(void **state) {
    (void)state;
    static const struct block_desc desc = {.kind = BLOCK_CONV,
                                           .input = {9, 8, 3},
                                           .linear = {9, 8, 5},
                                           .output = {4, 4, 5},
                                           .kernel = 3,
                                           .stride = 1,
                                           .padding = 1,
                                           .activation = ACTIVATION_RELU,
                                           .pool = 2,
                                           .dropout = 0.25F,
                                           .layer = 1};
    compare_block(&desc, 1);
    compare_block(&desc, 37);
}

static void threads_agree_on_strided_conv(void **state) {
    (void)state;
    static const struct block_desc desc = {.kind = BLOCK_CONV,
                                           .input = {11, 10, 2},
                                           .linear = {6, 6, 7},
                                           .output = {6, 6, 7},
                                           .kernel = 4,
                                           .stride = 2,
                                           .padding = 2,
                                           .activation = ACTIVATION_TANH,
                                           .pool = 1};
    compare_block(&desc, 19);
}

static void threads_agree_on_dense(void **state) {
    (void)state;
    static const struct block_desc desc = {.kind = BLOCK_DENSE,
                                           .input = {6, 10, 11},
                                           .linear = {1, 1, 131},
                                           .output = {1, 1, 131},
                                           .activation = ACTIVATION_RELU,
                                           .pool = 1,
                                           .dropout = 0.5F};
    compare_block(&desc, 70);
}

static void threads_agree_on_pooling(void **state) {
    (void)state;
    static const struct block_desc desc = {.kind = BLOCK_PASS,
                                           .input = {7, 9, 67},
                                           .linear = {7, 9, 67},
                                           .output = {2, 3, 67},
                                           .activation = ACTIVATION_NONE,
                                           .pool = 3,
                                           .dropout = 0.1F};
    compare_block(&desc, 5);
}

static void threads_agree_on_the_loss(void **state) {
    (void)state;
    enum { SAMPLES = 900, CLASSES = 10 };
    float *logits = numbers(SAMPLES * CLASSES, 1), *gradient = numbers(SAMPLES * CLASSES, 2);
    uint8_t labels[IDS_MAX];
    uint32_t ids[SAMPLES];
    for (uint32_t i = 0; i < IDS_MAX; i++)
        labels[i] = (uint8_t)(i * 7 % CLASSES);
    for (uint32_t i = 0; i < SAMPLES; i++)
        ids[i] = i * 3 % IDS_MAX;
    struct loss_sums one = {0, 0};
    uint64_t one_gradient = 0;
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        struct backend *backend = cpu(threads);
        struct loss_sums sums = {0, 0};
        assert_ok(backend->softmax_cross_entropy(backend, logits, CLASSES, labels, ids, SAMPLES,
                                                 0.01F, gradient, &sums));
        const uint64_t hash = hash_words(gradient, SAMPLES * CLASSES);
        if (threads == 1) {
            one = sums;
            one_gradient = hash;
        }
        assert_memory_equal(&sums, &one, sizeof sums);
        assert_int_equal(hash, one_gradient);
        backend->destroy(backend);
    }
    free(logits);
    free(gradient);
}

/* Hash of parameters and state after two updates. */
static uint64_t run_update(enum optimizer_kind kind, int threads) {
    enum { COUNT = 1237 };
    struct update_args args = {.kind = kind,
                               .learning_rate = 0.1F,
                               .momentum = 0.9F,
                               .nesterov = true,
                               .rho = 0.95F,
                               .epsilon = 1e-6F,
                               .beta1 = 0.9F,
                               .beta2 = 0.999F};
    struct backend *backend = cpu(threads);
    float *beta = numbers(COUNT, 1), *gradient = numbers(COUNT, 2);
    float *state0 = calloc(COUNT, sizeof *state0), *state1 = calloc(COUNT, sizeof *state1);
    for (args.step = 1; args.step <= 2; args.step++)
        assert_ok(backend->update(backend, &args, beta, gradient, state0, state1, COUNT));
    uint64_t hash;
    assert_ok(backend->hash(backend, beta, COUNT, &hash));
    assert_int_equal(hash, hash_words(beta, COUNT));
    hash ^= hash_mix(hash_words(state0, COUNT)) ^ hash_mix(hash_words(state1, COUNT) + 1);
    free(beta);
    free(gradient);
    free(state0);
    free(state1);
    backend->destroy(backend);
    return hash;
}

static void threads_agree_on_updates(void **state) {
    (void)state;
    for (int kind = 0; kind < OPTIMIZER_COUNT; kind++) {
        const uint64_t one = run_update((enum optimizer_kind)kind, 1);
        for (int threads = 2; threads <= THREADS_MAX; threads++)
            assert_int_equal(run_update((enum optimizer_kind)kind, threads), one);
    }
}

static void threads_agree_on_selection(void **state) {
    (void)state;
    enum { COUNT = 3001, KEEP = 1234 };
    float *values = numbers(COUNT, 1);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = (float)(int)(values[i] * 16); /* ties */
    const struct segment segments[] = {{values, 1000}, {values + 1000, COUNT - 1000}};
    uint64_t one[COUNT / 64 + 1], mask[COUNT / 64 + 1];
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        struct backend *backend = cpu(threads);
        assert_ok(backend->select_largest(backend, segments, 2, KEEP, mask));
        if (threads == 1)
            memcpy(one, mask, sizeof one);
        assert_memory_equal(mask, one, sizeof mask);
        assert_int_equal(bitmask_count_range(mask, 0, COUNT), KEEP);
        backend->destroy(backend);
    }
    free(values);
}

static _Thread_local bool entered; /* by this thread, the test's own */

struct polls {
    int here, elsewhere;
};

static void count_poll(void *context) {
    struct polls *polls = context;
    if (entered)
        polls->here++;
    else
        polls->elsewhere++;
}

static struct polls polls_of_backward(const struct block_desc *desc, int samples, int threads) {
    struct backend *backend = cpu(threads);
    const size_t in = shape_size(desc->input) * (size_t)samples;
    const size_t out = shape_size(desc->output) * (size_t)samples;
    float *weights = numbers(block_weights(desc), 1), *bias = numbers(block_biases(desc), 2);
    float *x = numbers(in, 3), *dx = numbers(in, 4), *y = numbers(out, 5), *dy = numbers(out, 6);
    const struct block_pass pass = {.samples = samples};
    struct polls polls = {0, 0};
    struct block_plan *plan;
    assert_ok(backend->block_plan_create(backend, desc, samples, false, &plan));
    assert_ok(backend->block_plan_load_weights(plan, weights, bias));
    assert_ok(backend->block_forward(plan, &pass, x, y));
    float *dweights = numbers(block_weights(desc), 7), *dbias = numbers(block_biases(desc), 8);
    assert_ok(backend->block_backward(plan, &pass, x, y, dy, dweights, dbias, dx,
                                      (struct poll){count_poll, &polls}));
    backend->block_plan_destroy(plan);
    float *all[] = {weights, bias, x, dx, y, dy, dweights, dbias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    backend->destroy(backend);
    return polls;
}

/* The communicator allows calls by the thread that entered only. */
static void backward_polls_from_the_thread_that_entered(void **state) {
    (void)state;
    static const struct block_desc blocks[] = {
        {.kind = BLOCK_CONV,
         .input = {6, 6, 2},
         .linear = {4, 4, 3},
         .output = {4, 4, 3},
         .kernel = 3,
         .stride = 1,
         .pool = 1},
        {.kind = BLOCK_CONV,
         .input = {6, 6, 2},
         .linear = {4, 4, 3},
         .output = {2, 2, 3},
         .kernel = 3,
         .stride = 1,
         .pool = 2},
        {.kind = BLOCK_DENSE,
         .input = {1, 1, 2000},
         .linear = {1, 1, 70},
         .output = {1, 1, 70},
         .pool = 1},
    };
    entered = true;
    for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
        assert_true(polls_of_backward(&blocks[b], 40, 1).here > 1);
        for (int threads = 2; threads <= THREADS_MAX; threads++)
            assert_int_equal(polls_of_backward(&blocks[b], 40, threads).elsewhere, 0);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_agree_on_conv),
        cmocka_unit_test(threads_agree_on_strided_conv),
        cmocka_unit_test(threads_agree_on_dense),
        cmocka_unit_test(threads_agree_on_pooling),
        cmocka_unit_test(threads_agree_on_the_loss),
        cmocka_unit_test(threads_agree_on_updates),
        cmocka_unit_test(threads_agree_on_selection),
        cmocka_unit_test(backward_polls_from_the_thread_that_entered),
    };
    return RUN_TESTS(tests, argc, argv);
}
