/* The shapes that are left of networks whose channels and inputs have lost their connections. */
#include "pruned_network.h"

static bool every_second_left(const struct place *p) {
    return (p->out + p->in) % 2 == 0;
}

static bool odd_ones_unread(const struct place *p) {
    return p->first || p->channel % 2 == 0;
}

static bool odd_ones_constant(const struct place *p) {
    return p->last || p->out % 2 == 0;
}

static void expect_shapes(const char *layers, bool masked, double sparse_below, is_left *left,
                          const int (*expected)[3]) {
    struct backend *cpu = cpu_backend_with(NULL, NULL, 2);
    struct side s;
    side_create(&s, cpu, layers, masked, sparse_below);
    set_values(&s, fraction);
    keep(&s, left, left);
    for (int i = 0; i < s.network->blocks_count; i++) {
        const struct block *block = &s.network->blocks[i];
        assert_int_equal(shape_size(block->reduced.input), expected[i][0]);
        assert_int_equal(block->reduced.output.channels, expected[i][1]);
        assert_int_equal(block->constants != NULL, expected[i][2]);
    }
    side_destroy(&s);
    cpu->destroy(cpu);
}

/* Inputs, channels of the output, whether it has constants in its bias. */
static void shapes_shrink(void **state) {
    (void)state;
    static const int whole[][3] = {{196, 8, 0}, {1152, 16, 0}, {400, 24, 0}, {24, 10, 0}};
    static const int unread[][3] = {{196, 4, 0}, {576, 8, 0}, {200, 12, 0}, {12, 10, 0}};
    static const int constant[][3] = {{196, 4, 0}, {576, 8, 1}, {200, 12, 1}, {12, 10, 1}};
    expect_shapes(networks[0], false, 0, every_second_left, whole);
    for (int sparse = 0; sparse <= 1; sparse++) {
        expect_shapes(networks[0], false, sparse, odd_ones_unread, unread);
        expect_shapes(networks[0], false, sparse, odd_ones_constant, constant);
    }
    expect_shapes(networks[0], true, 0, odd_ones_unread, whole);
}

/* Of 16 filters and 8 channels, 8 and 4 are left: 288 of the 576 survivors read these, and dense
 * form computes 16 by 8 by 9. */
static void forms_go_by_what_is_computed(void **state) {
    (void)state;
    static const struct {
        double below;
        bool sparse;
    } forms[] = {{0.24, false}, {0.26, true}};
    for (size_t i = 0; i < 2; i++) {
        struct backend *cpu = cpu_backend_with(NULL, NULL, 2);
        struct side s;
        side_create(&s, cpu, networks[0], false, forms[i].below);
        set_values(&s, fraction);
        keep(&s, odd_ones_constant, odd_ones_constant);
        const struct block *conv2 = &s.network->blocks[1];
        assert_int_equal(s.network->parameters[conv2->weight].sparse, forms[i].sparse);
        side_destroy(&s);
        cpu->destroy(cpu);
    }
}

/* The channels before it count, and are not constant for a batch: none is folded into it. */
static void normalised_channels_are_kept(void **state) {
    (void)state;
    static const int shapes[][3] = {
        {196, 4, 0}, {576, 16, 1}, {1600, 16, 0}, {400, 12, 0}, {12, 10, 1}};
    expect_shapes(normalised, false, 0, odd_ones_constant, shapes);
}

/* Nor is what dropout drops; what nothing reads goes. */
static void dropped_channels_are_not_constant(void **state) {
    (void)state;
    static const int constant[][3] = {
        {196, 8, 0}, {1152, 8, 0}, {288, 16, 0}, {256, 24, 0}, {24, 10, 0}};
    static const int unread[][3] = {
        {196, 4, 0}, {576, 4, 0}, {144, 8, 0}, {128, 12, 0}, {12, 10, 0}};
    expect_shapes(networks[1], false, 0, odd_ones_constant, constant);
    expect_shapes(networks[1], false, 0, odd_ones_unread, unread);
}

/* Units 0 .. n - 1 of the first layer are not read by the second. */
static int unread_units;

static bool some_unread(const struct place *p) {
    return p->layer != 2 || p->channel >= unread_units;
}

/* Of 40 units in steps of 2, and one is left; of single inputs from a quarter on. */
static void shapes_shrink_by_steps(void **state) {
    (void)state;
    static const int left[][2] = {{1, 40}, {2, 38}, {5, 36}, {33, 8}};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        const int shapes[][3] = {{196, left[i][1], 0}, {left[i][1], 24, 0}, {24, 10, 0}};
        unread_units = left[i][0];
        expect_shapes(networks[5], false, 0, some_unread, shapes);
    }
}

/* Pixels in the same way, of 196 in steps of 12. */
static int unread_pixels;

static bool some_pixels_unread(const struct place *p) {
    return !p->first || p->in >= unread_pixels;
}

static void inputs_are_left_out_by_steps(void **state) {
    (void)state;
    static const int left[][2] = {{48, 196}, {59, 196}, {60, 136}, {100, 100}, {190, 16}};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        const int shapes[][3] = {{left[i][1], 40, 0}, {40, 24, 0}, {24, 10, 0}};
        unread_pixels = left[i][0];
        expect_shapes(networks[5], false, 0, some_pixels_unread, shapes);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_shrink),
        cmocka_unit_test(forms_go_by_what_is_computed),
        cmocka_unit_test(normalised_channels_are_kept),
        cmocka_unit_test(dropped_channels_are_not_constant),
        cmocka_unit_test(shapes_shrink_by_steps),
        cmocka_unit_test(inputs_are_left_out_by_steps),
    };
    return RUN_TESTS(tests, argc, argv);
}
