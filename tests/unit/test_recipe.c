/* Recipes: what is read is what was meant, and what is written reads back as the same bits. */
#include "shipped_recipes.h"
#include <espalier/rng.h>
#include <math.h>
#include <stdlib.h>

#define NETWORK                                                                                    \
    "network = ( { type = \"conv\"; filters = 4; kernel = 3; },"                                   \
    " { type = \"dropout\"; rate = 0.25; }, { type = \"dense\"; units = 16; name = \"hidden\"; }," \
    " { type = \"dense\"; units = 10; } );\n"

static void parse(const char *text, struct recipe *recipe) {
    assert_ok(recipe_parse("r.cfg", text, NULL, 0, recipe));
}

/* Every setting, bit for bit. */
static void assert_same_settings(const struct recipe *a, const struct recipe *b) {
    assert_int_equal(a->layers_count, b->layers_count);
    assert_memory_equal(a->layers, b->layers, sizeof a->layers);
    assert_string_equal(a->data.dir, b->data.dir);
    assert_int_equal(a->data.train_limit, b->data.train_limit);
    assert_int_equal(a->data.test_limit, b->data.test_limit);
    assert_int_equal(a->data.validation, b->data.validation);
    assert_memory_equal(&a->train, &b->train, sizeof a->train);
    assert_int_equal(a->prune.layers_count, b->prune.layers_count);
    for (int i = 0; i < a->prune.layers_count; i++)
        assert_string_equal(a->prune.layers[i], b->prune.layers[i]);
    assert_memory_equal(&a->prune.scope, &b->prune.scope,
                        sizeof a->prune - offsetof(struct prune_settings, scope));
}

/* recipe -> text -> recipe -> text: equal settings, equal text. */
static void assert_round_trip(const struct recipe *recipe) {
    char *first, *second;
    struct recipe back;
    assert_ok(recipe_text(recipe, &first));
    assert_ok(recipe_parse("back.cfg", first, NULL, 0, &back));
    assert_ok(recipe_text(&back, &second));
    assert_string_equal(first, second);
    assert_same_settings(recipe, &back);
    recipe_destroy(&back);
    free(first);
    free(second);
}

static void shipped_recipes_round_trip(void **state) {
    (void)state;
    for (int i = 0; i < SHIPPED; i++) {
        struct recipe recipe;
        load_shipped(shipped[i], &recipe);
        assert_string_equal(recipe.name, shipped[i]);
        assert_round_trip(&recipe);
        recipe_destroy(&recipe);
    }
}

static void what_is_not_given_has_its_default(void **state) {
    (void)state;
    struct recipe r;
    parse(NETWORK, &r);
    assert_string_equal(r.path, "r.cfg");
    assert_string_equal(r.name, "r");
    assert_string_equal(r.data.dir, "data/mnist");
    assert_int_equal(r.data.train_limit + r.data.test_limit + r.data.validation, 0);
    assert_int_equal(r.train.epochs, 12);
    assert_int_equal(r.train.steps, 0);
    assert_int_equal(r.train.batch, 128);
    assert_true(r.train.seed == 1);
    assert_int_equal(r.train.threads, 0);
    assert_int_equal(r.train.log_every, 50);
    assert_int_equal(r.train.optimizer.kind, OPTIMIZER_ADADELTA);
    assert_true(r.train.optimizer.rho == 0.95 && r.train.optimizer.epsilon == 1e-8);
    assert_true(r.train.optimizer.momentum == 0 && !r.train.optimizer.nesterov);
    assert_true(r.train.optimizer.beta1 == 0.9 && r.train.optimizer.beta2 == 0.999);
    assert_int_equal(r.prune.layers_count, 0);
    assert_int_equal(r.prune.scope, SCOPE_LAYER);
    assert_int_equal(r.prune.distribution, DISTRIBUTION_UNIFORM);
    assert_int_equal(r.prune.deletion, DELETION_DELETE);
    assert_true(r.prune.min_keep == 1 && !r.prune.normalise);
    assert_int_equal(r.prune.schedule, SCHEDULE_NONE);
    assert_true(r.prune.rate == 0.005 && r.prune.mu == 10);
    assert_true(r.prune.unit == UNIT_UPDATES && r.prune.every == 50);
    assert_true(r.prune.begin == 0 && r.prune.end == 0 && r.prune.keep == 0);
    assert_true(r.prune.sparse_below == -1);
    assert_string_equal(r.layers[0].name, "conv1");
    assert_string_equal(r.layers[2].name, "hidden");
    assert_string_equal(r.layers[3].name, "dense2"); /* the second dense layer, named or not */
    assert_int_equal(r.layers[0].stride, 1);
    assert_int_equal(r.layers[0].padding, 0);
    assert_int_equal(r.layers[0].activation, ACTIVATION_NONE);
    assert_int_equal(r.layers[0].initializer, INITIALIZER_GLOROT_UNIFORM);
    recipe_destroy(&r);
}

