/* Blocks in sparse form, on every backend: every row of the table of cases with some of its weights
 * left, against the reference with zeros in place of the others. */
#include "hold_blocks.h"
#include "on_backends.h"

#include <espalier/rng.h>

/* ---- what is left ---- */

/* A uniform number for each weight. */
static double draw(int row, int column) {
    uint32_t words[4];
    rng_philox(77, (struct rng_counter){.group = (uint32_t)row, .sample = (uint32_t)column}, words);
    return (double)rng_uniform(words[0]);
}

#define DENSITY(name, density)                                                                     \
    static bool name(const struct block_desc *desc, int row, int column) {                         \
        (void)desc;                                                                                \
        return draw(row, column) < (density);                                                      \
    }
DENSITY(left_1, 1)
DENSITY(left_0_5, 0.5)
DENSITY(left_0_2, 0.2)
DENSITY(left_0_1, 0.1)
DENSITY(left_0_05, 0.05)
DENSITY(left_0_01, 0.01)
DENSITY(left_0_001, 0.001)

static bool nothing_left(const struct block_desc *desc, int row, int column) {
    (void)desc, (void)row, (void)column;
    return false;
}

/* Units or filters without any input. */
static bool rows_gone(const struct block_desc *desc, int row, int column) {
    (void)desc;
    return row % 3 != 1 && draw(row, column) < 0.4;
}

/* Inputs, or weights of all filters, that nothing looks at. */
static bool columns_gone(const struct block_desc *desc, int row, int column) {
    (void)desc;
    return column % 4 == 0 && draw(row, column) < 0.6;
}

/* Whole channels of the input, (h, w, c) being flattened for dense layers, and whole outputs. */
static bool channels_gone(const struct block_desc *desc, int row, int column) {
    const int taps = desc->kind == BLOCK_CONV ? desc->kernel * desc->kernel : 1;
    return row % 2 == 0 && column / taps % desc->input.channels % 2 == 1;
}

static weight_is_left *const patterns[] = {left_1,    left_0_5,     left_0_2,     left_0_1,
                                           left_0_05, left_0_01,    left_0_001,   nothing_left,
                                           rows_gone, columns_gone, channels_gone};

enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

/* ---- the table ---- */

typedef void hold_row(struct backend *const *backends, int count, const struct block_case *row,
                      weight_is_left *left);

/* Each dense row with all patterns, each convolution with one, another from row to row; the
 * poster's large blocks are for test_sparse_threads. */
static bool is_held(enum block_kind kind, int row, int pattern) {
    const struct block_case *c = &block_cases[row];
    const int every = kind == BLOCK_CONV ? PATTERNS : 1;
    return c->kind == kind && c->group != GROUP_POSTER && c->dropconnect == 0 &&
           (row + pattern) % every == 0;
}

static void hold_kind(enum block_kind kind, hold_row *hold) {
    struct backend *backends[MOST_BACKENDS];
    int rows = 0, count = cpu_backends_with(NULL, backends);
    assert_ok(backend_reference_create(&backends[count++]));
    for (int i = 0; i < block_cases_count; i++)
        for (int p = 0; p < PATTERNS; p++)
            if (is_held(kind, i, p)) {
                hold(backends, count, &block_cases[i], patterns[p]);
                rows++;
            }
    assert_true(rows > 0);
    for (int i = 0; i < count; i++)
        backends[i]->destroy(backends[i]);
}

static void dense_within_bounds(void **state) {
    (void)state;
    hold_kind(BLOCK_DENSE, hold_sparse_rounded);
}

static void dense_exact(void **state) {
    (void)state;
    hold_kind(BLOCK_DENSE, hold_sparse_exact);
}

static void conv_within_bounds(void **state) {
    (void)state;
    hold_kind(BLOCK_CONV, hold_sparse_rounded);
}

static void conv_exact(void **state) {
    (void)state;
    hold_kind(BLOCK_CONV, hold_sparse_exact);
}

/* Inputs that no cache holds transposed, on more than two panels of samples. */
static void large_dense_layers_exact(void **state) {
    (void)state;
    const struct block_case row = {.kind = BLOCK_DENSE,
                                   .input = {12, 12, 32},
                                   .units = 20,
                                   .activation = ACTIVATION_RELU,
                                   .pool = 1,
                                   .dropout = 0.5F,
                                   .samples = 150};
    struct backend *backends[MOST_BACKENDS];
    const int count = cpu_backends_with(NULL, backends);
    hold_sparse_exact(backends, count, &row, left_0_1);
    hold_sparse_exact(backends, count, &row, left_0_001);
    hold_sparse_exact(backends, count, &row, channels_gone);
    for (int i = 0; i < count; i++)
        backends[i]->destroy(backends[i]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_within_bounds),
        cmocka_unit_test(dense_exact),
        cmocka_unit_test(large_dense_layers_exact),
        cmocka_unit_test(conv_within_bounds),
        cmocka_unit_test(conv_exact),
    };
    return RUN_TESTS(tests, argc, argv);
}
