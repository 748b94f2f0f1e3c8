/* Dense layers in sparse form: they compute with the survivors alone. */
#include "sparse.h"

#include <math.h>
#include <stdlib.h>

enum {
    ROOM_OUTPUT_BEGIN,
    ROOM_OUTPUT_COLUMN,
    ROOM_INPUT_BEGIN,
    ROOM_INPUT_COLUMN,
    ROOM_INPUT_ORDER,
    ROOM_PIECES,
    ROOM_PLACES,
    ROOM_TILE_ORDER,
    ROOM_PARTS, /* of sums */
    ROOMS
};

struct sparse_dense {
    struct room rooms[ROOMS];
    struct sparse_rows outputs, inputs; /* forward, backward */
    int output_samples, input_samples;  /* of a block */
    struct sparse_pieces gradient;
    int gradient_parts; /* at most */
};

/* ---- the plan ---- */

static enum status create(struct block_plan *plan) {
    plan->linear = calloc(1, sizeof(struct sparse_dense));
    if (plan->linear == NULL)
        FAIL(ST_MEMORY, "out of memory: the plan of block %u", plan->desc.layer);
    return ST_OK;
}

static void destroy(struct block_plan *plan) {
    struct sparse_dense *s = plan->linear;
    for (int i = 0; s != NULL && i < ROOMS; i++)
        cuda_release(&plan->cuda->base, s->rooms[i].memory);
    free(s);
}

static enum status put(struct block_plan *plan, int which, const void *host, size_t bytes) {
    struct sparse_dense *s = plan->linear;
    return room_put(plan->cuda, &s->rooms[which], host, bytes);
}

static int units_of(const struct block_plan *plan) {
    return plan->desc.linear.channels;
}

static int inputs_of(const struct block_plan *plan) {
    return (int)shape_size(plan->desc.input);
}

static struct sparse_product product_of(const struct block_plan *plan, bool forward, int samples,
                                        size_t count) {
    const int units = units_of(plan), inputs = inputs_of(plan);
    return (struct sparse_product){.rows = forward ? units : inputs,
                                   .columns = forward ? inputs : units,
                                   .samples = samples,
                                   .entries = (double)count,
                                   .is_ordered = !forward};
}

static struct sparse_rows rows_of(const struct sparse_product *product, int block_samples) {
    return (struct sparse_rows){.rows = product->rows,
                                .columns = product->columns,
                                .chunks = sparse_chunks(product->columns, block_samples),
                                .width = sparse_width(product->columns, block_samples)};
}

static size_t begins_of(const struct sparse_rows *rows) {
    return ((size_t)rows->chunks + 1) * (size_t)rows->rows;
}

static enum status set_outputs(struct block_plan *plan, struct arena *arena,
                               const uint32_t *indices, size_t count) {
    struct sparse_dense *s = plan->linear;
    struct sparse_lists lists;
    const struct sparse_product product = product_of(plan, true, plan->max_samples, count);
    s->output_samples = sparse_block_samples(&plan->cuda->rates, &product);
    s->outputs = rows_of(&product, s->output_samples);
    TRY(sparse_list_outputs(arena, indices, count, product.rows, product.columns, s->outputs.width,
                            &lists));
    TRY(put(plan, ROOM_OUTPUT_BEGIN, lists.begin, begins_of(&s->outputs) * sizeof *lists.begin));
    TRY(put(plan, ROOM_OUTPUT_COLUMN, lists.column, count * sizeof *lists.column));
    s->outputs.begin = s->rooms[ROOM_OUTPUT_BEGIN].memory;
    s->outputs.column = s->rooms[ROOM_OUTPUT_COLUMN].memory;
    return ST_OK;
}

static enum status set_inputs(struct block_plan *plan, struct arena *arena, const uint32_t *indices,
                              size_t count) {
    struct sparse_dense *s = plan->linear;
    struct sparse_lists lists;
    const struct sparse_product product = product_of(plan, false, plan->max_samples, count);
    s->input_samples = sparse_block_samples(&plan->cuda->rates, &product);
    s->inputs = rows_of(&product, s->input_samples);
    TRY(sparse_list_inputs(arena, indices, count, product.columns, product.rows, s->inputs.width,
                           &lists));
    TRY(put(plan, ROOM_INPUT_BEGIN, lists.begin, begins_of(&s->inputs) * sizeof *lists.begin));
    TRY(put(plan, ROOM_INPUT_COLUMN, lists.column, count * sizeof *lists.column));
    TRY(put(plan, ROOM_INPUT_ORDER, lists.order, count * sizeof *lists.order));
    s->inputs.begin = s->rooms[ROOM_INPUT_BEGIN].memory;
    s->inputs.column = s->rooms[ROOM_INPUT_COLUMN].memory;
    s->inputs.order = s->rooms[ROOM_INPUT_ORDER].memory;
    return ST_OK;
}

