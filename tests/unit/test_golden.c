/* Tiny networks trained for 20 updates, against PyTorch in float64 (tests/fixtures/golden.py).
 *
 * Tolerance: golden.json states how far PyTorch's own float32 strays from its float64 in the same
 * training, the largest of 12 runs that differ in the order of their sums. Each float32
 * implementation rounds in its own order, so its deviation is another draw on that scale; MARGIN
 * times the largest of 12 leaves room for fused products and other groupings, and is still 1e-5
 * of the loss or less, where a wrong momentum, scale or flattening order shows at 1e-2. */
#include "check.h"

#include <cjson/cJSON.h>
#include <espalier/optimizer.h>
#include <math.h>
#include <stdlib.h>

enum { SIDE = 12, PIXELS = SIDE * SIDE, IMAGES = 32, BATCH = 8, UPDATES = 20, MARGIN = 8 };

#define CONV2                                                                                      \
    "  { type = \"conv\"; filters = 6; kernel = 3; activation = \"relu\"; },"                      \
    "  { type = \"maxpool\"; size = 2; },"
#define DENSE                                                                                      \
    "  { type = \"dense\"; units = 16; activation = \"tanh\"; },"                                  \
    "  { type = \"dense\"; units = 10; }"

static const char plain[] =
    "network = ("
    "  { type = \"conv\"; filters = 4; kernel = 3; activation = \"relu\"; }," CONV2 DENSE ");";
static const char norm[] = "network = ("
                           "  { type = \"conv\"; filters = 4; kernel = 3; },"
                           "  { type = \"batchnorm\"; activation = \"relu\"; }," CONV2
                           "  { type = \"batchnorm\"; }," DENSE ");";

/* ---- golden.json ---- */

static cJSON *read_golden(void) {
    FILE *file = fopen(FIXTURES "/golden.json", "rb");
    assert_non_null(file);
    static char text[1 << 16];
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    cJSON *golden = cJSON_Parse(text);
    assert_non_null(golden);
    return golden;
}

static double number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

enum { OVERRIDES_MAX = 8, OVERRIDE_SIZE = 64 };

static const char *text(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_true(cJSON_IsString(item));
    return item->valuestring;
}

/* The run's keys, all that stand between "network" and "losses", as overrides of the recipe. */
struct overrides {
    char text[OVERRIDES_MAX][OVERRIDE_SIZE];
    const char *list[OVERRIDES_MAX];
    int count;
};

static void read_overrides(const cJSON *run, struct overrides *o) {
    o->count = 0;
    for (const cJSON *item = run->child->next; strcmp(item->string, "losses") != 0;
         item = item->next) {
        assert_true(o->count < OVERRIDES_MAX);
        char *value = cJSON_IsString(item) ? item->valuestring : cJSON_PrintUnformatted(item);
        assert_non_null(value);
        snprintf(o->text[o->count], OVERRIDE_SIZE, "train.%s=%s", item->string, value);
        o->list[o->count] = o->text[o->count];
        o->count++;
        if (value != item->valuestring)
            cJSON_free(value);
    }
}

/* ---- the same training ---- */

struct training {
    struct backend *backend;
    struct recipe recipe;
    struct network *network;
    struct optimizer optimizer;
    uint8_t *images, *labels;
    uint32_t *ids;
    float *x;
    struct loss_sums *sums;
};

static void *device_of(struct backend *b, const void *values, size_t bytes) {
    void *memory;
    assert_ok(b->alloc(b, bytes, &memory));
    if (values != NULL)
        assert_ok(b->upload(b, memory, values, bytes));
    return memory;
}

static void upload_data(struct training *t) {
    static uint8_t images[IMAGES * PIXELS], labels[IMAGES];
    for (uint64_t i = 0; i < IMAGES * PIXELS; i++)
        images[i] = (uint8_t)((i * i * 31 + 7 * i) % 251);
    for (int i = 0; i < IMAGES; i++)
        labels[i] = (uint8_t)((i * 7 + 3) % 10);
    t->images = device_of(t->backend, images, sizeof images);
    t->labels = device_of(t->backend, labels, sizeof labels);
    t->ids = device_of(t->backend, NULL, BATCH * sizeof *t->ids);
    t->x = device_of(t->backend, NULL, BATCH * PIXELS * sizeof *t->x);
    t->sums = device_of(t->backend, NULL, sizeof *t->sums);
}

/* sqrt(3 / fan_in) or 0.05 for biases, times sin(1 + parameter + 0.37 index^2). */
static void set_weights(struct network *network) {
    for (int q = 0; q < network->parameters_count; q++) {
        const struct parameter *p = &network->parameters[q];
        if (network->blocks[p->block].desc.kind == BLOCK_NORM)
            continue;
        float *values = malloc(p->original_count * sizeof *values);
        assert_non_null(values);
        double fan_in = (double)p->original_count / p->size[0];
        double amplitude = p->is_weight ? sqrt(3 / fan_in) : 0.05;
        for (size_t j = 0; j < p->original_count; j++)
            values[j] = (float)(amplitude * sin(1 + q + 0.37 * (double)j * (double)j));
        assert_ok(network_set_parameter(network, q, values));
        free(values);
    }
    assert_ok(network_materialize(network));
}

