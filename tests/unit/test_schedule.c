/* The schedules against values worked out by hand, against integer arithmetic, and against
 * tests/fixtures/schedules.txt, which schedules.py works out in 60 digits. */
#include "check.h"
#include <espalier/schedule.h>
#include <math.h>
#include <stdio.h>

static struct prune_settings poster(void) {
    return (struct prune_settings){.schedule = SCHEDULE_LINEAR, .rate = 0.005, .every = 50};
}

static const struct run_length no_run = {0, 0};

static size_t left(const struct prune_settings *prune, size_t connections, int64_t event) {
    struct schedule schedule = schedule_plan(prune, no_run);
    return schedule_survivors(&schedule, connections, event);
}

static int64_t event_of(const struct prune_settings *prune, struct run_length run, int64_t update) {
    struct schedule schedule = schedule_plan(prune, run);
    return schedule_event(&schedule, update);
}

/* The poster's dense1, 4608 x 128 = 589,824 connections: one event takes 2,949.12 of them. */
static void poster_counts(void **state) {
    (void)state;
    const struct {
        int64_t event;
        size_t expected;
    } cases[] = {
        {0, 589824},   {1, 586875}, {2, 583926}, {10, 560333}, {50, 442368},
        {112, 259523}, {199, 2949}, {200, 0},    {201, 0},     {1000000, 0},
    };
    struct prune_settings prune = poster();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(left(&prune, 589824, cases[i].event), cases[i].expected);
    /* dense2, 128 x 10: 6.4 an event */
    assert_int_equal(left(&prune, 1280, 1), 1274);
    assert_int_equal(left(&prune, 1280, 2), 1267);
    assert_int_equal(left(&prune, 1280, 5), 1248);
}

/* A rate that is a ratio of integers, a dyadic one so that doubles hold it: round half up in
 * integers. */
static void linear_matches_integer_arithmetic(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    for (int numerator = 1; numerator <= 64; numerator += 7)
        for (size_t connections = 0; connections < 300; connections += 13)
            for (int64_t event = 0; event < 80; event++) {
                prune.rate = numerator / 64.0;
                size_t taken = (2 * (size_t)event * (size_t)numerator * connections + 64) / 128;
                size_t expected = taken > connections ? 0 : connections - taken;
                assert_int_equal(left(&prune, connections, event), expected);
            }
}

static void survivors_never_increase(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 0.02;
    size_t before = 1199882;
    for (int64_t event = 0; event < 400; event++) {
        size_t now = left(&prune, 1199882, event);
        assert_true(now <= before);
        before = now;
    }
    assert_int_equal(before, 23998); /* 0.02 * 1,199,882 = 23,997.64 */
}

static void keep_is_a_fraction_below_one(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 0.25;
    assert_int_equal(left(&prune, 1000, 100), 500);
    assert_int_equal(left(&prune, 1000, 149), 255);
    assert_int_equal(left(&prune, 1000, 151), 250);
    assert_int_equal(left(&prune, 1000, 5000), 250);
    assert_int_equal(left(&prune, 30, 5000), 8); /* 7.5 */
}

static void keep_is_a_count_from_one(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 1;
    assert_int_equal(left(&prune, 1000, 5000), 1);
    prune.keep = 300;
    assert_int_equal(left(&prune, 1000, 100), 500);
    assert_int_equal(left(&prune, 1000, 199), 300);
    assert_int_equal(left(&prune, 200, 0), 200); /* never above M */
    assert_int_equal(left(&prune, 200, 199), 200);
    assert_int_equal(left(&prune, 0, 7), 0);
    prune.keep = 1e300;
    assert_int_equal(left(&prune, 200, 199), 200);
}

static void late_events_do_not_overflow(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.rate = 1;
    assert_int_equal(left(&prune, (size_t)1 << 40, INT64_MAX), 0);
    prune.keep = 5;
    assert_int_equal(left(&prune, (size_t)1 << 40, INT64_MAX), 5);
}

/* Event e follows update begin + e * every, e = 1, 2, ...; the first update is 1. */
static void events_follow_every_fiftieth_update(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    int64_t events = 0;
    for (int64_t update = 0; update <= 469 * 12; update++) {
        int64_t event = event_of(&prune, no_run, update);
        if (event != 0) {
            assert_int_equal(event, ++events);
            assert_int_equal(update, 50 * event);
        }
    }
    assert_int_equal(events, 112);
}

static void begin_and_end_bound_the_events(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.begin = 120;
    prune.end = 270;
    assert_int_equal(event_of(&prune, no_run, 20), 0);
    assert_int_equal(event_of(&prune, no_run, 70), 0);
    assert_int_equal(event_of(&prune, no_run, 120), 0);
    assert_int_equal(event_of(&prune, no_run, 150), 0);
    assert_int_equal(event_of(&prune, no_run, 170), 1);
    assert_int_equal(event_of(&prune, no_run, 220), 2);
    assert_int_equal(event_of(&prune, no_run, 270), 3);
    assert_int_equal(event_of(&prune, no_run, 320), 0);
    prune.end = 0;
    assert_int_equal(event_of(&prune, no_run, 320), 4);
}

