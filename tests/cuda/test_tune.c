/* The choice of who computes convolutions, by times, on the emulated device: cuDNN's engines 3, 4,
 * 5 and 6 may be taken; 6 is the fastest of them, the heuristics put 3 first, and 4 cannot be run.
 * The backend's own kernels take no time. */
#include "cases.h"
#include "check.h"
#include "emulation.h"

#include <espalier/backend.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 3 };

static const struct block_desc desc = {.kind = BLOCK_CONV,
                                       .input = {6, 6, 2},
                                       .linear = {4, 4, 3},
                                       .output = {4, 4, 3},
                                       .kernel = 3,
                                       .stride = 1,
                                       .activation = ACTIVATION_RELU,
                                       .pool = 1};

static struct backend *backend;
static float *weights, *biases; /* what plans have loaded stays valid */

static int begin_with(const char *conv, bool tf32) {
    weights = biases = NULL;
    if (conv != NULL)
        assert_int_equal(setenv("ESPALIER_CUDA_CONV", conv, 1), 0);
    assert_ok(backend_cuda_create(&(struct backend_options){.threads = 1, .tf32 = tf32}, &backend));
    unsetenv("ESPALIER_CUDA_CONV");
    return 0;
}

static int begin(void **state) {
    (void)state;
    return begin_with(NULL, false);
}

static int begin_with_cudnn(void **state) {
    (void)state;
    return begin_with("cudnn", false);
}

static int end(void **state) {
    (void)state;
    backend->release(backend, weights);
    backend->release(backend, biases);
    backend->destroy(backend);
    assert_int_equal(emulation_live_objects(), 0);
    return 0;
}

static struct block_plan *plan_of(bool first) {
    struct block_plan *plan;
    assert_ok(backend->block_plan_create(backend, &desc, SAMPLES, first, &plan));
    return plan;
}

static void assert_names(const struct block_plan *plan, const char *forward, const char *backward) {
    const char *names[2];
    backend->block_plan_algorithms(plan, &names[0], &names[1]);
    assert_string_equal(names[0], forward);
    assert_string_equal(names[1], backward);
}

static void *device_floats(const float *values, size_t count) {
    void *memory;
    assert_ok(backend->alloc(backend, count * sizeof *values, &memory));
    if (values != NULL)
        assert_ok(backend->upload(backend, memory, values, count * sizeof *values));
    return memory;
}

static void load(struct block_plan *plan) {
    float *host[] = {case_integers(1, 2, block_weights(&desc)),
                     case_integers(1, 3, block_biases(&desc))};
    if (weights == NULL) {
        weights = device_floats(host[0], block_weights(&desc));
        biases = device_floats(host[1], block_biases(&desc));
    }
    assert_ok(backend->block_plan_load_weights(plan, weights, biases));
    free(host[0]);
    free(host[1]);
}

/* The forward pass over small numbers, with what has been loaded. */
static void run_forward(struct block_plan *plan, float *out) {
    const size_t inputs = SAMPLES * shape_size(desc.input),
                 outputs = SAMPLES * shape_size(desc.output);
    float *host = case_integers(1, 1, inputs);
    float *x = device_floats(host, inputs), *y = device_floats(NULL, outputs);
    const struct block_pass pass = {.samples = SAMPLES};
    assert_ok(backend->block_forward(plan, &pass, x, y));
    assert_ok(backend->download(backend, out, y, outputs * sizeof *out));
    backend->release(backend, x);
    backend->release(backend, y);
    free(host);
}

static void forward(struct block_plan *plan, float *out) {
    load(plan);
    run_forward(plan, out);
}

static void the_fastest_engine_that_may_be_taken_is(void **state) {
    (void)state;
    uint32_t choices[BLOCK_CHOICES];
    float before[SAMPLES * 4 * 4 * 3], after[SAMPLES * 4 * 4 * 3];
    struct block_plan *plan = plan_of(false);
    forward(plan, before);
    assert_ok(backend->block_plan_choose(plan, SAMPLES, true, choices));
    assert_names(plan, "cudnn", "cudnn");
    assert_int_equal(choices[0], choices[1]); /* fused: no launch for bias and relu */
    assert_ok(backend->block_plan_choose(plan, SAMPLES, false, choices));
    assert_names(plan, "cudnn 6.1", "cudnn 6.1 6.1");
    forward(plan, after);
    assert_memory_equal(before, after, sizeof before);
    backend->block_plan_destroy(plan);
}

