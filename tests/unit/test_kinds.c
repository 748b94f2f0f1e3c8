/* The vocabulary: names that recipes in the world rely on, and finding them. */
#include "check.h"
#include <espalier/kinds.h>

struct table {
    const char *const *names;
    int count;
    const char *expected; /* in the order of the enumerators */
};

static const struct table tables[] = {
    {layer_kind_names, LAYER_KIND_COUNT, "conv dense maxpool dropout dropconnect batchnorm "},
    {activation_names, ACTIVATION_COUNT, "none relu sigmoid tanh "},
    {initializer_names, INITIALIZER_COUNT, "glorot_uniform he_normal he_uniform "},
    {optimizer_names, OPTIMIZER_COUNT, "sgd adadelta adam "},
    {schedule_names, SCHEDULE_COUNT, "none linear geometric fsa fsa_exponential cubic oneshot "},
    {schedule_unit_names, SCHEDULE_UNIT_COUNT, "updates events epochs "},
    {inference_names, INFERENCE_COUNT, "mean sample "},
    {prune_scope_names, SCOPE_COUNT, "layer global "},
    {distribution_names, DISTRIBUTION_COUNT, "uniform erk "},
    {deletion_names, DELETION_COUNT, "delete mask "},
};
enum { TABLES = sizeof tables / sizeof tables[0] };

static void names_are_those_of_the_contract(void **state) {
    (void)state;
    for (int t = 0; t < TABLES; t++) {
        char joined[128] = "";
        int count = 0;
        for (; tables[t].names[count] != NULL; count++) {
            strncat(joined, tables[t].names[count], sizeof joined - strlen(joined) - 1);
            strncat(joined, " ", sizeof joined - strlen(joined) - 1);
        }
        assert_string_equal(joined, tables[t].expected);
        assert_int_equal(count, tables[t].count);
    }
}

static void enumerators_index_their_names(void **state) {
    (void)state;
    assert_string_equal(layer_kind_names[LAYER_MAXPOOL], "maxpool");
    assert_string_equal(activation_names[ACTIVATION_TANH], "tanh");
    assert_string_equal(initializer_names[INITIALIZER_HE_NORMAL], "he_normal");
    assert_string_equal(optimizer_names[OPTIMIZER_ADADELTA], "adadelta");
    assert_string_equal(schedule_names[SCHEDULE_LINEAR], "linear");
    assert_string_equal(prune_scope_names[SCOPE_GLOBAL], "global");
}

static void every_name_is_found_at_its_index(void **state) {
    (void)state;
    for (int t = 0; t < TABLES; t++)
        for (int i = 0; i < tables[t].count; i++)
            assert_int_equal(kind_find(tables[t].names, tables[t].names[i]), i);
}

static void what_is_no_name_is_not_found(void **state) {
    (void)state;
    static const char *const strangers[] = {"", "con", "convv", "Conv", " conv", "conv "};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        assert_int_equal(kind_find(layer_kind_names, strangers[i]), -1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_contract),
        cmocka_unit_test(enumerators_index_their_names),
        cmocka_unit_test(every_name_is_found_at_its_index),
        cmocka_unit_test(what_is_no_name_is_not_found),
    };
    return RUN_TESTS(tests, argc, argv);
}
