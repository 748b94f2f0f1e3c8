/* The real libcudnn finalises the plans of every convolution in the shipped recipes, for GPUs that
 * are described to it and need not be there, and refuses one whose shape is wrong.
 *
 * What only a GPU can tell is not tested here: whether the plans run, and how fast. */
#include "../../cuda/conv_plan.h"
#include "check.h"

#include <dirent.h>
#include <espalier/dataset.h>
#include <espalier/network.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct shape mnist = {28, 28, 1};

/* ---- the described GPUs ---- */

static char *read_properties(const char *gpu) {
    char path[512];
    snprintf(path, sizeof path, FIXTURES "/gpus/%s.json", gpu);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 4096);
    assert_non_null(text);
    const size_t length = fread(text, 1, 4095, file);
    assert_true(length > 0 && length < 4095);
    fclose(file);
    return text;
}

/* ---- the recipes' convolutions ---- */

enum { MOST = 512, RANKS = 8 };

struct shapes {
    struct {
        struct block_desc desc;
        int samples;
        bool first; /* nothing asks for its input's gradient */
    } at[MOST];
    int count;
};

static bool is_same(const struct block_desc *a, const struct block_desc *b) {
    return memcmp(&a->input, &b->input, sizeof a->input) == 0 &&
           memcmp(&a->linear, &b->linear, sizeof a->linear) == 0 && a->kernel == b->kernel &&
           a->stride == b->stride && a->padding == b->padding;
}

static void add(struct shapes *shapes, const struct block_desc *desc, bool first, int samples) {
    for (int i = 0; i < shapes->count; i++)
        if (shapes->at[i].samples == samples && is_same(&shapes->at[i].desc, desc))
            return;
    assert_true(shapes->count < MOST);
    shapes->at[shapes->count].desc = *desc;
    shapes->at[shapes->count].samples = samples;
    shapes->at[shapes->count++].first = first;
}

/* The shares of whole and last batches of an epoch on 1 to 8 ranks, and passes of evaluation. */
static void add_block(struct shapes *shapes, const struct recipe *recipe,
                      const struct block_desc *desc, bool first) {
    const uint32_t images = 60000, tests = 10000, batch = (uint32_t)recipe->train.batch;
    for (int ranks = 1; ranks <= RANKS; ranks *= 2) {
        const uint32_t share = dataset_shard(batch, 0, ranks).count;
        const uint32_t pass = share < 64 ? 64 : share;
        const uint32_t samples[] = {share, dataset_shard(images % batch, 0, ranks).count,
                                    dataset_shard(images % batch, ranks - 1, ranks).count, pass,
                                    tests % pass};
        for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
            if (samples[i] > 0)
                add(shapes, desc, first, (int)samples[i]);
    }
}

static void add_recipe(struct shapes *shapes, const char *path) {
    struct recipe recipe;
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    assert_ok(recipe_load(path, NULL, 0, &recipe));
    assert_ok(network_describe(&recipe, mnist, blocks, &count));
    for (int i = 0; i < count; i++)
        if (blocks[i].desc.kind == BLOCK_CONV)
            add_block(shapes, &recipe, &blocks[i].desc, i == 0);
    recipe_destroy(&recipe);
}

static void find_shapes(struct shapes *shapes) {
    char path[1024];
    DIR *directory = opendir(RECIPES);
    assert_non_null(directory);
    shapes->count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strstr(entry->d_name, ".cfg") != NULL) {
            snprintf(path, sizeof path, RECIPES "/%s", entry->d_name);
            add_recipe(shapes, path);
        }
    closedir(directory);
    assert_true(shapes->count >= 20);
}

/* ---- plans ---- */

static void finalise(const struct conv_target *target, const struct shapes *shapes) {
    for (int i = 0; i < shapes->count; i++)
        for (int pass = 0; pass < CONV_PASSES; pass++) {
            struct conv_plan *plan;
            if (pass == CONV_BACKWARD_DATA && shapes->at[i].first)
                continue;
            assert_ok((pass == CONV_FORWARD_RELU ? conv_plan_find : conv_plan_create)(
                target, (enum conv_pass)pass, &shapes->at[i].desc, shapes->at[i].samples, &plan));
            assert_true(plan != NULL || pass == CONV_FORWARD_RELU);
            assert_true(plan == NULL || conv_plan_workspace(plan) <= (size_t)256 << 20);
            conv_plan_destroy(plan);
        }
}

static void finalise_for(const char *gpu) {
    struct shapes *shapes = malloc(sizeof *shapes);
    assert_non_null(shapes);
    char *properties = read_properties(gpu);
    find_shapes(shapes);
    for (int tf32 = 0; tf32 < 2; tf32++)
        finalise(&(struct conv_target){.properties = properties, .tf32 = tf32}, shapes);
    printf("%s: %d shapes\n", gpu, shapes->count);
    free(properties);
    free(shapes);
}

static void plans_finalise_for_h100(void **state) {
    (void)state;
    finalise_for("h100");
}

static void plans_finalise_for_a100(void **state) {
    (void)state;
    finalise_for("a100");
}

static void plans_finalise_for_rtx_4090(void **state) {
    (void)state;
    finalise_for("rtx_4090");
}

