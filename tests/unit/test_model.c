/* A network through its file and back. */
#include "check.h"
#include "temp_dir.h"
#include <espalier/digest.h>
#include <espalier/model.h>
#include <math.h>

static const char RECIPE[] = "network = (\n"
                             "  { type = \"conv\"; filters = 3; kernel = 3; },\n"
                             "  { type = \"maxpool\"; size = 2; },\n"
                             "  { type = \"dense\"; units = 5; name = \"middle\"; },\n"
                             "  { type = \"dense\"; units = 4; name = \"last\"; }\n"
                             ");\n"
                             "train = { learning_rate = 0.1; seed = 7; };\n";
static const struct shape INPUT = {8, 6, 1};

/* Recipe, backend and network, and the path of a model that was written from them. */
struct fixture {
    char *dir;
    char path[TEST_PATH_SIZE];
    struct recipe recipe;
    struct backend *backend;
    struct network *network;
};

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (fixture == NULL || temp_dir_setup((void **)&fixture->dir) != 0)
        return -1;
    *state = fixture;
    join(fixture->path, fixture->dir, "model.safetensors");
    assert_ok(recipe_parse("some/where/tiny.cfg", RECIPE, NULL, 0, &fixture->recipe));
    assert_ok(backend_create("cpu", &(struct backend_options){.threads = 1}, &fixture->backend));
    assert_ok(network_create(&fixture->recipe, INPUT, 2, fixture->backend, &fixture->network));
    assert_ok(network_initialize(fixture->network, 7));
    assert_ok(network_materialize(fixture->network));
    assert_ok(model_write(fixture->path, fixture->network, &fixture->recipe));
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    network_destroy(fixture->network);
    fixture->backend->destroy(fixture->backend);
    recipe_destroy(&fixture->recipe);
    temp_dir_teardown((void **)&fixture->dir);
    free(fixture);
    return 0;
}

static void check_logits_agree(struct network *a, struct network *b) {
    float x[2 * 48], *logits_a, *logits_b;
    for (int i = 0; i < 2 * 48; i++)
        x[i] = (float)(i % 7) / 7.0F;
    const uint32_t ids[2] = {0, 1};
    const struct block_pass pass = {.samples = 2, .sample_ids = ids};
    assert_ok(network_forward(a, &pass, x, &logits_a));
    assert_ok(network_forward(b, &pass, x, &logits_b));
    assert_memory_equal(logits_a, logits_b, 8 * sizeof(float));
    assert_true(logits_a[0] != 0);
}

static void loaded_network_is_the_written_one(void **state) {
    struct fixture *fixture = *state;
    struct model model;
    struct network *copy = NULL;
    char written[DIGEST_TEXT_SIZE], empty[DIGEST_TEXT_SIZE], loaded[DIGEST_TEXT_SIZE];
    assert_ok(model_read(fixture->path, &model));
    assert_ok(network_create(&model.recipe, model.input, 2, fixture->backend, &copy));
    assert_ok(network_digest(copy, empty));
    assert_ok(model_load(&model, copy));
    assert_ok(network_digest(fixture->network, written));
    assert_ok(network_digest(copy, loaded));
    assert_string_not_equal(written, empty);
    assert_string_equal(written, loaded);
    check_logits_agree(fixture->network, copy);
    network_destroy(copy);
    model_destroy(&model);
    model_destroy(&model); /* legal on a zeroed one */
}

/* network_digest's definition, from the file: the tensors' bytes in order. */
static void digest_is_over_the_files_bytes(void **state) {
    struct fixture *fixture = *state;
    struct safetensors file;
    char expected[DIGEST_TEXT_SIZE], found[DIGEST_TEXT_SIZE];
    assert_ok(safetensors_read(fixture->path, &file));
    const size_t counts[] = {27, 3, 5 * 18, 5, 4 * 5, 4}; /* pooled: 3 x 2 x 3 */
    size_t total = 0;
    for (int i = 0; i < 6; i++)
        total += counts[i];
    assert_ok(digest_bytes(file.tensors[0].values, total * sizeof(float), expected));
    assert_ok(network_digest(fixture->network, found));
    assert_string_equal(found, expected);
    safetensors_destroy(&file);
}

