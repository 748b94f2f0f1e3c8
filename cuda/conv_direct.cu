/* Convolutions as products of pixels and weights, exact to FP32.
 *
 * A block computes TILE consecutive pixels of the output, over samples, rows and columns, by
 * FILTERS filters: a thread EACH pixels by WIDE filters in registers. What it reads lies in rows of
 * zero-padded images, one image behind the other, so that the rows that consecutive pixels need are
 * consecutive too: they are in shared memory for CHUNK channels, once for all taps, beside the
 * weights of some taps; the next stage's are copied there meanwhile. An output is the sum over
 * chunks, taps and channels in this order, wherever its pixel lies in a block. */
#include "device.cuh"

#include <limits.h>

enum {
    EACH = 6,
    WIDE = 8,
    LANES = 32
}; /* LANES: of a warp, or pixels that a block takes at once */
enum { CONV_THREADS = 128, TILE = EACH * LANES, FILTERS = 32, CHUNK = 8 };
enum { TAP_FLOATS = CHUNK * FILTERS, ROOM = (48 << 10) / sizeof(float) };

/* Moved as one. */
struct __align__(16) four {
    float at[4];
};

/* What a block reads in a stage: at most so many rows of `across` pixels, weights of `taps` taps.
 */
struct reach {
    int rows, across, taps;
};

static __host__ __device__ int round_up(int count, int step) {
    return (count + step - 1) / step * step;
}

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

/* Images of one channel, that a kernel of their own takes. */
static bool has_planes(const struct convolution *c) {
    return c->channels == 1 && c->stride == 1 && (c->kernel == 3 || c->kernel == 5);
}