static void the_learning_rate_defaults_by_optimizer(void **state) {
    (void)state;
    static const double rates[OPTIMIZER_COUNT] = {0.01, 1.0, 0.001};
    for (int kind = 0; kind < OPTIMIZER_COUNT; kind++) {
        char text[512];
        struct recipe r;
        snprintf(text, sizeof text, "%strain = { optimizer = \"%s\"; };", NETWORK,
                 optimizer_names[kind]);
        parse(text, &r);
        assert_int_equal(r.train.optimizer.kind, kind);
        assert_true(r.train.optimizer.learning_rate == rates[kind]);
        recipe_destroy(&r);
    }
}

/* An event each epoch, unless the recipe says otherwise; the dump says so too. */
static void every_defaults_by_unit(void **state) {
    (void)state;
    struct recipe r;
    parse(NETWORK "prune = { unit = \"epochs\"; };", &r);
    assert_int_equal(r.prune.every, 1);
    assert_round_trip(&r);
    recipe_destroy(&r);
    parse(NETWORK "prune = { unit = \"epochs\"; every = 50; };", &r);
    assert_int_equal(r.prune.every, 50);
    recipe_destroy(&r);
    parse(NETWORK "prune = { unit = \"events\"; };", &r);
    assert_int_equal(r.prune.every, 50);
    recipe_destroy(&r);
}

static void every_key_is_read(void **state) {
    (void)state;
    struct recipe r;
    parse(
        "network = ( { type = \"conv\"; name = \"c-1_x\"; filters = 3; kernel = 5; stride = 2;\n"
        "  padding = 4; activation = \"tanh\"; initializer = \"he_uniform\"; },\n"
        "  { type = \"maxpool\"; size = 3; }, { type = \"dense\"; units = 7; } );\n"
        "data = { dir = \"a \\\"b\\\"\"; train_limit = 5; test_limit = 6; validation = 2; };\n"
        "train = { epochs = 3; steps = 9; batch = 2; seed = 77; threads = 3; log_every = 4;\n"
        "  optimizer = \"sgd\"; learning_rate = 2; momentum = 0.5; nesterov = true; };\n"
        "prune = { layers = ( \"c-1_x\" ); scope = \"global\"; normalise = true;\n"
        "  distribution = \"uniform\"; min_keep = 0.25; deletion = \"mask\"; schedule = \"fsa\";\n"
        "  rate = 0.25; mu = 2.5; unit = \"events\"; every = 8; begin = 1; end = 90; keep = 12; "
        "}; # the end",
        &r);
    const struct layer_settings conv = {.type = LAYER_CONV,
                                        .name = "c-1_x",
                                        .filters = 3,
                                        .kernel = 5,
                                        .stride = 2,
                                        .padding = 4,
                                        .activation = ACTIVATION_TANH,
                                        .initializer = INITIALIZER_HE_UNIFORM};
    assert_memory_equal(&r.layers[0], &conv, sizeof conv);
    assert_int_equal(r.layers[1].size, 3);
    assert_string_equal(r.data.dir, "a \"b\"");
    assert_true(r.data.train_limit == 5 && r.data.test_limit == 6 && r.data.validation == 2);
    assert_true(r.train.epochs == 3 && r.train.steps == 9 && r.train.batch == 2);
    assert_true(r.train.seed == 77 && r.train.threads == 3 && r.train.log_every == 4);
    assert_int_equal(r.train.optimizer.kind, OPTIMIZER_SGD);
    assert_true(r.train.optimizer.learning_rate == 2 && r.train.optimizer.momentum == 0.5);
    assert_true(r.train.optimizer.nesterov);
    assert_string_equal(r.prune.layers[0], "c-1_x");
    assert_true(r.prune.scope == SCOPE_GLOBAL && r.prune.schedule == SCHEDULE_FSA);
    assert_true(r.prune.normalise && r.prune.min_keep == 0.25);
    assert_int_equal(r.prune.deletion, DELETION_MASK);
    assert_true(r.prune.mu == 2.5 && r.prune.unit == UNIT_EVENTS);
    assert_true(r.prune.rate == 0.25 && r.prune.every == 8 && r.prune.keep == 12);
    assert_true(r.prune.begin == 1 && r.prune.end == 90);
    assert_round_trip(&r);
    recipe_destroy(&r);
}

