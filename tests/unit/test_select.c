/* Selection by magnitude against a full sort, on inputs that are hard on it. */
#include "on_backends.h"

#include <espalier/backend.h>
#include <espalier/bitmask.h>
#include <espalier/rng.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { VALUES_MAX = 6000, SEGMENTS_MAX = 8 };

/* What a case selects from: one array, cut into segments. */
struct input {
    float values[VALUES_MAX];
    size_t count;
    size_t cuts[SEGMENTS_MAX]; /* the segments' counts */
    int segments;
};

struct entry {
    float magnitude;
    size_t index;
};

static int larger_first(const void *left, const void *right) {
    const struct entry *a = left, *b = right;
    if (a->magnitude != b->magnitude)
        return a->magnitude > b->magnitude ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

/* The specification: sort all by magnitude, ties by index, and take the first `keep`. */
static void select_by_sorting(const struct input *input, size_t keep, uint64_t *mask) {
    static struct entry entries[VALUES_MAX];
    memset(mask, 0, bitmask_words(input->count) * sizeof *mask);
    for (size_t i = 0; i < input->count; i++)
        entries[i] = (struct entry){fabsf(input->values[i]), i};
    qsort(entries, input->count, sizeof entries[0], larger_first);
    for (size_t i = 0; i < keep; i++)
        bitmask_set(mask, entries[i].index);
}

/* `values` is the input's array on the device. */
static int cut(const struct input *input, const float *values, struct segment *segments) {
    for (int s = 0; s < input->segments; s++) {
        segments[s] = (struct segment){values, input->cuts[s]};
        values += input->cuts[s];
    }
    return input->segments;
}

static struct backend *cpu(void) {
    struct backend *backend;
    assert_ok(backend_cpu_create(2, &backend));
    return backend;
}

static void compare_keeping(struct backend *b, const struct input *input, const float *values,
                            size_t keep) {
    uint64_t expected[VALUES_MAX / 64 + 1], mask[VALUES_MAX / 64 + 1];
    struct segment segments[SEGMENTS_MAX];
    const int count = cut(input, values, segments);
    memset(mask, 0xff, sizeof mask); /* it must be overwritten */
    uint64_t *device = device_of(b, mask, sizeof mask);
    select_by_sorting(input, keep, expected);
    assert_ok(b->select_largest(b, segments, count, keep, device));
    assert_ok(b->download(b, mask, device, sizeof mask));
    assert_memory_equal(mask, expected, bitmask_words(input->count) * sizeof *mask);
    assert_int_equal(bitmask_count_range(mask, 0, input->count), keep);
    b->release(b, device);
}

/* Keep nothing, all, and counts between, among them those beside every segment's border. */
static void compare_on(struct backend *b, const struct input *input) {
    float *values = device_of(b, input->values, input->count * sizeof *values);
    size_t border = 0;
    for (int s = 0; s < input->segments; s++) {
        border += input->cuts[s];
        compare_keeping(b, input, values, border - (border > 0));
        compare_keeping(b, input, values, border);
        compare_keeping(b, input, values, border + (border < input->count));
    }
    assert_int_equal(border, input->count);
    compare_keeping(b, input, values, 0);
    for (size_t keep = 1; keep < input->count; keep = keep * 3 / 2 + 1)
        compare_keeping(b, input, values, keep);
    b->release(b, values);
}

static void compare(const struct input *input) {
    struct backend *backends[MOST_BACKENDS];
    const int count = cpu_backends_with(NULL, backends);
    for (int i = 0; i < count; i++) {
        compare_on(backends[i], input);
        backends[i]->destroy(backends[i]);
    }
}

static uint32_t word_at(uint32_t index) {
    uint32_t words[4];
    rng_philox(7, (struct rng_counter){.group = index / 4}, words);
    return words[index % 4];
}

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void select_takes_random_values(void **state) {
    (void)state;
    static struct input input = {.count = 5001, .segments = 3, .cuts = {1000, 4000, 1}};
    for (size_t i = 0; i < input.count; i++)
        input.values[i] = rng_uniform(word_at((uint32_t)i)) - 0.5F;
    compare(&input);
}

/* Any finite bit pattern: denormals, huge and small, both signs. */
static void select_takes_any_bit_pattern(void **state) {
    (void)state;
    static struct input input = {.count = 4099, .segments = 2, .cuts = {99, 4000}};
    for (size_t i = 0; i < input.count; i++) {
        const uint32_t word = word_at((uint32_t)i);
        input.values[i] =
            from_bits((word & 0x7f800000u) == 0x7f800000u ? word ^ 0x40000000u : word);
    }
    compare(&input);
}

static void select_prefers_lower_index_when_all_equal(void **state) {
    (void)state;
    static struct input input = {.count = 1000, .segments = 4, .cuts = {64, 1, 0, 935}};
    for (size_t i = 0; i < input.count; i++)
        input.values[i] = i % 2 == 0 ? 0.25F : -0.25F;
    compare(&input);
}

/* Few distinct magnitudes, so that the threshold's ties straddle every border. */
static void select_breaks_ties_across_segments(void **state) {
    (void)state;
    static struct input input = {.count = 2000, .segments = 6, .cuts = {1, 63, 64, 65, 1000, 807}};
    for (size_t i = 0; i < input.count; i++)
        input.values[i] = (float)((int)(word_at((uint32_t)i) % 7) - 3);
    compare(&input);
}

static void select_treats_both_zeros_alike(void **state) {
    (void)state;
    static struct input input = {.count = 300, .segments = 2, .cuts = {150, 150}};
    for (size_t i = 0; i < input.count; i++)
        input.values[i] = i % 5 == 4 ? FLT_TRUE_MIN : i % 2 == 0 ? -0.0F : 0.0F;
    compare(&input);
}

/* Neighbours that differ in one digit of the radix search only, at each end of the range. */
static void select_separates_neighbours(void **state) {
    (void)state;
    static const uint32_t bases[] = {0, 0x3ff, 0x400, 0xfffff, 0x100000, 0x3f800000, 0x7f7ff000};
    static struct input input = {.count = 700, .segments = 1, .cuts = {700}};
    for (size_t i = 0; i < input.count; i++) {
        const uint32_t sign = (uint32_t)(i % 3 == 0) << 31;
        input.values[i] = from_bits((bases[i % 7] + (uint32_t)(i / 7) % 5) | sign);
    }
    compare(&input);
}

/* Up, down, and two values that are neighbours, in segments of every length up to a word's. */
static void select_takes_ordered_values(void **state) {
    (void)state;
    for (size_t length = 1; length <= 66; length++)
        for (int order = 0; order < 3; order++) {
            static struct input input;
            input = (struct input){
                .count = 3 * length + 7, .segments = 3, .cuts = {length, 2 * length, 7}};
            for (size_t i = 0; i < input.count; i++)
                input.values[i] = order == 0   ? (float)i
                                  : order == 1 ? 1.0F / (float)(i + 1)
                                               : from_bits(0x3f800000u + (uint32_t)(i % 3 == 0));
            compare(&input);
        }
}

static void select_takes_one_element(void **state) {
    (void)state;
    static struct input input = {.values = {-3.0F}, .count = 1, .segments = 1, .cuts = {1}};
    compare(&input);
}

static void select_takes_nothing(void **state) {
    (void)state;
    struct backend *backend = cpu();
    const uint64_t word = 42;
    uint64_t *mask = device_of(backend, &word, sizeof word);
    assert_ok(backend->select_largest(backend, NULL, 0, 0, mask));
    assert_fails(backend->select_largest(backend, NULL, 0, 1, mask), ST_SHAPE, "keep 1 of 0");
    backend->release(backend, mask);
    backend->destroy(backend);
}

static void select_refuses_to_keep_more_than_there_are(void **state) {
    (void)state;
    struct backend *backend = cpu();
    const float values[3] = {1, 2, 3};
    float *device = device_of(backend, values, sizeof values);
    const struct segment segments[2] = {{device, 2}, {device + 2, 1}};
    uint64_t *mask = device_of(backend, &(uint64_t){0}, sizeof *mask);
    assert_fails(backend->select_largest(backend, segments, 2, 4, mask), ST_SHAPE, "keep 4 of 3");
    backend->release(backend, device);
    backend->release(backend, mask);
    backend->destroy(backend);
}

/* Also where nothing or everything is kept, so that no comparison is needed. */
static void select_refuses_what_is_not_finite(void **state) {
    (void)state;
    struct backend *backend = cpu();
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    uint64_t *mask = device_of(backend, &(uint64_t){0}, sizeof *mask);
    for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
        const float values[5] = {1, 2, FLT_MAX, -FLT_MAX, bad[b]};
        float *device = device_of(backend, values, sizeof values);
        const struct segment segments[2] = {{device, 2}, {device + 2, 3}};
        for (size_t keep = 0; keep <= 5; keep++)
            assert_fails(backend->select_largest(backend, segments, 2, keep, mask), ST_NUMERIC,
                         "segment 1, index 2");
        backend->release(backend, device);
    }
    backend->release(backend, mask);
    backend->destroy(backend);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(select_takes_random_values),
        cmocka_unit_test(select_takes_any_bit_pattern),
        cmocka_unit_test(select_prefers_lower_index_when_all_equal),
        cmocka_unit_test(select_breaks_ties_across_segments),
        cmocka_unit_test(select_treats_both_zeros_alike),
        cmocka_unit_test(select_separates_neighbours),
        cmocka_unit_test(select_takes_ordered_values),
        cmocka_unit_test(select_takes_one_element),
        cmocka_unit_test(select_takes_nothing),
        cmocka_unit_test(select_refuses_to_keep_more_than_there_are),
        cmocka_unit_test(select_refuses_what_is_not_finite),
    };
    return RUN_TESTS(tests, argc, argv);
}