static void none_has_no_events(void **state) {
    (void)state;
    struct prune_settings prune = {.schedule = SCHEDULE_NONE};
    for (int64_t update = 0; update < 200; update++)
        assert_int_equal(event_of(&prune, no_run, update), 0);
    assert_int_equal(left(&prune, 77, 3), 77);
}

/* ---- the other schedules ---- */

static void schedules_match_the_formulas(void **state) {
    (void)state;
    FILE *file = fopen(FIXTURES "/schedules.txt", "r");
    assert_non_null(file);
    char name[32];
    unsigned long connections, keep, expected;
    double rate, mu;
    long events, event;
    int lines = 0, of_kind[SCHEDULE_COUNT] = {0};
    while (fscanf(file, "%31s %lu %lu %lf %lf %ld %ld %lu", name, &connections, &keep, &rate, &mu,
                  &events, &event, &expected) == 8) {
        int kind = kind_find(schedule_names, name);
        assert_true(kind >= 0);
        const struct schedule schedule = {.kind = (enum schedule_kind)kind,
                                          .every = 1,
                                          .events = events,
                                          .rate = rate,
                                          .mu = mu,
                                          .keep = (double)keep};
        if (schedule_survivors(&schedule, connections, event) != expected)
            fail_msg("%s: M %lu, k %lu, E %ld, e %ld: found %zu, expected %lu", name, connections,
                     keep, events, event, schedule_survivors(&schedule, connections, event),
                     expected);
        of_kind[kind]++;
        lines++;
    }
    assert_true(feof(file));
    fclose(file);
    assert_int_equal(lines, 503);
    for (int kind = SCHEDULE_LINEAR; kind < SCHEDULE_COUNT; kind++)
        assert_true(of_kind[kind] > 0);
}

/* Barbu et al. 2017, eq. 3 at mu = 300, N = 500, M = 1000, k = 10: the first step takes 54 %. */
static void fsa_of_the_paper(void **state) {
    (void)state;
    struct prune_settings prune = {
        .schedule = SCHEDULE_FSA, .mu = 300, .every = 1, .end = 250, .keep = 10};
    assert_int_equal(left(&prune, 1000, 0), 1000);
    assert_int_equal(left(&prune, 1000, 1), 458); /* 10 + 990 * 498 / 1100 = 458.2 */
    assert_int_equal(left(&prune, 1000, 249), 10);
    assert_int_equal(left(&prune, 1000, 250), 10);
    prune.mu = 0; /* a constant pace: 3.96 at each of 250 events */
    assert_int_equal(left(&prune, 1000, 1), 996);
    assert_int_equal(left(&prune, 1000, 125), 505);
    assert_int_equal(left(&prune, 1000, 249), 14);
    assert_int_equal(left(&prune, 1000, 250), 10);
}

static const enum schedule_kind to_keep[] = {SCHEDULE_FSA, SCHEDULE_FSA_EXPONENTIAL, SCHEDULE_CUBIC,
                                             SCHEDULE_ONESHOT};
enum { TO_KEEP = sizeof to_keep / sizeof to_keep[0] };

/* Exactly k at the last event, not before the first; never more than one event before. */
static void schedules_go_down_to_keep(void **state) {
    (void)state;
    static const double keeps[] = {0.5, 0.02, 1, 300, 1e300};
    static const double mus[] = {0, 1, 300};
    for (int i = 0; i < TO_KEEP; i++)
        for (int j = 0; j < 5 * 3; j++) {
            const struct prune_settings prune = {.schedule = to_keep[i],
                                                 .keep = keeps[j / 3],
                                                 .mu = mus[j % 3],
                                                 .every = 50,
                                                 .begin = 100,
                                                 .end = 1370};
            size_t before = 1280, k = prune.keep < 1 ? (size_t)lround(1280 * prune.keep) : 1280;
            if (prune.keep >= 1 && prune.keep < 1280)
                k = (size_t)prune.keep;
            int64_t events = 0;
            for (int64_t update = 0; update <= 2000; update++) {
                int64_t event = event_of(&prune, no_run, update);
                if (event == 0)
                    continue;
                assert_int_equal(event, ++events);
                size_t now = left(&prune, 1280, event);
                assert_true(now <= before && now >= k);
                before = now;
            }
            assert_int_equal(events, to_keep[i] == SCHEDULE_ONESHOT ? 1 : 25); /* 1270 / 50 */
            assert_int_equal(before, k);
            assert_int_equal(left(&prune, 1280, events + 1), k);
        }
}

