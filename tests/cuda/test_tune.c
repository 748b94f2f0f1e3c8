/* The choice of cuDNN's engines by their times, on the emulated device: its engines 3, 4, 5 and 6
 * may be taken; 6 is the fastest, the heuristics put 3 first, and 4 cannot be run. */
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

static int begin(void **state) {
    (void)state;
    assert_ok(backend_cuda_create(&(struct backend_options){.threads = 1}, &backend));
    return 0;
}

static int end(void **state) {
    (void)state;
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

/* The forward pass over small numbers. */
static void forward(struct block_plan *plan, float *out) {
    const size_t inputs = SAMPLES * shape_size(desc.input),
                 outputs = SAMPLES * shape_size(desc.output);
    float *host[] = {case_floats(1, 1, inputs), case_floats(1, 2, block_weights(&desc)),
                     case_floats(1, 3, block_biases(&desc))};
    float *x = device_floats(host[0], inputs), *w = device_floats(host[1], block_weights(&desc));
    float *bias = device_floats(host[2], block_biases(&desc)), *y = device_floats(NULL, outputs);
    const struct block_pass pass = {.samples = SAMPLES};
    assert_ok(backend->block_plan_load_weights(plan, w, bias));
    assert_ok(backend->block_forward(plan, &pass, x, y));
    assert_ok(backend->download(backend, out, y, outputs * sizeof *out));
    float *const device[] = {x, w, bias, y};
    for (int i = 0; i < 4; i++)
        backend->release(backend, device[i]);
    for (int i = 0; i < 3; i++)
        free(host[i]);
}

static void the_fastest_that_may_be_taken_is(void **state) {
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
    const uint32_t strange[BLOCK_CHOICES] = {0xabcd01, 0xffffff, 7, 0xffffffff};
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

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_fastest_that_may_be_taken_is, begin, end),
        cmocka_unit_test_setup_teardown(what_was_found_is_remembered, begin, end),
        cmocka_unit_test_setup_teardown(what_there_is_not_is_not_taken, begin, end),
        cmocka_unit_test_setup_teardown(a_failure_is_told, begin, end),
    };
    return RUN_TESTS(tests, argc, argv);
}
