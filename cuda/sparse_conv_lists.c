/* How convolutions are cut, and the lists that their survivors are computed with. */
#include "sparse_conv.h"

/* z from x. */
static struct conv_window window_forward(const struct block_desc *d) {
    return (struct conv_window){.height = d->input.height,
                                .width = d->input.width,
                                .channels = d->input.channels,
                                .padding = d->padding,
                                .dilation = 1,
                                .step = d->stride,
                                .out_height = d->linear.height,
                                .out_width = d->linear.width,
                                .rows = d->linear.channels};
}

/* dx from dz, with the weights the other way round. */
static struct conv_window window_backward(const struct block_desc *d) {
    return (struct conv_window){.height = d->linear.height,
                                .width = d->linear.width,
                                .channels = d->linear.channels,
                                .padding = d->kernel - 1 - d->padding,
                                .dilation = d->stride,
                                .step = 1,
                                .out_height = d->input.height,
                                .out_width = d->input.width,
                                .rows = d->input.channels};
}

bool conv_window_cut(const struct block_desc *desc, bool forward, int bands,
                     struct conv_window *window) {
    struct conv_window w = forward ? window_forward(desc) : window_backward(desc);
    const int kernel = desc->kernel, wide = (w.out_width - 1) * w.step + 1;
    const int high = (w.out_height - 1) * w.step + 1;
    w.across = wide + kernel - 1;
    w.band = divide_up(high, bands);
    w.bands = divide_up(high, w.band);
    if ((int64_t)(w.band + kernel - 1) * w.across >= CONV_CELLS)
        return false;
    w.places = (w.band - 1) * w.across + wide;
    w.pitch = (w.band + kernel - 1) * w.across | 1;
    w.chunks = divide_up(w.channels, CONV_FLOATS / w.pitch);
    w.chunk = divide_up(w.channels, w.chunks);
    w.chunks = divide_up(w.channels, w.chunk);
    *window = w;
    return w.places <= CONV_PLACES;
}

/* Of a weight by its canonical index: what it leads to and from, and the first place's look-up. */
struct entry {
    uint32_t row, channel, place;
};

static struct entry entry_of(const struct block_desc *d, bool forward, const struct conv_window *w,
                             uint32_t index) {
    const uint32_t kernel = (uint32_t)d->kernel, taps = kernel * kernel;
    const uint32_t channels = (uint32_t)d->input.channels, tap = index % taps;
    const uint32_t i = tap / kernel, j = tap % kernel, last = kernel - 1;
    const uint32_t input = index / taps % channels, output = index / taps / channels;
    const uint32_t across = (uint32_t)w->across;
    if (forward)
        return (struct entry){output, input, i * across + j};
    return (struct entry){input, output, (last - i) * across + last - j};
}

enum status conv_list_entries(struct arena *arena, const struct block_desc *desc, bool forward,
                              const struct conv_window *window, const uint32_t *indices,
                              size_t count, struct sparse_lists *lists) {
    const size_t rows = (size_t)window->rows, chunks = (size_t)window->chunks;
    const uint32_t chunk = (uint32_t)window->chunk, pitch = (uint32_t)window->pitch;
    uint32_t *next; /* [rows][chunks] */
    *lists = (struct sparse_lists){.order = NULL};
    TRY(ARENA_ARRAY(arena, rows * chunks + 1, &next));
    TRY(ARENA_ARRAY(arena, rows * (chunks + 1), &lists->begin));
    TRY(ARENA_ARRAY(arena, count, &lists->column));
    TRY(ARENA_ARRAY(arena, count, &lists->order));
    for (size_t e = 0; e < count; e++) {
        const struct entry entry = entry_of(desc, forward, window, indices[e]);
        next[entry.row * chunks + entry.channel / chunk + 1]++;
    }
    sparse_add_up(next, rows * chunks);
    for (size_t row = 0; row < rows; row++)
        for (size_t c = 0; c <= chunks; c++)
            lists->begin[c * rows + row] = next[row * chunks + c];
    for (size_t e = 0; e < count; e++) {
        const struct entry entry = entry_of(desc, forward, window, indices[e]);
        const uint32_t at = next[entry.row * chunks + entry.channel / chunk]++;
        lists->column[at] = (uint16_t)(entry.channel % chunk * pitch + entry.place);
        lists->order[at] = (uint32_t)e;
    }
    return ST_OK;
}
