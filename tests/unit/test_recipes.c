/* The shipped recipes are the networks and the runs that their comments name. */
#include "shipped_recipes.h"
#include <math.h>

/* Weights and biases of a chain of layers over 28 x 28 pixels. */
static size_t count_parameters(const struct recipe *recipe) {
    size_t side = 28, channels = 1, count = 0;
    for (int i = 0; i < recipe->layers_count; i++) {
        const struct layer_settings *layer = &recipe->layers[i];
        if (layer->type == LAYER_CONV) {
            size_t kernel = (size_t)layer->kernel, filters = (size_t)layer->filters;
            count += filters * (channels * kernel * kernel + 1);
            side = (side + 2 * (size_t)layer->padding - kernel) / (size_t)layer->stride + 1;
            channels = filters;
        } else if (layer->type == LAYER_MAXPOOL) {
            side /= (size_t)layer->size;
        } else if (layer->type == LAYER_DENSE) {
            count += (size_t)layer->units * (side * side * channels + 1);
            side = 1;
            channels = (size_t)layer->units;
        }
    }
    return count;
}

static void shipped_networks_have_the_published_sizes(void **state) {
    (void)state;
    static const size_t published[SHIPPED] = {600810, 600810, 600810, 600810, 266610, 431080, 7850};
    for (int i = 0; i < SHIPPED; i++) {
        struct recipe recipe;
        load_shipped(shipped[i], &recipe);
        assert_int_equal(count_parameters(&recipe), published[i]);
        recipe_destroy(&recipe);
    }
}

static void ann_d_trains_as_the_poster(void **state) {
    (void)state;
    struct recipe recipe;
    load_shipped("ann_d", &recipe);
    assert_int_equal(recipe.train.epochs, 12);
    assert_int_equal(recipe.train.batch, 128);
    assert_int_equal(recipe.train.optimizer.kind, OPTIMIZER_ADADELTA);
    assert_true(recipe.train.optimizer.learning_rate == 1.0);
    assert_true(recipe.train.optimizer.rho == 0.95);
    assert_true(recipe.train.optimizer.epsilon == 1e-8);
    assert_int_equal(recipe.prune.schedule, SCHEDULE_NONE);
    assert_string_equal(recipe.layers[3].name, "dropout1");
    assert_true(recipe.layers[3].rate == 0.25);
    assert_string_equal(recipe.layers[5].name, "dropout2");
    assert_true(recipe.layers[5].rate == 0.5);
    recipe_destroy(&recipe);
}

static void ann_a_prunes_as_the_poster(void **state) {
    (void)state;
    struct recipe recipe;
    load_shipped("ann_a", &recipe);
    assert_int_equal(recipe.prune.layers_count, 2);
    assert_string_equal(recipe.prune.layers[0], "dense1");
    assert_string_equal(recipe.prune.layers[1], "dense2");
    assert_int_equal(recipe.prune.scope, SCOPE_LAYER);
    assert_int_equal(recipe.prune.schedule, SCHEDULE_LINEAR);
    assert_true(recipe.prune.rate == 0.005);
    assert_int_equal(recipe.prune.every, 50);
    recipe_destroy(&recipe);
    load_shipped("ann_a_global", &recipe);
    assert_int_equal(recipe.prune.layers_count, 4);
    assert_int_equal(recipe.prune.scope, SCOPE_GLOBAL);
    assert_int_equal(recipe.prune.schedule, SCHEDULE_FSA);
    recipe_destroy(&recipe);
}

/* The two LeNets reach their 8 % before the first half of training is over. */
static void lenets_reach_their_density_early(void **state) {
    (void)state;
    static const char *const names[] = {"lenet_300_100", "lenet5"};
    for (int i = 0; i < 2; i++) {
        struct recipe recipe;
        load_shipped(names[i], &recipe);
        double updates = recipe.train.epochs * ceil(60000.0 / recipe.train.batch);
        double events = ceil((1 - recipe.prune.keep) / recipe.prune.rate);
        assert_true(recipe.prune.keep == 0.08);
        assert_true(events * recipe.prune.every < updates / 2);
        recipe_destroy(&recipe);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_networks_have_the_published_sizes),
        cmocka_unit_test(ann_d_trains_as_the_poster),
        cmocka_unit_test(ann_a_prunes_as_the_poster),
        cmocka_unit_test(lenets_reach_their_density_early),
    };
    return RUN_TESTS(tests, argc, argv);
}
