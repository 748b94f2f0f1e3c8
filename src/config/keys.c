#include "keys.h"
#include <espalier/nearest.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define PLACE(settings, member)                                                                    \
    .offset = offsetof(settings, member), .size = sizeof(((settings *)0)->member)
#define RECIPE(member) PLACE(struct recipe, member)
#define LAYER(member) PLACE(struct layer_settings, member)
#define BIT(number) (1U << (number))
#define CLOSED(low, high)                                                                          \
    { (low), (high), false, false }
#define OPEN_LOW(low, high)                                                                        \
    { (low), (high), true, false }
#define OPEN_HIGH(low, high)                                                                       \
    { (low), (high), false, true }

/* Updates are counted in 64 bits; a count of events or epochs is multiplied by an int. */
#define UPDATES_MAX INT64_C(4294967295)

static const double learning_rates[OPTIMIZER_COUNT] = {
    [OPTIMIZER_SGD] = 0.01, [OPTIMIZER_ADADELTA] = 1.0, [OPTIMIZER_ADAM] = 0.001};

const char *const recipe_groups[] = {"data", "train", "checkpoint", "prune", NULL};

/* Rows of a group stand together: the dump writes them in this order. */
const struct key recipe_keys[] = {
    {"data.dir", KEY_TEXT, RECIPE(data.dir), .text = "data/mnist", .harmless = true,
     .meaning = "directory of the IDX files; $ESPALIER_MNIST where it is set and this is not"},
    {"data.train_limit", KEY_INTEGER, RECIPE(data.train_limit), .integer = {0, 0, INT_MAX},
     .meaning = "use the first so many training images only; 0: all"},
    {"data.test_limit", KEY_INTEGER, RECIPE(data.test_limit), .integer = {0, 0, INT_MAX},
     .meaning = "use the first so many test images only; 0: all"},
    {"data.validation", KEY_INTEGER, RECIPE(data.validation), .integer = {0, 0, INT_MAX},
     .meaning = "images at the end of the training set that are held out"},
    {"train.epochs", KEY_INTEGER, RECIPE(train.epochs), .integer = {12, 1, 1000000},
     .harmless = true, .meaning = "passes over the training set"},
    {"train.steps", KEY_INTEGER, RECIPE(train.steps), .integer = {0, 0, INT_MAX},
     .meaning = "stop after so many updates; 0: epochs alone decide"},
    {"train.batch", KEY_INTEGER, RECIPE(train.batch), .integer = {128, 1, 1 << 20},
     .meaning = "images of one update, over all ranks together"},
    {"train.seed", KEY_INTEGER, RECIPE(train.seed), .integer = {1, 0, INT64_MAX},
     .meaning = "key of every random number"},
    {"train.backend", KEY_KIND, RECIPE(train.backend), .kinds = backend_choice_names,
     .integer = {BACKEND_AUTO}, .harmless = true,
     .meaning = "what computes; auto: a GPU where there is one, unless train.reproducible is set"},
    {"train.tf32", KEY_BOOLEAN, RECIPE(train.tf32),
     .meaning = "a GPU may round the factors of products to 10 bits"},
    {"train.cudnn_autotune", KEY_BOOLEAN, RECIPE(train.cudnn_autotune),
     .meaning = "a GPU's convolutions take the fastest of engines and kernels, measured by rank 0"},
    {"train.threads", KEY_INTEGER, RECIPE(train.threads), .integer = {0, 0, 4096}, .harmless = true,
     .meaning = "threads of each rank; 0: its share of the cores"},
    {"train.reproducible", KEY_BOOLEAN, RECIPE(train.reproducible),
     .meaning = "the same bits on any number of ranks; slower"},
    {"train.hang_seconds", KEY_REAL, RECIPE(train.hang_seconds), .real = {600, CLOSED(0, 1e9)},
     .harmless = true, .meaning = "end the run when a rank has not moved for so long; 0: wait"},
    {"train.log_every", KEY_INTEGER, RECIPE(train.log_every), .integer = {50, 1, INT_MAX},
     .harmless = true, .meaning = "updates that one step event covers"},
    {"train.optimizer", KEY_KIND, RECIPE(train.optimizer.kind), .kinds = optimizer_names,
     .integer = {OPTIMIZER_ADADELTA}, .meaning = "how a gradient becomes an update"},
    {"train.learning_rate", KEY_REAL, RECIPE(train.optimizer.learning_rate),
     .real = {0, OPEN_LOW(0, 1e6), learning_rates}, .meaning = "length of an update"},
    {"train.momentum", KEY_REAL, RECIPE(train.optimizer.momentum), .real = {0, OPEN_HIGH(0, 1)},
     .users = BIT(OPTIMIZER_SGD), .meaning = "part of the last update that is kept"},
    {"train.nesterov", KEY_BOOLEAN, RECIPE(train.optimizer.nesterov), .users = BIT(OPTIMIZER_SGD),
     .meaning = "look ahead along the momentum"},
    {"train.rho", KEY_REAL, RECIPE(train.optimizer.rho), .real = {0.95, OPEN_HIGH(0, 1)},
     .users = BIT(OPTIMIZER_ADADELTA), .meaning = "decay of the running squares"},
    {"train.epsilon", KEY_REAL, RECIPE(train.optimizer.epsilon), .real = {1e-8, OPEN_LOW(0, 1)},
     .users = BIT(OPTIMIZER_ADADELTA) | BIT(OPTIMIZER_ADAM),
     .meaning = "added to what the update divides by"},
    {"train.beta1", KEY_REAL, RECIPE(train.optimizer.beta1), .real = {0.9, OPEN_HIGH(0, 1)},
     .users = BIT(OPTIMIZER_ADAM), .meaning = "decay of the running mean"},
    {"train.beta2", KEY_REAL, RECIPE(train.optimizer.beta2), .real = {0.999, OPEN_HIGH(0, 1)},
     .users = BIT(OPTIMIZER_ADAM), .meaning = "decay of the running squares"},
    {"train.l1", KEY_REAL, RECIPE(train.l1), .real = {0, CLOSED(0, 1e6)},
     .meaning = "adds l1 times the sum of all |weight| to the loss"},
    {"train.l2", KEY_REAL, RECIPE(train.l2), .real = {0, CLOSED(0, 1e6)},
     .meaning = "adds l2 / 2 times the sum of all weight^2 to the loss (weight decay)"},
    {"checkpoint.every", KEY_INTEGER, RECIPE(checkpoint.every), .integer = {0, 0, INT_MAX},
     .harmless = true,
     .meaning = "updates between checkpoints, beside those at each epoch's end; 0: off"},
    {"checkpoint.seconds", KEY_REAL, RECIPE(checkpoint.seconds), .real = {600, CLOSED(0, 1e9)},
     .harmless = true, .meaning = "seconds between checkpoints, likewise; 0: off"},
    {"checkpoint.keep", KEY_INTEGER, RECIPE(checkpoint.keep), .integer = {2, 1, 1000000},
     .harmless = true,
     .meaning = "the newest checkpoints that are kept, beside the best on validation images"},
    {"prune.layers", KEY_NAMES, RECIPE(prune.layers),
     .count_offset = offsetof(struct recipe, prune.layers_count),
     .meaning = "names of the conv and dense layers that lose connections"},
    {"prune.scope", KEY_KIND, RECIPE(prune.scope), .kinds = prune_scope_names,
     .integer = {SCOPE_LAYER}, .meaning = "rank the connections of each layer, or of all together"},
    {"prune.distribution", KEY_KIND, RECIPE(prune.distribution), .kinds = distribution_names,
     .integer = {DISTRIBUTION_UNIFORM},
     .meaning = "scope layer: the schedule for each layer by itself, or for their sum, shared out "
                "in proportion to out + in + kernel sizes"},
    {"prune.normalise", KEY_BOOLEAN, RECIPE(prune.normalise),
     .meaning = "scope global: rank by magnitude over the Euclidean norm of the layer"},
    {"prune.min_keep", KEY_REAL, RECIPE(prune.min_keep), .real = {1, CLOSED(0, 1e12)},
     .meaning = "survivors that each layer keeps in any case: a part below 1, else a whole count"},
    {"prune.deletion", KEY_KIND, RECIPE(prune.deletion), .kinds = deletion_names,
     .integer = {DELETION_DELETE},
     .meaning = "store survivors alone, or all connections under a mask, for comparison"},
    {"prune.schedule", KEY_KIND, RECIPE(prune.schedule), .kinds = schedule_names,
     .integer = {SCHEDULE_NONE}, .meaning = "how many connections an event leaves"},
    {"prune.rate", KEY_REAL, RECIPE(prune.rate), .real = {0.005, OPEN_LOW(0, 1)},
     .meaning = "linear: part of the original connections that an event removes; geometric: of "
                "those left"},
    {"prune.mu", KEY_REAL, RECIPE(prune.mu), .real = {10, CLOSED(0, 1e9)},
     .meaning = "fsa: how much sooner connections go than at a constant pace, which is 0"},
    {"prune.unit", KEY_KIND, RECIPE(prune.unit), .kinds = schedule_unit_names,
     .integer = {UNIT_UPDATES},
     .meaning = "what begin and end count, and every too where it is epochs"},
    {"prune.every", KEY_INTEGER, RECIPE(prune.every), .integer = {50, 1, INT_MAX},
     .meaning = "updates between events; with unit epochs: epochs, 1 if not given"},
    {"prune.begin", KEY_INTEGER, RECIPE(prune.begin), .integer = {0, 0, UPDATES_MAX},
     .meaning = "warm-up: event e follows update begin + e * every"},
    {"prune.end", KEY_INTEGER, RECIPE(prune.end), .integer = {0, 0, UPDATES_MAX},
     .meaning = "no event after this update; 0: no end, and for schedules that go to keep the "
                "middle of what follows begin"},
    {"prune.keep", KEY_REAL, RECIPE(prune.keep), .real = {0, CLOSED(0, 1e12)},
     .meaning = "k: never fewer survivors; a part below 1, else a whole count"},
    {"prune.sparse_below", KEY_REAL, RECIPE(prune.sparse_below), .real = {-1, CLOSED(-1, 1)},
     .meaning =
         "density below which a layer computes with its survivors alone; 0: never; negative: "
         "what is faster, measured at the start"},
};
const int recipe_keys_count = sizeof recipe_keys / sizeof recipe_keys[0];
_Static_assert(sizeof recipe_keys / sizeof recipe_keys[0] <= KEYS_MAX, "KEYS_MAX is too small");

