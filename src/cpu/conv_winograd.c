/* Winograd convolution F(4x4, 3x3), forward: blocks of tiles whose transforms stay in the second
 * cache, and outputs that are pooled on their way out. */
#include "conv_direct.h"

#include <math.h>
#include <string.h>

enum { KERNEL = 3, AREA = KERNEL * KERNEL };

/* What the transforms of a block of tiles may take, beside the weights: bytes. */
enum { BLOCK_BYTES = 128 * 1024 };

struct forward {
    struct winograd_layer layer;
    int rows;       /* of tiles that make anything */
    int band;       /* rows of tiles that end where windows end */
    int block;      /* tiles at once, at most */
    float *taps;    /* [channels][9][lanes]: weights on their way to their transform */
    float *weights; /* as kernels.h says, a pair of vectors of filters after the other */
    float *zeros;   /* no bias, [filters] */
    int *numbers;   /* [threads][tiles]: those of an image that are computed */
    uint8_t *tiles; /* [threads][tiles]: 1 where one is blank */
    struct blank_tile {
        float *seen, *y; /* its pixels; what comes of it [pixels of y][filters] */
        uint8_t *state;  /* likewise */
    } blank;
};

bool forward_winograd_applies(const struct block_desc *desc) {
    return desc->kernel == KERNEL && desc->stride == 1;
}

static int quotient_up(int a, int b) {
    return (a + b - 1) / b;
}

/* Measured against direct convolution: below 6 channels the transforms cost what the products save
 * (0.6 to 1.1 times its speed at 2 to 4 channels on AVX-512), and so they do where more than half
 * of the tiles' pixels are beyond the output (0.7 times at 5 x 5 pixels). */
bool forward_winograd_pays(const struct block_desc *desc) {
    const long long rows = quotient_up(desc->linear.height, WINOGRAD_TILE);
    const long long columns = quotient_up(desc->linear.width, WINOGRAD_TILE);
    const long long pixels = (long long)desc->linear.height * desc->linear.width;
    return desc->input.channels >= 6 &&
           2 * pixels >= rows * columns * WINOGRAD_TILE * WINOGRAD_TILE;
}

/* ---- geometry ---- */

static int greatest_common_divisor(int a, int b) {
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}

/* The kernels pool by 2 themselves; other windows need their rows in memory. */
static bool pools_in_memory(const struct block_desc *desc) {
    return desc->pool > 2;
}

/* Floats of a tile's transforms: of what it sees, and of the sums of a pair of vectors. */
static size_t seen_floats(const struct block_plan *plan) {
    return WINOGRAD_POINTS * whole_vectors(plan, plan->desc.input.channels);
}

static size_t sums_floats(const struct block_plan *plan) {
    return WINOGRAD_POINTS * 2 * (size_t)plan->kernels->lanes;
}

static size_t transform_floats(const struct block_plan *plan) {
    const struct forward *forward = plan->forward;
    return (size_t)forward->block * (seen_floats(plan) + sums_floats(plan));
}

static size_t band_floats(const struct block_plan *plan) {
    const struct forward *forward = plan->forward;
    const struct shape linear = plan->desc.linear;
    if (!pools_in_memory(&plan->desc))
        return 0;
    return (size_t)(forward->band * WINOGRAD_TILE) * (size_t)linear.width * (size_t)linear.channels;
}

static int tiles_at_once(const struct block_plan *plan, int most) {
    const size_t bytes = (seen_floats(plan) + sums_floats(plan)) * sizeof(float);
    const int fit = (int)(BLOCK_BYTES / bytes);
    return fit < 1 ? 1 : fit < most ? fit : most;
}

static void plan_tiles(const struct block_plan *plan, struct forward *forward) {
    const struct block_desc *desc = &plan->desc;
    const int rows = quotient_up(desc->output.height * desc->pool, WINOGRAD_TILE);
    const int columns = quotient_up(desc->output.width * desc->pool, WINOGRAD_TILE);
    const int band = desc->pool / greatest_common_divisor(desc->pool, WINOGRAD_TILE);
    forward->layer = (struct winograd_layer){.height = desc->input.height,
                                             .width = desc->input.width,
                                             .channels = desc->input.channels,
                                             .padding = desc->padding,
                                             .columns = columns};
    forward->rows = rows;
    forward->band = pools_in_memory(desc) && band < rows ? band : rows;
    forward->block = tiles_at_once(plan, forward->band * columns);
}

static size_t tiles_count(const struct forward *forward) {
    return (size_t)forward->rows * (size_t)forward->layer.columns;
}

