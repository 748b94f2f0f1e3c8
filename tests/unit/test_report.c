/* Pages of odd runs: nothing overflows, and no place on them is not a number. */
#include "check.h"
#include <espalier/report.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

static struct run_start make_start(void) {
    return (struct run_start){.epochs = 12,
                              .batch = 128,
                              .ranks = 1,
                              .threads = 2,
                              .connections = 1000,
                              .recipe = "tiny",
                              .backend = "cpu",
                              .schedule = "linear",
                              .time = "2026-01-31T12:00:00Z"};
}

/* The page of these runs; the caller frees it. */
static char *page_of(const struct run_record *runs, int count) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    assert_non_null(file);
    assert_ok(report_write(file, runs, count));
    assert_int_equal(fclose(file), 0);
    assert_int_equal(strlen(text), bytes);
    const char *body = strstr(text, "<body>");
    assert_non_null(body);
    assert_null(strstr(body, "nan"));
    assert_null(strstr(body, "inf"));
    assert_non_null(strstr(text, "</html>"));
    return text;
}

static int count_of(const char *text, const char *word) {
    int count = 0;
    while ((text = strstr(text, word)) != NULL) {
        count++;
        text += strlen(word);
    }
    return count;
}

/* Values at an axis' ends, equal ones, none, and what is no number at all. */
static void odd_values(void **state) {
    (void)state;
    static const double values[] = {
        0, 1, 0.5, NAN, INFINITY, -INFINITY, DBL_MIN, -DBL_TRUE_MIN, 1e-9, 1e6, 0.9999};
    const int count = sizeof values / sizeof values[0];
    for (int a = 0; a < count; a++)
        for (int b = 0; b < count; b++) {
            struct run_epoch epochs[] = {{1, 10, values[a], values[b], 5, 900, 1},
                                         {2, 20, values[b], values[a], 5, 900, 1}};
            struct run_step steps[] = {{10, values[a]}, {20, values[b]}};
            const double left[] = {values[a], values[b]};
            struct run_prune prunes[] = {{5, left}};
            struct run_layer layers[] = {{"one", 2}, {"two", 0}};
            const struct run_record run = {.dir = "run",
                                           .start = make_start(),
                                           .epochs = epochs,
                                           .steps = steps,
                                           .prunes = prunes,
                                           .layers = layers,
                                           .epochs_count = 2,
                                           .steps_count = 2,
                                           .prunes_count = 1,
                                           .layers_count = 2};
            free(page_of(&run, 1));
        }
}

static void nothing_has_happened(void **state) {
    (void)state;
    const struct run_record run = {.dir = "/", .start = make_start()};
    char *text = page_of(&run, 1);
    assert_int_equal(count_of(strstr(text, "<body>"), "class=\"marker"), 2); /* the legend's */
    assert_non_null(strstr(text, "unfinished"));
    free(text);
}

static void many_runs(void **state) {
    (void)state;
    enum { RUNS = 40 };
    static char names[RUNS][8];
    static struct run_epoch epoch = {1, 10, 0.9, 0.95, 500, 900, 1};
    struct run_record runs[RUNS];
    for (int i = 0; i < RUNS; i++) {
        snprintf(names[i], sizeof names[i], "run%d", i);
        runs[i] = (struct run_record){
            .dir = names[i], .start = make_start(), .epochs = &epoch, .epochs_count = 1};
    }
    char *text = page_of(runs, RUNS);
    assert_int_equal(count_of(text, "<th scope=\"row\""), RUNS);
    assert_int_equal(count_of(text, "<g class=\"curve"), RUNS * (2 + 1 + 1));
    free(text);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_values),
        cmocka_unit_test(nothing_has_happened),
        cmocka_unit_test(many_runs),
    };
    return RUN_TESTS(tests, argc, argv);
}
