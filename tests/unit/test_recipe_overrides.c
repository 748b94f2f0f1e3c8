/* Overrides that are wrong, as "-s KEY=VALUE" on the command line, and what may be written in them.
 */
#include "check.h"
#include <espalier/recipe.h>
#include <stdlib.h>

#define NETWORK                                                                                    \
    "network = ( { type = \"conv\"; filters = 4; kernel = 3; }, { type = \"maxpool\"; size = 2; "  \
    "}, "                                                                                          \
    "{ type = \"dropout\"; rate = 0.25; }, { type = \"dense\"; units = 10; } );\n"

struct wrong {
    const char *override, *message;
};

static void assert_refused(const struct wrong *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct recipe recipe;
        char expected[1024];
        assert_int_equal(recipe_parse("r.cfg", NETWORK, &cases[i].override, 1, &recipe), ST_USAGE);
        snprintf(expected, sizeof expected, "-s %s: %s", cases[i].override, cases[i].message);
        assert_string_equal(status_message(), expected);
        recipe_destroy(&recipe);
    }
}
#define ASSERT_REFUSED(cases) assert_refused((cases), sizeof(cases) / sizeof((cases)[0]))

static void forms(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"train.epochs", "expected KEY=VALUE"},
        {"=3", "expected KEY=VALUE"},
        {"  = 3", "expected KEY=VALUE"},
        {"", "expected KEY=VALUE"},
        {"network=[]", "the file alone lists the layers; expected network.NAME.KEY"},
        {"network.filters=3", "expected network.NAME.KEY, such as network.conv1.filters"},
    };
    ASSERT_REFUSED(cases);
}

#define TRAIN_KEYS                                                                                 \
    "keys of train: epochs, steps, batch, seed, backend, tf32, cudnn_autotune, threads, "          \
    "reproducible, hang_seconds, log_every, optimizer, learning_rate, "                            \
    "momentum, nesterov, rho, epsilon, beta1, beta2, l1, l2"

/* A known key is named where it is near, else those that there are: never a far one. */
static void unknown_keys(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"train.epoch=3", "unknown key 'train.epoch'; nearest known key: 'train.epochs'"},
        {"train.ephocs=3", "unknown key 'train.ephocs'; nearest known key: 'train.epochs'"},
        {"trian.epoch=3", "unknown key 'trian.epoch'; nearest known key: 'train.epochs'"},
        {"train.lr=3", "unknown key 'train.lr'; nearest known key: 'train.learning_rate'"},
        {"lr=3", "unknown key 'lr'; nearest known key: 'train.learning_rate'"},
        {"epochs=3", "unknown key 'epochs'; nearest known key: 'train.epochs'"},
        {"data.batch=3", "unknown key 'data.batch'; nearest known key: 'train.batch'"},
        {"train.ep=3", "unknown key 'train.ep'; " TRAIN_KEYS},
        {"train.foo=3", "unknown key 'train.foo'; " TRAIN_KEYS},
        {"train=3", "unknown key 'train'; " TRAIN_KEYS},
        {"data.path=x", "unknown key 'data.path'; keys of data: dir, train_limit, test_limit, "
                        "validation"},
        {"foo=3", "unknown key 'foo'; 'espalier train --help' lists the keys"},
        {"foo.bar=3", "unknown key 'foo.bar'; 'espalier train --help' lists the keys"},
    };
    ASSERT_REFUSED(cases);
}

static void unknown_keys_of_layers(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"dense1.units=3", "unknown key 'dense1.units'; nearest known key: 'network.dense1.units'"},
        {"conv1.filter=3",
         "unknown key 'conv1.filter'; nearest known key: 'network.conv1.filters'"},
        {"dense1=3", "unknown key 'dense1'; keys of network.dense1: type, name, units, activation, "
                     "initializer"},
        {"network.conv2.filters=3", "the network has no layer 'conv2'; nearest: 'conv1'"},
        {"network.softmax.units=3",
         "the network has no layer 'softmax'; its layers: conv1, maxpool1, "
         "dropout1, dense1"},
        {"network.conv1.filter=3",
         "unknown key 'network.conv1.filter'; nearest known key: 'network.conv1.filters'"},
        {"network.maxpool1.width=3",
         "unknown key 'network.maxpool1.width'; keys of network.maxpool1: type, name, size"},
        {"network.conv1.units=3",
         "network.conv1.units: a conv layer has no key 'units', only type, name, filters, kernel, "
         "stride, padding, activation, initializer"},
        {"network.conv1.type=dense",
         "network.conv1.type: the file alone decides a layer's type and name"},
        {"network.conv1.name=c", "network.conv1.name: the file alone decides a layer's type and "
                                 "name"},
    };
    ASSERT_REFUSED(cases);
}

static void numbers(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"train.epochs=3.5",
         "train.epochs: found real number 3.5, expected an integer from 1 to 1000000"},
        {"train.epochs=", "train.epochs: found text '', expected an integer from 1 to 1000000"},
        {"train.epochs= ", "train.epochs: found text '', expected an integer from 1 to 1000000"},
        {"train.epochs=3x", "train.epochs: found text '3x', expected an integer from 1 to 1000000"},
        {"train.epochs=3 4",
         "train.epochs: found text '3 4', expected an integer from 1 to 1000000"},
        {"train.epochs=0", "train.epochs: found integer 0, expected an integer from 1 to 1000000"},
        {"train.seed=9223372036854775808",
         "train.seed: found real number 9.223372036854776e+18, expected an integer from 0 to "
         "9223372036854775807"},
        {"train.rho=nan", "train.rho: found real number nan, expected a real number in [0, 1)"},
        {"train.learning_rate=inf",
         "train.learning_rate: found real number inf, expected a real number in (0, 1e+06]"},
        {"network.conv1.filters=none",
         "network.conv1.filters: found text 'none', expected an integer from 1 to 65536"},
        {"network.conv1.padding=3",
         "network.conv1.padding: found 3, expected less than the kernel, 3"},
        {"network.conv1.kernel=65",
         "network.conv1.kernel: found integer 65, expected an integer from 1 to 64"},
    };
    ASSERT_REFUSED(cases);
}

