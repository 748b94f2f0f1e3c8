/* Convolutions as products of pixels and weights, exact to FP32.
 *
 * A block computes TILE consecutive pixels of the output, over samples, rows and columns, by
 * FILTERS filters: a thread EACH pixels by WIDE filters in registers. What it reads lies in rows of
 * zero-padded images, one image behind the other, so that the rows that consecutive pixels need are
 * consecutive too: they are in shared memory for CHUNK channels, once for all taps, beside the
 * weights of some taps; the next stage's are copied there meanwhile. An output is the sum over
 * chunks, taps and channels in this order, wherever its pixel lies in a block. */
#include "conv_direct.cuh"
#include "epilogue.cuh"

#include <limits.h>

enum {
    EACH = 6,
    WIDE = 8,
    LANES = 32
}; /* LANES: of a warp, or pixels that a block takes at once */
enum { CONV_THREADS = 128, TILE = EACH * LANES };
enum { TAP_FLOATS = CHUNK * FILTERS, ROOM = (48 << 10) / sizeof(float) };

/* What a block reads in a stage: at most so many rows of `across` pixels, weights of `taps` taps.
 */
struct reach {
    int rows, across, taps;
};

/* ---- weights: [chunks][taps][CHUNK][filters rounded up] ---- */

static size_t packed_floats(int filters, int channels, int taps) {
    return (size_t)round_up(channels, CHUNK) * taps * round_up(filters, FILTERS);
}

size_t convolution_weights(const struct convolution *c) {
    return packed_floats(c->filters, c->channels, c->kernel * c->kernel);
}

/* Element i of what is packed; filters and channels are changed over for a gradient. */
static __device__ float packed_element(const float *weights, int filters, int channels, int taps,
                                       bool reversed, size_t i) {
    const int reads = reversed ? filters : channels, writes = reversed ? channels : filters;
    const int across = round_up(writes, FILTERS), to = (int)(i % across);
    const size_t row = i / across;
    const int tap = (int)(row / CHUNK % taps);
    const int from = (int)(row / CHUNK / taps) * CHUNK + (int)(row % CHUNK);
    if (from >= reads || to >= writes)
        return 0;
    const size_t filter = reversed ? from : to, channel = reversed ? to : from;
    return weights[(filter * channels + channel) * taps + (reversed ? taps - 1 - tap : tap)];
}

static __global__ void convolution_pack(const float *weights, int filters, int channels, int taps,
                                        size_t forwards, float *forward, size_t count,
                                        float *backward) {
    for (size_t i = first_element(); i < count; i += stride())
        if (i < forwards)
            forward[i] = packed_element(weights, filters, channels, taps, false, i);
        else
            backward[i - forwards] =
                packed_element(weights, filters, channels, taps, true, i - forwards);
}

cudaError_t kernel_convolution_weights(const float *weights, int filters, int channels, int taps,
                                       float *forward, float *backward, cudaStream_t stream) {
    const size_t forwards = forward == NULL ? 0 : packed_floats(filters, channels, taps);
    const size_t backwards = backward == NULL ? 0 : packed_floats(channels, filters, taps);
    if (forwards + backwards > 0)
        LAUNCH(convolution_pack, blocks_for(forwards + backwards), THREADS, 0, stream, weights,
               filters, channels, taps, forwards, forward, forwards + backwards, backward);
    return cudaGetLastError();
}

/* ---- tiles ---- */