static void survivors_of_nothing_are_none(void **state) {
    (void)state;
    for (int kind = 0; kind < SCHEDULE_COUNT; kind++) {
        const struct prune_settings prune = {
            .schedule = (enum schedule_kind)kind, .rate = 0.1, .keep = 3, .every = 1, .end = 5};
        for (int64_t event = 0; event < 7; event++)
            assert_int_equal(left(&prune, 0, event), 0);
    }
}

/* Without an end, FSA's N is the run after its warm-up: k at half of it. */
static void half_of_the_run_is_annealed(void **state) {
    (void)state;
    const struct run_length run = {5628, 469};
    for (int i = 0; i < TO_KEEP - 1; i++) {
        struct prune_settings prune = {.schedule = to_keep[i], .keep = 0.5, .every = 50};
        assert_int_equal(schedule_plan(&prune, run).events, 56); /* 2814 / 50 */
        prune.begin = 628;
        assert_int_equal(schedule_plan(&prune, run).events, 50);
        assert_int_equal(event_of(&prune, run, 628 + 2500), 50);
        assert_int_equal(event_of(&prune, run, 628 + 2550), 0);
        prune.begin = 5628; /* the run is over */
        assert_int_equal(schedule_plan(&prune, run).events, 0);
        assert_int_equal(event_of(&prune, run, 5678), 0);
    }
    const struct prune_settings linear = poster();
    assert_int_equal(event_of(&linear, run, 5600), 112);
    assert_int_equal(event_of(&linear, run, 50000), 1000);
}

/* begin 2, end 7, every 3 in each unit. */
static void units_count_updates_events_and_epochs(void **state) {
    (void)state;
    static const struct {
        enum schedule_unit unit;
        int64_t begin, every, events;
    } cases[] = {{UNIT_UPDATES, 2, 3, 1}, {UNIT_EVENTS, 6, 3, 5}, {UNIT_EPOCHS, 938, 1407, 1}};
    for (int i = 0; i < 3; i++) {
        const struct prune_settings prune = {.schedule = SCHEDULE_FSA,
                                             .unit = cases[i].unit,
                                             .keep = 0.5,
                                             .begin = 2,
                                             .end = 7,
                                             .every = 3};
        const struct run_length run = {5628, 469};
        for (int64_t update = 0; update < 5000; update++) {
            int64_t since = update - cases[i].begin, event = since / cases[i].every;
            bool falls = since > 0 && since % cases[i].every == 0 && event <= cases[i].events;
            assert_int_equal(event_of(&prune, run, update), falls ? event : 0);
        }
    }
}

/* At the bounds of the keys nothing overflows (UBSan watches). */
static void large_settings_do_not_overflow(void **state) {
    (void)state;
    for (int unit = 0; unit < SCHEDULE_UNIT_COUNT; unit++)
        for (int end = 0; end < 2; end++) {
            const struct prune_settings prune = {.schedule = SCHEDULE_CUBIC,
                                                 .unit = (enum schedule_unit)unit,
                                                 .keep = 1,
                                                 .begin = 4294967294,
                                                 .end = end ? 4294967295 : 0,
                                                 .every = 2147483647};
            const struct run_length run = {INT64_C(2147483647) * 1000000, 2147483647};
            assert_int_equal(event_of(&prune, run, 5), 0);
            assert_true(left(&prune, 1000, 1) >= 1);
        }
}

/* A run of unknown length has no epochs and no middle. */
static void unknown_runs_have_no_events(void **state) {
    (void)state;
    struct prune_settings prune = {.schedule = SCHEDULE_FSA, .keep = 1, .every = 1};
    for (int64_t update = 0; update < 100; update++)
        assert_int_equal(event_of(&prune, no_run, update), 0);
    prune.unit = UNIT_EPOCHS;
    prune.end = 3;
    for (int64_t update = 0; update < 100; update++)
        assert_int_equal(event_of(&prune, no_run, update), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poster_counts),
        cmocka_unit_test(linear_matches_integer_arithmetic),
        cmocka_unit_test(survivors_never_increase),
        cmocka_unit_test(keep_is_a_fraction_below_one),
        cmocka_unit_test(keep_is_a_count_from_one),
        cmocka_unit_test(late_events_do_not_overflow),
        cmocka_unit_test(events_follow_every_fiftieth_update),
        cmocka_unit_test(begin_and_end_bound_the_events),
        cmocka_unit_test(none_has_no_events),
        cmocka_unit_test(schedules_match_the_formulas),
        cmocka_unit_test(fsa_of_the_paper),
        cmocka_unit_test(schedules_go_down_to_keep),
        cmocka_unit_test(survivors_of_nothing_are_none),
        cmocka_unit_test(half_of_the_run_is_annealed),
        cmocka_unit_test(units_count_updates_events_and_epochs),
        cmocka_unit_test(large_settings_do_not_overflow),
        cmocka_unit_test(unknown_runs_have_no_events),
    };
    return RUN_TESTS(tests, argc, argv);
}
