/* Thresholds of the sparse form: measured, given, or of the table; and a network that is measured
 * stays as it was. */
#include "check.h"
#include "tiny_network.h"
#include <espalier/break_even.h>
#include <espalier/deletion.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 8, CHANNELS = 8, INPUTS = SIDE * SIDE * CHANNELS, SAMPLES = 8, CLASSES = 10 };

/* conv1 (41,472 multiplications for a sample) and dense1 (34,560) are worth a measurement, dense2
 * (600) is not. */
struct fixture {
    struct backend *backend;
    struct network *network;
    struct communicator communicator;
    struct prune_settings settings;
    struct pruner pruner;
    float x[SAMPLES * INPUTS];
    uint32_t ids[SAMPLES];
    struct block_pass pass;
};

static char *layers[] = {"conv1", "dense1", "dense2"};

static void setup(struct fixture *f, double sparse_below) {
    struct recipe recipe = {.layers_count = 0};
    uint64_t noise = 5;
    *f = (struct fixture){.settings = {.layers = layers,
                                       .layers_count = 3,
                                       .schedule = SCHEDULE_LINEAR,
                                       .rate = 0.1,
                                       .every = 10,
                                       .keep = 0.05,
                                       .sparse_below = sparse_below}};
    struct layer_settings *conv = tiny_layer(&recipe, LAYER_CONV, "conv1");
    conv->filters = 16;
    conv->kernel = 3;
    conv->activation = ACTIVATION_RELU;
    struct layer_settings *dense = tiny_layer(&recipe, LAYER_DENSE, "dense1");
    dense->units = 60;
    dense->activation = ACTIVATION_RELU;
    tiny_layer(&recipe, LAYER_DENSE, "dense2")->units = CLASSES;
    assert_ok(communicator_single(&f->communicator));
    assert_ok(backend_create("cpu", &(struct backend_options){.threads = 2}, &f->backend));
    assert_ok(network_create(&recipe, (struct shape){SIDE, SIDE, CHANNELS}, SAMPLES, f->backend,
                             &f->network));
    assert_ok(network_initialize(f->network, 3));
    assert_ok(pruner_create(f->network, &f->settings, (struct run_length){100, 10},
                            &f->communicator, &f->pruner));
    for (int i = 0; i < SAMPLES * INPUTS; i++)
        f->x[i] = tiny_noise(&noise);
    f->pass = (struct block_pass){.samples = SAMPLES, .sample_ids = f->ids};
}

static void teardown(struct fixture *f) {
    pruner_destroy(&f->pruner);
    network_destroy(f->network);
    f->backend->destroy(f->backend);
}

static double table_of(const struct fixture *f, int block) {
    return f->backend->block_plan_sparse_below(f->network->blocks[block].plan);
}

static void logits_of(struct fixture *f, float logits[SAMPLES * CLASSES]) {
    float *device;
    assert_ok(network_forward(f->network, &f->pass, f->x, &device));
    assert_ok(f->backend->download(f->backend, logits, device, SAMPLES * CLASSES * sizeof *logits));
}

static void thresholds_are_measured(void **state) {
    (void)state;
    struct fixture f;
    float before[SAMPLES * CLASSES], after[SAMPLES * CLASSES];
    setup(&f, -1);
    f.network->blocks[0].sparse_below = f.network->blocks[1].sparse_below = -7;
    logits_of(&f, before);
    assert_ok(break_even_measure(&f.pruner, 0.05, &f.pass, f.x));
    for (int b = 0; b < 2; b++) {
        double below = f.network->blocks[b].sparse_below;
        assert_true(below >= 0 && below <= 0.5);
        assert_false(f.network->parameters[f.network->blocks[b].weight].sparse);
    }
    assert_true(f.network->blocks[2].sparse_below == table_of(&f, 2));
    logits_of(&f, after);
    assert_memory_equal(before, after, sizeof before);
    teardown(&f);
}

/* A run that leaves half of the connections needs no threshold. */
static void light_pruning_is_not_measured(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, -1);
    assert_ok(break_even_measure(&f.pruner, 0.5, &f.pass, f.x));
    for (int b = 0; b < 3; b++)
        assert_true(f.network->blocks[b].sparse_below == table_of(&f, b));
    teardown(&f);
}

static void given_thresholds_hold(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        const double given = i * 0.3;
        struct fixture f;
        setup(&f, given);
        assert_ok(break_even_measure(&f.pruner, 0.05, &f.pass, f.x));
        for (int b = 0; b < 3; b++)
            assert_true(f.network->blocks[b].sparse_below == given);
        assert_ok(pruner_prune_to(&f.pruner, 0.25, 1, NULL, 0));
        for (int b = 0; b < 3; b++)
            assert_int_equal(f.network->parameters[f.network->blocks[b].weight].sparse, i > 0);
        teardown(&f);
    }
}

/* Nine events fall into 99 updates, each of which takes a tenth: the keep of 5 % is not reached. */
static void least_density_is_that_of_the_last_event(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, -1);
    assert_true(pruner_least_density(&f.pruner, 9) == 1);
    const double left = pruner_least_density(&f.pruner, 99);
    const double rounding = 0.5 / 600; /* of a count of survivors among those of dense2 */
    assert_true(left >= 0.1 - rounding && left <= 0.1 + rounding);
    assert_true(pruner_least_density(&f.pruner, 1000) <= 0.05 + rounding);
    teardown(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_are_measured),
        cmocka_unit_test(light_pruning_is_not_measured),
        cmocka_unit_test(given_thresholds_hold),
        cmocka_unit_test(least_density_is_that_of_the_last_event),
    };
    return RUN_TESTS(tests, argc, argv);
}
