/* Recipes that are wrong: each is refused, with one line that says where, what and what instead. */
#include "check.h"
#include <espalier/recipe.h>
#include <stdlib.h>
#include <unistd.h>

#define NETWORK                                                                                    \
    "network = ( { type = \"conv\"; filters = 4; kernel = 3; }, { type = \"maxpool\"; size = 2; "  \
    "}, "                                                                                          \
    "{ type = \"dropout\"; rate = 0.25; }, { type = \"dense\"; units = 10; } );\n"
#define LAYER(entry) "network = (\n  " entry ",\n  { type = \"dense\"; units = 10; }\n);\n"
#define TEXT_47 "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTU"

struct wrong {
    const char *text;
    const char *message; /* behind "r.cfg:" */
};

static void assert_refused(const struct wrong *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct recipe recipe;
        char expected[1024];
        assert_int_equal(recipe_parse("r.cfg", cases[i].text, NULL, 0, &recipe), ST_INPUT);
        snprintf(expected, sizeof expected, "r.cfg:%s", cases[i].message);
        assert_string_equal(status_message(), expected);
        recipe_destroy(&recipe);
    }
}
#define ASSERT_REFUSED(cases) assert_refused((cases), sizeof(cases) / sizeof((cases)[0]))

static void syntax(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"network = (\n  { type = };\n);", "2: syntax error"},
        {NETWORK "train = { epochs = 3; \n", "3: syntax error"},
        {NETWORK "train = { epochs = 3; epochs = 4; };", "2: duplicate setting name"},
        {NETWORK "train = { learning_rate = nan; };", "2: syntax error"},
        {NETWORK "prune = { layers = [\"conv1\", 3]; };", "2: mismatched element type in array"},
        {NETWORK "train.epochs = 3;", "2: syntax error"},
        {NETWORK "\n  @include \"/tmp\"\n", "3: a recipe stands alone: @include is not supported"},
        {NETWORK "train = { seed = 9223372036854775808; };",
         "2: found integer 9223372036854775808, expected one that fits into 64 bits"},
        {NETWORK "train = {\n seed = 99999999999999999999999L; };",
         "3: found integer 99999999999999999999999, expected one that fits into 64 bits"},
    };
    ASSERT_REFUSED(cases);
}

static void unknown_keys(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {NETWORK "train = {\n  lerning_rate = 1.0;\n};",
         "3: unknown key 'train.lerning_rate'; nearest known key: 'train.learning_rate'"},
        {NETWORK "trian = { epochs = 1; };", "2: unknown key 'trian'; nearest known key: 'train'"},
        {"netwrok = ();", "1: unknown key 'netwrok'; nearest known key: 'network'"},
        {NETWORK "epochs = 3;", "2: unknown key 'epochs'; nearest known key: 'train.epochs'"},
        {NETWORK "data = { batch = 3; };",
         "2: unknown key 'data.batch'; nearest known key: 'train.batch'"},
        {NETWORK "prune = { train = { epochs = 3; }; };",
         "2: unknown key 'prune.train'; keys of prune: layers, scope, distribution, normalise, "
         "min_keep, deletion, schedule, rate, mu, unit, every, begin, end, keep, "
         "sparse_below"},
        {NETWORK "train = { lr = 0.1; };",
         "2: unknown key 'train.lr'; nearest known key: 'train.learning_rate'"},
        {NETWORK "optimiser = { name = 1; };",
         "2: unknown key 'optimiser'; nearest known key: 'train.optimizer'"},
        {NETWORK "dense1 = { units = 4; };",
         "2: unknown key 'dense1'; 'espalier train --help' lists the keys"},
        {LAYER("{ type = \"dense\"; width = 3; units = 4; }"),
         "2: unknown key 'network.dense1.width'; keys of network.dense1: type, name, units, "
         "activation, initializer"},
        {LAYER("{ type = \"dense\"; unit = 3; units = 4; }"),
         "2: unknown key 'network.dense1.unit'; nearest known key: 'network.dense1.units'"},
    };
    ASSERT_REFUSED(cases);
}

