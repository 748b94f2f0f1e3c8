/* Pruning events on one rank against a full sort of all connections. */
#include "prune_fixture.h"
#include "tiny_network.h"
#include <math.h>
#include <stdlib.h>

enum {
    INPUTS = 60,
    DENSE1 = 30 * INPUTS, /* 1,800 connections, then 30 biases */
    DENSE2 = 10 * 30,     /* 300 connections, then 10 biases */
    WEIGHTS = DENSE1 + DENSE2,
    ALL = WEIGHTS + 30 + 10
};

static const struct run_length no_run = {0, 0};

static char *both_layers[] = {"dense2", "dense1", "dense2"}; /* any order, doubled */

static struct network *dense_network(struct backend *backend) {
    struct recipe recipe = {.layers_count = 0};
    struct network *network = NULL;
    tiny_layer(&recipe, LAYER_DENSE, "dense1")->units = 30;
    tiny_layer(&recipe, LAYER_DENSE, "dense2")->units = 10;
    assert_ok(network_create(&recipe, (struct shape){1, 1, INPUTS}, 1, backend, &network));
    assert_int_equal(network->count, ALL);
    return network;
}

static void setup(struct fixture *f, enum prune_scope scope, double rate, double least) {
    const struct prune_settings settings = {.layers = both_layers,
                                            .layers_count = 3,
                                            .scope = scope,
                                            .schedule = SCHEDULE_LINEAR,
                                            .rate = rate,
                                            .every = 50,
                                            .keep = least};
    struct backend *backend;
    assert_ok(backend_create("cpu", &(struct backend_options){.threads = 2}, &backend));
    fixture_create(f, backend, dense_network(backend), &settings);
}

static int weight_parameter(const struct fixture *f, int layer) {
    return network_find_parameter(f->network, layer == 0 ? "dense1.weight" : "dense2.weight");
}

/* Carry f->weights into the network. */
static void load_weights(struct fixture *f) {
    assert_ok(network_set_parameter(f->network, weight_parameter(f, 0), f->weights));
    assert_ok(network_set_parameter(f->network, weight_parameter(f, 1), f->weights + DENSE1));
    assert_ok(network_materialize(f->network));
}

static enum status step(struct fixture *f, int64_t update) {
    bool pruned = false;
    float *states[1] = {f->state};
    enum status status = pruner_step(&f->pruner, update, states, 1, &pruned);
    assert_int_equal(pruned, update % 50 == 0);
    return status;
}

/* ---- the oracle ---- */

struct candidate {
    float magnitude;
    int index;
};

static int by_magnitude_then_index(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->magnitude != y->magnitude)
        return x->magnitude > y->magnitude ? -1 : 1;
    return x->index - y->index;
}

/* Of weights first .. first + count - 1 that are alive, the `left` first of a full sort stay. */
static void sort_out(struct fixture *f, int first, int count, size_t left) {
    static struct candidate candidates[WEIGHTS];
    size_t found = 0;
    for (int i = first; i < first + count; i++)
        if (f->alive[i])
            candidates[found++] = (struct candidate){fabsf(f->weights[i]), i};
    assert_true(left <= found);
    qsort(candidates, found, sizeof *candidates, by_magnitude_then_index);
    for (size_t i = left; i < found; i++)
        f->alive[candidates[i].index] = false;
}

static void check_survivors(const struct fixture *f) {
    float values[WEIGHTS];
    size_t left = 0;
    assert_ok(network_get_parameter(f->network, weight_parameter(f, 0), values));
    assert_ok(network_get_parameter(f->network, weight_parameter(f, 1), values + DENSE1));
    for (int i = 0; i < WEIGHTS; i++) {
        assert_true(values[i] == (f->alive[i] ? f->weights[i] : 0));
        left += f->alive[i];
    }
    assert_int_equal(network_survivors(f->network), left);
}

/* Indices, since a survivor may be 0. */
static void check_indices(const struct fixture *f, int layer) {
    const struct parameter *p = &f->network->parameters[weight_parameter(f, layer)];
    uint32_t indices[DENSE1];
    size_t j = 0;
    assert_ok(f->backend->download(f->backend, indices, p->indices, p->count * sizeof *indices));
    for (uint32_t i = 0; i < p->original_count; i++)
        if (f->alive[layer * DENSE1 + (int)i])
            assert_int_equal(indices[j++], i);
    assert_int_equal(j, p->count);
}

static void noise_weights(struct fixture *f) {
    for (int i = 0; i < WEIGHTS; i++)
        f->weights[i] = tiny_noise(&f->noise);
}

/* Many ties, among them +0 and -0, and steps as small as the smallest denormal. */
static void tied_weights(struct fixture *f) {
    for (int i = 0; i < WEIGHTS; i++)
        f->weights[i] = rintf(3 * tiny_noise(&f->noise)) * 0x1p-149F;
}

static void all_equal_weights(struct fixture *f) {
    for (int i = 0; i < WEIGHTS; i++)
        f->weights[i] = i % 3 ? -0.25F : 0.25F;
}