static void training_start(struct training *t, const cJSON *run, int threads) {
    struct overrides overrides;
    read_overrides(run, &overrides);
    memset(t, 0, sizeof *t);
    assert_ok(backend_cpu_create(threads, &t->backend));
    const char *recipe = strcmp(text(run, "network"), "norm") == 0 ? norm : plain;
    assert_ok(recipe_parse("golden", recipe, overrides.list, overrides.count, &t->recipe));
    assert_ok(
        network_create(&t->recipe, (struct shape){SIDE, SIDE, 1}, BATCH, t->backend, &t->network));
    assert_ok(optimizer_create(t->network, &t->recipe.train, &t->optimizer));
    upload_data(t);
    assert_ok(network_initialize(t->network, 1));
    set_weights(t->network);
}

static void training_end(struct training *t) {
    void *const memory[] = {t->images, t->labels, t->ids, t->x, t->sums};
    optimizer_destroy(&t->optimizer);
    network_destroy(t->network);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        t->backend->release(t->backend, memory[i]);
    t->backend->destroy(t->backend);
    recipe_destroy(&t->recipe);
}

static enum status nothing_to_reduce(void *context, size_t offset, size_t count) {
    (void)context;
    (void)offset;
    (void)count;
    return ST_OK;
}

/* One update; the batch's mean loss before it. */
static double train_step(struct training *t, uint32_t update) {
    struct backend *b = t->backend;
    uint32_t ids[BATCH];
    float *logits;
    struct loss_sums sums;
    const struct block_pass pass = {
        .samples = BATCH, .training = true, .update = update, .sample_ids = t->ids};
    const struct gradient_sink sink = {.ready = nothing_to_reduce};
    for (uint32_t i = 0; i < BATCH; i++)
        ids[i] = (update * BATCH + i) % IMAGES;
    assert_ok(b->upload(b, t->ids, ids, sizeof ids));
    assert_ok(b->clear(b, t->sums, sizeof sums));
    assert_ok(b->gather_batch(b, t->images, PIXELS, t->ids, BATCH, t->x));
    assert_ok(network_forward(t->network, &pass, t->x, &logits));
    assert_ok(b->softmax_cross_entropy(b, logits, 10, t->labels, t->ids, BATCH, 1.0F / BATCH,
                                       network_logits_gradient(t->network), t->sums));
    assert_ok(network_backward(t->network, &pass, t->x, &sink));
    optimizer_begin(&t->optimizer);
    assert_ok(optimizer_update(&t->optimizer, 0, t->network->count));
    assert_ok(network_materialize(t->network));
    assert_ok(b->download(b, &sums, t->sums, sizeof sums));
    return sums.loss / BATCH;
}

static double parameter_norm(const struct network *network, int parameter) {
    size_t count = network->parameters[parameter].original_count;
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    assert_ok(network_get_parameter(network, parameter, values));
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * values[i];
    free(values);
    return sqrt(sum);
}

static void check_close(const char *what, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: %.9g, PyTorch has %.9g, tolerance %.2g", what, got, want, tolerance);
}

static void check_losses(struct training *t, const cJSON *run) {
    double tolerance = MARGIN * number(run, "float32_loss_spread");
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(run, "losses");
    assert_int_equal(cJSON_GetArraySize(losses), UPDATES);
    for (int update = 0; update < UPDATES; update++) {
        char what[32];
        snprintf(what, sizeof what, "loss of update %d", update);
        check_close(what, train_step(t, (uint32_t)update),
                    cJSON_GetArrayItem(losses, update)->valuedouble, tolerance);
    }
}

static void check_norms(const struct network *network, const cJSON *run) {
    double tolerance = MARGIN * number(run, "float32_norm_spread");
    const cJSON *norms = cJSON_GetObjectItemCaseSensitive(run, "norms");
    assert_int_equal(cJSON_GetArraySize(norms), network->parameters_count);
    for (int i = 0; i < network->parameters_count; i++) {
        const char *name = network->parameters[i].name;
        check_close(name, parameter_norm(network, i), number(norms, name), tolerance);
    }
}

/* Train all of the optimizer's runs, on one thread and on two. */
static void check_optimizer(const char *name, int at_least) {
    cJSON *golden = read_golden();
    const cJSON *run, *runs = cJSON_GetObjectItemCaseSensitive(golden, "runs");
    int checked = 0;
    cJSON_ArrayForEach(run, runs) {
        if (strcmp(text(run, "optimizer"), name) != 0)
            continue;
        for (int threads = 1; threads <= 2; threads++) {
            struct training training;
            training_start(&training, run, threads);
            check_losses(&training, run);
            check_norms(training.network, run);
            training_end(&training);
        }
        checked++;
    }
    assert_true(checked >= at_least);
    cJSON_Delete(golden);
}

static void sgd_trajectory(void **state) {
    (void)state;
    check_optimizer("sgd", 4);
}

static void adadelta_trajectory(void **state) {
    (void)state;
    check_optimizer("adadelta", 3);
}

static void adam_trajectory(void **state) {
    (void)state;
    check_optimizer("adam", 1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_trajectory),
        cmocka_unit_test(adadelta_trajectory),
        cmocka_unit_test(adam_trajectory),
    };
    return RUN_TESTS(tests, argc, argv);
}