static void wrong_types(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {NETWORK "train = { epochs = \"twelve\"; };",
         "2: train.epochs: found text 'twelve', expected an integer from 1 to 1000000"},
        {NETWORK "train = { epochs = 12.0; };",
         "2: train.epochs: found real number 12.0, expected an integer from 1 to 1000000"},
        {NETWORK "train = { epochs = {}; };",
         "2: train.epochs: found a group, expected an integer from 1 to 1000000"},
        {NETWORK "train = { rho = true; };",
         "2: train.rho: found boolean true, expected a real number in [0, 1)"},
        {NETWORK "train = { optimizer = \"sgd\"; nesterov = 1; };",
         "2: train.nesterov: found integer 1, expected true or false"},
        {NETWORK "train = { optimizer = 3; };",
         "2: train.optimizer: found integer 3, expected sgd, adadelta or adam"},
        {NETWORK "train = { optimizer = \"adadleta\"; };",
         "2: train.optimizer: found text 'adadleta', expected sgd, adadelta or adam; nearest: "
         "'adadelta'"},
        {NETWORK "data = { dir = [\"a\", \"b\"]; };",
         "2: data.dir: found a list of 2, expected text of 1 to 4095 bytes"},
        {NETWORK "data = { dir = \"\"; };",
         "2: data.dir: found text '', expected text of 1 to 4095 bytes"},
        {NETWORK "prune = { layers = \"conv1\"; };",
         "2: prune.layers: found text 'conv1', expected a list of names, like [\"dense1\", "
         "\"dense2\"]"},
        {NETWORK "prune = { layers = (\"conv1\", 1); };",
         "2: prune.layers: found a list of other things than text, expected a list of names, like "
         "[\"dense1\", \"dense2\"]"},
        {NETWORK "train = 3;", "2: train: found integer 3, expected a group of keys"},
        {LAYER("{ type = \"conv\"; kernel = 3; filters = \"many\n\"; }"),
         "2: network.conv1.filters: found text 'many?', expected an integer from 1 to 65536"},
    };
    ASSERT_REFUSED(cases);
}

static void out_of_bounds(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {NETWORK "train = { batch = 0; };",
         "2: train.batch: found integer 0, expected an integer from 1 to 1048576"},
        {NETWORK "train = { batch = 1048577; };",
         "2: train.batch: found integer 1048577, expected an integer from 1 to 1048576"},
        {NETWORK "train = { epochs = 4294967308; };",
         "2: train.epochs: found integer 4294967308, expected an integer from 1 to 1000000"},
        {NETWORK "train = { seed = -1; };",
         "2: train.seed: found integer -1, expected an integer from 0 to 9223372036854775807"},
        {NETWORK "data = { validation = -5; };",
         "2: data.validation: found integer -5, expected an integer from 0 to 2147483647"},
        {NETWORK "train = { learning_rate = 0; };",
         "2: train.learning_rate: found integer 0, expected a real number in (0, 1e+06]"},
        {NETWORK "train = { learning_rate = 1e999; };",
         "2: train.learning_rate: found real number inf, expected a real number in (0, 1e+06]"},
        {NETWORK "train = { rho = 1.0; };",
         "2: train.rho: found real number 1.0, expected a real number in [0, 1)"},
        {NETWORK "train = { rho = 0.99999999999; };", /* 1 as a float */
         "2: train.rho: found real number 0.99999999999, expected a real number in [0, 1)"},
        {NETWORK "train = { epsilon = 1e-60; };", /* 0 as a float */
         "2: train.epsilon: found real number 1e-60, expected a real number in (0, 1]"},
        {NETWORK "prune = { rate = 0.0; };",
         "2: prune.rate: found real number 0.0, expected a real number in (0, 1]"},
        {NETWORK "prune = { keep = -0.1; };",
         "2: prune.keep: found real number -0.1, expected a real number in [0, 1e+12]"},
        {LAYER("{ type = \"conv\"; filters = 65537; kernel = 3; }"),
         "2: network.conv1.filters: found integer 65537, expected an integer from 1 to 65536"},
        {LAYER("{ type = \"conv\"; filters = 1; kernel = 65; }"),
         "2: network.conv1.kernel: found integer 65, expected an integer from 1 to 64"},
        {LAYER("{ type = \"maxpool\"; size = 16; }"),
         "2: network.maxpool1.size: found integer 16, expected an integer from 2 to 15"},
        {LAYER("{ type = \"dropout\"; rate = 1.0; }"),
         "2: network.dropout1.rate: found real number 1.0, expected a real number in [0, 1)"},
    };
    ASSERT_REFUSED(cases);
}