/* Bounds keep every product of sizes that a layer's shape needs far inside 64 bits. */
const struct key layer_keys[] = {
    {"type", KEY_KIND, LAYER(type), .kinds = layer_kind_names, .required = true,
     .meaning = "what the layer is"},
    {"name", KEY_NAME, LAYER(name), .meaning = "its name; conv1, conv2, dense1, ... if not given"},
    {"filters", KEY_INTEGER, LAYER(filters), .integer = {0, 1, 65536}, .users = BIT(LAYER_CONV),
     .required = true, .meaning = "output channels"},
    {"kernel", KEY_INTEGER, LAYER(kernel), .integer = {0, 1, 64}, .users = BIT(LAYER_CONV),
     .required = true, .meaning = "height and width of a filter"},
    {"stride", KEY_INTEGER, LAYER(stride), .integer = {1, 1, 64}, .users = BIT(LAYER_CONV),
     .meaning = "pixels from one output to the next"},
    {"padding", KEY_INTEGER, LAYER(padding), .integer = {0, 0, 63}, .users = BIT(LAYER_CONV),
     .meaning = "zeros around the image; less than the kernel"},
    {"units", KEY_INTEGER, LAYER(units), .integer = {0, 1, 65536}, .users = BIT(LAYER_DENSE),
     .required = true, .meaning = "outputs"},
    {"size", KEY_INTEGER, LAYER(size), .integer = {0, 2, 15}, .users = BIT(LAYER_MAXPOOL),
     .required = true, .meaning = "window and stride"},
    {"rate", KEY_REAL, LAYER(rate), .real = {0, OPEN_HIGH(0, 1)},
     .users = BIT(LAYER_DROPOUT) | BIT(LAYER_DROPCONNECT), .required = true,
     .meaning = "part of the units (dropconnect: of the next layer's connections) that is dropped"},
    {"inference", KEY_KIND, LAYER(inference), .kinds = inference_names,
     .integer = {INFERENCE_SAMPLE}, .users = BIT(LAYER_DROPCONNECT),
     .meaning = "evaluate the mean of the units' inputs, or sample their Gaussian"},
    {"samples", KEY_INTEGER, LAYER(samples), .integer = {100, 1, 100000},
     .users = BIT(LAYER_DROPCONNECT), .meaning = "draws of each unit where inference samples"},
    {"momentum", KEY_REAL, LAYER(momentum), .real = {0.9, OPEN_HIGH(0, 1)},
     .users = BIT(LAYER_BATCHNORM),
     .meaning = "part of the running statistics that an update keeps"},
    {"epsilon", KEY_REAL, LAYER(epsilon), .real = {1e-5, OPEN_LOW(0, 1)},
     .users = BIT(LAYER_BATCHNORM), .meaning = "added to the variance"},
    {"activation", KEY_KIND, LAYER(activation), .kinds = activation_names,
     .integer = {ACTIVATION_NONE},
     .users = BIT(LAYER_CONV) | BIT(LAYER_DENSE) | BIT(LAYER_BATCHNORM),
     .meaning = "applied to the layer's output"},
    {"initializer", KEY_KIND, LAYER(initializer), .kinds = initializer_names,
     .integer = {INITIALIZER_GLOROT_UNIFORM}, .users = BIT(LAYER_CONV) | BIT(LAYER_DENSE),
     .meaning = "how the first weights are drawn"},
};
const int layer_keys_count = sizeof layer_keys / sizeof layer_keys[0];