/* Of what blank tiles need: also the lists, which there are without them. */
static enum status create_blank(struct block_plan *plan, struct forward *forward) {
    const size_t lists = (size_t)plan->threads * tiles_count(forward);
    const size_t made = WINOGRAD_TILE * WINOGRAD_TILE * (size_t)plan->desc.linear.channels;
    TRY(ARENA_ARRAY(plan->arena, lists, &forward->numbers));
    TRY(ARENA_ARRAY(plan->arena, lists, &forward->tiles));
    TRY(ARENA_ARRAY(plan->arena, WINOGRAD_POINTS * (size_t)plan->desc.input.channels,
                    &forward->blank.seen));
    TRY(ARENA_ARRAY(plan->arena, made, &forward->blank.y));
    return ARENA_ARRAY(plan->arena, made, &forward->blank.state);
}

static enum status forward_create(struct block_plan *plan, size_t *scratch_floats) {
    const struct block_desc *desc = &plan->desc;
    const size_t filters = whole_vectors(plan, desc->linear.channels);
    const size_t channels = (size_t)desc->input.channels;
    struct forward *forward;
    TRY(ARENA_ARRAY(plan->arena, 1, &forward));
    plan->forward = forward;
    plan_tiles(plan, forward);
    *scratch_floats = transform_floats(plan) + band_floats(plan);
    TRY(ARENA_ARRAY(plan->arena, channels * AREA * (size_t)plan->kernels->lanes, &forward->taps));
    TRY(ARENA_ARRAY(plan->arena, filters, &forward->zeros));
    TRY(create_blank(plan, forward));
    return arena_alloc(plan->arena, channels * WINOGRAD_POINTS, filters * sizeof(float),
                       (void **)&forward->weights);
}

/* ---- weights ---- */

/* Vectors of filters in the pair that begins with filter k. */
static int vectors_of(const struct block_plan *plan, int k) {
    return plan->desc.linear.channels - k > plan->kernels->lanes ? 2 : 1;
}

/* Where the weights of that pair begin. */
static float *weights_of(const struct block_plan *plan, int k) {
    const struct forward *forward = plan->forward;
    return forward->weights + WINOGRAD_POINTS * (size_t)plan->desc.input.channels * (size_t)k;
}

static void forward_load(struct block_plan *plan) {
    const struct forward *forward = plan->forward;
    const struct kernels *kernels = plan->kernels;
    const int channels = plan->desc.input.channels, filters = plan->desc.linear.channels;
    const int lanes = kernels->lanes, taps = channels * AREA;
    for (int k = 0; k < filters; k += lanes) {
        const int first = k - k % (2 * lanes), count = filters - k < lanes ? filters - k : lanes;
        kernels->product->transpose(count, taps, plan->weights + (size_t)k * (size_t)taps,
                                    (size_t)taps, forward->taps, (size_t)lanes);
        kernels->winograd->weights(channels, vectors_of(plan, first) * lanes, forward->taps,
                                   weights_of(plan, first) + (k - first));
    }
}

/* ---- forward ---- */

/* What the outputs of an image, or of a band of it, become. */
static struct winograd_output output_of(const struct block_plan *plan) {
    const struct block_desc *desc = &plan->desc;
    const struct forward *forward = plan->forward;
    return (struct winograd_output){.pool = desc->pool,
                                    .height = desc->output.height,
                                    .width = desc->output.width,
                                    .channels = desc->linear.channels,
                                    .columns = forward->layer.columns,
                                    .bias = plan->bias,
                                    .floor =
                                        desc->activation == ACTIVATION_RELU ? 0.0F : -INFINITY};
}

/* Rows of tiles first .. end - 1. */
struct tile_rows {
    int first, end;
};

static struct tile_rows rows_of(const struct forward *forward, struct winograd_tiles tiles) {
    const int columns = forward->layer.columns;
    return (struct tile_rows){tiles.numbers[0] / columns,
                              tiles.numbers[tiles.count - 1] / columns + 1};
}

/* Rows first .. end - 1 of an image, as far as they are inside. */
static struct winograd_ahead ahead_of(const void *image, size_t row_bytes, int height, int first,
                                      int end) {
    first = first < 0 ? 0 : first;
    end = end > height ? height : end;
    if (image == NULL || first >= end)
        return (struct winograd_ahead){NULL, 0};
    return (struct winograd_ahead){(const char *)image + (size_t)first * row_bytes,
                                   (size_t)(end - first) * row_bytes};
}

/* What is used after the products of some tiles: where their outputs go, and what those after them
 * see, `left` in number. */