/* libconfig 1.5 itself reads the second and third as 0 and as -2147483648. */
static void long_integers_are_exact(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t seed;
    } cases[] = {{"2147483647", 2147483647U},
                 {"4294967296", UINT64_C(4294967296)},
                 {"2147483648", UINT64_C(2147483648)},
                 {"4294967297L", UINT64_C(4294967297)},
                 {"5L", 5},
                 {"0xFFFFFFFF", UINT64_C(4294967295)},
                 {"9223372036854775807", UINT64_C(9223372036854775807)}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        struct recipe r;
        snprintf(text, sizeof text,
                 "# 99999999999999999999\n/* 4294967296 \" */ %s"
                 "data = { dir = \"/x4294967296/4294967296\"; };\n"
                 "train = { seed = %s; learning_rate = 0.125e-1; epsilon = .5; };",
                 NETWORK, cases[i].text);
        parse(text, &r);
        assert_true(r.train.seed == cases[i].seed);
        assert_string_equal(r.data.dir, "/x4294967296/4294967296");
        assert_true(r.train.optimizer.learning_rate == 0.0125 && r.train.optimizer.epsilon == 0.5);
        assert_round_trip(&r);
        recipe_destroy(&r);
    }
}

static void overrides_win_and_the_last_one_most(void **state) {
    (void)state;
    static const char *const overrides[] = {
        "train.epochs=3",      "train.learning_rate=0.5", "train.learning_rate=1",
        "train.optimizer=sgd", "train.momentum=0.9",      "train.nesterov=TRUE",
        "data.dir=/a b=c",     "prune.layers=[hidden]",   "prune.layers=[ conv1,dense2 ]",
        "train.epochs=5",      "prune.scope=global",      "train.seed=9223372036854775807",
        "prune.keep=1e3"};
    struct recipe r;
    assert_ok(recipe_parse("r.cfg", NETWORK "train = { epochs = 2; batch = 9; };", overrides,
                           sizeof overrides / sizeof overrides[0], &r));
    assert_int_equal(r.train.epochs, 5);
    assert_int_equal(r.train.batch, 9);
    assert_true(r.train.optimizer.learning_rate == 1.0);
    assert_int_equal(r.train.optimizer.kind, OPTIMIZER_SGD);
    assert_true(r.train.optimizer.momentum == 0.9 && r.train.optimizer.nesterov);
    assert_string_equal(r.data.dir, "/a b=c");
    assert_int_equal(r.prune.layers_count, 2);
    assert_string_equal(r.prune.layers[0], "conv1");
    assert_string_equal(r.prune.layers[1], "dense2");
    assert_int_equal(r.prune.scope, SCOPE_GLOBAL);
    assert_true(r.train.seed == UINT64_C(9223372036854775807));
    assert_true(r.prune.keep == 1000);
    recipe_destroy(&r);
}

static void an_override_can_empty_a_list(void **state) {
    (void)state;
    const char *const overrides[] = {"prune.layers=[]"};
    struct recipe r;
    assert_ok(
        recipe_parse("r.cfg", NETWORK "prune = { layers = [\"conv1\"]; };", overrides, 1, &r));
    assert_int_equal(r.prune.layers_count, 0);
    assert_round_trip(&r);
    recipe_destroy(&r);
}

static void layers_are_overridden_by_name(void **state) {
    (void)state;
    const char *const overrides[] = {"network.conv1.filters=64",  "network.conv1.activation=relu",
                                     "network.dropout1.rate=0.3", "network.hidden.units=20",
                                     "network.dense2.units=12",   "network.dense2.units=11"};
    struct recipe r;
    assert_ok(recipe_parse("r.cfg", NETWORK, overrides, 6, &r));
    assert_int_equal(r.layers[0].filters, 64);
    assert_int_equal(r.layers[0].activation, ACTIVATION_RELU);
    assert_true(r.layers[1].rate == 0.3);
    assert_int_equal(r.layers[2].units, 20);
    assert_int_equal(r.layers[3].units, 11);
    recipe_destroy(&r);
}

