/* From a recipe's layers to blocks: what joins what, and what is refused. */
#include "check.h"

#include <espalier/network.h>

#define DENSE "{ type = \"dense\"; units = 10; }"

static enum status describe(const char *layers, struct block blocks[RECIPE_LAYERS_MAX],
                            int *count) {
    char text[1024];
    struct recipe recipe;
    snprintf(text, sizeof text, "network = (%s);", layers);
    assert_ok(recipe_parse("r.cfg", text, NULL, 0, &recipe));
    enum status status = network_describe(&recipe, (struct shape){12, 12, 1}, blocks, count);
    recipe_destroy(&recipe);
    return status;
}

static void a_block_keeps_its_linear_layers_initializer(void **state) {
    (void)state;
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    assert_ok(describe("{ type = \"conv\"; filters = 2; kernel = 3; initializer = \"he_normal\"; },"
                       "{ type = \"maxpool\"; size = 2; }, { type = \"dropout\"; rate = 0.5; },"
                       "{ type = \"dropconnect\"; rate = 0.5; },"
                       "{ type = \"dense\"; units = 10; initializer = \"he_uniform\"; }",
                       blocks, &count));
    assert_int_equal(count, 2);
    assert_int_equal(blocks[0].initializer, INITIALIZER_HE_NORMAL);
    assert_int_equal(blocks[1].initializer, INITIALIZER_HE_UNIFORM);
    assert_string_equal(blocks[0].name, "conv1");
    assert_string_equal(blocks[1].name, "dense1");
}

static void dropconnect_joins_the_dense_layer_after_it(void **state) {
    (void)state;
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    assert_ok(
        describe("{ type = \"dropconnect\"; rate = 0.25; samples = 30; }," DENSE, blocks, &count));
    assert_int_equal(count, 1);
    assert_int_equal(blocks[0].desc.kind, BLOCK_DENSE);
    assert_true(blocks[0].desc.dropconnect == 0.25F);
    assert_int_equal(blocks[0].desc.dropconnect_draws, 30);
    assert_ok(describe("{ type = \"dropconnect\"; rate = 0.25; inference = \"mean\"; }," DENSE,
                       blocks, &count));
    assert_int_equal(blocks[0].desc.dropconnect_draws, 0);
}

static void dropconnect_before_another_layer_is_refused(void **state) {
    (void)state;
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    assert_fails(
        describe("{ type = \"dropconnect\"; rate = 0.5; }, { type = \"conv\"; filters = 2; "
                 "kernel = 3; }," DENSE,
                 blocks, &count),
        ST_SHAPE,
        "r.cfg: layer 1 (dropconnect 'dropconnect1') is followed by conv 'conv1': expected "
        "dense");
    assert_fails(
        describe("{ type = \"dropconnect\"; rate = 0.5; }, { type = \"dropconnect\"; rate = "
                 "0.5; }," DENSE,
                 blocks, &count),
        ST_SHAPE, "is followed by dropconnect 'dropconnect2': expected dense");
    assert_fails(describe(DENSE ", { type = \"dropconnect\"; rate = 0.5; }", blocks, &count),
                 ST_SHAPE, "last layer 'dropconnect1' is of type dropconnect: expected dense");
}

static void batchnorm_opens_a_block_of_the_shape_before_it(void **state) {
    (void)state;
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    assert_ok(describe("{ type = \"conv\"; filters = 3; kernel = 3; },"
                       "{ type = \"batchnorm\"; activation = \"relu\"; epsilon = 0.5; },"
                       "{ type = \"maxpool\"; size = 2; }," DENSE,
                       blocks, &count));
    assert_int_equal(count, 3);
    const struct block_desc *norm = &blocks[1].desc;
    assert_int_equal(norm->kind, BLOCK_NORM);
    assert_int_equal(norm->activation, ACTIVATION_RELU);
    assert_true(norm->norm_epsilon == 0.5F && norm->norm_momentum == 0.9F);
    assert_int_equal(shape_size(norm->linear), 10 * 10 * 3);
    assert_int_equal(shape_size(norm->output), 5 * 5 * 3);
    assert_int_equal(block_weights(norm), 3);
}

static void batchnorm_has_parameters_that_are_no_connections(void **state) {
    (void)state;
    static const char *const names[] = {"batchnorm1.weight",       "batchnorm1.bias",
                                        "batchnorm1.running_mean", "batchnorm1.running_var",
                                        "dense1.weight",           "dense1.bias"};
    static const float first[] = {1, 0, 0, 1};
    struct recipe recipe;
    struct backend *backend;
    struct network *network;
    assert_ok(recipe_parse("r.cfg", "network = ({ type = \"batchnorm\"; }," DENSE ");", NULL, 0,
                           &recipe));
    assert_ok(backend_cpu_create(1, &backend));
    assert_ok(network_create(&recipe, (struct shape){2, 2, 1}, 4, backend, &network));
    assert_ok(network_initialize(network, 1));
    assert_int_equal(network->parameters_count, 6);
    for (int i = 0; i < 6; i++)
        assert_string_equal(network->parameters[i].name, names[i]);
    for (int i = 0; i < 4; i++) {
        float value;
        assert_int_equal(network->parameters[i].original_count, 1);
        assert_ok(network_get_parameter(network, i, &value));
        assert_true(value == first[i]);
    }
    assert_int_equal(network_connections(network), 40);
    network_destroy(network);
    backend->destroy(backend);
    recipe_destroy(&recipe);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_keeps_its_linear_layers_initializer),
        cmocka_unit_test(dropconnect_joins_the_dense_layer_after_it),
        cmocka_unit_test(dropconnect_before_another_layer_is_refused),
        cmocka_unit_test(batchnorm_opens_a_block_of_the_shape_before_it),
        cmocka_unit_test(batchnorm_has_parameters_that_are_no_connections),
    };
    return RUN_TESTS(tests, argc, argv);
}
