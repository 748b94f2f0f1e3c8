/* Selection by magnitude on the CPU takes one vector of memory beside what it selects from. */
#include "check.h"

#include <espalier/backend.h>
#include <espalier/bitmask.h>

/* The sanitizer's own, of sanitizer/allocator_interface.h, which gcc does not install. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *memory);

/* Bytes that are allocated, and their peak. */
static size_t allocated, most_allocated;

static void count_malloc(const volatile void *memory, size_t bytes) {
    (void)memory;
    allocated += bytes;
    most_allocated = allocated > most_allocated ? allocated : most_allocated;
}

static void count_free(const volatile void *memory) {
    allocated -= __sanitizer_get_allocated_size(memory);
}

/* Equal values are the worst case: all of them are copied out. */
static void select_takes_one_vector_of_memory(void **state) {
    (void)state;
    enum { MANY = 100000, SLACK = 65536 }; /* bytes, for the histograms */
    static float values[MANY];
    static uint64_t mask[MANY / 64 + 1];
    const struct segment segment = {values, MANY};
    struct backend *backend;
    assert_ok(backend_cpu_create(1, &backend));
    for (size_t i = 0; i < MANY; i++)
        values[i] = 0.25F;
    const int hooks = __sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
    assert_true(hooks > 0);
    allocated = most_allocated = 0;
    assert_ok(backend->select_largest(backend, &segment, 1, MANY / 2, mask));
    assert_in_range(most_allocated, sizeof values, sizeof values + SLACK);
    assert_int_equal(allocated, 0);
    assert_int_equal(bitmask_count_range(mask, 0, MANY), MANY / 2);
    assert_int_equal(bitmask_count_range(mask, 0, MANY / 2), MANY / 2); /* the first ones */
    backend->destroy(backend);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(select_takes_one_vector_of_memory)};
    return RUN_TESTS(tests, argc, argv);
}