static enum status set_tiles(struct block_plan *plan, struct arena *arena, const uint32_t *indices,
                             size_t count) {
    struct sparse_dense *s = plan->linear;
    struct sparse_tiles tiles;
    TRY(sparse_list_tiles(arena, indices, count, units_of(plan), inputs_of(plan), &tiles));
    TRY(put(plan, ROOM_PIECES, tiles.pieces, (size_t)tiles.pieces_count * sizeof *tiles.pieces));
    TRY(put(plan, ROOM_PLACES, tiles.places, count * sizeof *tiles.places));
    TRY(put(plan, ROOM_TILE_ORDER, tiles.order, count * sizeof *tiles.order));
    s->gradient = (struct sparse_pieces){.rows = units_of(plan),
                                         .columns = inputs_of(plan),
                                         .pieces_count = tiles.pieces_count,
                                         .count = count,
                                         .pieces = s->rooms[ROOM_PIECES].memory,
                                         .places = s->rooms[ROOM_PLACES].memory,
                                         .order = s->rooms[ROOM_TILE_ORDER].memory};
    return ST_OK;
}

static int parts_for(const struct block_plan *plan, int samples) {
    const struct sparse_dense *s = plan->linear;
    return sparse_parts(&plan->cuda->rates, (size_t)s->gradient.pieces_count, s->gradient.count,
                        samples);
}

/* What is computed in parts comes one after the other, into the same room. */
static enum status reserve_parts(struct block_plan *plan) {
    struct sparse_dense *s = plan->linear;
    const struct sparse_rows *rows[] = {&s->outputs, &s->inputs};
    const int parts = s->gradient_parts = parts_for(plan, plan->max_samples);
    size_t floats = parts > 1 ? (size_t)parts * s->gradient.count : 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t chunks = (size_t)rows[i]->chunks;
        const size_t all = chunks * (size_t)plan->max_samples * (size_t)rows[i]->rows;
        floats = chunks > 1 && all > floats ? all : floats;
    }
    return room_reserve(plan->cuda, &s->rooms[ROOM_PARTS], floats * sizeof(float));
}

static enum status set_lists(struct block_plan *plan, struct arena *arena,
                             const struct block_survivors *survivors) {
    const size_t count = survivors->count;
    uint32_t *indices;
    TRY(ARENA_ARRAY(arena, count, &indices));
    TRY(cuda_download(&plan->cuda->base, indices, survivors->indices, count * sizeof *indices));
    TRY(set_outputs(plan, arena, indices, count));
    if (!plan->first)
        TRY(set_inputs(plan, arena, indices, count));
    TRY(set_tiles(plan, arena, indices, count));
    return reserve_parts(plan);
}

static enum status set_survivors(struct block_plan *plan, const struct block_survivors *survivors) {
    struct arena *arena = NULL;
    TRY(arena_create(&arena));
    const enum status status = set_lists(plan, arena, survivors);
    arena_destroy(arena);
    return status;
}

/* ---- passes ---- */

static enum status product(const struct block_plan *plan, bool forward, int samples, const float *x,
                           float *z) {
    const struct sparse_dense *s = plan->linear;
    const struct sparse_rows *rows = forward ? &s->outputs : &s->inputs;
    const struct sparse_product product = product_of(plan, forward, samples, s->gradient.count);
    const struct sparse_grid grid = sparse_grid_of(&plan->cuda->rates, &product,
                                                   forward ? s->output_samples : s->input_samples);
    float *to = rows->chunks > 1 ? s->rooms[ROOM_PARTS].memory : z;
    const cudaStream_t stream = plan->cuda->stream;
    if (samples == 0)
        return ST_OK;
    TRY_CUDA(kernel_sparse_combine(rows, grid, plan->weights, x, samples, to, stream));
    if (to != z)
        TRY_CUDA(
            kernel_add_parts(to, rows->chunks, (size_t)samples * (size_t)rows->rows, z, stream));
    return ST_OK;
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    epilogue->bias = plan->bias;
    return product(plan, true, pass->samples, x, room);
}

static enum status weight_gradient(const struct block_plan *plan, int samples, const float *dz,
                                   const struct gradients *to) {
    const struct sparse_dense *s = plan->linear;
    const int wanted = parts_for(plan, samples);
    const int parts = wanted < s->gradient_parts ? wanted : s->gradient_parts;
    const cudaStream_t stream = plan->cuda->stream;
    float *sums = parts > 1 ? s->rooms[ROOM_PARTS].memory : to->dweights;
    TRY_CUDA(kernel_sparse_correlate(&s->gradient, parts, to->x, dz, samples, sums, stream));
    if (parts > 1)
        TRY_CUDA(kernel_add_parts(sums, parts, s->gradient.count, to->dweights, stream));
    return ST_OK;
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    const int samples = pass->samples;
    TRY(weight_gradient(plan, samples, dz, to));
    return to->dx != NULL ? product(plan, false, samples, dz, to->dx) : ST_OK;
}

/* Not 0, which would say that there is no sparse form at all. */
static double below(const struct block_plan *plan) {
    const struct sparse_layer layer = {.inputs = inputs_of(plan),
                                       .units = units_of(plan),
                                       .samples = plan->max_samples,
                                       .first = plan->first};
    return fmax(sparse_break_even(&plan->cuda->rates, &layer), 1e-9);
}

const struct linear_kind linear_sparse_dense = {.name = "sparse weights",
                                                .biased = true,
                                                .create = create,
                                                .destroy = destroy,
                                                .sparse_below = below,
                                                .set_survivors = set_survivors,
                                                .forward = forward,
                                                .backward = backward};