static const struct key *find(const struct key *keys, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

const struct key *recipe_key(const char *name) {
    return find(recipe_keys, recipe_keys_count, name);
}

const struct key *layer_key(const char *name) {
    return find(layer_keys, layer_keys_count, name);
}

bool key_is_for(const struct key *key, int user) {
    return key->users == 0 || (key->users & BIT(user)) != 0;
}

static void expect_integer(const struct key *key, char *text) {
    snprintf(text, EXPECTATION_MAX, "an integer from %lld to %lld", (long long)key->integer.low,
             (long long)key->integer.high);
}

static void expect_real(const struct key *key, char *text) {
    const struct interval *bounds = &key->real.bounds;
    snprintf(text, EXPECTATION_MAX, "a real number in %c%g, %g%c", bounds->low_open ? '(' : '[',
             bounds->low, bounds->high, bounds->high_open ? ')' : ']');
}

static void expect_boolean(const struct key *key, char *text) {
    (void)key;
    snprintf(text, EXPECTATION_MAX, "true or false");
}

static void expect_text(const struct key *key, char *text) {
    (void)key;
    snprintf(text, EXPECTATION_MAX, "text of 1 to %d bytes", KEY_TEXT_MAX - 1);
}

static void expect_name(const struct key *key, char *text) {
    (void)key;
    snprintf(text, EXPECTATION_MAX, "text of 1 to %d letters, digits, _ and -",
             RECIPE_NAME_MAX - 1);
}

static void expect_names(const struct key *key, char *text) {
    (void)key;
    snprintf(text, EXPECTATION_MAX, "a list of names");
}

static void expect_kind(const struct key *key, char *text) {
    int count = 0;
    while (key->kinds[count] != NULL)
        count++;
    names_join(key->kinds, count, " or ", text, EXPECTATION_MAX);
}

void key_expectation(const struct key *key, char expectation[EXPECTATION_MAX]) {
    static void (*const expect[KEY_TYPE_COUNT])(const struct key *, char *) = {
        [KEY_INTEGER] = expect_integer, [KEY_REAL] = expect_real, [KEY_BOOLEAN] = expect_boolean,
        [KEY_TEXT] = expect_text,       [KEY_NAME] = expect_name, [KEY_NAMES] = expect_names,
        [KEY_KIND] = expect_kind,
    };
    expect[key->type](key, expectation);
}
