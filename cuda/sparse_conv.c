/* Convolutions in sparse form: they compute with the survivors alone. */
#include "sparse_conv.h"

#include <math.h>
#include <stdlib.h>

enum {
    ROOM_OUTPUT_BEGIN,
    ROOM_OUTPUT_PLACE,
    ROOM_INPUT_BEGIN,
    ROOM_INPUT_PLACE,
    ROOM_INPUT_ORDER,
    ROOM_PARTS, /* of sums */
    ROOMS
};

struct sparse_conv {
    struct room rooms[ROOMS];
    struct conv_window forward, backward;
    struct conv_list outputs, inputs; /* their entries */
    int gradient_bands;               /* parts of a gradient that there is room for */
};

/* ---- the plan ---- */

static enum status create(struct block_plan *plan) {
    plan->linear = calloc(1, sizeof(struct sparse_conv));
    if (plan->linear == NULL)
        FAIL(ST_MEMORY, "out of memory: the plan of block %u", plan->desc.layer);
    return ST_OK;
}

static void destroy(struct block_plan *plan) {
    struct sparse_conv *s = plan->linear;
    for (int i = 0; s != NULL && i < ROOMS; i++)
        cuda_release(&plan->cuda->base, s->rooms[i].memory);
    free(s);
}

static enum status put(struct block_plan *plan, int which, const void *host, size_t bytes) {
    struct sparse_conv *s = plan->linear;
    return room_put(plan->cuda, &s->rooms[which], host, bytes);
}

static size_t begins_of(const struct conv_window *w) {
    return ((size_t)w->chunks + 1) * (size_t)w->rows;
}

/* A window for the entries that there are, and the lists for it. */
static enum status list(struct block_plan *plan, struct arena *arena, bool forward,
                        const uint32_t *indices, size_t count, struct sparse_lists *lists) {
    struct sparse_conv *s = plan->linear;
    struct conv_window *window = forward ? &s->forward : &s->backward;
    if (!conv_window_choose(&plan->cuda->rates, &plan->desc, forward, plan->max_samples,
                            (double)count, window))
        FAIL(ST_SHAPE, "block %u: its images are too large for sparse form on the backend cuda",
             plan->desc.layer);
    return conv_list_entries(arena, &plan->desc, forward, window, indices, count, lists);
}

static enum status set_outputs(struct block_plan *plan, struct arena *arena,
                               const uint32_t *indices, size_t count) {
    struct sparse_conv *s = plan->linear;
    struct sparse_lists lists;
    TRY(list(plan, arena, true, indices, count, &lists));
    TRY(put(plan, ROOM_OUTPUT_BEGIN, lists.begin, begins_of(&s->forward) * sizeof *lists.begin));
    TRY(put(plan, ROOM_OUTPUT_PLACE, lists.column, count * sizeof *lists.column));
    s->outputs = (struct conv_list){.count = count,
                                    .begin = s->rooms[ROOM_OUTPUT_BEGIN].memory,
                                    .place = s->rooms[ROOM_OUTPUT_PLACE].memory};
    return ST_OK;
}

static enum status set_inputs(struct block_plan *plan, struct arena *arena, const uint32_t *indices,
                              size_t count) {
    struct sparse_conv *s = plan->linear;
    struct sparse_lists lists;
    TRY(list(plan, arena, false, indices, count, &lists));
    TRY(put(plan, ROOM_INPUT_BEGIN, lists.begin, begins_of(&s->backward) * sizeof *lists.begin));
    TRY(put(plan, ROOM_INPUT_PLACE, lists.column, count * sizeof *lists.column));
    TRY(put(plan, ROOM_INPUT_ORDER, lists.order, count * sizeof *lists.order));
    s->inputs = (struct conv_list){.count = count,
                                   .begin = s->rooms[ROOM_INPUT_BEGIN].memory,
                                   .place = s->rooms[ROOM_INPUT_PLACE].memory,
                                   .order = s->rooms[ROOM_INPUT_ORDER].memory};
    return ST_OK;
}

static struct conv_parts parts_for(const struct block_plan *plan, int samples) {
    const struct sparse_conv *s = plan->linear;
    return conv_gradient_parts(&plan->cuda->rates, &s->forward, samples, (double)s->outputs.count);
}

