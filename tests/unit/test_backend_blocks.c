/* Every row of the table of cases on every backend, against the reference mathematics. The
 * reference backend is itself held to its double-precision functions. */
#include "hold_blocks.h"
#include "on_backends.h"

typedef void hold_row(struct backend *const *backends, int count, const struct block_case *row);

/* The reference is slow, and left out for the poster's large blocks. */
static void hold_group(enum case_group group, const char *conv, hold_row *hold) {
    struct backend *backends[MOST_BACKENDS];
    const int count = group == GROUP_POSTER ? cpu_backends_with(conv, backends)
                                            : all_backends_with(conv, backends);
    int rows = 0;
    for (int i = 0; i < block_cases_count; i++)
        if (block_cases[i].group == group) {
            hold(backends, count, &block_cases[i]);
            rows++;
        }
    assert_true(rows > 0);
    for (int i = 0; i < count; i++)
        backends[i]->destroy(backends[i]);
}

static void hold_group_exact(enum case_group group) {
    for (int i = 0; i < EXACT_CONVS; i++)
        hold_group(group, exact_convs[i], hold_exact);
}

/* The convolution whose rows are not all chosen for it. */
static const char *conv_of(enum case_group group) {
    return group == GROUP_CONV_WINOGRAD ? "winograd" : NULL;
}

/* Two tests a group: NAME on random inputs, NAME_exact on small integers. */
#define GROUP_TESTS(name, group)                                                                   \
    static void name(void **state) {                                                               \
        (void)state;                                                                               \
        hold_group(group, conv_of(group), hold_rounded);                                           \
    }                                                                                              \
    static void name##_exact(void **state) {                                                       \
        (void)state;                                                                               \
        hold_group_exact(group);                                                                   \
    }

GROUP_TESTS(conv_kernel, GROUP_CONV_KERNEL)
GROUP_TESTS(conv_stride, GROUP_CONV_STRIDE)
GROUP_TESTS(conv_padding, GROUP_CONV_PADDING)
GROUP_TESTS(conv_channels, GROUP_CONV_CHANNELS)
GROUP_TESTS(conv_pool, GROUP_CONV_POOL)
GROUP_TESTS(conv_activation, GROUP_CONV_ACTIVATION)
GROUP_TESTS(conv_tiles, GROUP_CONV_TILES)
GROUP_TESTS(conv_direct, GROUP_CONV_DIRECT)
GROUP_TESTS(conv_sparse, GROUP_CONV_SPARSE)
GROUP_TESTS(conv_winograd, GROUP_CONV_WINOGRAD)
GROUP_TESTS(dense, GROUP_DENSE)
GROUP_TESTS(pass, GROUP_PASS)
GROUP_TESTS(dropout, GROUP_DROPOUT)
GROUP_TESTS(dropconnect, GROUP_DROPCONNECT)
GROUP_TESTS(batch_size, GROUP_BATCH_SIZE)
GROUP_TESTS(empty_batch, GROUP_EMPTY_BATCH)
GROUP_TESTS(poster_blocks, GROUP_POSTER)

static void refuse(struct backend *b, struct block_desc desc) {
    struct block_plan *plan = NULL;
    assert_int_equal(b->block_plan_create(b, &desc, 1, true, &plan), ST_SHAPE);
    assert_true(status_message()[0] != '\0');
}

static void refuse_misfits(struct backend *b) {
    const struct block_case conv = {
        .kind = BLOCK_CONV, .input = {8, 8, 3}, .units = 4, .kernel = 3, .stride = 1, .pool = 2};
    struct block_desc good = case_desc(&conv, 0), bad;
    bad = good, bad.linear.height++, refuse(b, bad);
    bad = good, bad.linear.width--, refuse(b, bad);
    bad = good, bad.output.height++, refuse(b, bad);
    bad = good, bad.output.channels++, refuse(b, bad);
    bad = good, bad.kernel = 9, refuse(b, bad);
    bad = good, bad.pool = 16, refuse(b, bad);
    bad = good, bad.kind = BLOCK_PASS, refuse(b, bad);
    bad = good, bad.kind = BLOCK_DENSE, refuse(b, bad);
    bad = good, bad.kind = BLOCK_NORM, refuse(b, bad);
    bad = good, bad.dropconnect = 0.5F, refuse(b, bad);
    b->destroy(b);
}