static void what_was_found_is_remembered(void **state) {
    (void)state;
    uint32_t first[BLOCK_CHOICES], second[BLOCK_CHOICES];
    struct block_plan *plan = plan_of(true), *other = plan_of(true);
    assert_ok(backend->block_plan_choose(plan, SAMPLES, true, first));
    const long runs = emulation_calls("cudnnBackendExecute");
    assert_true(runs > 0);
    assert_ok(backend->block_plan_choose(other, SAMPLES, true, second));
    assert_int_equal(emulation_calls("cudnnBackendExecute"), runs);
    assert_memory_equal(first, second, sizeof first);
    assert_ok(backend->block_plan_choose(other, SAMPLES - 1, true, second));
    assert_true(emulation_calls("cudnnBackendExecute") > runs);
    backend->block_plan_destroy(plan);
    backend->block_plan_destroy(other);
}

/* Of another device, or another version of the library. */
static void what_there_is_not_is_not_taken(void **state) {
    (void)state;
    const uint32_t strange[BLOCK_CHOICES] = {0xabcd01, 0xffffff, 7, 0xfffffffe};
    float before[SAMPLES * 4 * 4 * 3], after[SAMPLES * 4 * 4 * 3];
    struct block_plan *plan = plan_of(false);
    uint32_t choices[BLOCK_CHOICES];
    memcpy(choices, strange, sizeof choices);
    forward(plan, before);
    assert_ok(backend->block_plan_choose(plan, SAMPLES, false, choices));
    forward(plan, after);
    assert_memory_equal(before, after, sizeof before);
    backend->block_plan_destroy(plan);
}

static void a_failure_is_told(void **state) {
    (void)state;
    uint32_t choices[BLOCK_CHOICES];
    struct block_plan *plan = plan_of(false);
    emulation_fail("cudaMalloc", 2, 0);
    assert_fails(backend->block_plan_choose(plan, SAMPLES, true, choices), ST_MEMORY,
                 "out of device memory");
    emulation_reset_failures();
    assert_ok(backend->block_plan_choose(plan, SAMPLES, true, choices));
    backend->block_plan_destroy(plan);
}

static void take(struct block_plan *plan, uint32_t choice) {
    uint32_t choices[BLOCK_CHOICES];
    for (int i = 0; i < BLOCK_CHOICES; i++)
        choices[i] = choice;
    assert_ok(backend->block_plan_choose(plan, SAMPLES, false, choices));
}

/* In FP32 they are the default, and where they are measured they are the fastest here; who is told
 * to compute has its weights. */
static void own_kernels_are_chosen_among(void **state) {
    (void)state;
    uint32_t choices[BLOCK_CHOICES];
    float first[SAMPLES * 4 * 4 * 3], then[SAMPLES * 4 * 4 * 3];
    struct block_plan *plan = plan_of(false);
    assert_names(plan, "direct", "direct");
    forward(plan, first);
    assert_ok(backend->block_plan_choose(plan, SAMPLES, true, choices));
    assert_ok(backend->block_plan_choose(plan, SAMPLES, false, choices));
    assert_names(plan, "direct", "direct");
    const long runs = emulation_calls("cudnnBackendExecute");
    forward(plan, then);
    assert_int_equal(emulation_calls("cudnnBackendExecute"), runs);
    assert_memory_equal(first, then, sizeof first);
    take(plan, (6 + 1) << 8 | 1);
    assert_names(plan, "cudnn 6.1", "cudnn 6.1 6.1");
    forward(plan, then);
    assert_int_equal(emulation_calls("cudnnBackendExecute"), runs + 1);
    assert_memory_equal(first, then, sizeof first);
    backend->block_plan_destroy(plan);
}

/* What has been loaded is there in the order of whoever takes over. */
static void weights_follow_a_choice(void **state) {
    (void)state;
    float first[SAMPLES * 4 * 4 * 3], then[SAMPLES * 4 * 4 * 3];
    struct block_plan *plan = plan_of(false);
    forward(plan, first);
    take(plan, (6 + 1) << 8 | 1);
    run_forward(plan, then);
    assert_memory_equal(first, then, sizeof first);
    take(plan, 0);
    run_forward(plan, then);
    assert_memory_equal(first, then, sizeof first);
    backend->block_plan_destroy(plan);
}