static void another_optimizer_drops_the_files_settings(void **state) {
    (void)state;
    static const char text[] = NETWORK "train = { optimizer = \"adadelta\"; learning_rate = 0.7;"
                                       " rho = 0.8; epsilon = 1e-3; batch = 5; };";
    const char *const overrides[] = {"train.optimizer=adam", "train.beta1=0.5"};
    struct recipe r;
    assert_ok(recipe_parse("r.cfg", text, overrides, 2, &r));
    assert_true(r.train.optimizer.learning_rate == 0.001 && r.train.optimizer.epsilon == 1e-8);
    assert_true(r.train.optimizer.rho == 0.95 && r.train.optimizer.beta1 == 0.5);
    assert_int_equal(r.train.batch, 5);
    assert_round_trip(&r);
    recipe_destroy(&r);
    const char *const same[] = {"train.optimizer=adadelta"};
    assert_ok(recipe_parse("r.cfg", text, same, 1, &r));
    assert_true(r.train.optimizer.learning_rate == 0.7 && r.train.optimizer.rho == 0.8);
    recipe_destroy(&r);
}

static void assert_data_dir(const char *text, const char *override, const char *expected) {
    struct recipe r;
    assert_ok(recipe_parse("r.cfg", text, &override, override != NULL, &r));
    assert_string_equal(r.data.dir, expected);
    recipe_destroy(&r);
}

static void the_environment_names_the_data_where_nothing_else_does(void **state) {
    (void)state;
    static const char given[] = NETWORK "data = { dir = \"given\"; };";
    assert_int_equal(setenv("ESPALIER_MNIST", "/from/environment", 1), 0);
    assert_data_dir(NETWORK, NULL, "/from/environment");
    assert_data_dir(given, NULL, "given");
    assert_data_dir(NETWORK, "data.dir=over", "over");
    assert_int_equal(setenv("ESPALIER_MNIST", "", 1), 0);
    assert_data_dir(NETWORK, NULL, "data/mnist");
}

/* ---- random recipes ---- */

struct draw {
    uint32_t words[4];
    uint32_t count;
};

static uint32_t next(struct draw *draw) {
    if (draw->count % 4 == 0)
        rng_philox(5, (struct rng_counter){draw->count / 4, 0, 0, 0}, draw->words);
    return draw->words[draw->count++ % 4];
}

/* Any double in (0, 1) that is above 0 as a float too, over many powers of two. */
static double any_fraction(struct draw *draw) {
    uint64_t bits = (uint64_t)next(draw) << 21 | next(draw) >> 11;
    double fraction = (double)(bits + 1) / 9007199254740993.0;
    return fmin(ldexp(fraction, -(int)(next(draw) % 60)), 0.999);
}

static void any_text(struct draw *draw, char *text) {
    int size = 1 + (int)(next(draw) % 12);
    for (int i = 0; i < size; i++)
        text[i] = (char)(1 + next(draw) % 255);
    text[0] = text[size - 1] = '.'; /* blanks at the ends would be cut off */
    text[size] = '\0';
}

static void random_settings_round_trip(void **state) {
    (void)state;
    struct draw draw = {.count = 0};
    for (int i = 0; i < 200; i++) {
        double rate = any_fraction(&draw), epsilon = any_fraction(&draw);
        uint64_t seed = ((uint64_t)next(&draw) << 32 | next(&draw)) >> (1 + next(&draw) % 63);
        char overrides[6][64], text[16];
        const char *pointers[6];
        for (int j = 0; j < 6; j++)
            pointers[j] = overrides[j];
        any_text(&draw, text);
        snprintf(overrides[0], 64, "prune.rate=%.17g", rate);
        snprintf(overrides[1], 64, "train.epsilon=%.17g", epsilon);
        snprintf(overrides[2], 64, "train.seed=%llu", (unsigned long long)seed);
        snprintf(overrides[3], 64, "data.dir=%s", text);
        snprintf(overrides[4], 64, "network.dropout1.rate=%a", rate);
        snprintf(overrides[5], 64, "prune.begin=%u", next(&draw));
        struct recipe r;
        assert_ok(recipe_parse("r.cfg", NETWORK, pointers, 6, &r));
        assert_true(r.prune.rate == rate && r.train.optimizer.epsilon == epsilon);
        assert_true(r.layers[1].rate == rate && r.train.seed == seed);
        assert_string_equal(r.data.dir, text);
        assert_round_trip(&r);
        recipe_destroy(&r);
    }
}

