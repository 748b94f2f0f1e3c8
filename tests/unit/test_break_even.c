/* Thresholds of the sparse form: measured, given, or of the table; and a network that is measured
 * stays as it was. */
#include "check.h"
#include "tiny_network.h"
#include <espalier/break_even.h>
#include <espalier/deletion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE = 8, CHANNELS = 8, INPUTS = SIDE * SIDE * CHANNELS, SAMPLES = 8, CLASSES = 10 };

/* conv1 (41,472 multiplications for a sample), conv2 (36,864) and dense1 (40,960) are worth a
 * measurement, dense2 (1,600) is not. */
enum { CONV1, CONV2, DENSE1, DENSE2, BLOCKS };

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

static char *layers[] = {"conv1", "conv2", "dense1", "dense2"};

static void setup(struct fixture *f, double sparse_below) {
    struct recipe recipe = {.layers_count = 0};
    uint64_t noise = 5;
    *f = (struct fixture){.settings = {.layers = layers,
                                       .layers_count = BLOCKS,
                                       .schedule = SCHEDULE_LINEAR,
                                       .rate = 0.1,
                                       .every = 10,
                                       .keep = 0.05,
                                       .sparse_below = sparse_below}};
    for (int b = CONV1; b <= CONV2; b++) {
        struct layer_settings *conv = tiny_layer(&recipe, LAYER_CONV, layers[b]);
        conv->filters = 16;
        conv->kernel = 3;
        conv->activation = ACTIVATION_RELU;
    }
    struct layer_settings *dense = tiny_layer(&recipe, LAYER_DENSE, "dense1");
    dense->units = 160;
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
    for (int b = CONV1; b < DENSE2; b++)
        f.network->blocks[b].sparse_below = -7;
    logits_of(&f, before);
    assert_ok(break_even_measure(&f.pruner, 0.05, &f.pass, f.x));
    for (int b = CONV1; b < DENSE2; b++) {
        double below = f.network->blocks[b].sparse_below;
        assert_true(below >= 0 && below <= 0.5);
        assert_false(f.network->parameters[f.network->blocks[b].weight].sparse);
    }
    assert_true(f.network->blocks[DENSE2].sparse_below == table_of(&f, DENSE2));
    logits_of(&f, after);
    assert_memory_equal(before, after, sizeof before);
    teardown(&f);
}

/* ---- a clock of the test's own, which goes on in passes of conv2 alone ---- */

static struct {
    struct network *network;
    double now;                /* seconds */
    bool measured;             /* conv2 is, and not another block */
    double density;            /* of conv2, 1: in dense form */
    double slow_from, slow_to; /* densities between which sparse form takes 2 seconds, not 0 */
    int passes, unlike_training;
    enum status (*set_survivors)(struct block_plan *, const struct block_survivors *);
    enum status (*forward)(struct block_plan *, const struct block_pass *, const float *, float *);
} staged;

/* In place of the C library's, so that no load of the machine makes a difference. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    *now = (struct timespec){.tv_sec = (time_t)staged.now};
    return 0;
}

static enum status note_survivors(struct block_plan *plan, const struct block_survivors *s) {
    const struct block *conv2 = &staged.network->blocks[CONV2];
    staged.measured = plan == conv2->plan;
    if (staged.measured)
        staged.density = s->sparse ? (double)s->count / (double)block_weights(&conv2->desc) : 1;
    return staged.set_survivors(plan, s);
}

static double seconds_of_pass(void) {
    const bool slow = staged.density > staged.slow_from && staged.density < staged.slow_to;
    return staged.density == 1 ? 1 : slow ? 2 : 0;
}

static enum status staged_forward(struct block_plan *plan, const struct block_pass *pass,
                                  const float *x, float *y) {
    if (staged.measured && plan == staged.network->blocks[CONV2].plan) {
        const bool joined = staged.network->blocks[CONV1].output_gradient == NULL;
        staged.passes++;
        staged.unlike_training += !joined || !pass->training;
        staged.now += seconds_of_pass();
    }
    return staged.forward(plan, pass, x, y);
}

/* What is measured of conv2. */
static double staged_below(double density, double slow_from, double slow_to) {
    struct fixture f;
    setup(&f, -1);
    staged.network = f.network;
    staged.measured = false;
    staged.density = 1;
    staged.slow_from = slow_from;
    staged.slow_to = slow_to;
    staged.passes = staged.unlike_training = 0;
    staged.set_survivors = f.backend->block_plan_set_survivors;
    staged.forward = f.backend->block_forward;
    f.backend->block_plan_set_survivors = note_survivors;
    f.backend->block_forward = staged_forward;
    assert_ok(break_even_measure(&f.pruner, density, &f.pass, f.x));
    const double below = f.network->blocks[CONV2].sparse_below;
    assert_true(staged.passes > 0);
    assert_int_equal(staged.unlike_training, 0);
    teardown(&f);
    return below;
}

/* What the run leaves decides, and no line from a lower density to a higher one. Sparse form takes
 * no time or twice as long as dense form. */
static void what_a_run_leaves_is_measured(void **state) {
    (void)state;
    assert_true(staged_below(0.1, 0.05, 1) <= 0.1);
    assert_true(staged_below(0.1, 0.15, 1) > 0.1);
    assert_true(staged_below(0.3, 0.25, 1) <= 0.3);
    assert_true(staged_below(0.3, 0, 0.25) == 0.5); /* fewer survivors take longer */
    assert_true(staged_below(0.3, 0, 0.5) == 0);
}

/* A run that leaves half of the connections needs no threshold. */
static void light_pruning_is_not_measured(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, -1);
    assert_ok(break_even_measure(&f.pruner, 0.5, &f.pass, f.x));
    for (int b = 0; b < BLOCKS; b++)
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
        for (int b = 0; b < BLOCKS; b++)
            assert_true(f.network->blocks[b].sparse_below == given);
        assert_ok(pruner_prune_to(&f.pruner, 0.25, 1, NULL, 0));
        for (int b = 0; b < BLOCKS; b++)
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
    const double rounding = 0.5 / 1600; /* of a count of survivors among those of dense2 */
    assert_true(left >= 0.1 - rounding && left <= 0.1 + rounding);
    assert_true(pruner_least_density(&f.pruner, 1000) <= 0.05 + rounding);
    teardown(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_are_measured),
        cmocka_unit_test(what_a_run_leaves_is_measured),
        cmocka_unit_test(light_pruning_is_not_measured),
        cmocka_unit_test(given_thresholds_hold),
        cmocka_unit_test(least_density_is_that_of_the_last_event),
    };
    return RUN_TESTS(tests, argc, argv);
}