/* The number of samples has no part in it but for the largest images: it does not change sums. */
bool convolution_fits(const struct convolution *c, int samples) {
    enum { SIDE_MOST = 1 << 13 };
    const int tall = padded_height(c), wide = c->width + 2 * c->padding;
    if (tall > SIDE_MOST || wide > SIDE_MOST || c->stride > SIDE_MOST ||
        1.0 * samples * tall * wide > INT_MAX - TILE)
        return false;
    return has_planes(c) || reach_of(c).taps > 0;
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

/* Four filters of a pixel. */
static __device__ inline void store(const struct convolution *c, int filter, const float *sums,
                                    float *y) {
    struct four values;
#pragma unroll
    for (int f = 0; f < 4; f++) {
        const bool biased = c->bias != NULL && filter + f < c->filters;
        values.at[f] = activate(c->activation, biased ? sums[f] + c->bias[filter + f] : sums[f]);
    }
    if (c->filters % 4 == 0) {
        if (filter < c->filters)
            *(struct four *)y = values;
        return;
    }
#pragma unroll
    for (int f = 0; f < 4; f++)
        if (filter + f < c->filters)
            y[f] = values.at[f];
}

static __device__ inline void finish(const struct convolution *c, int count,
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

template <int VECTOR>
static __global__ void __launch_bounds__(CONV_THREADS, 4)
    convolve(struct convolution c, struct reach reach, int count, const float *x,
             const float *weights, float *y) {
    const struct tile tile = tile_of(&c, &reach, count, x, weights);
    const int chunks = (c.channels + CHUNK - 1) / CHUNK;
    struct stage stage = {0, 0};
    float sums[EACH][WIDE] = {};
    int places[EACH];
    find_places(&c, &tile, reach.across, count, places);
    for (int i = threadIdx.x; i < tile.rows * reach.across; i += CONV_THREADS)
        tile.sources[i] = source_of(&c, tile.first_row, reach.across, i);
    __syncthreads();
    fetch<VECTOR>(&c, &reach, &tile, stage, 0);
    for (int buffer = 0; stage.chunk < chunks; buffer = 1 - buffer) {
        const struct stage next = next_stage(&c, &reach, stage);
        copies_wait();
        __syncthreads();
        if (next.chunk < chunks)
            fetch<VECTOR>(&c, &reach, &tile, next, 1 - buffer);
        add_stage(&c, &reach, &tile, stage, buffer, places, sums);
        stage = next;
    }
    finish(&c, count, sums, y);
}

/* ---- images of one channel ---- */

/* A thread computes so many pixels of a row by as many filters. */
enum { SIDE = 4 };

/* A row's values that SIDE windows beside each other see. */
template <int KERNEL>
static __device__ inline void read_row(const struct convolution *c, const float *image, int y,
                                       int x, float (&values)[SIDE + KERNEL - 1]) {
#pragma unroll
    for (int i = 0; i < SIDE + KERNEL - 1; i++) {
        const bool inside = y >= 0 && y < c->height && x + i >= 0 && x + i < c->width;
        values[i] = inside ? image[y * c->width + x + i] : 0;
    }
}

template <int KERNEL>
static __device__ inline void add_windows(const struct convolution *c, const float *image, int y,
                                          int x, const float *weights, float (&sums)[SIDE][SIDE]) {
    const size_t pitch = (size_t)CHUNK * round_up(c->filters, FILTERS);
#pragma unroll
    for (int i = 0; i < KERNEL; i++) {
        float values[SIDE + KERNEL - 1];
        read_row<KERNEL>(c, image, y + i, x, values);
#pragma unroll
        for (int j = 0; j < KERNEL; j++) {
            const struct four w = *(const struct four *)&weights[(i * KERNEL + j) * pitch];
#pragma unroll
            for (int p = 0; p < SIDE; p++)
#pragma unroll
                for (int f = 0; f < SIDE; f++)
                    sums[p][f] += values[p + j] * w.at[f];
        }
    }
}

/* Rows of strips of SIDE pixels; a strip's filters are neighbouring threads'. */
template <int KERNEL>
static __global__ void convolve_planes(struct convolution c, size_t count, const float *x,
                                       const float *weights, float *y) {
    const int quads = (c.filters + SIDE - 1) / SIDE, strips = (c.out_width + SIDE - 1) / SIDE;
    for (size_t i = first_element(); i < count; i += stride()) {
        const int filter = (int)(i % quads) * SIDE, left = (int)(i / quads % strips) * SIDE;
        const size_t row = i / quads / strips, sample = row / c.out_height;
        const float *image = x + sample * c.height * c.width;
        float sums[SIDE][SIDE] = {};
        add_windows<KERNEL>(&c, image, (int)(row % c.out_height) - c.padding, left - c.padding,
                            weights + filter, sums);
#pragma unroll
        for (int p = 0; p < SIDE; p++)
            if (left + p < c.out_width)
                store(&c, filter, sums[p], &y[(row * c.out_width + left + p) * c.filters + filter]);
    }
}

/* ---- launches ---- */

static void launch_planes(const struct convolution *c, int samples, const float *x,
                          const float *weights, float *y, cudaStream_t stream) {
    const size_t quads = (c->filters + SIDE - 1) / SIDE, strips = (c->out_width + SIDE - 1) / SIDE;
    const size_t count = quads * strips * c->out_height * samples;
    if (c->kernel == 3)
        LAUNCH(convolve_planes<3>, blocks_for(count), THREADS, 0, stream, *c, count, x, weights, y);
    else
        LAUNCH(convolve_planes<5>, blocks_for(count), THREADS, 0, stream, *c, count, x, weights, y);
}

static void launch_tiles(const struct convolution *c, int samples, const float *x,
                         const float *weights, float *y, cudaStream_t stream) {
    const struct reach reach = reach_of(c);
    const size_t bytes = room_of(&reach) * sizeof *x;
    const int count = samples * c->out_height * c->out_width;
    const dim3 grid((unsigned)(count + TILE - 1) / TILE,
                    (unsigned)(c->filters + FILTERS - 1) / FILTERS);
    if (c->channels % 4 == 0)
        LAUNCH(convolve<4>, grid, CONV_THREADS, bytes, stream, *c, reach, count, x, weights, y);
    else
        LAUNCH(convolve<1>, grid, CONV_THREADS, bytes, stream, *c, reach, count, x, weights, y);
}

cudaError_t kernel_convolution(const struct convolution *c, int samples, const float *x,
                               const float *weights, float *y, cudaStream_t stream) {
    if (samples > 0)
        (has_planes(c) ? launch_planes : launch_tiles)(c, samples, x, weights, y, stream);
    return cudaGetLastError();
}