static void look_ahead(const struct forward *forward, struct winograd_tiles tiles, int left,
                       const struct image_values *image, const struct winograd_output *output,
                       struct winograd_ahead ahead[WINOGRAD_AHEAD]) {
    const struct winograd_layer *layer = &forward->layer;
    const size_t values = (size_t)output->width * (size_t)output->channels;
    const size_t pixels = (size_t)layer->width * (size_t)layer->channels;
    const int made = WINOGRAD_TILE / output->pool;
    const struct tile_rows rows = rows_of(forward, tiles);
    const int first = (rows.first - output->row) * made, end = (rows.end - output->row) * made;
    ahead[0] = ahead_of(output->y, values * sizeof *output->y, output->height, first, end);
    ahead[1] = ahead_of(output->state, values, output->height, first, end);
    const bool more = left > 0;
    if (more)
        tiles.numbers += tiles.count;
    tiles.count = more && left < tiles.count ? left : tiles.count;
    const struct tile_rows seen =
        more ? rows_of(forward, tiles) : (struct tile_rows){0, rows.end - rows.first};
    ahead[2] = ahead_of(more ? image->x : image->next, pixels * sizeof *image->x, layer->height,
                        seen.first * WINOGRAD_TILE - layer->padding,
                        seen.end * WINOGRAD_TILE - layer->padding + KERNEL - 1);
}

static void compute_tiles(const struct block_plan *plan, const struct winograd_layer *layer,
                          struct winograd_tiles tiles, const float *x,
                          const struct winograd_ahead ahead[WINOGRAD_AHEAD],
                          const struct winograd_output *output) {
    const struct winograd_kernels *kernels = plan->kernels->winograd;
    const struct winograd_ahead nothing[WINOGRAD_AHEAD] = {{NULL, 0}};
    float *seen = plan_scratch(plan), *sums = seen + (size_t)tiles.count * seen_floats(plan);
    kernels->input(layer, tiles, x, seen);
    for (int k = 0; k < output->channels; k += 2 * plan->kernels->lanes) {
        const int vectors = vectors_of(plan, k);
        kernels->multiply(layer->channels, vectors, tiles.count, seen, weights_of(plan, k),
                          k == 0 ? ahead : nothing, sums);
        kernels->output(output, tiles, k, vectors, sums);
    }
}

/* Where tile `number` puts what a blank one becomes. */
static void copy_blank(const struct forward *forward, int number,
                       const struct winograd_output *output) {
    const int made = WINOGRAD_TILE / output->pool, columns = output->columns;
    const int top = (number / columns - output->row) * made, left = number % columns * made;
    const size_t channels = (size_t)output->channels, row = (size_t)made * channels;
    const int wide = output->width - left < made ? output->width - left : made;
    for (int i = 0; i < made && top + i < output->height; i++) {
        const size_t at = ((size_t)(top + i) * (size_t)output->width + (size_t)left) * channels;
        const size_t count = (size_t)wide * channels;
        memcpy(output->y + at, forward->blank.y + (size_t)i * row, count * sizeof *output->y);
        if (output->pool > 1)
            memcpy(output->state + at, forward->blank.state + (size_t)i * row, count);
    }
}

/* Some rows of tiles: which of them are computed. blank [tiles] or NULL. */
static struct winograd_tiles choose_tiles(const struct block_plan *plan, struct tile_rows rows,
                                          const uint8_t *blank,
                                          const struct winograd_output *output) {
    const struct forward *forward = plan->forward;
    int *numbers = forward->numbers + (size_t)omp_get_thread_num() * tiles_count(forward);
    const int columns = forward->layer.columns;
    int count = 0;
    for (int tile = rows.first * columns; tile < rows.end * columns; tile++)
        if (blank != NULL && blank[tile] != 0)
            copy_blank(forward, tile, output);
        else
            numbers[count++] = tile;
    return (struct winograd_tiles){numbers, count};
}

/* Some rows of tiles, in blocks as equal as can be. */
static void rows_of_tiles(const struct block_plan *plan, struct tile_rows rows,
                          const uint8_t *blank, const struct image_values *image,
                          const struct winograd_output *output) {
    const struct forward *forward = plan->forward;
    const struct winograd_tiles all = choose_tiles(plan, rows, blank, output);
    const int blocks = quotient_up(all.count, forward->block);
    struct winograd_tiles block = all;
    for (int i = 0, left = all.count; i < blocks; i++, block.numbers += block.count) {
        struct winograd_ahead ahead[WINOGRAD_AHEAD];
        block.count = all.count / blocks + (i < all.count % blocks);
        left -= block.count;
        look_ahead(forward, block, left, image, output, ahead);
        compute_tiles(plan, &forward->layer, block, image->x, ahead, output);
    }
}

/* The map of an image's tiles in the calling thread's memory: those are blank all of whose outputs
 * are there and blank. NULL where none is. */