/* Pruning leaves layers with any number of channels and filters. */
static void shrunken_layers_finalise(void **state) {
    (void)state;
    static const int left[] = {1, 2, 3, 6, 16, 31, 50};
    enum { COUNT = sizeof left / sizeof left[0] };
    struct shapes *shapes = calloc(1, sizeof *shapes);
    assert_non_null(shapes);
    char *properties = read_properties("h100");
    for (int i = 0; i < COUNT * COUNT; i++) {
        const int channels = left[i / COUNT], filters = left[i % COUNT];
        const struct block_desc desc = {.kind = BLOCK_CONV,
                                        .input = {26, 26, channels},
                                        .linear = {24, 24, filters},
                                        .output = {24, 24, filters},
                                        .kernel = 3,
                                        .stride = 1,
                                        .pool = 1};
        add(shapes, &desc, false, 128);
    }
    finalise(&(struct conv_target){.properties = properties}, shapes);
    free(properties);
    free(shapes);
}

static bool is_among(uint32_t name, const uint32_t *names, int count) {
    for (int i = 0; i < count; i++)
        if (names[i] == name)
            return true;
    return false;
}

/* The second convolution of the poster's network. */
static const struct block_desc poster_conv2 = {.kind = BLOCK_CONV,
                                               .input = {26, 26, 32},
                                               .linear = {24, 24, 32},
                                               .output = {24, 24, 32},
                                               .kernel = 3,
                                               .stride = 1,
                                               .pool = 1};

/* What the heuristics put first is one of them, and each is found again by its name, or cannot be
 * finalised; for other samples, one of its engine. */
static void configurations_are_found_by_their_names(void **state) {
    (void)state;
    char *properties = read_properties("h100");
    struct conv_target target = {.properties = properties};
    for (int pass = 0; pass < CONV_PASSES; pass++) {
        uint32_t names[CONV_CANDIDATES];
        int count, found = 0;
        struct conv_plan *plan;
        target.choice = CONV_HEURISTICS;
        assert_ok(
            conv_plan_candidates(&target, (enum conv_pass)pass, &poster_conv2, 128, names, &count));
        assert_true(count >= 1);
        assert_ok(conv_plan_find(&target, (enum conv_pass)pass, &poster_conv2, 128, &plan));
        assert_true(plan != NULL || pass == CONV_FORWARD_RELU);
        assert_true(plan == NULL || is_among(conv_plan_name(plan), names, count));
        conv_plan_destroy(plan);
        for (int i = 0; i < count; i++) {
            assert_false(is_among(names[i], names, i));
            target.choice = names[i];
            assert_ok(conv_plan_find(&target, (enum conv_pass)pass, &poster_conv2, 128, &plan));
            found += plan != NULL && conv_plan_name(plan) == names[i];
            conv_plan_destroy(plan);
            assert_ok(conv_plan_find(&target, (enum conv_pass)pass, &poster_conv2, 77, &plan));
            assert_true(plan != NULL || pass == CONV_FORWARD_RELU);
            conv_plan_destroy(plan);
        }
        print_message("%s: %d configurations, %d finalised\n", conv_pass_names[pass], count, found);
        assert_true(found >= 1);
    }
    free(properties);
}

static void a_wrong_shape_is_refused(void **state) {
    (void)state;
    char *properties = read_properties("h100");
    const struct conv_target target = {.properties = properties};
    for (int pass = 0; pass < CONV_PASSES; pass++) {
        struct conv_plan *plan = NULL;
        struct block_desc wrong = poster_conv2;
        if (pass == CONV_FORWARD_RELU)
            continue; /* the same convolution, where there is an engine for it */
        assert_ok(conv_plan_create(&target, (enum conv_pass)pass, &poster_conv2, 128, &plan));
        conv_plan_destroy(plan);
        wrong.linear.height++;
        assert_fails(conv_plan_create(&target, (enum conv_pass)pass, &wrong, 128, &plan),
                     ST_UNAVAILABLE, "cudnnBackendFinalize");
        assert_null(plan);
        wrong = poster_conv2;
        wrong.stride = 2;
        assert_fails(conv_plan_create(&target, (enum conv_pass)pass, &wrong, 128, &plan),
                     ST_UNAVAILABLE, "cudnnBackendFinalize");
    }
    free(properties);
}

static void a_gpu_that_is_no_gpu_is_refused(void **state) {
    (void)state;
    struct conv_plan *plan;
    const struct block_desc desc = {.kind = BLOCK_CONV,
                                    .input = {28, 28, 1},
                                    .linear = {26, 26, 32},
                                    .output = {26, 26, 32},
                                    .kernel = 3,
                                    .stride = 1,
                                    .pool = 1};
    const struct conv_target target = {.properties = "{\"deviceName\": \"abacus\"}"};
    assert_fails(conv_plan_create(&target, CONV_FORWARD, &desc, 128, &plan), ST_UNAVAILABLE,
                 "cudnn");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_finalise_for_h100),
        cmocka_unit_test(plans_finalise_for_a100),
        cmocka_unit_test(plans_finalise_for_rtx_4090),
        cmocka_unit_test(shrunken_layers_finalise),
        cmocka_unit_test(configurations_are_found_by_their_names),
        cmocka_unit_test(a_wrong_shape_is_refused),
        cmocka_unit_test(a_gpu_that_is_no_gpu_is_refused),
    };
    return RUN_TESTS(tests, argc, argv);
}
