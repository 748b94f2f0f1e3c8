/* Sharing connections out among layers, against handing them out one by one. */
#include "check.h"
#include "tiny_network.h"
#include <espalier/quota.h>

enum { LAYERS_MAX = 6 };

/* Every layer begins with its least; then the connection that is due first goes to its layer, until
 * `total` are out. Due is compared without division: (2 a + 1) / w_a < (2 b + 1) / w_b. */
static void hand_out(const struct quota *quotas, int count, size_t total, size_t *expected) {
    size_t out = 0;
    for (int i = 0; i < count; i++)
        out += expected[i] = quotas[i].least;
    for (; out < total; out++) {
        int next = -1;
        for (int i = 0; i < count; i++) {
            if (expected[i] == quotas[i].connections)
                continue;
            double mine = (2 * (double)expected[i] + 1);
            if (next < 0 ||
                mine * quotas[next].weight < (2 * (double)expected[next] + 1) * quotas[i].weight)
                next = i;
        }
        if (next < 0)
            return;
        expected[next]++;
    }
}

static void check_share(struct quota *quotas, int count, size_t total) {
    size_t expected[LAYERS_MAX];
    hand_out(quotas, count, total, expected);
    quota_share(quotas, count, total);
    for (int i = 0; i < count; i++)
        assert_int_equal(quotas[i].count, expected[i]);
}

/* Integer weights, some equal: ties go to the first. */
static void shares_are_those_of_handing_out(void **state) {
    (void)state;
    uint64_t noise = 3;
    for (int trial = 0; trial < 200; trial++) {
        struct quota quotas[LAYERS_MAX];
        size_t all = 0;
        for (int i = 0; i < LAYERS_MAX; i++) {
            size_t connections = (size_t)(60 * (tiny_noise(&noise) + 1));
            size_t least = (size_t)((float)connections * (tiny_noise(&noise) + 1) / 4);
            quotas[i] = (struct quota){connections, least, (int)(5 + 4 * tiny_noise(&noise)), 0};
            all += connections;
        }
        for (size_t total = 0; total <= all + 3; total++)
            check_share(quotas, LAYERS_MAX, total);
    }
}

static void sums_are_exact_and_counts_never_grow(void **state) {
    (void)state;
    /* ann_a: the weights are sums of sizes */
    struct quota quotas[] = {{288, 1, 32 + 1 + 3 + 3, 0},
                             {9216, 1, 32 + 32 + 3 + 3, 0},
                             {589824, 1, 128 + 4608, 0},
                             {1280, 1, 10 + 128, 0}};
    size_t before[4] = {288, 9216, 589824, 1280};
    for (size_t total = 600608; total >= 4; total -= total > 5000 ? 997 : 1) {
        quota_share(quotas, 4, total);
        size_t sum = 0;
        for (int i = 0; i < 4; i++) {
            assert_true(quotas[i].count <= before[i] && quotas[i].count >= 1);
            before[i] = quotas[i].count;
            sum += quotas[i].count;
        }
        assert_int_equal(sum, total);
    }
}

/* Evci et al. 2020: density proportional to (out + in + kh + kw) / (out in kh kw) where no layer is
 * full. A network of 3 x 3 x 8 x 16 and 100 x 50: 30 to 150. */
static void erk_densities(void **state) {
    (void)state;
    const uint32_t conv[] = {16, 8, 3, 3}, dense[] = {50, 100};
    struct quota quotas[] = {{1152, 0, quota_erk_weight(conv, 4), 0},
                             {5000, 0, quota_erk_weight(dense, 2), 0}};
    assert_true(quotas[0].weight == 30 && quotas[1].weight == 150);
    quota_share(quotas, 2, 600);
    assert_int_equal(quotas[0].count, 100);
    assert_int_equal(quotas[1].count, 500);
    quota_share(quotas, 2, 6100); /* the second is full, the first takes the rest */
    assert_int_equal(quotas[0].count, 1100);
    assert_int_equal(quotas[1].count, 5000);
}

static void least_is_a_part_or_a_count(void **state) {
    (void)state;
    assert_int_equal(quota_least(0, 1000), 0);
    assert_int_equal(quota_least(0.0125, 1000), 13); /* 12.5 */
    assert_int_equal(quota_least(1, 1000), 1);
    assert_int_equal(quota_least(64, 1000), 64);
    assert_int_equal(quota_least(64, 20), 20);
    assert_int_equal(quota_least(1e12, 20), 20);
    assert_int_equal(quota_least(0.5, 0), 0);
}

static void nothing_to_share(void **state) {
    (void)state;
    quota_share(NULL, 0, 7);
    struct quota empty = {0, 0, 3, 99};
    quota_share(&empty, 1, 7);
    assert_int_equal(empty.count, 0);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_those_of_handing_out),
        cmocka_unit_test(sums_are_exact_and_counts_never_grow),
        cmocka_unit_test(erk_densities),
        cmocka_unit_test(least_is_a_part_or_a_count),
        cmocka_unit_test(nothing_to_share),
    };
    return RUN_TESTS(tests, argc, argv);
}