static const uint8_t *blank_tiles(const struct block_plan *plan, int sample) {
    const struct forward *forward = plan->forward;
    const struct shape linear = plan->desc.linear;
    const uint8_t *positions = blank_positions(plan, sample);
    uint8_t *tiles = forward->tiles + (size_t)omp_get_thread_num() * tiles_count(forward);
    if (positions == NULL)
        return NULL;
    blank_erode(plan,
                &(struct blank_windows){linear.height, linear.width, WINOGRAD_TILE, WINOGRAD_TILE,
                                        0, forward->rows, forward->layer.columns},
                positions, tiles);
    return tiles;
}

/* Bands of an image, which are pooled from memory. */
static void forward_bands(const struct block_plan *plan, const struct image_values *image,
                          const uint8_t *blank, uint8_t *state) {
    const struct forward *forward = plan->forward;
    const struct block_desc *desc = &plan->desc;
    const int high = forward->band * WINOGRAD_TILE / desc->pool; /* windows in a band */
    float *band = plan_scratch(plan) + transform_floats(plan), *y = image->y;
    struct winograd_output output = output_of(plan);
    struct block_desc windows = *desc;
    output.pool = 1;
    output.width = desc->linear.width;
    output.y = band;
    for (int row = 0, above = 0; row < forward->rows; row += forward->band, above += high) {
        const int left = desc->output.height - above;
        windows.output.height = left < high ? left : high;
        output.height = windows.output.height * desc->pool;
        output.row = row;
        rows_of_tiles(plan,
                      (struct tile_rows){row, row + quotient_up(output.height, WINOGRAD_TILE)},
                      blank, image, &output);
        plan->kernels->epilogue->pool(&windows, band, y, state);
        y += shape_size(windows.output);
        state += shape_size(windows.output);
    }
}

static void forward_whole(const struct block_plan *plan, const struct image_values *image,
                          const uint8_t *blank, uint8_t *state) {
    const struct forward *forward = plan->forward;
    struct winograd_output output = output_of(plan);
    output.y = image->y;
    output.state = state;
    rows_of_tiles(plan, (struct tile_rows){0, forward->rows}, blank, image, &output);
}

static void forward_image(const struct block_plan *plan, const struct block_pass *pass,
                          const struct image_values *image) {
    const struct forward *forward = plan->forward;
    const struct block_desc *desc = &plan->desc;
    const size_t units = shape_size(desc->output), channels = (size_t)desc->output.channels;
    uint8_t *state = plan->state + (size_t)image->sample * units;
    const uint8_t *blank = blank_tiles(plan, image->sample);
    if (pools_in_memory(desc))
        forward_bands(plan, image, blank, state);
    else
        forward_whole(plan, image, blank, state);
    /* All activations ascend, so that the maximum of a window may be taken before. */
    if (desc->activation != ACTIVATION_RELU && desc->activation != ACTIVATION_NONE)
        plan->kernels->epilogue->activate(desc->activation, units / channels, channels,
                                          forward->zeros, image->y, image->y);
    if (desc->pool == 1 && plan_drops(plan, pass))
        memset(state, 0, units);
    epilogue_dropout(plan, pass, image->sample, image->y);
}

/* A tile that sees blank pixels. Its outputs differ from each other in their last bits. */
static bool forward_blank(struct block_plan *plan, const struct block_pass *pass) {
    const struct forward *forward = plan->forward;
    const struct winograd_ahead nothing[WINOGRAD_AHEAD] = {{NULL, 0}};
    const size_t channels = (size_t)plan->desc.input.channels;
    const int side = WINOGRAD_TILE + KERNEL - 1, number = 0;
    const struct winograd_layer layer = {
        .height = side, .width = side, .channels = plan->desc.input.channels, .columns = 1};
    struct winograd_output output = output_of(plan);
    (void)pass;
    for (size_t p = 0; p < WINOGRAD_POINTS; p++)
        memcpy(forward->blank.seen + p * channels, plan->blank.input, channels * sizeof(float));
    if (pools_in_memory(&plan->desc))
        output.pool = 1;
    output.height = output.width = WINOGRAD_TILE / output.pool;
    output.columns = 1;
    output.y = forward->blank.y;
    output.state = forward->blank.state;
    compute_tiles(plan, &layer, (struct winograd_tiles){&number, 1}, forward->blank.seen, nothing,
                  &output);
    return false;
}

const struct forward_kind forward_winograd = {.name = "winograd",
                                              .create = forward_create,
                                              .load = forward_load,
                                              .run = images_forward,
                                              .image = forward_image,
                                              .blank = forward_blank};
