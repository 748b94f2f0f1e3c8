/* Where a weight's survivors are in what its block computes with. */
#include "model_internal.h"

#include <espalier/arena.h>
#include <string.h>

/* The arrays of a weight: those of the block, then those of its constants, then what neither takes,
 * each survivor in a place of its own, where its gradient stays 0. */
enum part { PART_BLOCK, PART_CONSTANTS, PART_NONE, PARTS };

enum { NOWHERE = -1 };

/* Where the rows and columns of a layer's canonical weights are in the two parts. */
struct map {
    size_t count;            /* survivors */
    uint32_t columns;        /* of the layer */
    const uint32_t *indices; /* [count]; NULL: all are left */
    int32_t *rows;           /* [outputs]: where, in both parts, or NOWHERE */
    int32_t *column[2];      /* [columns] */
    uint32_t width[2];       /* columns of the parts */
    uint32_t height;         /* rows of the parts */
};

/* What comes of it. */
struct placement {
    size_t counts[PARTS], begins[PARTS], room;
    uint32_t *places;     /* [count] */
    uint32_t *indices[2]; /* [counts]: of the weights that a part has, in its own numbers */
};

/* ---- the map ---- */

/* Numbers from 0 on for the channels of one fate. */
static void number_channels(const struct block *block, enum channel_fate fate, int32_t *numbers) {
    int32_t next = 0;
    for (int k = 0; k < block->desc.output.channels; k++)
        numbers[k] = block->reduction.fates[k] == fate ? next++ : NOWHERE;
}

static void number_all(int32_t *numbers, size_t count) {
    for (size_t k = 0; k < count; k++)
        numbers[k] = (int32_t)k;
}

/* Columns are [channels][taps] for a convolution, [pixels][channels] for a dense layer. */
static void map_columns(const struct block_desc *desc, const int32_t *channel, int32_t channels,
                        int32_t *columns) {
    const int32_t all = desc->input.channels, taps = desc->kernel * desc->kernel;
    const int32_t pixels = desc->input.height * desc->input.width;
    for (int32_t c = 0; desc->kind == BLOCK_CONV && c < all; c++)
        for (int32_t t = 0; t < taps; t++)
            *columns++ = channel[c] == NOWHERE ? NOWHERE : channel[c] * taps + t;
    for (int32_t p = 0; desc->kind == BLOCK_DENSE && p < pixels; p++)
        for (int32_t c = 0; c < all; c++)
            *columns++ = channel[c] == NOWHERE ? NOWHERE : p * channels + channel[c];
}

/* Those that are gathered move together. */
static void skip_columns(const struct block *block, int32_t *columns) {
    int32_t next = 0;
    for (size_t j = 0; j < shape_size(block->desc.input); j++)
        if (columns[j] != NOWHERE)
            columns[j] = block->reduction.skipped[j] != 0 ? NOWHERE : next++;
}

static uint32_t columns_of(const struct block_desc *desc) {
    return (uint32_t)(block_weights(desc) / (size_t)desc->linear.channels);
}

static enum status map_create(struct arena *arena, const struct network *network, int index,
                              struct map *map) {
    const struct block *block = &network->blocks[index], *before = block_before(network, index);
    const struct block_desc *desc = &block->desc;
    const size_t outputs = (size_t)desc->linear.channels, inputs = (size_t)desc->input.channels;
    const int32_t folded = block->constants != NULL ? (int32_t)block->constants->channels : 0;
    int32_t *channels;
    map->columns = columns_of(desc);
    map->height = (uint32_t)block->reduced.linear.channels;
    map->width[PART_BLOCK] = columns_of(&block->reduced);
    map->width[PART_CONSTANTS] = folded > 0 ? columns_of(&block->constants->desc) : 0;
    TRY(ARENA_ARRAY(arena, outputs, &map->rows));
    TRY(ARENA_ARRAY(arena, inputs, &channels));
    TRY(ARENA_ARRAY(arena, map->columns, &map->column[PART_BLOCK]));
    TRY(ARENA_ARRAY(arena, map->columns, &map->column[PART_CONSTANTS]));
    number_channels(block, CHANNEL_KEPT, map->rows);
    number_all(channels, inputs);
    if (before != NULL)
        number_channels(before, CHANNEL_KEPT, channels);
    map_columns(desc, channels, before != NULL ? before->reduced.output.channels : (int)inputs,
                map->column[PART_BLOCK]);
    if (block->reduction.gathers)
        skip_columns(block, map->column[PART_BLOCK]);
    memset(channels, NOWHERE, inputs * sizeof *channels); /* all bits set: -1 */
    if (folded > 0)
        number_channels(before, CHANNEL_CONSTANT, channels);
    map_columns(desc, channels, folded, map->column[PART_CONSTANTS]);
    return ST_OK;
}

