/* Messages and codes. */
#include "check.h"
#include <pthread.h>
#include <stdlib.h>

static enum status refuse(int count) {
    FAIL(ST_INPUT, "%s: %d found, 3 expected", "file", count);
}

static enum status pass_up(enum status first, int *reached) {
    TRY(first);
    *reached = 1;
    TRY(refuse(7));
    *reached = 2;
    return ST_OK;
}

static enum status pass_up_with_clean_up(enum status first, int *cleaned) {
    enum status status;
    TRY_OUT(first);
    *cleaned = -1;
out:
    *cleaned += 1;
    return status;
}

static void fail_records_message_and_code(void **state) {
    (void)state;
    assert_int_equal(refuse(2), ST_INPUT);
    assert_string_equal(status_message(), "file: 2 found, 3 expected");
}

static void try_returns_the_first_failure(void **state) {
    (void)state;
    int reached = 0;
    assert_int_equal(pass_up(ST_MEMORY, &reached), ST_MEMORY);
    assert_int_equal(reached, 0);
    assert_int_equal(pass_up(ST_OK, &reached), ST_INPUT);
    assert_int_equal(reached, 1);
}

static void try_out_cleans_up(void **state) {
    (void)state;
    int cleaned = 0;
    assert_int_equal(pass_up_with_clean_up(ST_IO, &cleaned), ST_IO);
    assert_int_equal(cleaned, 1);
    assert_int_equal(pass_up_with_clean_up(ST_OK, &cleaned), ST_OK);
    assert_int_equal(cleaned, 0);
}

static void message_may_quote_the_one_before(void **state) {
    (void)state;
    refuse(2);
    status_fail(ST_IO, "rank 1: %s", status_message());
    assert_string_equal(status_message(), "rank 1: file: 2 found, 3 expected");
}

static void message_is_one_line_whatever_it_quotes(void **state) {
    (void)state;
    status_fail(ST_INPUT, "%s: found '%s'", "a\nb\t", "\033[2J\177\xc3\xa9");
    assert_string_equal(status_message(), "a?b?: found '?[2J?\xc3\xa9'");
}

static void long_message_is_cut(void **state) {
    (void)state;
    char text[5000];
    memset(text, 'm', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    status_fail(ST_IO, "begin %s", text);
    assert_true(strncmp(status_message(), "begin mmm", 9) == 0);
    assert_in_range(strlen(status_message()), 500, sizeof text);
}

static void *fail_in_thread(void *result) {
    *(int *)result = status_message()[0] == '\0';
    refuse(99);
    return NULL;
}

static void message_belongs_to_its_thread(void **state) {
    (void)state;
    pthread_t thread;
    int began_empty = 0;
    refuse(2);
    assert_int_equal(pthread_create(&thread, NULL, fail_in_thread, &began_empty), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(began_empty);
    assert_string_equal(status_message(), "file: 2 found, 3 expected");
}

/* 2: the user's to mend (usage, recipe, input); 75: stopped on request (EX_TEMPFAIL of sysexits.h);
 * 1: a failure during the run. */
static void exit_codes_are_the_contract(void **state) {
    (void)state;
    assert_int_equal(status_exit_code(ST_OK), 0);
    for (enum status code = ST_USAGE; code < ST_COUNT; code++) {
        int expected = code == ST_USAGE || code == ST_INPUT || code == ST_SHAPE ? 2 : 1;
        if (code == ST_STOPPED)
            expected = 75;
        assert_int_equal(status_exit_code(code), expected);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_records_message_and_code),
        cmocka_unit_test(try_returns_the_first_failure),
        cmocka_unit_test(try_out_cleans_up),
        cmocka_unit_test(message_may_quote_the_one_before),
        cmocka_unit_test(message_is_one_line_whatever_it_quotes),
        cmocka_unit_test(long_message_is_cut),
        cmocka_unit_test(message_belongs_to_its_thread),
        cmocka_unit_test(exit_codes_are_the_contract),
    };
    return RUN_TESTS(tests, argc, argv);
}
