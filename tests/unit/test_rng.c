/* Philox and the permutation, against published vectors and counting. */
#include "check.h"
#include <espalier/rng.h>
#include <stdlib.h>

/* Known answers of Random123's distribution (kat_vectors, philox4x32 10). */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], words[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t words[4];
        const uint32_t *c = cases[i].counter;
        uint64_t seed = (uint64_t)cases[i].key[1] << 32 | cases[i].key[0];
        rng_philox(seed, (struct rng_counter){c[0], c[1], c[2], c[3]}, words);
        assert_memory_equal(words, cases[i].words, sizeof words);
    }
}

static void uniform_stays_below_one(void **state) {
    (void)state;
    assert_true(rng_uniform(0xffffffffu) < 1.0F);
    assert_true(rng_uniform(0) == 0.0F);
    assert_true(rng_uniform(0x80000000u) == 0.5F);
}

static void permutation_holds_each_index_once(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    uint32_t permutation[COUNT];
    unsigned char seen[COUNT] = {0};
    rng_permutation(7, 3, permutation, COUNT);
    for (int i = 0; i < COUNT; i++) {
        assert_true(permutation[i] < COUNT);
        seen[permutation[i]]++;
    }
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(seen[i], 1);
}

/* All 24 orders of 4 items appear equally often: chi-square with 23 degrees of freedom stays below
 * its 1 - 1e-6 quantile (71.0) over 24,000 epochs, which are fixed by the seed. */
static void permutation_is_uniform(void **state) {
    (void)state;
    enum { EPOCHS = 24000 };
    int counts[256] = {0};
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        uint32_t p[4];
        rng_permutation(11, epoch, p, 4);
        counts[p[0] | p[1] << 2 | p[2] << 4 | p[3] << 6]++;
    }
    double chi_square = 0;
    int orders = 0;
    for (int i = 0; i < 256; i++)
        if (counts[i] > 0) {
            orders++;
            chi_square += (counts[i] - 1000.0) * (counts[i] - 1000.0) / 1000.0;
        }
    assert_int_equal(orders, 24);
    assert_true(chi_square < 71.0);
}

static void permutation_depends_on_seed_and_epoch(void **state) {
    (void)state;
    uint32_t a[64], b[64], c[64];
    rng_permutation(1, 0, a, 64);
    rng_permutation(1, 1, b, 64);
    rng_permutation(2, 0, c, 64);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(uniform_stays_below_one),
        cmocka_unit_test(permutation_holds_each_index_once),
        cmocka_unit_test(permutation_is_uniform),
        cmocka_unit_test(permutation_depends_on_seed_and_epoch),
    };
    return RUN_TESTS(tests, argc, argv);
}
