/* Checkpoints as bytes: every byte that is damaged, every length that is cut short, is noticed; and
 * content that was altered under a right seal is refused or loaded, and touches nothing else. */
#include "temp_dir.h"
#include <espalier/checkpoint.h>
#include <espalier/digest.h>
#include <espalier/survivors.h>

static const char TEXT[] = "network = ({ type = \"dense\"; units = 3; activation = \"tanh\"; },"
                           "{ type = \"dense\"; units = 2; });";
static const struct shape INPUT = {2, 2, 1};
static const char *const NAMES[] = {"velocity", "second_moment"};

/* libconfig's own, after a syntax error. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:strbuf_append\nleak:libconfig_yylex\n";
}

struct fixture {
    struct backend *backend;
    struct recipe recipe;
    struct network *network;
    float *vectors[2];
    struct checkpoint_states states;
    char bytes[TEST_FILE_MAX];
    size_t count;
};

static void build(struct fixture *f) {
    memset(f, 0, sizeof *f);
    assert_ok(backend_cpu_create(1, &f->backend));
    assert_ok(recipe_parse("tiny.cfg", TEXT, NULL, 0, &f->recipe));
    assert_ok(network_create(&f->recipe, INPUT, 1, f->backend, &f->network));
    assert_ok(network_initialize(f->network, 7));
    assert_ok(
        f->backend->alloc(f->backend, f->network->count * sizeof(float), (void **)&f->vectors[0]));
    f->states = (struct checkpoint_states){2, f->vectors, NAMES};
}

static void destroy(struct fixture *f) {
    f->backend->release(f->backend, f->vectors[0]);
    network_destroy(f->network);
    recipe_destroy(&f->recipe);
    f->backend->destroy(f->backend);
}

static void negate(struct network *network) {
    for (size_t i = 0; i < network->count; i++)
        network->beta[i] = -network->beta[i];
}

/* Leave every second connection of the first layer, then write and read the file. */
static void prune_and_write(struct fixture *f, const char *dir) {
    const struct survivors_scope scope = {1, {0}};
    const struct run_state state = {.step = 9, .epoch = 2, .position = 5, .ranks = 2, .seed = 3};
    const struct loss_sums sums[2] = {{0.5, 1}, {0.25, 2}};
    char path[TEST_PATH_SIZE];
    struct checkpoint_copy copy;
    struct bitmask mask;
    uint64_t bytes = 0;
    assert_ok(bitmask_create(survivors_count(f->network, &scope), &mask));
    for (size_t i = 0; i < mask.count; i += 2)
        bitmask_set(mask.words, i);
    assert_ok(survivors_keep(f->network, &scope, &mask, f->vectors, 2));
    bitmask_destroy(&mask);
    for (size_t i = 0; i < f->network->count; i++)
        f->vectors[0][i] = (float)i;
    assert_ok(checkpoint_take(&f->recipe, f->network, &f->states, &state, sums, &copy));
    negate(f->network); /* as training goes on: the copy does not change with it */
    assert_ok(checkpoint_write(dir, &copy, &bytes));
    negate(f->network);
    checkpoint_copy_destroy(&copy);
    f->count = read_bytes(join(path, dir, "checkpoints/step-00000009.safetensors"), f->bytes);
    assert_int_equal(f->count, bytes);
}

static enum status load(struct fixture *into, const char *bytes, size_t count) {
    struct checkpoint checkpoint;
    struct loss_sums sums;
    TRY(checkpoint_parse("file", bytes, count, &checkpoint));
    enum status status = checkpoint_restore(&checkpoint, into->network, &into->states);
    if (status == ST_OK)
        status = checkpoint_rank_sums(&checkpoint, 1, 2, &sums);
    checkpoint_destroy(&checkpoint);
    return status;
}