/* Two places of the kernel along a side, 60000 zeros apart. */
static void images_too_large_with_their_padding_are_refused(void **state) {
    (void)state;
    const struct block_case row = {.kind = BLOCK_CONV,
                                   .input = {8, 8, 3},
                                   .units = 4,
                                   .kernel = 3,
                                   .stride = 60000,
                                   .padding = 30000,
                                   .pool = 1};
    struct backend *b = cpu_backend_with(NULL, "direct", 1);
    refuse(b, case_desc(&row, 0));
    b->destroy(b);
}

static void misfits_are_refused(void **state) {
    (void)state;
    struct backend *backend;
    assert_ok(backend_reference_create(&backend));
    refuse_misfits(backend);
    assert_ok(backend_cpu_create(2, &backend));
    refuse_misfits(backend);
}

static void unknown_names_are_refused(void **state) {
    (void)state;
    struct backend *backend;
    assert_int_equal(setenv("ESPALIER_CONV", "fourier", 1), 0);
    assert_fails(backend_cpu_create(1, &backend), ST_USAGE, "ESPALIER_CONV=fourier");
    assert_int_equal(setenv("ESPALIER_CONV", "dense", 1), 0);
    assert_fails(backend_cpu_create(1, &backend), ST_USAGE, "ESPALIER_CONV=dense");
    unsetenv("ESPALIER_CONV");
    assert_int_equal(setenv("ESPALIER_ISA", "abacus", 1), 0);
    assert_fails(backend_cpu_create(1, &backend), ST_USAGE, "ESPALIER_ISA=abacus");
    unsetenv("ESPALIER_ISA");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_kernel),
        cmocka_unit_test(conv_kernel_exact),
        cmocka_unit_test(conv_stride),
        cmocka_unit_test(conv_stride_exact),
        cmocka_unit_test(conv_padding),
        cmocka_unit_test(conv_padding_exact),
        cmocka_unit_test(conv_channels),
        cmocka_unit_test(conv_channels_exact),
        cmocka_unit_test(conv_pool),
        cmocka_unit_test(conv_pool_exact),
        cmocka_unit_test(conv_activation),
        cmocka_unit_test(conv_activation_exact),
        cmocka_unit_test(conv_tiles),
        cmocka_unit_test(conv_tiles_exact),
        cmocka_unit_test(conv_direct),
        cmocka_unit_test(conv_direct_exact),
        cmocka_unit_test(conv_sparse),
        cmocka_unit_test(conv_sparse_exact),
        cmocka_unit_test(conv_winograd),
        cmocka_unit_test(conv_winograd_exact),
        cmocka_unit_test(dense),
        cmocka_unit_test(dense_exact),
        cmocka_unit_test(pass),
        cmocka_unit_test(pass_exact),
        cmocka_unit_test(dropout),
        cmocka_unit_test(dropout_exact),
        cmocka_unit_test(dropconnect),
        cmocka_unit_test(dropconnect_exact),
        cmocka_unit_test(batch_size),
        cmocka_unit_test(batch_size_exact),
        cmocka_unit_test(empty_batch),
        cmocka_unit_test(empty_batch_exact),
        cmocka_unit_test(poster_blocks),
        cmocka_unit_test(poster_blocks_exact),
        cmocka_unit_test(images_too_large_with_their_padding_are_refused),
        cmocka_unit_test(misfits_are_refused),
        cmocka_unit_test(unknown_names_are_refused),
    };
    return RUN_TESTS(tests, argc, argv);
}
