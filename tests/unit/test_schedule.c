/* The schedules against values worked out by hand, and against integer arithmetic. */
#include "check.h"
#include <espalier/schedule.h>

static struct prune_settings poster(void) {
    return (struct prune_settings){.schedule = SCHEDULE_LINEAR, .rate = 0.005, .every = 50};
}

/* The poster's dense1, 4608 x 128 = 589,824 connections: one event takes 2,949.12 of them. */
static void poster_counts(void **state) {
    (void)state;
    const struct {
        int64_t event;
        size_t left;
    } cases[] = {
        {0, 589824},   {1, 586875}, {2, 583926}, {10, 560333}, {50, 442368},
        {112, 259523}, {199, 2949}, {200, 0},    {201, 0},     {1000000, 0},
    };
    struct prune_settings prune = poster();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(schedule_survivors(&prune, 589824, cases[i].event), cases[i].left);
    /* dense2, 128 x 10: 6.4 an event */
    assert_int_equal(schedule_survivors(&prune, 1280, 1), 1274);
    assert_int_equal(schedule_survivors(&prune, 1280, 2), 1267);
    assert_int_equal(schedule_survivors(&prune, 1280, 5), 1248);
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
                size_t left = taken > connections ? 0 : connections - taken;
                assert_int_equal(schedule_survivors(&prune, connections, event), left);
            }
}

static void survivors_never_increase(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 0.02;
    size_t before = 1199882;
    for (int64_t event = 0; event < 400; event++) {
        size_t left = schedule_survivors(&prune, 1199882, event);
        assert_true(left <= before);
        before = left;
    }
    assert_int_equal(before, 23998); /* 0.02 * 1,199,882 = 23,997.64 */
}

static void keep_is_a_fraction_below_one(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 0.25;
    assert_int_equal(schedule_survivors(&prune, 1000, 100), 500);
    assert_int_equal(schedule_survivors(&prune, 1000, 149), 255);
    assert_int_equal(schedule_survivors(&prune, 1000, 151), 250);
    assert_int_equal(schedule_survivors(&prune, 1000, 5000), 250);
    assert_int_equal(schedule_survivors(&prune, 30, 5000), 8); /* 7.5 */
}

static void keep_is_a_count_from_one(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.keep = 1;
    assert_int_equal(schedule_survivors(&prune, 1000, 5000), 1);
    prune.keep = 300;
    assert_int_equal(schedule_survivors(&prune, 1000, 100), 500);
    assert_int_equal(schedule_survivors(&prune, 1000, 199), 300);
    assert_int_equal(schedule_survivors(&prune, 200, 0), 200); /* never above M */
    assert_int_equal(schedule_survivors(&prune, 200, 199), 200);
    assert_int_equal(schedule_survivors(&prune, 0, 7), 0);
    prune.keep = 1e300;
    assert_int_equal(schedule_survivors(&prune, 200, 199), 200);
}

static void late_events_do_not_overflow(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    prune.rate = 1;
    assert_int_equal(schedule_survivors(&prune, (size_t)1 << 40, INT64_MAX), 0);
    prune.keep = 5;
    assert_int_equal(schedule_survivors(&prune, (size_t)1 << 40, INT64_MAX), 5);
}

/* Event e follows update begin + e * every, e = 1, 2, ...; the first update is 1. */
static void events_follow_every_fiftieth_update(void **state) {
    (void)state;
    struct prune_settings prune = poster();
    int64_t events = 0;
    for (int64_t update = 0; update <= 469 * 12; update++) {
        int64_t event = schedule_event(&prune, update);
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
    assert_int_equal(schedule_event(&prune, 20), 0);
    assert_int_equal(schedule_event(&prune, 70), 0);
    assert_int_equal(schedule_event(&prune, 120), 0);
    assert_int_equal(schedule_event(&prune, 150), 0);
    assert_int_equal(schedule_event(&prune, 170), 1);
    assert_int_equal(schedule_event(&prune, 220), 2);
    assert_int_equal(schedule_event(&prune, 270), 3);
    assert_int_equal(schedule_event(&prune, 320), 0);
    prune.end = 0;
    assert_int_equal(schedule_event(&prune, 320), 4);
}

static void none_has_no_events(void **state) {
    (void)state;
    struct prune_settings prune = {.schedule = SCHEDULE_NONE};
    for (int64_t update = 0; update < 200; update++)
        assert_int_equal(schedule_event(&prune, update), 0);
    assert_int_equal(schedule_survivors(&prune, 77, 3), 77);
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
    };
    return RUN_TESTS(tests, argc, argv);
}