static int common_divisor(int a, int b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

/* How many ends of rows of `length` there can be between the first and the last pixel of a tile. */
static int most_ends(int length) {
    return (length - common_divisor(TILE, length) + TILE - 1) / length;
}

static int padded_height(const struct convolution *c) {
    return c->height + 2 * c->padding;
}

/* Floats of shared memory. */
static size_t room_of(const struct reach *reach) {
    const size_t pixels = (size_t)reach->rows * reach->across;
    return pixels + 2 * (pixels * CHUNK + (size_t)reach->taps * TAP_FLOATS);
}

static struct reach reach_of(const struct convolution *c) {
    const int between = padded_height(c) - c->out_height * c->stride; /* images, beside a stride */
    const int taps = c->kernel * c->kernel;
    struct reach reach = {most_ends(c->out_width) * c->stride + c->kernel,
                          (c->out_width - 1) * c->stride + c->kernel, 0};
    if (between > 0)
        reach.rows += most_ends(c->out_height * c->out_width) * between;
    const size_t pixels = room_of(&reach);
    if (pixels < ROOM)
        reach.taps = (int)((ROOM - pixels) / (2 * TAP_FLOATS));
    reach.taps = reach.taps < taps ? reach.taps : taps;
    return reach;
}

/* The number of samples has no part in it but for the largest images: it does not change sums. */
bool convolution_fits(const struct convolution *c, int samples) {
    enum { SIDE_MOST = 1 << 13 };
    const int tall = padded_height(c), wide = c->width + 2 * c->padding;
    if (tall > SIDE_MOST || wide > SIDE_MOST || c->stride > SIDE_MOST ||
        1.0 * samples * tall * wide > INT_MAX - TILE)
        return false;
    return convolution_has_planes(c) || reach_of(c).taps > 0;
}

/* ---- stages ---- */

/* What a block goes through: weights of `reach.taps` taps at a time, chunk after chunk. */
struct stage {
    int chunk, tap;
};

/* A block's part of the work, and its memory: for a stage and for the next one. */
struct tile {
    int first_row, rows; /* of padded images, from the first sample on */
    const float *x;      /* of the first pixel's sample */
    const float *weights;
    float *pixels, *taps;
    int *sources;
};

static __device__ int row_of(const struct convolution *c, int pixel) {
    const int row = pixel / c->out_width;
    return row / c->out_height * (c->height + 2 * c->padding) + row % c->out_height * c->stride;
}

static __device__ struct tile tile_of(const struct convolution *c, const struct reach *reach,
                                      int count, const float *x, const float *weights) {
    SHARED_BYTES(float, memory);
    const int first = blockIdx.x * TILE, last = first + TILE < count ? first + TILE : count;
    const size_t sample = first / (c->out_height * c->out_width);
    const int room = reach->rows * reach->across * CHUNK;
    struct tile tile;
    tile.first_row = row_of(c, first);
    tile.rows = row_of(c, last - 1) - tile.first_row + c->kernel;
    tile.x = x + sample * c->height * c->width * c->channels;
    tile.weights = weights + blockIdx.y * FILTERS;
    tile.pixels = memory;
    tile.taps = memory + 2 * room;
    tile.sources = (int *)(memory + 2 * (room + reach->taps * TAP_FLOATS));
    return tile;
}

/* Where the pixel at a place of the block's rows is in x, counted from the first sample's first
 * pixel; -1: it is one of the zeros around an image. */
static __device__ int source_of(const struct convolution *c, int first_row, int across, int place) {
    const int tall = c->height + 2 * c->padding, row = first_row + place / across;
    const int y = row % tall - c->padding, x = place % across - c->padding;
    const bool inside = y >= 0 && y < c->height && x >= 0 && x < c->width;
    return inside ? ((row / tall - first_row / tall) * c->height + y) * c->width + x : -1;
}

/* The chunk's channels of the block's pixels, VECTOR at a time. */
template <int VECTOR>
static __device__ inline void fetch_pixels(const struct tile *tile, int places, int channels,
                                           int chunk, float *pixels) {
    enum { PARTS = CHUNK / VECTOR };
    for (int i = threadIdx.x; i < places * PARTS; i += CONV_THREADS) {
        const int source = tile->sources[i / PARTS], channel = chunk * CHUNK + i % PARTS * VECTOR;
        const bool something = source >= 0 && channel < channels;
        copy_queue<VECTOR *(int)sizeof(float)>(
            &pixels[i * VECTOR], &tile->x[something ? (size_t)source * channels + channel : 0],
            something);
    }
}

/* FILTERS of `across` filters, for so many rows. */
static __device__ inline void fetch_weights(const float *from, int rows, int across, float *to) {
    enum { PARTS = FILTERS / 4 };
    for (int i = threadIdx.x; i < rows * PARTS; i += CONV_THREADS)
        copy_queue<16>(&to[4 * i], &from[(size_t)(i / PARTS) * across + i % PARTS * 4], true);
}

template <int VECTOR>
static __device__ inline void fetch(const struct convolution *c, const struct reach *reach,
                                    const struct tile *tile, struct stage stage, int buffer) {
    const int all = c->kernel * c->kernel, left = all - stage.tap;
    const int taps = left < reach->taps ? left : reach->taps;
    const int across = round_up(c->filters, FILTERS);
    const size_t row = ((size_t)stage.chunk * all + stage.tap) * CHUNK;
    if (stage.tap == 0)
        fetch_pixels<VECTOR>(tile, tile->rows * reach->across, c->channels, stage.chunk,
                             tile->pixels + stage.chunk % 2 * reach->rows * reach->across * CHUNK);
    fetch_weights(tile->weights + row * across, taps * CHUNK, across,
                  tile->taps + buffer * reach->taps * TAP_FLOATS);
}

/* ---- sums ---- */

/* Of a warp's lanes eight are pixels and four are filters; those of the same pixel differ in bits 1
 * and 3, those of the same filters in the others, so that shared memory serves sixteen at once. */
static __device__ inline int lane_pixel() {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    return warp * 8 + lane / 16 * 4 + lane / 4 % 2 * 2 + lane % 2;
}

static __device__ inline int lane_filter() {
    return (threadIdx.x / 8 % 2 * 2 + threadIdx.x / 2 % 2) * WIDE;
}

/* One tap of a chunk. */
static __device__ inline void add_tap(const float *pixels, const int (&places)[EACH],
                                      const float *weights, float (&sums)[EACH][WIDE]) {
#pragma unroll
    for (int part = 0; part < CHUNK; part += 4) {
        struct four x[EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
            x[i] = *(const struct four *)&pixels[places[i] + part];
#pragma unroll
        for (int c = 0; c < 4; c++) {
            struct four w[WIDE / 4];
#pragma unroll
            for (int f = 0; f < WIDE / 4; f++)
                w[f] = *(const struct four *)&weights[(part + c) * FILTERS + 4 * f];
#pragma unroll
            for (int i = 0; i < EACH; i++)
#pragma unroll
                for (int f = 0; f < WIDE; f++)
                    sums[i][f] += x[i].at[c] * w[f / 4].at[f % 4];
        }
    }
}

/* The stage's taps. */
static __device__ inline void add_stage(const struct convolution *c, const struct reach *reach,
                                        const struct tile *tile, struct stage stage, int buffer,
                                        const int (&places)[EACH], float (&sums)[EACH][WIDE]) {
    const int all = c->kernel * c->kernel, end = stage.tap + reach->taps;
    const float *weights = tile->taps + buffer * reach->taps * TAP_FLOATS + lane_filter();
    const float *row = tile->pixels + (stage.chunk % 2 * reach->rows + stage.tap / c->kernel) *
                                          reach->across * CHUNK;
    int column = stage.tap % c->kernel;
    for (int tap = stage.tap; tap < end && tap < all; tap++) {
        add_tap(row + column * CHUNK, places, weights, sums);
        weights += TAP_FLOATS;
        if (++column == c->kernel) {
            column = 0;
            row += reach->across * CHUNK;
        }
    }
}

static __device__ inline void store_all(const struct convolution *c, int count,
                                        const float (&sums)[EACH][WIDE], float *y) {
    const int filter = blockIdx.y * FILTERS + lane_filter();
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int pixel = blockIdx.x * TILE + i * LANES + lane_pixel();
#pragma unroll
        for (int f = 0; f < WIDE; f += 4)
            if (pixel < count)
                store(c, filter + f, &sums[i][f], &y[(size_t)pixel * c->filters + filter + f]);
    }
}

/* Where the block's memory has the upper left corners of this thread's windows. */
static __device__ inline void find_places(const struct convolution *c, const struct tile *tile,
                                          int across, int count, int (&places)[EACH]) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int pixel = blockIdx.x * TILE + i * LANES + lane_pixel();
        const int row = pixel < count ? row_of(c, pixel) - tile->first_row : 0;
        const int column = pixel < count ? pixel % c->out_width * c->stride : 0;
        places[i] = (row * across + column) * CHUNK;
    }
}