/* 40 events a fiftieth of all each, new weights between them: after event e every layer (or the
 * whole) has M - e M / 50 connections, the largest of those that were left. */
static void events_keep_the_largest(enum prune_scope scope, void (*draw)(struct fixture *)) {
    struct fixture f;
    setup(&f, scope, 0.02, 0);
    for (int event = 1; event <= 40; event++) {
        draw(&f);
        load_weights(&f);
        assert_ok(step(&f, event * 50));
        if (scope == SCOPE_GLOBAL)
            sort_out(&f, 0, WEIGHTS, (size_t)(WEIGHTS - event * WEIGHTS / 50));
        else {
            sort_out(&f, 0, DENSE1, (size_t)(DENSE1 - event * DENSE1 / 50));
            sort_out(&f, DENSE1, DENSE2, (size_t)(DENSE2 - event * DENSE2 / 50));
        }
        check_survivors(&f);
        if (scope == SCOPE_LAYER)
            for (int layer = 0; layer < 2; layer++)
                check_indices(&f, layer);
    }
    fixture_destroy(&f);
}

static void layers_keep_their_largest(void **state) {
    (void)state;
    events_keep_the_largest(SCOPE_LAYER, noise_weights);
}

static void layers_break_ties_by_index(void **state) {
    (void)state;
    events_keep_the_largest(SCOPE_LAYER, tied_weights);
    events_keep_the_largest(SCOPE_LAYER, all_equal_weights);
}

static void the_whole_keeps_its_largest(void **state) {
    (void)state;
    events_keep_the_largest(SCOPE_GLOBAL, noise_weights);
}

/* Across layers too: of equal magnitudes dense1's win. */
static void the_whole_breaks_ties_by_index(void **state) {
    (void)state;
    events_keep_the_largest(SCOPE_GLOBAL, tied_weights);
    events_keep_the_largest(SCOPE_GLOBAL, all_equal_weights);
}

/* The poster's rate: 9 of 1,800 and lround(1.5 e) of 300 connections go at event e. */
static void posters_rate_rounds_per_layer(void **state) {
    (void)state;
    static const size_t dense2_left[] = {300, 298, 297, 295, 294, 292, 291};
    struct fixture f;
    setup(&f, SCOPE_LAYER, 0.005, 0);
    noise_weights(&f);
    load_weights(&f);
    for (int event = 1; event <= 6; event++) {
        assert_ok(step(&f, event * 50));
        assert_int_equal(f.network->parameters[weight_parameter(&f, 0)].count, 1800 - 9 * event);
        assert_int_equal(f.network->parameters[weight_parameter(&f, 1)].count, dense2_left[event]);
    }
    fixture_destroy(&f);
}

static void nothing_happens_between_events(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, SCOPE_LAYER, 0.02, 0);
    for (int64_t update = 1; update < 100; update++) {
        assert_ok(step(&f, update));
        assert_int_equal(network_survivors(f.network), update < 50 ? WEIGHTS : WEIGHTS - 42);
    }
    fixture_destroy(&f);
}

static void events_stop_at_keep(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, SCOPE_LAYER, 0.4, 0.25);
    noise_weights(&f);
    load_weights(&f);
    for (int event = 1; event <= 4; event++)
        assert_ok(step(&f, event * 50));
    assert_int_equal(f.network->parameters[weight_parameter(&f, 0)].count, 450);
    assert_int_equal(f.network->parameters[weight_parameter(&f, 1)].count, 75);
    fixture_destroy(&f);
}

/* A layer that was cut below M_e by other means stays there. */
static void survivors_never_come_back(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, SCOPE_LAYER, 0.02, 0);
    const struct survivors_scope dense2 = {1, {weight_parameter(&f, 1)}};
    struct bitmask mask;
    assert_ok(bitmask_create(DENSE2, &mask));
    bitmask_set(mask.words, 7);
    assert_ok(survivors_keep(f.network, &dense2, &mask, NULL, 0));
    bitmask_destroy(&mask);
    assert_ok(step(&f, 50));
    assert_int_equal(survivors_count(f.network, &dense2), 1);
    assert_int_equal(network_survivors(f.network), DENSE1 - 36 + 1);
    fixture_destroy(&f);
}

static void layers_that_are_not_listed_stay_whole(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, SCOPE_GLOBAL, 0.5, 0);
    pruner_destroy(&f.pruner);
    f.settings.layers_count = 1; /* dense2 */
    assert_ok(pruner_create(f.network, &f.settings, no_run, &f.communicator, &f.pruner));
    assert_ok(step(&f, 50));
    assert_int_equal(f.network->parameters[weight_parameter(&f, 0)].count, DENSE1);
    assert_null(f.network->parameters[weight_parameter(&f, 0)].indices);
    assert_int_equal(f.network->parameters[weight_parameter(&f, 1)].count, DENSE2 / 2);
    fixture_destroy(&f);
}