/* Of the chunks of an output. */
static size_t chunk_floats(const struct conv_window *w, int samples) {
    return w->chunks < 2 ? 0
                         : (size_t)w->chunks * (size_t)samples * (size_t)w->out_height *
                               (size_t)w->out_width * (size_t)w->rows;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* What is computed in parts comes one after the other, into the same room. */
static enum status reserve_parts(struct block_plan *plan) {
    struct sparse_conv *s = plan->linear;
    s->gradient_bands = parts_for(plan, plan->max_samples).bands;
    size_t floats = s->gradient_bands > 1 ? (size_t)s->gradient_bands * s->outputs.count : 0;
    floats = larger(floats, chunk_floats(&s->forward, plan->max_samples));
    if (!plan->first)
        floats = larger(floats, chunk_floats(&s->backward, plan->max_samples));
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

static enum status convolve(const struct block_plan *plan, bool forward, int samples,
                            const float *x, float *z) {
    const struct sparse_conv *s = plan->linear;
    const struct conv_window *w = forward ? &s->forward : &s->backward;
    const struct conv_list *entries = forward ? &s->outputs : &s->inputs;
    const int parts =
        conv_combine_parts(&plan->cuda->rates, w, forward, samples, (double)entries->count);
    float *to = w->chunks > 1 ? s->rooms[ROOM_PARTS].memory : z;
    const cudaStream_t stream = plan->cuda->stream;
    TRY_CUDA(kernel_conv_combine(w, entries, parts, plan->weights, x, samples, to, stream));
    if (to != z)
        TRY_CUDA(kernel_add_parts(to, w->chunks, chunk_floats(w, samples) / (size_t)w->chunks, z,
                                  stream));
    return ST_OK;
}

static enum status forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                           float *room, struct epilogue *epilogue) {
    epilogue->bias = plan->bias;
    return pass->samples > 0 ? convolve(plan, true, pass->samples, x, room) : ST_OK;
}

static enum status weight_gradient(const struct block_plan *plan, int samples, const float *dz,
                                   const struct gradients *to) {
    const struct sparse_conv *s = plan->linear;
    const size_t count = s->outputs.count;
    const cudaStream_t stream = plan->cuda->stream;
    struct conv_parts parts = parts_for(plan, samples);
    if (parts.bands > s->gradient_bands)
        parts.bands = 1;
    float *sums = parts.bands > 1 ? s->rooms[ROOM_PARTS].memory : to->dweights;
    TRY_CUDA(
        kernel_conv_correlate(&s->forward, &s->outputs, parts, to->x, dz, samples, sums, stream));
    if (parts.bands > 1)
        TRY_CUDA(kernel_add_parts(sums, parts.bands, count, to->dweights, stream));
    return ST_OK;
}

static enum status backward(struct block_plan *plan, const struct block_pass *pass, float *dz,
                            const struct gradients *to) {
    const int samples = pass->samples;
    const struct sparse_conv *s = plan->linear;
    struct backend *backend = &plan->cuda->base;
    if (samples == 0)
        return cuda_clear(backend, to->dweights, s->outputs.count * sizeof *dz);
    TRY(weight_gradient(plan, samples, dz, to));
    return to->dx != NULL ? convolve(plan, false, samples, dz, to->dx) : ST_OK;
}

/* 0: it does not fit; else not 0, which would say that. */
static double below(const struct block_plan *plan) {
    const struct conv_layer layer = {&plan->desc, plan->max_samples, plan->first};
    struct conv_window window;
    const struct device_rates *rates = &plan->cuda->rates;
    if (!conv_window_choose(rates, &plan->desc, true, 1, 1, &window) ||
        !conv_window_choose(rates, &plan->desc, false, 1, 1, &window))
        return 0;
    return fmax(conv_break_even(rates, &layer), 1e-9);
}

const struct linear_kind linear_sparse_conv = {.name = "sparse weights",
                                               .biased = true,
                                               .create = create,
                                               .destroy = destroy,
                                               .sparse_below = below,
                                               .set_survivors = set_survivors,
                                               .forward = forward,
                                               .backward = backward};