static void networks(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {"", " no network; expected network = ( { type = \"...\"; ... }, ... );"},
        {"train = { epochs = 3; };",
         " no network; expected network = ( { type = \"...\"; ... }, ... );"},
        {"network = ();", "1: network: found 0 layers, expected 1 to 64"},
        {"network = { type = \"conv\"; };",
         "1: network: expected a list of layers: ( { type = \"...\"; ... }, ... )"},
        {"network = (\n 3 );",
         "2: layer 1 of network is not a group; expected { type = \"...\"; ... }"},
        {LAYER("{ units = 3; }"), "2: layer 1 of network has no key 'type'; expected conv, dense, "
                                  "maxpool, dropout, dropconnect or batchnorm"},
        {LAYER("{ type = \"cnov\"; filters = 3; }"),
         "2: type of layer 1 of network: found text 'cnov', expected conv, dense, "
         "maxpool, dropout, dropconnect or batchnorm; nearest: 'conv'"},
        {LAYER("{ type = \"linear\"; units = 3; }"),
         "2: type of layer 1 of network: found text 'linear', expected conv, dense, "
         "maxpool, dropout, dropconnect or batchnorm"},
        {LAYER("{ type = 1; }"), "2: type of layer 1 of network: found integer 1, expected conv, "
                                 "dense, maxpool, dropout, dropconnect or batchnorm"},
        {LAYER("{ type = \"conv\"; kernel = 3; }"),
         "2: network.conv1: a conv layer needs the key 'filters': an integer from 1 to 65536"},
        {LAYER("{ type = \"conv\"; filters = 3; }"),
         "2: network.conv1: a conv layer needs the key 'kernel': an integer from 1 to 64"},
        {LAYER("{ type = \"dense\"; name = \"fc\"; }"),
         "2: network.fc: a dense layer needs the key 'units': an integer from 1 to 65536"},
        {LAYER("{ type = \"maxpool\"; }"),
         "2: network.maxpool1: a maxpool layer needs the key 'size': an integer from 2 to 15"},
        {LAYER("{ type = \"dropout\"; }"),
         "2: network.dropout1: a dropout layer needs the key 'rate': a real number in [0, 1)"},
        {LAYER("{ type = \"dense\"; units = 3;\n    filters = 3; }"),
         "3: network.dense1.filters: a dense layer has no key 'filters', only type, name, units, "
         "activation, initializer"},
        {LAYER("{ type = \"dropout\"; rate = 0.5; activation = \"relu\"; }"),
         "2: network.dropout1.activation: a dropout layer has no key 'activation', only type, "
         "name, "
         "rate"},
        {LAYER("{ type = \"conv\"; filters = 3; kernel = 3; padding = 3; }"),
         "2: network.conv1.padding: found 3, expected less than the kernel, 3"},
    };
    ASSERT_REFUSED(cases);
}

static void too_many_layers(void **state) {
    (void)state;
    char text[4096] = "network = (";
    for (int i = 0; i <= RECIPE_LAYERS_MAX; i++)
        strncat(text, i == 0 ? "{type=\"dense\";units=1;}" : ",{type=\"dense\";units=1;}",
                sizeof text - strlen(text) - 1);
    strncat(text, ");", sizeof text - strlen(text) - 1);
    const struct wrong wrong = {text, "1: network: found 65 layers, expected 1 to 64"};
    assert_refused(&wrong, 1);
}

static void names(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {LAYER("{ type = \"dense\"; units = 3; name = \"a.b\"; }"),
         "2: name of layer 1 of network: found text 'a.b', expected text of 1 to 47 letters, "
         "digits, _ and -"},
        {LAYER("{ type = \"dense\"; units = 3; name = \"\"; }"),
         "2: name of layer 1 of network: found text '', expected text of 1 to 47 letters, digits, "
         "_ "
         "and -"},
        {LAYER("{ type = \"dense\"; units = 3; name = \"" TEXT_47 "V\"; }"),
         "2: name of layer 1 of network: found text '" TEXT_47 "V', expected text of 1 to 47 "
         "letters, digits, _ and -"},
        {LAYER("{ type = \"dense\"; units = 3; name = \"fc\"; },\n"
               "  { type = \"dense\"; units = 3; name = \"fc\"; }"),
         "3: layers 1 and 2 of network are both named 'fc'"},
        {LAYER("{ type = \"dense\"; units = 3; name = \"dense2\"; }"),
         "2: layer 1 of network: 'dense2' is the automatic name of layer 2"},
        {LAYER("{ type = \"dropout\"; rate = 0.1; name = \"dense1\"; }"),
         "2: layer 1 of network: 'dense1' is the automatic name of layer 2"},
        {LAYER("{ type = \"dense\"; units = 3; name = \"dense2\"; },\n"
               "  { type = \"dense\"; units = 3; name = \"dense1\"; }"),
         "2: layer 1 of network: 'dense2' is the automatic name of layer 2"},
    };
    ASSERT_REFUSED(cases);
}