/* Kernels that a forward pass is made of, where inputs, filters and what follows are these. */
static long launches(struct shape input, int filters, int pool, float dropout) {
    const struct block_case row = {.kind = BLOCK_CONV,
                                   .input = input,
                                   .units = filters,
                                   .kernel = 3,
                                   .stride = 1,
                                   .activation = ACTIVATION_TANH,
                                   .pool = pool,
                                   .dropout = dropout};
    const struct block_desc d = case_desc(&row, 0);
    const struct block_pass pass = {.samples = SAMPLES};
    struct block_plan *plan;
    float *x = device_floats(NULL, SAMPLES * shape_size(d.input));
    float *y = device_floats(NULL, SAMPLES * shape_size(d.output));
    float *w = device_floats(NULL, block_weights(&d)), *b = device_floats(NULL, block_biases(&d));
    assert_ok(backend->block_plan_create(backend, &d, SAMPLES, false, &plan));
    assert_ok(backend->block_plan_load_weights(plan, w, b));
    const long before = emulation_calls("launch");
    assert_ok(backend->block_forward(plan, &pass, x, y));
    const long count = emulation_calls("launch") - before;
    assert_ok(backend->synchronise(backend));
    backend->block_plan_destroy(plan);
    float *const device[] = {x, y, w, b};
    for (int i = 0; i < 4; i++)
        backend->release(backend, device[i]);
    return count;
}

/* Where no window is in two tiles; of one channel bias and activation alone. */
static void what_follows_is_done_by_the_same_kernel(void **state) {
    (void)state;
    assert_int_equal(launches((struct shape){10, 26, 4}, 33, 1, 0), 1);
    assert_int_equal(launches((struct shape){9, 25, 4}, 33, 1, 0.25F), 1);
    assert_int_equal(launches((struct shape){10, 26, 4}, 33, 2, 0.25F), 1);
    assert_int_equal(launches((struct shape){12, 26, 4}, 33, 2, 0.25F), 2);
    assert_int_equal(launches((struct shape){10, 26, 1}, 33, 1, 0), 1);
    assert_int_equal(launches((struct shape){10, 26, 1}, 33, 2, 0), 2);
}

static void assert_default(const char *conv, bool tf32, const char *forward_name,
                           const char *backward_name) {
    begin_with(conv, tf32);
    struct block_plan *plan = plan_of(false);
    assert_names(plan, forward_name, backward_name);
    backend->block_plan_destroy(plan);
    backend->destroy(backend);
}

static void the_default_is_told_or_follows_precision(void **state) {
    (void)state;
    assert_default(NULL, false, "direct", "direct");
    assert_default(NULL, true, "cudnn", "cudnn");
    assert_default("cudnn", false, "cudnn", "cudnn");
    assert_default("direct", true, "direct", "direct");
    assert_int_equal(setenv("ESPALIER_CUDA_CONV", "fourier", 1), 0);
    assert_fails(backend_cuda_create(&(struct backend_options){.threads = 1}, &backend), ST_USAGE,
                 "ESPALIER_CUDA_CONV=fourier: no such convolution, expected one of cudnn, direct");
    unsetenv("ESPALIER_CUDA_CONV");
    assert_int_equal(emulation_live_objects(), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_fastest_engine_that_may_be_taken_is, begin_with_cudnn,
                                        end),
        cmocka_unit_test_setup_teardown(what_was_found_is_remembered, begin_with_cudnn, end),
        cmocka_unit_test_setup_teardown(what_there_is_not_is_not_taken, begin_with_cudnn, end),
        cmocka_unit_test_setup_teardown(a_failure_is_told, begin_with_cudnn, end),
        cmocka_unit_test_setup_teardown(own_kernels_are_chosen_among, begin, end),
        cmocka_unit_test_setup_teardown(weights_follow_a_choice, begin, end),
        cmocka_unit_test_setup_teardown(what_follows_is_done_by_the_same_kernel, begin, end),
        cmocka_unit_test(the_default_is_told_or_follows_precision),
    };
    return RUN_TESTS(tests, argc, argv);
}
