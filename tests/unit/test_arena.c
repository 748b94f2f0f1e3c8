/* Arenas: aligned, zeroed, apart from each other, freed at once (leaks are ASan's to find). */
#include "check.h"
#include <espalier/arena.h>
#include <stdlib.h>

static int create_arena(void **state) {
    return arena_create((struct arena **)state) != ST_OK;
}

static int destroy_arena(void **state) {
    arena_destroy(*state);
    return 0;
}

static void blocks_are_aligned_and_zeroed(void **state) {
    for (size_t count = 1; count < 300; count += 7) {
        unsigned char *block;
        assert_ok(arena_alloc(*state, count, 3, (void **)&block));
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t i = 0; i < 3 * count; i++)
            assert_int_equal(block[i], 0);
    }
}

/* A hundred blocks, each filled with its own number after all were handed out. */
static void blocks_do_not_overlap(void **state) {
    enum { BLOCKS = 100 };
    unsigned char *blocks[BLOCKS];
    for (size_t i = 0; i < BLOCKS; i++)
        assert_ok(ARENA_ARRAY(*state, i + 1, &blocks[i]));
    for (size_t i = 0; i < BLOCKS; i++)
        memset(blocks[i], (int)i, i + 1);
    for (size_t i = 0; i < BLOCKS; i++)
        for (size_t j = 0; j <= i; j++)
            assert_int_equal(blocks[i][j], i);
}

static void array_has_the_size_of_its_type(void **state) {
    double *numbers;
    assert_ok(ARENA_ARRAY(*state, 5, &numbers));
    assert_int_equal(arena_bytes(*state), 5 * sizeof(double));
    numbers[4] = 1;
}

static void empty_block_is_a_block(void **state) {
    char *block = NULL;
    assert_ok(arena_alloc(*state, 0, 8, (void **)&block));
    assert_non_null(block);
    block[0] = 1; /* at least one byte */
    assert_ok(arena_alloc(*state, 8, 0, (void **)&block));
    assert_non_null(block);
    assert_int_equal(arena_bytes(*state), 0);
}

static void counts_bytes(void **state) {
    void *block;
    assert_int_equal(arena_bytes(*state), 0);
    assert_ok(arena_alloc(*state, 10, 4, &block));
    assert_ok(arena_alloc(*state, 1, 1, &block));
    assert_int_equal(arena_bytes(*state), 41);
}

static void copies_strings(void **state) {
    char text[] = "dense1", *copy, *empty;
    assert_ok(arena_strdup(*state, text, &copy));
    assert_ok(arena_strdup(*state, "", &empty));
    text[0] = 'x';
    assert_string_equal(copy, "dense1");
    assert_string_equal(empty, "");
}

/* Products that wrap to something small: 2^64 / 4 objects of 4 bytes, and one too many of 1. */
static void overflowing_product_is_refused(void **state) {
    void *block;
    assert_fails(arena_alloc(*state, SIZE_MAX / 4 + 1, 4, &block), ST_MEMORY,
                 "out of memory: 4611686018427387904 objects of 4 bytes");
    assert_fails(arena_alloc(*state, SIZE_MAX, 1, &block), ST_MEMORY, "out of memory");
    assert_null(aligned_zeroed(SIZE_MAX / 2 + 1, 2));
    assert_ok(arena_alloc(*state, 1, 1, &block));
    assert_int_equal(arena_bytes(*state), 1);
}

static void memory_outside_is_aligned_and_zeroed(void **state) {
    (void)state;
    for (size_t count = 0; count < 200; count++) {
        unsigned char *block = aligned_zeroed(count, 1);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t i = 0; i < count; i++)
            assert_int_equal(block[i], 0);
        free(block);
    }
}

static void destroying_nothing_is_legal(void **state) {
    (void)state;
    arena_destroy(NULL);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(blocks_are_aligned_and_zeroed, create_arena, destroy_arena),
        cmocka_unit_test_setup_teardown(blocks_do_not_overlap, create_arena, destroy_arena),
        cmocka_unit_test_setup_teardown(array_has_the_size_of_its_type, create_arena,
                                        destroy_arena),
        cmocka_unit_test_setup_teardown(empty_block_is_a_block, create_arena, destroy_arena),
        cmocka_unit_test_setup_teardown(counts_bytes, create_arena, destroy_arena),
        cmocka_unit_test_setup_teardown(copies_strings, create_arena, destroy_arena),
        cmocka_unit_test_setup_teardown(overflowing_product_is_refused, create_arena,
                                        destroy_arena),
        cmocka_unit_test(memory_outside_is_aligned_and_zeroed),
        cmocka_unit_test(destroying_nothing_is_legal),
    };
    return RUN_TESTS(tests, argc, argv);
}