/* ---- survivors, one after the other ---- */

struct walk {
    size_t survivor, first; /* the first index of the row */
    size_t row;
};

/* The part of the next survivor, and its index there. */
static enum part step(const struct map *map, struct walk *walk, uint32_t *index) {
    const size_t e = walk->survivor++, canonical = map->indices != NULL ? map->indices[e] : e;
    for (; canonical >= walk->first + map->columns; walk->row++)
        walk->first += map->columns;
    const size_t j = canonical - walk->first;
    const int32_t row = map->rows[walk->row];
    for (int part = 0; row != NOWHERE && part < PART_NONE; part++)
        if (map->column[part][j] != NOWHERE) {
            *index = (uint32_t)row * map->width[part] + (uint32_t)map->column[part][j];
            return (enum part)part;
        }
    return PART_NONE;
}

static void count_parts(const struct map *map, bool sparse, struct placement *placement) {
    uint32_t index;
    for (struct walk walk = {0, 0, 0}; walk.survivor < map->count;)
        placement->counts[step(map, &walk, &index)]++;
    for (int part = 0; part < PARTS; part++) {
        const bool whole = !sparse && part != PART_NONE;
        placement->begins[part] = placement->room;
        placement->room += whole ? (size_t)map->height * map->width[part] : placement->counts[part];
    }
}

/* In dense form by index, else in order. */
static void fill(const struct map *map, bool sparse, struct placement *placement) {
    size_t next[PARTS] = {0};
    for (struct walk walk = {0, 0, 0}; walk.survivor < map->count;) {
        uint32_t index = 0;
        const size_t e = walk.survivor;
        const enum part part = step(map, &walk, &index);
        const size_t order = next[part]++;
        const bool by_index = !sparse && part != PART_NONE;
        placement->places[e] = (uint32_t)(placement->begins[part] + (by_index ? index : order));
        if (sparse && part != PART_NONE)
            placement->indices[part][order] = index;
    }
}

static enum status placement_create(struct arena *arena, const struct map *map, bool sparse,
                                    struct placement *placement) {
    *placement = (struct placement){.room = 0};
    count_parts(map, sparse, placement);
    for (int part = 0; part < PART_NONE; part++)
        TRY(ARENA_ARRAY(arena, sparse ? placement->counts[part] : 0, &placement->indices[part]));
    TRY(ARENA_ARRAY(arena, map->count, &placement->places));
    fill(map, sparse, placement);
    return ST_OK;
}

/* ---- carrying it out ---- */

/* Arrays of zeros; those there are where they have the room. */
static enum status make_room(struct backend *backend, struct parameter *p, size_t room) {
    const size_t bytes = room * sizeof *p->dense;
    if (p->dense != NULL && p->room >= room) {
        TRY(backend->clear(backend, p->dense, bytes));
        return backend->clear(backend, p->dense_gradient, bytes);
    }
    backend->release(backend, p->dense);
    backend->release(backend, p->dense_gradient);
    p->dense = p->dense_gradient = NULL;
    p->room = room;
    TRY(backend->alloc(backend, bytes, (void **)&p->dense));
    return backend->alloc(backend, bytes, (void **)&p->dense_gradient);
}