static void no_schedule_prunes_nothing(void **state) {
    (void)state;
    struct fixture f;
    bool pruned = true;
    setup(&f, SCOPE_GLOBAL, 0.5, 0);
    pruner_destroy(&f.pruner);
    f.settings = (struct prune_settings){.schedule = SCHEDULE_NONE};
    assert_ok(pruner_create(f.network, &f.settings, no_run, &f.communicator, &f.pruner));
    assert_ok(pruner_step(&f.pruner, 50, NULL, 0, &pruned));
    assert_false(pruned);
    assert_int_equal(f.network->count, ALL);
    fixture_destroy(&f);
}

/* At once to lround(0.3 M), 540 and 90 or 630 in all, without a schedule; again changes nothing,
 * and neither does a density above what is left. */
static void prune_to_a_density(enum prune_scope scope) {
    struct fixture f;
    float *states[1];
    setup(&f, scope, 0.5, 0);
    states[0] = f.state;
    f.settings.schedule = SCHEDULE_NONE;
    noise_weights(&f);
    load_weights(&f);
    if (scope == SCOPE_GLOBAL)
        sort_out(&f, 0, WEIGHTS, 630);
    else {
        sort_out(&f, 0, DENSE1, 540);
        sort_out(&f, DENSE1, DENSE2, 90);
    }
    const double densities[] = {1, 0.3, 0.3, 0.7};
    for (int i = 0; i < 4; i++) {
        assert_ok(pruner_prune_to(&f.pruner, densities[i], 0, states, 1));
        assert_int_equal(f.network->count, i == 0 ? ALL : 630 + 40);
    }
    check_survivors(&f);
    fixture_destroy(&f);
}

static void a_density_keeps_the_largest(void **state) {
    (void)state;
    prune_to_a_density(SCOPE_LAYER);
    prune_to_a_density(SCOPE_GLOBAL);
}

static void unknown_layer_is_named(void **state) {
    (void)state;
    struct fixture f;
    char *layers[] = {"dense1", "dense3"};
    setup(&f, SCOPE_LAYER, 0.5, 0);
    pruner_destroy(&f.pruner);
    f.settings.layers = layers;
    f.settings.layers_count = 2;
    assert_fails(pruner_create(f.network, &f.settings, no_run, &f.communicator, &f.pruner),
                 ST_INPUT, "prune.layers: the network has no layer 'dense3' with weights");
    fixture_destroy(&f);
}

/* Named by its original index, which differs from its place among the survivors by then. */
static void invalid_weight_is_named(void **state) {
    (void)state;
    static const struct {
        int at;
        float value;
        enum prune_scope scope;
        const char *message;
    } cases[] = {
        {17, NAN, SCOPE_LAYER, "update 100: layer dense1: weight 17 is nan"},
        {17, NAN, SCOPE_GLOBAL, "update 100: layer dense1: weight 17 is nan"},
        {DENSE1 + 299, INFINITY, SCOPE_LAYER, "update 100: layer dense2: weight 299 is infinite"},
        {DENSE1 + 299, -INFINITY, SCOPE_GLOBAL, "update 100: layer dense2: weight 299 is infinite"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        struct fixture f;
        setup(&f, cases[k].scope, 0.3, 0);
        noise_weights(&f);
        f.weights[17] = f.weights[DENSE1 + 299] = 2; /* survive the first event */
        load_weights(&f);
        assert_ok(step(&f, 50));
        f.weights[cases[k].at] = cases[k].value;
        load_weights(&f);
        assert_fails(step(&f, 100), ST_NUMERIC, cases[k].message);
        assert_int_equal(f.communicator.failed_rank, 0);
        assert_true(communicator_reports(&f.communicator));
        fixture_destroy(&f);
    }
}

static void one_rank_equals_itself(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, SCOPE_LAYER, 0.3, 0);
    assert_ok(pruner_compare_replicas(&f.pruner, 1));
    pruner_destroy(&f.pruner);
    pruner_destroy(&f.pruner); /* a zeroed one is legal */
    fixture_destroy(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_keep_their_largest),
        cmocka_unit_test(layers_break_ties_by_index),
        cmocka_unit_test(the_whole_keeps_its_largest),
        cmocka_unit_test(the_whole_breaks_ties_by_index),
        cmocka_unit_test(posters_rate_rounds_per_layer),
        cmocka_unit_test(nothing_happens_between_events),
        cmocka_unit_test(events_stop_at_keep),
        cmocka_unit_test(survivors_never_come_back),
        cmocka_unit_test(layers_that_are_not_listed_stay_whole),
        cmocka_unit_test(no_schedule_prunes_nothing),
        cmocka_unit_test(a_density_keeps_the_largest),
        cmocka_unit_test(unknown_layer_is_named),
        cmocka_unit_test(invalid_weight_is_named),
        cmocka_unit_test(one_rank_equals_itself),
    };
    return RUN_TESTS(tests, argc, argv);
}
