/* check.h - what every unit test includes: cmocka, and a main that can run one test by name. */
#ifndef ESPALIER_TESTS_CHECK_H
#define ESPALIER_TESTS_CHECK_H

#include <espalier/status.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/** Assert success, showing the message otherwise. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        enum status assert_status_ = (expr);                                                       \
        if (assert_status_ != ST_OK)                                                               \
            fail_msg("%s failed: %s", #expr, status_message());                                    \
    } while (0)

/** Assert a failure with this code whose message contains this text. */
#define assert_fails(expr, code, text)                                                             \
    do {                                                                                           \
        assert_int_equal((expr), (code));                                                          \
        if (strstr(status_message(), (text)) == NULL)                                              \
            fail_msg("message '%s' lacks '%s'", status_message(), (text));                         \
    } while (0)

/** Run the group, or only the test that argv[1] names. CTest registers each test by its name. */
#define RUN_TESTS(tests, argc, argv)                                                               \
    ((argc) > 1 ? (cmocka_set_test_filter((argv)[1]), cmocka_run_group_tests((tests), NULL, NULL)) \
                : cmocka_run_group_tests((tests), NULL, NULL))

#endif
