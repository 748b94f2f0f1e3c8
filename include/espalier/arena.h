/* arena.h - memory that is freed all at once.
 *
 * An arena owns every block it hands out; the blocks live until
 * arena_destroy. Blocks are zeroed and aligned to 64 bytes. */
#ifndef ESPALIER_ARENA_H
#define ESPALIER_ARENA_H

#include <espalier/status.h>
#include <stddef.h>

struct arena;

/** Create an empty arena. The caller owns it. */
enum status arena_create(struct arena **arena);

/** Free the arena and every block it handed out. NULL is legal. */
void arena_destroy(struct arena *arena);

/** A zeroed block of count * size bytes (at least one), 64-byte aligned, in *block.
 *
 *  returns ST_MEMORY when the product overflows or there is no memory. */
enum status arena_alloc(struct arena *arena, size_t count, size_t size, void **block);

/** A copy of a string, owned by the arena. */
enum status arena_strdup(struct arena *arena, const char *text, char **copy);

/** Bytes handed out so far. */
size_t arena_bytes(const struct arena *arena);

/** A zeroed array of `count` objects of the type that `*pointer` points to. */
#define ARENA_ARRAY(arena, count, pointer)                                                         \
    arena_alloc((arena), (count), sizeof(**(pointer)), (void **)(pointer))

/** 64-byte aligned, zeroed memory outside any arena; free with free(). NULL on failure. */
void *aligned_zeroed(size_t count, size_t size);

/** Ask for large pages for a block that has not been written to yet, where it is large enough and
 *  the system has them: what is read here and there then costs fewer walks through page tables. */
void prefer_large_pages(void *block, size_t bytes);

#endif
