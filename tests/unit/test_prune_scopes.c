/* What the scopes, shares and norms keep, deleted and masked, against a model: all weights, a flag
 * for each, and full sorts. */
#include "prune_fixture.h"
#include "tiny_network.h"
#include <math.h>
#include <stdlib.h>

enum { LAYERS = 3, WEIGHTS = TINY_CONV1 + TINY_DENSE1 + TINY_DENSE2 };

static const size_t sizes[LAYERS] = {TINY_CONV1, TINY_DENSE1, TINY_DENSE2};
static const double erk_weights[LAYERS] = {3 + 2 + 3 + 3, 5 + 12, 4 + 5};
static char *names[] = {"conv1", "dense1", "dense2"};

/* A tenth of all connections goes at each event. */
static void setup(struct fixture *f, struct prune_settings settings) {
    struct backend *backend;
    struct network *network;
    settings.layers = names;
    settings.layers_count = LAYERS;
    settings.schedule = SCHEDULE_LINEAR;
    settings.rate = 0.1;
    settings.every = 1;
    assert_ok(backend_create("cpu", &(struct backend_options){.threads = 1}, &backend));
    assert_ok(tiny_network_create(backend, 1, &network));
    fixture_create(f, backend, network, &settings);
}

static size_t first_of(int layer) {
    size_t first = 0;
    for (int i = 0; i < layer; i++)
        first += sizes[i];
    return first;
}

static int layer_of(size_t weight) {
    int layer = 0;
    while (weight >= first_of(layer + 1))
        layer++;
    return layer;
}

static int parameter_of(const struct fixture *f, int layer) {
    char name[32];
    snprintf(name, sizeof name, "%s.weight", names[layer]);
    return network_find_parameter(f->network, name);
}

/* New weights; those of dense2 are small, so that a global ranking would take nearly all. */
static void move_weights(struct fixture *f) {
    for (size_t i = 0; i < WEIGHTS; i++) {
        float value = tiny_noise(&f->noise);
        f->weights[i] = layer_of(i) == 2 ? value / 64 : value;
    }
    for (int layer = 0; layer < LAYERS; layer++)
        assert_ok(network_set_parameter(f->network, parameter_of(f, layer),
                                        f->weights + first_of(layer)));
    assert_ok(network_materialize(f->network));
}

/* ---- the model ---- */

struct candidate {
    double key;
    size_t index;
};

static int by_key_then_index(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static size_t alive_in(const struct fixture *f, int layer) {
    size_t alive = 0;
    for (size_t i = first_of(layer); i < first_of(layer + 1); i++)
        alive += f->alive[i];
    return alive;
}

static double key_of(const struct fixture *f, size_t i) {
    double sum = 0, magnitude = fabs((double)f->weights[i]);
    int layer = layer_of(i);
    if (!f->settings.normalise)
        return magnitude;
    for (size_t j = first_of(layer); j < first_of(layer + 1); j++)
        if (f->alive[j])
            sum += (double)f->weights[j] * (double)f->weights[j];
    return (double)(float)(magnitude / sqrt(sum));
}

/* Of the weights first .. last - 1 that are alive and not `kept` yet, keep the first `count`. */
static void keep_first(const struct fixture *f, size_t first, size_t last, size_t count,
                       bool *kept) {
    struct candidate candidates[WEIGHTS];
    size_t found = 0;
    for (size_t i = first; i < last; i++)
        if (f->alive[i] && !kept[i])
            candidates[found++] = (struct candidate){key_of(f, i), i};
    qsort(candidates, found, sizeof *candidates, by_key_then_index);
    for (size_t i = 0; i < found && i < count; i++)
        kept[candidates[i].index] = true;
}

/* Every layer keeps its least, the largest; the other places go to the largest of all. */
static void sort_globally(struct fixture *f, size_t left, const size_t *least) {
    bool kept[WEIGHTS] = {false};
    size_t taken = 0;
    for (int layer = 0; layer < LAYERS; layer++)
        keep_first(f, first_of(layer), first_of(layer + 1), least[layer], kept);
    for (int i = 0; i < WEIGHTS; i++)
        taken += kept[i];
    keep_first(f, 0, WEIGHTS, left > taken ? left - taken : 0, kept);
    memcpy(f->alive, kept, sizeof kept);
}

static void sort_layers(struct fixture *f, const size_t *left) {
    bool kept[WEIGHTS] = {false};
    for (int layer = 0; layer < LAYERS; layer++)
        keep_first(f, first_of(layer), first_of(layer + 1), left[layer], kept);
    memcpy(f->alive, kept, sizeof kept);
}

static void check_survivors(const struct fixture *f) {
    for (int layer = 0; layer < LAYERS; layer++) {
        float values[WEIGHTS];
        uint32_t indices[WEIGHTS];
        const struct parameter *p = &f->network->parameters[parameter_of(f, layer)];
        const size_t first = first_of(layer);
        assert_int_equal(p->count, alive_in(f, layer));
        assert_ok(network_get_parameter(f->network, parameter_of(f, layer), values));
        for (size_t i = 0; i < sizes[layer]; i++)
            assert_true(values[i] == (f->alive[first + i] ? f->weights[first + i] : 0));
        if (p->indices == NULL)
            continue;
        assert_ok(f->backend->download(f->backend, indices, p->indices, p->count * 4));
        for (size_t i = 0, j = 0; i < sizes[layer]; i++)
            if (f->alive[first + i])
                assert_int_equal(indices[j++], i);
    }
}

static void event(struct fixture *f, int64_t e) {
    bool pruned;
    float *states[] = {f->state};
    assert_ok(pruner_step(&f->pruner, e, states, 1, &pruned));
    assert_true(pruned);
}

/* ---- the tests ---- */

/* lround(0.1 e 134) go. Alone, dense2 would be empty after the second event. */
static void global_keeps_the_least_of_each_layer(void **state) {
    (void)state;
    for (int variant = 0; variant < 2 * 2 * 4; variant++) {
        static const double least[] = {0, 1, 7, 0.25};
        static const size_t counts[][LAYERS] = {{0, 0, 0}, {1, 1, 1}, {7, 7, 7}, {14, 15, 5}};
        const struct prune_settings settings = {.scope = SCOPE_GLOBAL,
                                                .normalise = variant % 2,
                                                .deletion = (enum deletion)(variant / 2 % 2),
                                                .min_keep = least[variant / 4]};
        const size_t *floor = counts[variant / 4];
        struct fixture f;
        setup(&f, settings);
        for (int e = 1; e <= 10; e++) {
            size_t left = WEIGHTS - (size_t)lround(0.1 * e * WEIGHTS);
            move_weights(&f);
            event(&f, e);
            sort_globally(&f, left, floor);
            check_survivors(&f);
        }
        for (int layer = 0; layer < LAYERS; layer++)
            assert_int_equal(f.network->parameters[parameter_of(&f, layer)].count, floor[layer]);
        fixture_destroy(&f);
    }
}

static void layers_keep_their_least(void **state) {
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        const struct prune_settings settings = {.deletion = (enum deletion)variant, .min_keep = 6};
        struct fixture f;
        setup(&f, settings);
        for (int e = 1; e <= 11; e++) {
            size_t left[LAYERS];
            for (int layer = 0; layer < LAYERS; layer++) {
                long gone = lround(0.1 * e * (double)sizes[layer]);
                left[layer] = (long)sizes[layer] - gone > 6 ? sizes[layer] - (size_t)gone : 6;
            }
            move_weights(&f);
            event(&f, e);
            sort_layers(&f, left);
            check_survivors(&f);
        }
        fixture_destroy(&f);
    }
}