static void a_name_of_47_characters_is_not_too_long(void **state) {
    (void)state;
    struct recipe recipe;
    assert_ok(recipe_parse("r.cfg",
                           LAYER("{ type = \"dense\"; units = 3; name = \"" TEXT_47 "\"; }"), NULL,
                           0, &recipe));
    assert_string_equal(recipe.layers[0].name, TEXT_47);
    recipe_destroy(&recipe);
}

static void pruning(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {NETWORK "prune = { layers = [\"conv1\",\n \"dense2\"]; };",
         "2: prune.layers: 'dense2' is no conv or dense layer of the network; nearest: 'dense1'"},
        {NETWORK "prune = { layers = [\"maxpool1\"]; };",
         "2: prune.layers: 'maxpool1' is no conv or dense layer of the network; its own: conv1, "
         "dense1"},
        {"network = ( { type = \"maxpool\"; size = 2; } );\nprune = { layers = [\"conv1\"]; };",
         "2: prune.layers: 'conv1' is no conv or dense layer; there is none"},
        {NETWORK "prune = { layers = [\"conv1\", \"dense1\", \"conv1\"]; };",
         "2: prune.layers: names 'conv1' twice"},
        {NETWORK "prune = {\n schedule = \"linear\"; };",
         "3: prune.schedule 'linear' needs prune.layers: the layers to prune"},
        {NETWORK "prune = { schedule = \"linnear\"; };",
         "2: prune.schedule: found text 'linnear', expected none, linear, geometric, fsa, "
         "fsa_exponential, cubic or oneshot; nearest: 'linear'"},
        {NETWORK "prune = { layers = [\"conv1\"];\n schedule = \"fsa\"; };",
         "3: prune.schedule 'fsa' needs prune.keep: the connections that it leaves"},
        {NETWORK "prune = { layers = [\"conv1\"]; schedule = \"oneshot\";\n keep = 0.0; };",
         "2: prune.schedule 'oneshot' needs prune.keep: the connections that it leaves"},
        {NETWORK "prune = { scope = \"global\";\n distribution = \"erk\"; };",
         "3: prune.distribution 'erk' needs prune.scope 'layer'"},
        {NETWORK "prune = {\n normalise = true; };",
         "3: prune.normalise needs prune.scope 'global'"},
        {NETWORK "prune = {\n min_keep = 1.5; };",
         "3: prune.min_keep: found 1.5, expected a part below 1 or a whole count"},
        {NETWORK "prune = { deletion = \"masked\"; };",
         "2: prune.deletion: found text 'masked', expected delete or mask; nearest: 'mask'"},
        {NETWORK "prune = { mu = -1.0; };",
         "2: prune.mu: found real number -1.0, expected a real number in [0, 1e+09]"},
        {NETWORK "prune = { unit = \"epoch\"; };",
         "2: prune.unit: found text 'epoch', expected updates, events or epochs; nearest: "
         "'epochs'"},
        {NETWORK "prune = { end = 4294967296L; };",
         "2: prune.end: found integer 4294967296, expected an integer from 0 to 4294967295"},
        {NETWORK "prune = {\n begin = 10;\n end = 10; };",
         "4: prune.end: found 10, expected more than prune.begin, 10, or 0"},
        {NETWORK "prune = { keep = 2.5; };",
         "2: prune.keep: found 2.5, expected a part below 1 or a whole count"},
        {NETWORK "prune = { every = 0; };",
         "2: prune.every: found integer 0, expected an integer from 1 to 2147483647"},
    };
    ASSERT_REFUSED(cases);
}

static void optimizers(void **state) {
    (void)state;
    static const struct wrong cases[] = {
        {NETWORK "train = { optimizer = \"adam\";\n momentum = 0.9; };",
         "3: train.momentum is not a setting of optimizer 'adam'"},
        {NETWORK "train = { rho = 0.9; optimizer = \"sgd\"; };",
         "2: train.rho is not a setting of optimizer 'sgd'"},
        {NETWORK "train = { beta1 = 0.9; };",
         "2: train.beta1 is not a setting of optimizer 'adadelta'"},
        {NETWORK "train = { optimizer = \"sgd\"; nesterov = true; };",
         "2: train.nesterov needs a train.momentum above 0"},
    };
    ASSERT_REFUSED(cases);
}

static void the_environment_is_checked_too(void **state) {
    (void)state;
    struct recipe recipe;
    char dir[5000];
    memset(dir, 'd', sizeof dir - 1);
    dir[sizeof dir - 1] = '\0';
    assert_int_equal(setenv("ESPALIER_MNIST", dir, 1), 0);
    assert_fails(recipe_parse("r.cfg", NETWORK, NULL, 0, &recipe), ST_INPUT,
                 "environment variable ESPALIER_MNIST: data.dir: found text 'dddd");
    recipe_destroy(&recipe);
    unsetenv("ESPALIER_MNIST");
}