static __device__ inline struct stage next_stage(const struct convolution *c,
                                                 const struct reach *reach, struct stage stage) {
    stage.tap += reach->taps;
    if (stage.tap >= c->kernel * c->kernel) {
        stage.tap = 0;
        stage.chunk++;
    }
    return stage;
}

/* All sums of this thread. */
template <int VECTOR>
static __device__ inline void add_all(const struct convolution *c, const struct reach *reach,
                                      int count, const float *x, const float *weights,
                                      float (&sums)[EACH][WIDE]) {
    const struct tile tile = tile_of(c, reach, count, x, weights);
    const int chunks = (c->channels + CHUNK - 1) / CHUNK;
    struct stage stage = {0, 0};
    int places[EACH];
    find_places(c, &tile, reach->across, count, places);
    for (int i = threadIdx.x; i < tile.rows * reach->across; i += CONV_THREADS)
        tile.sources[i] = source_of(c, tile.first_row, reach->across, i);
    __syncthreads();
    fetch<VECTOR>(c, reach, &tile, stage, 0);
    for (int buffer = 0; stage.chunk < chunks; buffer = 1 - buffer) {
        const struct stage next = next_stage(c, reach, stage);
        copies_wait();
        __syncthreads();
        if (next.chunk < chunks)
            fetch<VECTOR>(c, reach, &tile, next, 1 - buffer);
        add_stage(c, reach, &tile, stage, buffer, places, sums);
        stage = next;
    }
}