static void comes_back(void **state) {
    static struct fixture f, again;
    char digests[2][DIGEST_TEXT_SIZE];
    struct checkpoint checkpoint;
    struct loss_sums sums;
    build(&f);
    prune_and_write(&f, *state);
    build(&again);
    assert_ok(load(&again, f.bytes, f.count));
    assert_int_equal(again.network->count, f.network->count);
    assert_int_equal(f.network->count, 6 + 3 + 6 + 2);
    assert_memory_equal(again.vectors[0], f.vectors[0], f.network->count * sizeof(float));
    assert_ok(network_digest(f.network, digests[0]));
    assert_ok(network_digest(again.network, digests[1]));
    assert_string_equal(digests[0], digests[1]);
    assert_ok(checkpoint_parse("file", f.bytes, f.count, &checkpoint));
    assert_int_equal(checkpoint.state.position, 5);
    assert_ok(checkpoint_rank_sums(&checkpoint, 1, 2, &sums));
    assert_true(sums.loss == 0.25 && sums.correct == 2);
    assert_ok(checkpoint_rank_sums(&checkpoint, 0, 3, &sums)); /* all of it */
    assert_true(sums.loss == 0.75 && sums.correct == 3);
    checkpoint_destroy(&checkpoint);
    destroy(&again);
    destroy(&f);
}

static void every_damaged_byte_is_noticed(void **state) {
    static struct fixture f;
    build(&f);
    prune_and_write(&f, *state);
    assert_ok(safetensors_check_seal("file", f.bytes, f.count));
    for (size_t i = 0; i < f.count; i++) {
        f.bytes[i] ^= (char)(1 << i % 8);
        assert_fails(safetensors_check_seal("file", f.bytes, f.count), ST_INPUT, "damaged");
        f.bytes[i] ^= (char)(1 << i % 8);
    }
    for (size_t count = 0; count < f.count; count++)
        assert_fails(safetensors_check_seal("file", f.bytes, count), ST_INPUT, "cut short");
    destroy(&f);
}

/* Under the sanitizers: a seal is no proof of good intent. */
static void altered_content_under_a_right_seal(void **state) {
    static struct fixture f, into;
    size_t refused = 0;
    build(&f);
    prune_and_write(&f, *state);
    for (size_t i = 0; i < f.count - DIGEST_SIZE; i += 3) {
        const char flip = (char)(1 << (i / 3) % 8);
        build(&into);
        f.bytes[i] ^= flip;
        const enum status status = load(&into, f.bytes, f.count);
        assert_true(status == ST_OK || status == ST_INPUT);
        refused += status == ST_INPUT;
        f.bytes[i] ^= flip;
        destroy(&into);
    }
    assert_in_range(refused, f.count / 12, f.count / 3);
    destroy(&f);
}

static void another_format_is_refused(void **state) {
    static struct fixture f, into;
    static const char key[] = "\"espalier.checkpoint\":\"1\"";
    build(&f);
    prune_and_write(&f, *state);
    build(&into);
    size_t at = 0;
    while (memcmp(f.bytes + at, key, sizeof key - 1) != 0)
        at++;
    f.bytes[at + sizeof key - 3] = '2';
    assert_fails(load(&into, f.bytes, f.count), ST_INPUT,
                 "file: is a checkpoint of format 2, this program knows 1");
    destroy(&into);
    destroy(&f);
}

static void names_are_strict(void **state) {
    static struct fixture f;
    char path[TEST_PATH_SIZE];
    static const char *const others[] = {"step-9.safetensors", "step-00000010.safetensors.bak",
                                         "step-00000011.safetensors.tmp", "notes"};
    build(&f);
    prune_and_write(&f, *state);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char name[TEST_PATH_SIZE];
        snprintf(name, sizeof name, "checkpoints/%s", others[i]);
        write_bytes(join(path, *state, name), "x", 1);
    }
    char found[CHECKPOINT_NAME_MAX];
    void *bytes;
    size_t count;
    assert_ok(checkpoint_load_newest(*state, (struct checkpoint_complaint){NULL, NULL}, found,
                                     &bytes, &count));
    assert_string_equal(found, "checkpoints/step-00000009.safetensors");
    assert_int_equal(count, f.count);
    free(bytes);
    assert_ok(checkpoint_drop_old(*state, 1, 0));
    assert_int_equal(count_entries(join(path, *state, "checkpoints")), 4); /* all but the .tmp */
    destroy(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(every_damaged_byte_is_noticed, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(altered_content_under_a_right_seal, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(another_format_is_refused, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(names_are_strict, temp_dir_setup, temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}