/* Shares by handing the connections of each event out one by one (see test_quota.c). */
static void erk_shares_what_is_left_of_all(void **state) {
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        const struct prune_settings settings = {
            .distribution = DISTRIBUTION_ERK, .deletion = (enum deletion)variant, .min_keep = 2};
        struct fixture f;
        setup(&f, settings);
        for (int e = 1; e <= 10; e++) {
            size_t left[LAYERS] = {2, 2, 2}, all = WEIGHTS - (size_t)lround(0.1 * e * WEIGHTS);
            for (size_t out = 6; out < all; out++) {
                int next = -1;
                for (int i = 0; i < LAYERS; i++)
                    if (left[i] < sizes[i] &&
                        (next < 0 || ((double)left[i] + 0.5) / erk_weights[i] <
                                         ((double)left[next] + 0.5) / erk_weights[next]))
                        next = i;
                left[next]++;
            }
            move_weights(&f);
            event(&f, e);
            sort_layers(&f, left);
            check_survivors(&f);
        }
        fixture_destroy(&f);
    }
}

/* A layer of zeros has no norm: it stays as it is and loses. */
static void a_layer_of_zeros_is_ranked_last(void **state) {
    (void)state;
    const struct prune_settings settings = {.scope = SCOPE_GLOBAL, .normalise = true};
    struct fixture f;
    setup(&f, settings);
    move_weights(&f);
    memset(f.weights + first_of(1), 0, sizes[1] * sizeof *f.weights);
    assert_ok(network_set_parameter(f.network, parameter_of(&f, 1), f.weights + first_of(1)));
    event(&f, 1);
    assert_int_equal(f.network->parameters[parameter_of(&f, 1)].count, sizes[1] - 13);
    assert_int_equal(f.network->parameters[parameter_of(&f, 0)].count, sizes[0]);
    fixture_destroy(&f);
}

static void invalid_weights_are_named_by_their_index(void **state) {
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        const struct prune_settings settings = {.scope = SCOPE_GLOBAL,
                                                .normalise = variant % 2,
                                                .deletion = (enum deletion)(variant / 2)};
        struct fixture f;
        bool pruned;
        setup(&f, settings);
        move_weights(&f);
        f.weights[first_of(1) + 59] = 3; /* survives */
        assert_ok(network_set_parameter(f.network, parameter_of(&f, 1), f.weights + first_of(1)));
        event(&f, 5);
        f.weights[first_of(1) + 59] = INFINITY;
        assert_ok(network_set_parameter(f.network, parameter_of(&f, 1), f.weights + first_of(1)));
        assert_fails(pruner_step(&f.pruner, 6, NULL, 0, &pruned), ST_NUMERIC,
                     "update 6: layer dense1: weight 59 is infinite");
        fixture_destroy(&f);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_keeps_the_least_of_each_layer),
        cmocka_unit_test(layers_keep_their_least),
        cmocka_unit_test(erk_shares_what_is_left_of_all),
        cmocka_unit_test(a_layer_of_zeros_is_ranked_last),
        cmocka_unit_test(invalid_weights_are_named_by_their_index),
    };
    return RUN_TESTS(tests, argc, argv);
}