/* As any reader of libconfig's format takes them, not ours alone. */
static void values_are_written_as_libconfig_reads_them(void **state) {
    (void)state;
    static const char *const overrides[] = {"train.learning_rate=3",  "prune.keep=100000000000",
                                            "prune.rate=0.1",         "train.seed=4294967296",
                                            "prune.begin=2147483647", "data.dir=a\"\\\n\x01z"};
    static const char *const lines[] = {"learning_rate = 3.0;", "keep = 100000000000.0;",
                                        "rate = 0.1;",          "seed = 4294967296L;",
                                        "begin = 2147483647;",  "dir = \"a\\\"\\\\\\x0a\\x01z\";"};
    char *text;
    struct recipe r;
    assert_ok(recipe_parse("r.cfg", NETWORK, overrides, 6, &r));
    assert_ok(recipe_text(&r, &text));
    for (int i = 0; i < 6; i++)
        if (strstr(text, lines[i]) == NULL)
            fail_msg("'%s' is not in:\n%s", lines[i], text);
    free(text);
    recipe_destroy(&r);
}

static void a_full_disk_is_reported(void **state) {
    (void)state;
    struct recipe r;
    parse(NETWORK, &r);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_fails(recipe_write(&r, full), ST_IO, "cannot write the recipe 'r': No space left");
    fclose(full);
    recipe_destroy(&r);
}

static void the_table_of_keys_lists_every_key(void **state) {
    (void)state;
    static const char *const rows[] = {
        "  train.batch: images of one update, over all ranks together\n"
        "      an integer from 1 to 1048576; default 128\n",
        "  train.learning_rate: length of an update\n"
        "      a real number in (0, 1e+06]; default 0.01 (sgd), 1 (adadelta), 0.001 (adam)\n",
        "  train.nesterov [sgd]: ",
        "  prune.layers: ",
        "      none, linear, geometric, fsa, fsa_exponential, cubic or oneshot; default \"none\"\n",
        "  filters [conv]: output channels\n      an integer from 1 to 65536; required\n",
        "  activation [conv] [dense] [batchnorm]: ",
        "; default \"data/mnist\"\n"};
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    recipe_write_keys(file);
    fclose(file);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strstr(text, rows[i]) == NULL)
            fail_msg("the table lacks '%s'", rows[i]);
    free(text);
}

static void destroy_is_legal_on_nothing(void **state) {
    (void)state;
    struct recipe r = {0};
    recipe_destroy(&r);
    assert_fails(recipe_load("/nonexistent", NULL, 0, &r), ST_INPUT, "/nonexistent");
    recipe_destroy(&r);
    recipe_destroy(&r);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_recipes_round_trip),
        cmocka_unit_test(what_is_not_given_has_its_default),
        cmocka_unit_test(the_learning_rate_defaults_by_optimizer),
        cmocka_unit_test(every_defaults_by_unit),
        cmocka_unit_test(every_key_is_read),
        cmocka_unit_test(long_integers_are_exact),
        cmocka_unit_test(overrides_win_and_the_last_one_most),
        cmocka_unit_test(an_override_can_empty_a_list),
        cmocka_unit_test(layers_are_overridden_by_name),
        cmocka_unit_test(another_optimizer_drops_the_files_settings),
        cmocka_unit_test(the_environment_names_the_data_where_nothing_else_does),
        cmocka_unit_test(random_settings_round_trip),
        cmocka_unit_test(values_are_written_as_libconfig_reads_them),
        cmocka_unit_test(a_full_disk_is_reported),
        cmocka_unit_test(the_table_of_keys_lists_every_key),
        cmocka_unit_test(destroy_is_legal_on_nothing),
    };
    unsetenv("ESPALIER_MNIST");
    return RUN_TESTS(tests, argc, argv);
}
