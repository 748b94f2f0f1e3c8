/* Packed bits, against counting one by one. */
#include "check.h"
#include <espalier/bitmask.h>

static void begins_with_zero_bits(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 63, 64, 65, 1000};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct bitmask mask;
        assert_ok(bitmask_create(counts[i], &mask));
        assert_int_equal(mask.count, counts[i]);
        assert_int_equal(bitmask_count_range(mask.words, 0, counts[i]), 0);
        bitmask_destroy(&mask);
        assert_null(mask.words);
        assert_int_equal(mask.count, 0);
        bitmask_destroy(&mask);
    }
}

static void words_hold_all_bits(void **state) {
    (void)state;
    assert_int_equal(bitmask_words(0), 0);
    assert_int_equal(bitmask_words(1), 1);
    assert_int_equal(bitmask_words(64), 1);
    assert_int_equal(bitmask_words(65), 2);
    assert_int_equal(bitmask_words(128), 2);
    assert_int_equal(bitmask_words(600810), 9388);
}

static void bit_i_is_in_word_i_over_64(void **state) {
    (void)state;
    enum { COUNT = 200 };
    for (size_t i = 0; i < COUNT; i++) {
        struct bitmask mask;
        assert_ok(bitmask_create(COUNT, &mask));
        bitmask_set(mask.words, i);
        assert_true(mask.words[i / 64] == (uint64_t)1 << (i % 64));
        for (size_t j = 0; j < COUNT; j++)
            assert_int_equal(bitmask_get(mask.words, j), i == j);
        bitmask_destroy(&mask);
    }
}

static void setting_twice_is_setting_once(void **state) {
    (void)state;
    struct bitmask mask;
    assert_ok(bitmask_create(70, &mask));
    bitmask_set(mask.words, 69);
    bitmask_set(mask.words, 69);
    bitmask_set(mask.words, 0);
    assert_int_equal(bitmask_count_range(mask.words, 0, 70), 2);
    bitmask_destroy(&mask);
}

/* Every range within 200 bits, empty ones too; set are those with i = 0, 2, 3 modulo 5 and the last
 * of each word. */
static void counts_every_range(void **state) {
    (void)state;
    enum { COUNT = 200 };
    struct bitmask mask;
    assert_ok(bitmask_create(COUNT, &mask));
    for (size_t i = 0; i < COUNT; i++)
        if (i * i % 5 != 1 || i % 64 == 63)
            bitmask_set(mask.words, i);
    for (size_t first = 0; first <= COUNT; first++) {
        size_t expected = 0;
        for (size_t end = first; end <= COUNT; end++) {
            assert_int_equal(bitmask_count_range(mask.words, first, end - first), expected);
            expected += end < COUNT && bitmask_get(mask.words, end);
        }
    }
    bitmask_destroy(&mask);
}

static void counts_full_words(void **state) {
    (void)state;
    static const uint64_t words[] = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    assert_int_equal(bitmask_count_range(words, 0, 192), 192);
    assert_int_equal(bitmask_count_range(words, 64, 64), 64);
    assert_int_equal(bitmask_count_range(words, 1, 190), 190);
    assert_int_equal(bitmask_count_range(words, 192, 0), 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_with_zero_bits),
        cmocka_unit_test(words_hold_all_bits),
        cmocka_unit_test(bit_i_is_in_word_i_over_64),
        cmocka_unit_test(setting_twice_is_setting_once),
        cmocka_unit_test(counts_every_range),
        cmocka_unit_test(counts_full_words),
    };
    return RUN_TESTS(tests, argc, argv);
}