/* ---- files ---- */

/* Write `size` bytes to a new file, load it, assert the failure, remove the file. */
static void assert_file_refused(const char *bytes, size_t size, const char *message) {
    char path[] = "/tmp/espalier-recipe-XXXXXX";
    struct recipe recipe;
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    FILE *file = fdopen(descriptor, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    enum status status = recipe_load(path, NULL, 0, &recipe);
    unlink(path);
    assert_int_equal(status, ST_INPUT);
    assert_memory_equal(status_message(), path, strlen(path));
    assert_string_equal(status_message() + strlen(path), message);
    recipe_destroy(&recipe);
}

static void files(void **state) {
    (void)state;
    struct recipe recipe;
    assert_fails(recipe_load("/nonexistent/r.cfg", NULL, 0, &recipe), ST_INPUT,
                 "cannot open recipe '/nonexistent/r.cfg': No such file or directory");
    assert_fails(recipe_load("ann_a", NULL, 0, &recipe), ST_INPUT,
                 "cannot open recipe 'ann_a': No such file or directory; shipped recipes are in "
                 "jobs/recipes, for example jobs/recipes/ann_a.cfg");
    assert_fails(recipe_load("/tmp", NULL, 0, &recipe), ST_INPUT,
                 "cannot read recipe '/tmp': Is a directory");
    assert_fails(recipe_load("/dev/zero", NULL, 0, &recipe), ST_INPUT,
                 "/dev/zero: is larger than 1048576 bytes, so it is no recipe");
    assert_file_refused("", 0,
                        ": no network; expected network = ( { type = \"...\"; ... }, ... );");
    assert_file_refused("network\0= ();", 13, ": holds a byte 0, so it is no recipe");
    assert_file_refused("network = (", 11, ":2: syntax error");
    assert_file_refused("\x7f"
                        "ELF\x02\x01",
                        6, ":1: syntax error");
}

static void lines_are_counted_as_far_as_libconfig_can(void **state) {
    (void)state;
    enum { LINES = 65535 };
    char *text = malloc(LINES + 64);
    assert_non_null(text);
    memset(text, '\n', LINES);
    text[LINES] = '\0';
    assert_file_refused(text, LINES, ": found 65536 lines, expected at most 65535");
    snprintf(text + LINES - 1, 64, "train = { epochs = 0; };");
    assert_file_refused(text, strlen(text),
                        ":65535: train.epochs: found integer 0, expected an "
                        "integer from 1 to 1000000");
    free(text);
}

static void deep_nesting_is_an_error_not_a_crash(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 16);
    assert_non_null(text);
    int start = snprintf(text, 16, "network = ");
    memset(text + start, '(', DEPTH);
    text[start + DEPTH] = '\0';
    struct recipe recipe;
    assert_fails(recipe_parse("r.cfg", text, NULL, 0, &recipe), ST_INPUT, "r.cfg:1: ");
    recipe_destroy(&recipe);
    free(text);
}

/* Cutting a recipe anywhere leaves an error or a recipe, never a crash or a leak. */
static void a_truncated_recipe_is_survived(void **state) {
    (void)state;
    char text[] = "/* c */ " NETWORK "train = { seed = 4294967296; learning_rate = 1.5e-3; };\n"
                  "prune = { layers = [\"conv1\", \"dense1\"]; schedule = \"linear\"; }; # end";
    for (size_t size = sizeof text - 1; size > 0; size--) {
        struct recipe recipe;
        text[size] = '\0';
        enum status status = recipe_parse("r.cfg", text, NULL, 0, &recipe);
        assert_true(status == ST_OK || status == ST_INPUT);
        recipe_destroy(&recipe);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(wrong_types),
        cmocka_unit_test(out_of_bounds),
        cmocka_unit_test(networks),
        cmocka_unit_test(too_many_layers),
        cmocka_unit_test(names),
        cmocka_unit_test(a_name_of_47_characters_is_not_too_long),
        cmocka_unit_test(pruning),
        cmocka_unit_test(optimizers),
        cmocka_unit_test(the_environment_is_checked_too),
        cmocka_unit_test(files),
        cmocka_unit_test(lines_are_counted_as_far_as_libconfig_can),
        cmocka_unit_test(deep_nesting_is_an_error_not_a_crash),
        cmocka_unit_test(a_truncated_recipe_is_survived),
    };
    return RUN_TESTS(tests, argc, argv);
}
