#define _DEFAULT_SOURCE /* madvise */
#include <espalier/arena.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 64, LARGE_PAGE = 1 << 21 };

struct arena {
    void **blocks;
    size_t count, capacity;
    size_t bytes;
};

void prefer_large_pages(void *block, size_t bytes) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)block + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)block + bytes) / page * page;
    if (bytes >= LARGE_PAGE)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
}

void *aligned_zeroed(size_t count, size_t size) {
    if (size != 0 && count > (SIZE_MAX - ALIGNMENT) / size)
        return NULL;
    size_t bytes = count * size == 0 ? 1 : count * size;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *block = aligned_alloc(ALIGNMENT, bytes);
    if (block == NULL)
        return NULL;
    prefer_large_pages(block, bytes);
    memset(block, 0, bytes);
    return block;
}

enum status arena_create(struct arena **arena) {
    *arena = calloc(1, sizeof **arena);
    if (*arena == NULL)
        FAIL(ST_MEMORY, "out of memory");
    return ST_OK;
}

void arena_destroy(struct arena *arena) {
    if (arena == NULL)
        return;
    for (size_t i = 0; i < arena->count; i++)
        free(arena->blocks[i]);
    free(arena->blocks);
    free(arena);
}

static enum status reserve_slot(struct arena *arena) {
    if (arena->count < arena->capacity)
        return ST_OK;
    size_t capacity = arena->capacity == 0 ? 16 : 2 * arena->capacity;
    void **blocks = realloc(arena->blocks, capacity * sizeof *blocks);
    if (blocks == NULL)
        FAIL(ST_MEMORY, "out of memory");
    arena->blocks = blocks;
    arena->capacity = capacity;
    return ST_OK;
}

enum status arena_alloc(struct arena *arena, size_t count, size_t size, void **block) {
    TRY(reserve_slot(arena));
    *block = aligned_zeroed(count, size);
    if (*block == NULL)
        FAIL(ST_MEMORY, "out of memory: %zu objects of %zu bytes", count, size);
    arena->blocks[arena->count++] = *block;
    arena->bytes += count * size;
    return ST_OK;
}

enum status arena_strdup(struct arena *arena, const char *text, char **copy) {
    size_t size = strlen(text) + 1;
    TRY(arena_alloc(arena, size, 1, (void **)copy));
    memcpy(*copy, text, size);
    return ST_OK;
}

size_t arena_bytes(const struct arena *arena) {
    return arena->bytes;
}