template <int VECTOR>
static __global__ void __launch_bounds__(CONV_THREADS, 4)
    convolve(struct convolution c, struct reach reach, int count, const float *x,
             const float *weights, float *y) {
    float sums[EACH][WIDE] = {};
    add_all<VECTOR>(&c, &reach, count, x, weights, sums);
    store_all(&c, count, sums, y);
}

/* ---- with pooling and dropout ---- */

enum { PITCH = FILTERS + 4 }; /* of a pixel in shared memory */

/* The block's sums, for all of its threads. */
static __device__ inline void share(const float (&sums)[EACH][WIDE], float *shared) {
    __syncthreads(); /* all have read what lay there */
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int f = 0; f < WIDE; f += 4)
            *(struct four *)&shared[(i * LANES + lane_pixel()) * PITCH + lane_filter() + f] = {
                {sums[i][f], sums[i][f + 1], sums[i][f + 2], sums[i][f + 3]}};
    __syncthreads();
}

/* As epilogue.cu's, out of the block's sums. */
static __device__ inline float pooled(const struct epilogue *e, const float *corner, int channel,
                                      int *place) {
    float best = 0;
    for (int i = 0; i < e->pool; i++)
        for (int j = 0; j < e->pool; j++) {
            const float a = activated(e, corner[(i * e->width + j) * PITCH], channel);
            if (i + j == 0 || a > best) {
                best = a;
                *place = i * e->pool + j;
            }
        }
    return best;
}

