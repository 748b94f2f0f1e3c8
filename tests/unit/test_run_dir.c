/* The run directory: made with its parents, never on top of another run; files whole or not. */
#include "check.h"
#include "temp_dir.h"
#include <errno.h>
#include <espalier/run_dir.h>
#include <time.h>

/* A recipe resolved from text with the defaults. */
static struct recipe make_recipe(void) {
    struct recipe recipe;
    assert_ok(recipe_parse("dir/tiny.cfg", "network = ({ type = \"dense\"; units = 10; });", NULL,
                           0, &recipe));
    return recipe;
}

/* As a run that is not resumed begins, but for its events. */
static enum status begin_run(const char *path, const struct recipe *recipe) {
    TRY(run_dir_create(path, false));
    return run_dir_claim(path, recipe, false);
}

static void check_recipe_file(const char *dir, const struct recipe *recipe) {
    static char text[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE], *expected = NULL;
    assert_ok(recipe_text(recipe, &expected));
    read_bytes(join(path, dir, "recipe.cfg"), text);
    assert_string_equal(text, expected);
    assert_int_equal(count_entries(dir), 1);
    free(expected);
}

static void makes_directory_and_parents(void **state) {
    static const char *const names[] = {"run", "a/b/c/run", "slash/", "double//slash"};
    struct recipe recipe = make_recipe();
    char path[TEST_PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_ok(begin_run(join(path, *state, names[i]), &recipe));
        check_recipe_file(path, &recipe);
    }
    recipe_destroy(&recipe);
}

static void takes_an_empty_directory(void **state) {
    struct recipe recipe = make_recipe();
    assert_ok(begin_run(*state, &recipe));
    check_recipe_file(*state, &recipe);
    recipe_destroy(&recipe);
}

static void refuses_a_used_directory(void **state) {
    struct recipe recipe = make_recipe();
    char path[TEST_PATH_SIZE];
    write_bytes(join(path, *state, ".precious"), "x", 1);
    assert_fails(begin_run(*state, &recipe), ST_USAGE, "is not empty: it holds .precious");
    assert_non_null(strstr(status_message(), *state));
    assert_int_equal(count_entries(*state), 1);
    recipe_destroy(&recipe);
}

static void refuses_a_second_run(void **state) {
    struct recipe recipe = make_recipe();
    assert_ok(begin_run(*state, &recipe));
    assert_fails(begin_run(*state, &recipe), ST_USAGE, "is not empty: it holds recipe.cfg");
    check_recipe_file(*state, &recipe);
    recipe_destroy(&recipe);
}

static void refuses_a_file(void **state) {
    struct recipe recipe = make_recipe();
    char path[TEST_PATH_SIZE], below[TEST_PATH_SIZE];
    write_bytes(join(path, *state, "file"), "x", 1);
    assert_fails(begin_run(path, &recipe), ST_USAGE, "file is not a directory");
    assert_fails(begin_run(join(below, path, "run"), &recipe), ST_IO, strerror(ENOTDIR));
    assert_non_null(strstr(status_message(), path));
    recipe_destroy(&recipe);
}

static void reports_what_the_system_refuses(void **state) {
    (void)state;
    struct recipe recipe = make_recipe();
    assert_fails(begin_run("/proc/espalier-run", &recipe), ST_IO,
                 "cannot make directory /proc/espalier-run: ");
    assert_fails(begin_run("", &recipe), ST_IO, strerror(ENOENT));
    char path[5000];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_fails(begin_run(path, &recipe), ST_IO, strerror(ENAMETOOLONG));
    recipe_destroy(&recipe);
}

/* Root may write everywhere: it takes the part of another user for a while. */
static void reports_a_directory_without_write_permission(void **state) {
    enum { NOBODY = 65534 };
    struct recipe recipe = make_recipe();
    char path[TEST_PATH_SIZE], message[1024];
    bool root = geteuid() == 0;
    assert_int_equal(chmod(*state, 0500), 0);
    if (root && (chown(*state, NOBODY, (gid_t)-1) != 0 || seteuid(NOBODY) != 0)) {
        recipe_destroy(&recipe);
        skip(); /* a root without power over other users */
    }
    enum status itself = begin_run(*state, &recipe);
    snprintf(message, sizeof message, "%s", status_message());
    enum status below = begin_run(join(path, *state, "run"), &recipe);
    assert_true(!root || seteuid(0) == 0);
    assert_int_equal(itself, ST_IO);
    assert_int_equal(below, ST_IO);
    assert_non_null(strstr(message, "recipe.cfg: Permission denied"));
    assert_non_null(strstr(status_message(), "run: Permission denied"));
    assert_int_equal(chmod(*state, 0700), 0);
    recipe_destroy(&recipe);
}

static void default_has_name_and_time(void **state) {
    (void)state;
    char path[256];
    struct recipe recipe = {.name = (char[]){"ann_a"}};
    time_t before = time(NULL);
    run_dir_default(&recipe, path, sizeof path);
    struct tm tm = {.tm_isdst = -1};
    int end = 0;
    assert_int_equal(sscanf(path, "results/runs/ann_a-%4d%2d%2d-%2d%2d%2d%n", &tm.tm_year,
                            &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end),
                     6);
    assert_int_equal(path[end], '\0');
    assert_int_equal(end, strlen("results/runs/ann_a-YYYYmmdd-HHMMSS"));
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    time_t said = mktime(&tm);
    assert_true(said >= before && said <= time(NULL));
}

static void whole_file_replaces(void **state) {
    static char text[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE];
    join(path, *state, "file");
    assert_ok(file_write_whole(path, "first", 5));
    assert_ok(file_write_whole(path, "2nd", 3));
    assert_int_equal(read_bytes(path, text), 3);
    assert_string_equal(text, "2nd");
    assert_ok(file_write_whole(path, NULL, 0));
    assert_int_equal(read_bytes(path, text), 0);
    assert_int_equal(count_entries(*state), 1);
}

static void whole_file_is_written_beside_the_working_directory(void **state) {
    static char text[TEST_FILE_MAX];
    char before[TEST_PATH_SIZE];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(*state), 0);
    enum status status = file_write_whole("bare", "x", 1);
    size_t count = read_bytes("bare", text);
    assert_int_equal(chdir(before), 0);
    assert_ok(status);
    assert_int_equal(count, 1);
}

/* The content is lost when it is flushed, after all writes have succeeded. */
static void full_disk_leaves_the_old_file(void **state) {
    static char text[TEST_FILE_MAX];
    char path[TEST_PATH_SIZE], temporary[TEST_PATH_SIZE];
    assert_ok(file_write_whole(join(path, *state, "file"), "old", 3));
    assert_int_equal(symlink("/dev/full", join(temporary, *state, "file.tmp")), 0);
    assert_fails(file_write_whole(path, "new content", 11), ST_IO, strerror(ENOSPC));
    assert_non_null(strstr(status_message(), path));
    read_bytes(path, text);
    assert_string_equal(text, "old");
    assert_int_equal(count_entries(*state), 1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(makes_directory_and_parents, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(takes_an_empty_directory, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_a_used_directory, temp_dir_setup,
                                        temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_a_second_run, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(refuses_a_file, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test(reports_what_the_system_refuses),
        cmocka_unit_test_setup_teardown(reports_a_directory_without_write_permission,
                                        temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test(default_has_name_and_time),
        cmocka_unit_test_setup_teardown(whole_file_replaces, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(whole_file_is_written_beside_the_working_directory,
                                        temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_old_file, temp_dir_setup,
                                        temp_dir_teardown),
    };
    return RUN_TESTS(tests, argc, argv);
}