static void file_has_names_shapes_and_metadata(void **state) {
    static const char *const names[] = {"conv1.weight", "conv1.bias",  "middle.weight",
                                        "middle.bias",  "last.weight", "last.bias"};
    static const int dimensions[] = {4, 1, 2, 1, 2, 1};
    struct fixture *fixture = *state;
    struct safetensors file;
    char *text = NULL;
    assert_ok(safetensors_read(fixture->path, &file));
    assert_int_equal(file.tensors_count, 6);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(file.tensors[i].name, names[i]);
        assert_int_equal(file.tensors[i].dimensions, dimensions[i]);
    }
    assert_int_equal(file.tensors[2].size[0], 5);
    assert_int_equal(file.tensors[2].size[1], 18);
    assert_string_equal(safetensors_metadata(&file, "format"), "pt");
    assert_string_equal(safetensors_metadata(&file, "espalier.input"), "8x6x1");
    assert_string_equal(safetensors_metadata(&file, "espalier.name"), "tiny");
    assert_non_null(safetensors_metadata(&file, "espalier.version"));
    assert_ok(recipe_text(&fixture->recipe, &text));
    assert_string_equal(safetensors_metadata(&file, "espalier.recipe"), text);
    free(text);
    safetensors_destroy(&file);
}

static void run_directory_stands_for_its_model(void **state) {
    struct fixture *fixture = *state;
    struct model model;
    char *written = NULL, *read = NULL;
    assert_ok(model_read(fixture->dir, &model));
    assert_string_equal(model.path, fixture->path);
    assert_string_equal(model.recipe.name, "tiny");
    assert_int_equal(model.input.height * 100 + model.input.width * 10 + model.input.channels, 861);
    assert_ok(recipe_text(&fixture->recipe, &written));
    assert_ok(recipe_text(&model.recipe, &read));
    assert_string_equal(read, written);
    free(written);
    free(read);
    model_destroy(&model);
}

static void what_is_no_model_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct model model;
    char path[TEST_PATH_SIZE];
    assert_fails(model_read(join(path, fixture->dir, "missing"), &model), ST_INPUT, path);
    assert_int_equal(mkdir(join(path, fixture->dir, "empty"), 0700), 0);
    assert_fails(model_read(path, &model), ST_INPUT, "is a directory without model.safetensors");
    char recipe[TEST_PATH_SIZE];
    write_bytes(join(recipe, path, "recipe.cfg"), "", 0);
    assert_fails(model_read(path, &model), ST_INPUT,
                 "/empty: the run has no model.safetensors (yet): it did not finish");
    write_bytes(join(path, fixture->dir, "text"), "not a model at all", 18);
    assert_fails(model_read(path, &model), ST_INPUT, "/text: not a safetensors file: ");
    assert_null(model.file.tensors);
    assert_null(model.recipe.arena);
}

/* ---- metadata ---- */

/* The model's metadata with one entry given another text, or left out where it is NULL. */
static enum status read_with_metadata(const struct fixture *fixture, const char *key,
                                      const char *text) {
    struct safetensors file;
    struct safetensors_entry metadata[8];
    struct model model;
    char path[TEST_PATH_SIZE];
    int count = 0;
    assert_ok(safetensors_read(fixture->path, &file));
    for (int i = 0; i < file.metadata_count; i++)
        if (strcmp(file.metadata[i].key, key) != 0)
            metadata[count++] = file.metadata[i];
        else if (text != NULL)
            metadata[count++] = (struct safetensors_entry){key, text};
    assert_ok(safetensors_write(join(path, fixture->dir, "changed.safetensors"), file.tensors,
                                file.tensors_count, metadata, count));
    safetensors_destroy(&file);
    enum status status = model_read(path, &model);
    if (status == ST_OK)
        model_destroy(&model);
    else
        assert_non_null(strstr(status_message(), path));
    return status;
}

static void unusable_metadata_is_refused(void **state) {
    static const char *const keys[] = {"espalier.input", "espalier.recipe", "espalier.name"};
    static const char *const inputs[] = {"",       "8",      "8x6",     "8x6x",           "8x6x0",
                                         "8x6x1x", "8x-6x1", " 8x6x1",  "8x6x1 ",         "+8x6x1",
                                         "0x6x1",  "a",      "8x6x1.0", "99999999999x1x1"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        assert_fails(read_with_metadata(*state, keys[i], NULL), ST_INPUT, keys[i]);
        assert_non_null(strstr(status_message(), "espalier did not write this model"));
    }
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++)
        assert_fails(read_with_metadata(*state, "espalier.input", inputs[i]), ST_INPUT,
                     "expected HEIGHTxWIDTHxCHANNELS");
    assert_fails(read_with_metadata(*state, "espalier.input", "65536x65536x65536"), ST_INPUT,
                 "expected HEIGHTxWIDTHxCHANNELS");
    assert_fails(read_with_metadata(*state, "espalier.recipe", "network = ("), ST_INPUT, "");
    assert_fails(read_with_metadata(*state, "espalier.recipe", "colour = 1;"), ST_INPUT, "colour");
    assert_ok(read_with_metadata(*state, "espalier.name", "other"));
    assert_ok(read_with_metadata(*state, "format", NULL));
}