/* Survivors are taken as they are in beta. */
static void release_room(struct backend *backend, struct parameter *p) {
    backend->release(backend, p->places);
    backend->release(backend, p->dense);
    backend->release(backend, p->dense_gradient);
    p->places = NULL;
    p->dense = p->dense_gradient = NULL;
    p->room = 0;
}

/* A plan in dense form need not know which of its weights are zero. */
static enum status tell_plan(struct backend *backend, struct block_plan *plan,
                             const struct block_desc *desc, const uint32_t *indices, size_t count) {
    const struct block_survivors all = {NULL, block_weights(desc), false};
    const struct block_survivors some = {indices, count, true};
    return backend->block_plan_set_survivors(plan, indices == NULL ? &all : &some);
}

static enum status tell_part(struct backend *backend, struct block_plan *plan,
                             const struct block_desc *desc, const struct placement *placement,
                             bool sparse, enum part part) {
    const size_t count = placement->counts[part], bytes = count * sizeof(uint32_t);
    uint32_t *indices = NULL;
    if (!sparse)
        return tell_plan(backend, plan, desc, NULL, 0);
    TRY(backend->alloc(backend, bytes, (void **)&indices));
    enum status status = backend->upload(backend, indices, placement->indices[part], bytes);
    if (status == ST_OK)
        status = tell_plan(backend, plan, desc, indices, count);
    backend->release(backend, indices);
    return status;
}

static enum status place_parts(struct network *network, struct block *block,
                               const struct placement *placement) {
    struct backend *backend = network->backend;
    struct parameter *p = &network->parameters[block->weight];
    struct constants *c = block->constants;
    const bool sparse = block->reduction.sparse;
    if (p->places == NULL)
        TRY(backend->alloc(backend, p->count * sizeof *p->places, (void **)&p->places));
    TRY(backend->upload(backend, p->places, placement->places, p->count * sizeof *p->places));
    TRY(make_room(backend, p, placement->room));
    TRY(tell_part(backend, block->plan, &block->reduced, placement, sparse, PART_BLOCK));
    if (c == NULL)
        return ST_OK;
    c->weights = p->dense + placement->begins[PART_CONSTANTS];
    c->weight_gradient = p->dense_gradient + placement->begins[PART_CONSTANTS];
    return tell_part(backend, c->reader, &c->desc, placement, sparse, PART_CONSTANTS);
}

/* Where the block takes every survivor, in sparse form they are in its order as they are. */
static enum status place(struct network *network, struct block *block,
                         const struct placement *placement) {
    struct parameter *p = &network->parameters[block->weight];
    if (!block->reduction.sparse || block->constants != NULL ||
        placement->counts[PART_BLOCK] < p->count)
        return place_parts(network, block, placement);
    release_room(network->backend, p);
    return tell_part(network->backend, block->plan, &block->reduced, placement, true, PART_BLOCK);
}

static enum status place_survivors(struct arena *arena, struct network *network, int index) {
    struct block *block = &network->blocks[index];
    const struct parameter *p = &network->parameters[block->weight];
    struct map map = {.count = p->count};
    struct placement placement;
    TRY(network_get_indices(network, p, arena, &map.indices));
    TRY(map_create(arena, network, index, &map));
    TRY(placement_create(arena, &map, block->reduction.sparse, &placement));
    return place(network, block, &placement);
}

/* The block is the whole layer: survivors are at their indices, or are all that there is. */
static bool is_whole(const struct network *network, int index) {
    const struct block *block = &network->blocks[index];
    return block_weights(&block->reduced) == block_weights(&block->desc);
}

static enum status place_whole(struct network *network, struct block *block) {
    struct backend *backend = network->backend;
    struct parameter *p = &network->parameters[block->weight];
    if (block->reduction.sparse)
        release_room(backend, p);
    return tell_plan(backend, block->plan, &block->desc,
                     block->reduction.sparse ? p->indices : NULL, p->count);
}

enum status placement_apply(struct network *network, int index) {
    struct arena *arena = NULL;
    if (is_whole(network, index))
        return place_whole(network, &network->blocks[index]);
    TRY(arena_create(&arena));
    enum status status = place_survivors(arena, network, index);
    arena_destroy(arena);
    return status;
}