/* The units of the output that follow from the block's sums: no window is another block's too. */
static __device__ inline void put_units(const struct epilogue *e, int count, const float *shared,
                                        float *y, uint8_t *state) {
    const int windows = TILE / (e->pool * e->pool), size = e->out_height * e->out_width;
    for (int i = threadIdx.x; i < windows * FILTERS; i += CONV_THREADS) {
        const int window = i / FILTERS, pixel = blockIdx.x * windows + window;
        const int channel = blockIdx.y * FILTERS + i % FILTERS;
        const int top = window / e->out_width * e->pool, left = window % e->out_width * e->pool;
        if (pixel >= count || channel >= e->channels)
            continue;
        const struct unit unit = {(size_t)(pixel / size),
                                  (size_t)(pixel % size) * e->channels + channel, channel, 0, 0};
        int place = 0;
        const float a =
            pooled(e, &shared[(top * e->width + left) * PITCH + i % FILTERS], channel, &place);
        put_unit(e, &unit, a, place, (size_t)pixel * e->channels + channel, y, state);
    }
}

template <int VECTOR>
static __global__ void __launch_bounds__(CONV_THREADS, 4)
    convolve_block(struct convolution c, struct reach reach, struct epilogue e, int count,
                   const float *x, const float *weights, float *y, uint8_t *state) {
    SHARED_BYTES(float, memory);
    float sums[EACH][WIDE] = {};
    add_all<VECTOR>(&c, &reach, count, x, weights, sums);
    share(sums, memory);
    put_units(&e, count / (e.pool * e.pool), memory, y, state);
}

/* ---- launches ---- */

static dim3 grid_of(const struct convolution *c, int count) {
    return dim3((unsigned)(count + TILE - 1) / TILE,
                (unsigned)(c->filters + FILTERS - 1) / FILTERS);
}

static void launch_tiles(const struct convolution *c, int samples, const float *x,
                         const float *weights, float *y, cudaStream_t stream) {
    const struct reach reach = reach_of(c);
    const size_t bytes = room_of(&reach) * sizeof *x;
    const int count = samples * c->out_height * c->out_width;
    const dim3 grid = grid_of(c, count);
    if (c->channels % 4 == 0)
        LAUNCH(convolve<4>, grid, CONV_THREADS, bytes, stream, *c, reach, count, x, weights, y);
    else
        LAUNCH(convolve<1>, grid, CONV_THREADS, bytes, stream, *c, reach, count, x, weights, y);
}

cudaError_t kernel_convolution(const struct convolution *c, int samples, const float *x,
                               const float *weights, float *y, cudaStream_t stream) {
    if (samples > 0)
        (convolution_has_planes(c) ? convolution_launch_planes : launch_tiles)(c, samples, x,
                                                                               weights, y, stream);
    return cudaGetLastError();
}

/* Windows lie in one tile each where it is made of whole rows of them. */
bool convolution_finishes(const struct convolution *c, const struct epilogue *e) {
    if (convolution_has_planes(c))
        return false;
    return e->pool == 1 || (c->out_width % e->pool == 0 && TILE % (c->out_width * e->pool) == 0 &&
                            c->out_width * c->out_height % TILE == 0);
}

cudaError_t kernel_convolution_block(const struct convolution *c, const struct epilogue *e,
                                     int samples, const float *x, const float *weights, float *y,
                                     uint8_t *state, cudaStream_t stream) {
    const struct reach reach = reach_of(c);
    const size_t room = room_of(&reach), sums = TILE * PITCH;
    const size_t bytes = (room > sums ? room : sums) * sizeof *x;
    const int count = samples * c->out_height * c->out_width;
    const dim3 grid = grid_of(c, count);
    if (samples > 0 && c->channels % 4 == 0)
        LAUNCH(convolve_block<4>, grid, CONV_THREADS, bytes, stream, *c, reach, *e, count, x,
               weights, y, state);
    else if (samples > 0)
        LAUNCH(convolve_block<1>, grid, CONV_THREADS, bytes, stream, *c, reach, *e, count, x,
               weights, y, state);
    return cudaGetLastError();
}
