/* Which known name may have been meant: near by edits, or abbreviated, or none. */
#include "check.h"
#include <espalier/nearest.h>

static const char *const names[] = {"epochs", "epsilon", "log_every", "learning_rate", "sgd"};
enum { COUNT = sizeof names / sizeof names[0] };

static void assert_nearest(const char *name, const char *expected) {
    const char *nearest = name_nearest(names, COUNT, name);
    if (expected == NULL && nearest != NULL)
        fail_msg("'%s' has nothing near, but '%s' is named", name, nearest);
    if (expected != NULL && (nearest == NULL || strcmp(nearest, expected) != 0))
        fail_msg("'%s': '%s' expected", name, expected);
}

/* Levenshtein's textbook distance of kitten and sitting is 3; a third of 7 letters is 2. */
static void a_third_of_the_longer_name_may_differ(void **state) {
    (void)state;
    static const char *const sitting[] = {"sitting"}, *const bitten[] = {"bitten"};
    assert_null(name_nearest(sitting, 1, "kitten"));
    assert_string_equal(name_nearest(sitting, 1, "fittong"), "sitting"); /* 2 of 7 */
    assert_string_equal(name_nearest(bitten, 1, "kitten"), "bitten");
    assert_nearest("epoch", "epochs");
    assert_nearest("sdg", "sgd"); /* one swap of 3 letters */
    assert_nearest("xxx", NULL);  /* replaces all */
    assert_nearest("sxx", NULL);  /* 2 of 3 */
    assert_nearest("learningrate", "learning_rate");
}

static void neighbours_that_are_swapped_are_one_edit(void **state) {
    (void)state;
    static const char *const conv[] = {"conv"};
    assert_string_equal(name_nearest(conv, 1, "cnov"), "conv");
    assert_null(name_nearest(conv, 1, "cxyv"));
}

static void the_nearer_wins_and_of_two_the_first(void **state) {
    (void)state;
    static const char *const dense[] = {"dense1", "dense2", "dense12"};
    assert_string_equal(name_nearest(dense, 3, "densf12"), "dense12");
    assert_string_equal(name_nearest(dense, 2, "dense9"), "dense1");
}

static void an_abbreviation_counts_where_it_fits_one_name_alone(void **state) {
    (void)state;
    assert_nearest("lr", "learning_rate");
    assert_nearest("lrate", "learning_rate");
    assert_nearest("le", NULL); /* learning_rate's beginning, and log_every's initials */
    assert_nearest("ep", NULL); /* epochs, epsilon */
    assert_nearest("eps", "epsilon");
    assert_nearest("rate", NULL); /* not the first word */
    assert_nearest("lry", NULL);
}

static void nothing_is_near_to_nothing(void **state) {
    (void)state;
    char text[300];
    memset(text, 'e', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_nearest("", NULL);
    assert_nearest(text, NULL);
    assert_null(name_nearest(NULL, 0, "epochs"));
    const char *long_name = text;
    assert_null(name_nearest(&long_name, 1, "epochs"));
}

static void names_are_joined_as_far_as_they_fit(void **state) {
    (void)state;
    char text[17];
    names_join(names, 0, " or ", text, sizeof text);
    assert_string_equal(text, "");
    names_join(names, 1, " or ", text, sizeof text);
    assert_string_equal(text, "epochs");
    names_join(names, 2, ", ", text, sizeof text); /* 15 characters */
    assert_string_equal(text, "epochs, epsilon");
    names_join(names + 3, 2, " or ", text, sizeof text);
    assert_string_equal(text, "learning_rate...");
    names_join(names, COUNT, " or ", text, sizeof text);
    assert_string_equal(text, "epochs, epsil...");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_third_of_the_longer_name_may_differ),
        cmocka_unit_test(neighbours_that_are_swapped_are_one_edit),
        cmocka_unit_test(the_nearer_wins_and_of_two_the_first),
        cmocka_unit_test(an_abbreviation_counts_where_it_fits_one_name_alone),
        cmocka_unit_test(nothing_is_near_to_nothing),
        cmocka_unit_test(names_are_joined_as_far_as_they_fit),
    };
    return RUN_TESTS(tests, argc, argv);
}