/* A few bytes of recipe would call for 8 GB of weights, or for 1 GB of pixels. */
static void network_that_the_file_does_not_hold_is_refused(void **state) {
    static const char wide[] = "network = ({ type = \"dense\"; units = 32000; },"
                               "{ type = \"dense\"; units = 65536; },"
                               "{ type = \"dense\"; units = 5; });\n";
    static const char no_network[] = "network = ({ type = \"conv\"; filters = 1; kernel = 9; });";
    assert_fails(read_with_metadata(*state, "espalier.recipe", wide), ST_INPUT,
                 "tensor dense1.weight is missing");
    assert_fails(read_with_metadata(*state, "espalier.input", "16384x16384x1"), ST_INPUT,
                 "its recipe's network expects");
    assert_fails(read_with_metadata(*state, "espalier.recipe", no_network), ST_SHAPE,
                 "does not fit");
}

/* ---- tensors ---- */

/* Load into a fresh network from the file, as `change` leaves it, under another name. */
static enum status load_changed(struct fixture *fixture, void (*change)(struct safetensors *)) {
    struct safetensors file;
    struct model model;
    struct network *network = NULL;
    char path[TEST_PATH_SIZE];
    assert_ok(safetensors_read(fixture->path, &file));
    change(&file);
    assert_ok(safetensors_write(join(path, fixture->dir, "changed.safetensors"), file.tensors,
                                file.tensors_count, file.metadata, file.metadata_count));
    safetensors_destroy(&file);
    TRY(model_read(path, &model));
    assert_ok(network_create(&model.recipe, model.input, 2, fixture->backend, &network));
    enum status status = model_load(&model, network);
    network_destroy(network);
    model_destroy(&model);
    return status;
}

static void drop_last(struct safetensors *file) {
    file->tensors_count--;
}

static void transpose_last_weight(struct safetensors *file) {
    file->tensors[4].size[0] = 5;
    file->tensors[4].size[1] = 4;
}

static void flatten_middle_weight(struct safetensors *file) {
    file->tensors[2].dimensions = 1;
    file->tensors[2].size[0] = 90;
}

static void put_value(struct safetensors *file, int tensor, int index, float value) {
    static float copy[90]; /* the file's values are read-only */
    memcpy(copy, file->tensors[tensor].values, sizeof copy);
    copy[index] = value;
    file->tensors[tensor].values = copy;
}

static void put_nan(struct safetensors *file) {
    put_value(file, 2, 11, NAN);
}

static void put_infinity(struct safetensors *file) {
    put_value(file, 2, 89, -INFINITY);
}

static void change_nothing(struct safetensors *file) {
    (void)file;
}

static void unusable_tensors_are_refused_by_name(void **state) {
    assert_ok(load_changed(*state, change_nothing));
    assert_fails(load_changed(*state, drop_last), ST_INPUT, "tensor last.bias is missing");
    assert_fails(load_changed(*state, transpose_last_weight), ST_INPUT,
                 "tensor last.weight has the shape [5, 4], its recipe's network expects [4, 5]");
    assert_fails(load_changed(*state, flatten_middle_weight), ST_INPUT,
                 "tensor middle.weight has the shape [90], its recipe's network expects [5, 18]");
    assert_fails(load_changed(*state, put_nan), ST_INPUT,
                 "tensor middle.weight holds nan at index 11, expected a finite number");
    assert_fails(load_changed(*state, put_infinity), ST_INPUT,
                 "tensor middle.weight holds -inf at index 89, expected a finite number");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(loaded_network_is_the_written_one, setup, teardown),
        cmocka_unit_test_setup_teardown(digest_is_over_the_files_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(file_has_names_shapes_and_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(run_directory_stands_for_its_model, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_model_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(unusable_metadata_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(network_that_the_file_does_not_hold_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(unusable_tensors_are_refused_by_name, setup, teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}
