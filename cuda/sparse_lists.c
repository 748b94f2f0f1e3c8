/* The lists that survivors are computed with, from their indices. */
#include "sparse.h"

static enum status allocate(struct arena *arena, size_t count, int rows, int columns, int width,
                            struct sparse_lists *lists) {
    const size_t chunks = (size_t)divide_up(columns, width);
    *lists = (struct sparse_lists){.order = NULL};
    TRY(ARENA_ARRAY(arena, (chunks + 1) * (size_t)rows, &lists->begin));
    return ARENA_ARRAY(arena, count, &lists->column);
}

/* A row's entries ascend: where those of each chunk begin, and where the last ones end. */
enum status sparse_list_outputs(struct arena *arena, const uint32_t *indices, size_t count,
                                int units, int inputs, int width, struct sparse_lists *lists) {
    const int chunks = divide_up(inputs, width);
    TRY(allocate(arena, count, units, inputs, width, lists));
    size_t e = 0;
    for (int row = 0; row < units; row++) {
        const size_t first = (size_t)row * (size_t)inputs;
        for (int chunk = 0; chunk < chunks; chunk++) {
            const int column = chunk * width, left = inputs - column;
            const size_t end = first + (size_t)column + (size_t)(left < width ? left : width);
            lists->begin[(size_t)chunk * (size_t)units + (size_t)row] = (uint32_t)e;
            for (; e < count && indices[e] < end; e++)
                lists->column[e] = (uint16_t)(indices[e] - first - (size_t)column);
        }
        lists->begin[(size_t)chunks * (size_t)units + (size_t)row] = (uint32_t)e;
    }
    return ST_OK;
}

enum status room_reserve(struct cuda_backend *cuda, struct room *room, size_t bytes) {
    if (room->memory != NULL && room->bytes >= bytes)
        return ST_OK;
    cuda_release(&cuda->base, room->memory);
    room->memory = NULL;
    TRY(cuda_allocate(bytes, &room->memory));
    room->bytes = bytes;
    return ST_OK;
}

enum status room_put(struct cuda_backend *cuda, struct room *room, const void *host, size_t bytes) {
    TRY(room_reserve(cuda, room, bytes));
    return cuda_upload(&cuda->base, room->memory, host, bytes);
}

void sparse_add_up(uint32_t *next, size_t keys) {
    for (size_t k = 0; k < keys; k++)
        next[k + 1] += next[k];
}

/* Canonical order has the units of each input ascend. */
enum status sparse_list_inputs(struct arena *arena, const uint32_t *indices, size_t count,
                               int units, int inputs, int width, struct sparse_lists *lists) {
    const uint32_t columns = (uint32_t)inputs, wide = (uint32_t)width;
    const size_t chunks = (size_t)divide_up(units, width);
    uint32_t *next; /* [inputs][chunks], an input's chunks side by side */
    TRY(allocate(arena, count, inputs, units, width, lists));
    TRY(ARENA_ARRAY(arena, count, &lists->order));
    TRY(ARENA_ARRAY(arena, (size_t)inputs * chunks + 1, &next));
    for (size_t e = 0; e < count; e++)
        next[indices[e] % columns * chunks + indices[e] / columns / wide + 1]++;
    sparse_add_up(next, (size_t)inputs * chunks);
    for (size_t j = 0; j < (size_t)inputs; j++)
        for (size_t chunk = 0; chunk <= chunks; chunk++)
            lists->begin[chunk * (size_t)inputs + j] = next[j * chunks + chunk];
    for (size_t e = 0; e < count; e++) {
        const uint32_t unit = indices[e] / columns;
        const uint32_t at = next[indices[e] % columns * chunks + unit / wide]++;
        lists->column[at] = (uint16_t)(unit % wide);
        lists->order[at] = (uint32_t)e;
    }
    return ST_OK;
}

static size_t tile_of(uint32_t index, uint32_t inputs) {
    const uint32_t across = (inputs + SPARSE_TILE_COLUMNS - 1) / SPARSE_TILE_COLUMNS;
    return (size_t)(index / inputs / SPARSE_TILE_ROWS) * across +
           index % inputs / SPARSE_TILE_COLUMNS;
}

/* Equal parts of the entries begin .. end - 1 of one tile, behind the pieces that there are. */
static void cut(uint32_t row, uint32_t column, uint32_t begin, uint32_t end,
                struct sparse_tiles *tiles) {
    const uint32_t count = end - begin, parts = (count + SPARSE_PIECE - 1) / SPARSE_PIECE;
    for (uint32_t part = 0; part < parts; part++) {
        const uint32_t from = count / parts * part + (part < count % parts ? part : count % parts);
        const uint32_t size = count / parts + (part < count % parts);
        tiles->pieces[tiles->pieces_count++] =
            (struct sparse_piece){row, column, begin + from, size};
    }
}

enum status sparse_list_tiles(struct arena *arena, const uint32_t *indices, size_t count, int units,
                              int inputs, struct sparse_tiles *tiles) {
    const uint32_t columns = (uint32_t)inputs;
    const size_t across = (size_t)divide_up(inputs, SPARSE_TILE_COLUMNS);
    const size_t all = across * (size_t)divide_up(units, SPARSE_TILE_ROWS);
    uint32_t *next;
    *tiles = (struct sparse_tiles){.pieces_count = 0};
    TRY(ARENA_ARRAY(arena, all + 1, &next));
    TRY(ARENA_ARRAY(arena, all + count / SPARSE_PIECE, &tiles->pieces));
    TRY(ARENA_ARRAY(arena, count, &tiles->places));
    TRY(ARENA_ARRAY(arena, count, &tiles->order));
    for (size_t e = 0; e < count; e++)
        next[tile_of(indices[e], columns) + 1]++;
    sparse_add_up(next, all);
    for (size_t t = 0; t < all; t++)
        cut((uint32_t)(t / across) * SPARSE_TILE_ROWS, (uint32_t)(t % across) * SPARSE_TILE_COLUMNS,
            next[t], next[t + 1], tiles);
    for (size_t e = 0; e < count; e++) {
        const uint32_t at = next[tile_of(indices[e], columns)]++;
        tiles->places[at] = indices[e] / columns % SPARSE_TILE_ROWS << 16 |
                            indices[e] % columns % SPARSE_TILE_COLUMNS;
        tiles->order[at] = (uint32_t)e;
    }
    return ST_OK;
}