static void words(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"train.optimizer=adm",
         "train.optimizer: found text 'adm', expected sgd, adadelta or adam; nearest: 'adam'"},
        {"train.optimizer=rmsprop",
         "train.optimizer: found text 'rmsprop', expected sgd, adadelta or adam"},
        {"network.conv1.activation=swish",
         "network.conv1.activation: found text 'swish', expected none, relu, sigmoid or tanh"},
        {"train.nesterov=yes", "train.nesterov: found text 'yes', expected true or false"},
        {"train.momentum=0.9", "train.momentum is not a setting of optimizer 'adadelta'"},
        {"prune.schedule=linear",
         "prune.schedule 'linear' needs prune.layers: the layers to prune"},
        {"data.dir=", "data.dir: found text '', expected text of 1 to 4095 bytes"},
    };
    ASSERT_REFUSED(cases);
}

#define NO_SUCH " is no conv or dense layer of the network; "

static void lists(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"prune.layers=conv1",
         "prune.layers: found text 'conv1', expected a list of names, like [dense1,dense2]"},
        {"prune.layers=[conv9]", "prune.layers: 'conv9'" NO_SUCH "nearest: 'conv1'"},
        {"prune.layers=[\"conv9\"]", "prune.layers: 'conv9'" NO_SUCH "nearest: 'conv1'"},
        {"prune.layers=[\"conv1]", "prune.layers: '\"conv1'" NO_SUCH "nearest: 'conv1'"},
        {"prune.layers=[conv1,]", "prune.layers: ''" NO_SUCH "its own: conv1, dense1"},
        {"prune.layers=[\"\"]", "prune.layers: ''" NO_SUCH "its own: conv1, dense1"},
    };
    ASSERT_REFUSED(cases);
}

/* As libconfig writes them, and bare. */
static void lists_are_written_with_quotes_or_without(void **state) {
    (void)state;
    static const char *const overrides[] = {"prune.layers=[dense1,conv1]",
                                            "prune.layers=[\"dense1\",\"conv1\"]",
                                            "prune.layers = [ \"dense1\" , conv1 ] "};
    for (int i = 0; i < 3; i++) {
        struct recipe recipe;
        assert_ok(recipe_parse("r.cfg", NETWORK, &overrides[i], 1, &recipe));
        assert_int_equal(recipe.prune.layers_count, 2);
        assert_string_equal(recipe.prune.layers[0], "dense1");
        assert_string_equal(recipe.prune.layers[1], "conv1");
        recipe_destroy(&recipe);
    }
}

static void blanks_around_key_and_value_are_nothing(void **state) {
    (void)state;
    static const char *const overrides[] = {"train.learning_rate = 0.1", "\ttrain.epochs= 3 ",
                                            " network.conv1.filters =7", "data.dir = a dir "};
    struct recipe recipe;
    assert_ok(recipe_parse("r.cfg", NETWORK, overrides, 4, &recipe));
    assert_true(recipe.train.optimizer.learning_rate == 0.1);
    assert_int_equal(recipe.train.epochs, 3);
    assert_int_equal(recipe.layers[0].filters, 7);
    assert_string_equal(recipe.data.dir, "a dir");
    recipe_destroy(&recipe);
}

/* Two keys that do not fit: the one that was overridden is to blame, not the file. */
static void overrides_are_blamed_before_the_file(void **state) {
    (void)state;
    struct recipe recipe;
    const char *begin[] = {"prune.begin=20"}, *layers[] = {"prune.layers=[]"};
    assert_fails(recipe_parse("r.cfg", NETWORK "prune = { end = 10; };", begin, 1, &recipe),
                 ST_USAGE, "-s prune.begin=20: prune.end: found 10");
    recipe_destroy(&recipe);
    assert_fails(recipe_parse("r.cfg",
                              NETWORK "prune = { schedule = \"linear\"; layers = [\"conv1\"]; };",
                              layers, 1, &recipe),
                 ST_USAGE, "-s prune.layers=[]: prune.schedule 'linear' needs prune.layers");
    recipe_destroy(&recipe);
}

static void messages_stay_on_one_short_line(void **state) {
    (void)state;
    struct recipe recipe;
    char override[3000] = "train.epochs=a\nb\x1b[1m";
    const char *pointer = override;
    memset(override + strlen(override), 'x', sizeof override - strlen(override) - 1);
    override[sizeof override - 1] = '\0';
    assert_fails(recipe_parse("r.cfg", NETWORK, &pointer, 1, &recipe), ST_USAGE,
                 "found text 'a?b?[1mxxx");
    assert_null(strpbrk(status_message(), "\n\x1b"));
    assert_non_null(strstr(status_message(), "...', expected an integer"));
    recipe_destroy(&recipe);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(unknown_keys_of_layers),
        cmocka_unit_test(numbers),
        cmocka_unit_test(words),
        cmocka_unit_test(lists),
        cmocka_unit_test(lists_are_written_with_quotes_or_without),
        cmocka_unit_test(blanks_around_key_and_value_are_nothing),
        cmocka_unit_test(overrides_are_blamed_before_the_file),
        cmocka_unit_test(messages_stay_on_one_short_line),
    };
    unsetenv("ESPALIER_MNIST");
    return RUN_TESTS(tests, argc, argv);
}
