/* Gradients of convolutions' weights, exact to FP32.
 *
 * dw[filter][channel][tap] is a sum over all pixels of the output, which blocks divide among them:
 * each goes through some rows, of strips of at most STRIP pixels, with all rows of the input that
 * their windows see in shared memory; the next row's are copied there meanwhile. A warp computes
 * one tap, for FILTERS filters by CHANNELS channels: each half of it every other pixel, a thread
 * SIDE by SIDE products in registers. What the blocks have found is added up by a second kernel,
 * always in the same order. */
#include "conv_direct.cuh"

enum { SIDE = 8, CHANNELS = 32, HALF = WARP / 2 };
enum { TAPS = 9, STRIP = 32, BLOCKS_MOST = 264, PLANE_BLOCKS_MOST = 528 };
enum { SUM_LINES = 32, ROOM = (48 << 10) / sizeof(float) };

/* How the sum is divided: into strips of the output's rows, of `width` pixels or less; and into
 * parts of `each` of all rows of all strips, by sample, strip and row. */
struct division {
    int strips, width;
    size_t rows, each;
    unsigned parts;
};

/* Tiles of filters by channels, and groups of taps. */
static size_t tiles_of(const struct convolution *c) {
    return (size_t)round_up(c->filters, FILTERS) / FILTERS * round_up(c->channels, CHANNELS) /
           CHANNELS;
}

static int groups_of(const struct convolution *c) {
    return convolution_has_planes(c) ? 1 : (c->kernel * c->kernel + TAPS - 1) / TAPS;
}

static struct division division_of(const struct convolution *c, int samples) {
    const bool planes = convolution_has_planes(c);
    const size_t step = planes ? WARPS : 1;
    const size_t blocks = (planes ? PLANE_BLOCKS_MOST : BLOCKS_MOST) / (tiles_of(c) * groups_of(c));
    const size_t most = blocks > 0 ? blocks : 1;
    struct division division = {};
    division.strips = planes ? 1 : (c->out_width + STRIP - 1) / STRIP;
    division.width = (c->out_width + division.strips - 1) / division.strips;
    division.rows = (size_t)samples * division.strips * c->out_height;
    const size_t steps = (division.rows + most * step - 1) / (most * step);
    division.each = (steps > 0 ? steps : 1) * step;
    division.parts = (unsigned)((division.rows + division.each - 1) / division.each);
    return division;
}

/* Floats of a part: [taps][filters rounded up][channels rounded up]. */
static __host__ __device__ size_t part_floats(const struct convolution *c, int channels) {
    return (size_t)c->kernel * c->kernel * round_up(c->filters, FILTERS) * channels;
}

static int part_channels(const struct convolution *c) {
    return convolution_has_planes(c) ? 1 : round_up(c->channels, CHANNELS);
}

size_t convolution_gradient_scratch(const struct convolution *c, int samples) {
    return division_of(c, samples).parts * part_floats(c, part_channels(c));
}

/* ---- a row of a strip ---- */

/* Pixels of a strip's row of the input, and how many rows are kept: those of a row of the output
 * and those that the next one sees besides. */
static __host__ __device__ int across_of(const struct convolution *c, int width) {
    return (width - 1) * c->stride + c->kernel;
}

static __host__ __device__ int kept_rows(const struct convolution *c) {
    return c->kernel + c->stride;
}

static size_t room_of(const struct convolution *c, int width) {
    return ((size_t)kept_rows(c) * across_of(c, width)) * CHANNELS + (size_t)2 * width * FILTERS;
}

bool convolution_gradient_fits(const struct convolution *c) {
    enum { SIDE_MOST = 1 << 13, TILES_MOST = 65535 };
    if (c->height + 2 * c->padding > SIDE_MOST || c->width + 2 * c->padding > SIDE_MOST ||
        c->stride > SIDE_MOST || tiles_of(c) > TILES_MOST)
        return false;
    return convolution_has_planes(c) ||
           room_of(c, c->out_width < STRIP ? c->out_width : STRIP) <= ROOM;
}

/* A row of the output: where it is, and where its part of the input begins. */
struct place {
    size_t sample;
    int row, left, width;
};

static __device__ struct place place_of(const struct convolution *c,
                                        const struct division *division, size_t row) {
    const size_t strip = row / c->out_height;
    struct place place = {strip / division->strips, (int)(row % c->out_height),
                          (int)(strip % division->strips) * division->width, division->width};
    if (place.width > c->out_width - place.left)
        place.width = c->out_width - place.left;
    return place;
}

/* The tile's channels of a row of the input, which may lie outside. */
template <int VECTOR>
static __device__ inline void fetch_input(const struct convolution *c, const struct place *place,
                                          int row, int first_channel, const float *x, float *to) {
    enum { PARTS = CHANNELS / VECTOR };
    const int across = across_of(c, place->width), y = row - c->padding;
    const int left = place->left * c->stride - c->padding;
    const float *line = x + (place->sample * c->height + y) * c->width * c->channels;
    for (int i = threadIdx.x; i < across * PARTS; i += blockDim.x) {
        const int at = left + i / PARTS, channel = first_channel + i % PARTS * VECTOR;
        const bool inside =
            y >= 0 && y < c->height && at >= 0 && at < c->width && channel < c->channels;
        copy_queue<VECTOR *(int)sizeof(float)>(
            &to[i * VECTOR], inside ? &line[(size_t)at * c->channels + channel] : x, inside);
    }
}

template <int VECTOR>
static __device__ inline void fetch_gradient(const struct convolution *c, const struct place *place,
                                             int first_filter, const float *dz, float *to) {
    enum { PARTS = FILTERS / VECTOR };
    const float *line =
        dz +
        ((place->sample * c->out_height + place->row) * c->out_width + place->left) * c->filters;
    for (int i = threadIdx.x; i < place->width * PARTS; i += blockDim.x) {
        const int filter = first_filter + i % PARTS * VECTOR;
        const bool inside = filter < c->filters;
        copy_queue<VECTOR *(int)sizeof(float)>(
            &to[i * VECTOR], inside ? &line[(size_t)(i / PARTS) * c->filters + filter] : dz,
            inside);
    }
}

/* ---- products ---- */

/* SIDE values that lie one after the other. */
static __device__ inline void read_side(const float *from, float (&values)[SIDE]) {
#pragma unroll
    for (int i = 0; i < SIDE; i += 4) {
        const struct four part = *(const struct four *)&from[i];
#pragma unroll
        for (int k = 0; k < 4; k++)
            values[i + k] = part.at[k];
    }
}

/* Every other pixel of a row: x and dz begin at this thread's channels and filters. */
static __device__ inline void add_row(const float *x, int step, const float *dz, int width,
                                      int first, float (&sums)[SIDE][SIDE]) {
#pragma unroll 2
    for (int pixel = first; pixel < width; pixel += 2) {
        float filters[SIDE], channels[SIDE];
        read_side(&dz[pixel * FILTERS], filters);
        read_side(&x[pixel * step], channels);
#pragma unroll
        for (int f = 0; f < SIDE; f++)
#pragma unroll
            for (int k = 0; k < SIDE; k++)
                sums[f][k] += filters[f] * channels[k];
    }
}

/* Both halves' sums, by the lower one. */
static __device__ inline void store_sums(float (&sums)[SIDE][SIDE], int pitch, float *to) {
#pragma unroll
    for (int f = 0; f < SIDE; f++)
#pragma unroll
        for (int k = 0; k < SIDE; k += 4) {
            struct four values;
#pragma unroll
            for (int i = 0; i < 4; i++)
                values.at[i] = sums[f][k + i] + __shfl_down_sync(0xffffffffU, sums[f][k + i], HALF);
            if (threadIdx.x % WARP < HALF)
                *(struct four *)&to[(size_t)f * pitch + k] = values;
        }
}

/* What a block computes of dw. */
struct tile {
    int filter, channel, tap; /* the first ones; of this warp's tap */
};

static __device__ struct tile tile_of(const struct convolution *c) {
    const int across = (c->channels + CHANNELS - 1) / CHANNELS;
    const struct tile tile = {(int)blockIdx.y / across * FILTERS,
                              (int)blockIdx.y % across * CHANNELS,
                              (int)(blockIdx.z * TAPS + threadIdx.x / WARP)};
    return tile;
}

/* Where the block's part of all sums has the tile. */
static __device__ float *place_in_part(const struct convolution *c, const struct tile *tile,
                                       float *parts) {
    const size_t channels = round_up(c->channels, CHANNELS);
    const size_t row = (size_t)tile->tap * round_up(c->filters, FILTERS) + tile->filter;
    return parts + blockIdx.x * part_floats(c, (int)channels) + row * channels + tile->channel;
}

/* Copies of rows of the input from `first` up to `end`, and of a row of the gradient. */
template <int VECTOR>
static __device__ inline void
fetch(const struct convolution *c, const struct place *place, const struct tile *tile, int pitch,
      int first, int end, const float *x, const float *dz, float *input, float *gradient) {
    for (int row = first; row < end; row++)
        fetch_input<VECTOR>(c, place, row, tile->channel, x, input + row % kept_rows(c) * pitch);
    fetch_gradient<VECTOR>(c, place, tile->filter, dz, gradient);
}

/* The block's rows. VECTOR: channels and filters that are copied at once. */
template <int VECTOR>
static __global__ void __launch_bounds__(TAPS *WARP, 2)
    correlate(struct convolution c, struct division division, const float *x, const float *dz,
              float *parts) {
    SHARED_BYTES(float, input);
    const int pitch = across_of(&c, division.width) * CHANNELS;
    const int lane = threadIdx.x % WARP, taps = c.kernel * c.kernel;
    const int my_filter = lane % 4 * SIDE, my_channel = lane / 4 % 4 * SIDE;
    const struct tile tile = tile_of(&c);
    float *gradients = input + kept_rows(&c) * pitch;
    float sums[SIDE][SIDE] = {};
    const size_t begin = blockIdx.x * division.each;
    const size_t end =
        begin + division.each < division.rows ? begin + division.each : division.rows;
    for (size_t row = begin; row < end; row++) {
        const struct place place = place_of(&c, &division, row);
        const int top = place.row * c.stride;
        float *gradient = gradients + row % 2 * division.width * FILTERS;
        if (row == begin || place.row == 0) { /* nothing is there yet */
            fetch<VECTOR>(&c, &place, &tile, pitch, top, top + c.kernel, x, dz, input, gradient);
            copies_wait();
            __syncthreads();
        }
        if (row + 1 < end && place.row + 1 < c.out_height) {
            const struct place next = place_of(&c, &division, row + 1);
            fetch<VECTOR>(&c, &next, &tile, pitch, top + c.kernel, top + kept_rows(&c), x, dz,
                          input, gradients + (row + 1) % 2 * division.width * FILTERS);
        }
        if (tile.tap < taps)
            add_row(input + (top + tile.tap / c.kernel) % kept_rows(&c) * pitch +
                        tile.tap % c.kernel * CHANNELS + my_channel,
                    c.stride * CHANNELS, gradient + my_filter, place.width, lane / HALF, sums);
        copies_wait();
        __syncthreads();
    }
    if (tile.tap < taps)
        store_sums(sums, round_up(c.channels, CHANNELS),
                   place_in_part(&c, &tile, parts) + my_filter * round_up(c.channels, CHANNELS) +
                       my_channel);
}

/* ---- images of one channel ---- */

enum { AT_ONCE = 4 };

/* A row's pixels from `left` on, AT_ONCE of them; a lane is a filter. */
template <int KERNEL>
static __device__ inline void add_pixels(const struct convolution *c, const float *image, int y,
                                         int left, const float *dz, bool mine,
                                         float (&sums)[KERNEL][KERNEL]) {
    float gradient[AT_ONCE];
#pragma unroll
    for (int p = 0; p < AT_ONCE; p++)
        gradient[p] = mine && left + p < c->out_width ? dz[(size_t)(left + p) * c->filters] : 0;
#pragma unroll
    for (int i = 0; i < KERNEL; i++) {
        const int row = y + i - c->padding;
        float values[AT_ONCE + KERNEL - 1];
#pragma unroll
        for (int k = 0; k < AT_ONCE + KERNEL - 1; k++) {
            const int at = left + k - c->padding;
            const bool inside = row >= 0 && row < c->height && at >= 0 && at < c->width;
            values[k] = inside ? image[row * c->width + at] : 0;
        }
#pragma unroll
        for (int j = 0; j < KERNEL; j++)
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++)
                sums[i][j] += gradient[p] * values[p + j];
    }
}

/* A warp goes through rows, WARPS apart; then the block adds up its warps' sums. */
template <int KERNEL>
static __global__ void correlate_planes(struct convolution c, struct division division,
                                        const float *x, const float *dz, float *parts) {
    SHARED(float, found, [WARPS][KERNEL * KERNEL][WARP]);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int filter = (int)blockIdx.y * WARP + lane;
    float sums[KERNEL][KERNEL] = {};
    for (size_t i = warp; i < division.each; i += WARPS) {
        const size_t row = blockIdx.x * division.each + i;
        const float *image = x + row / c.out_height * c.height * c.width;
        const float *line = dz + row * c.out_width * c.filters + filter;
        for (int left = 0; row < division.rows && left < c.out_width; left += AT_ONCE)
            add_pixels<KERNEL>(&c, image, (int)(row % c.out_height), left, line, filter < c.filters,
                               sums);
    }
#pragma unroll
    for (int tap = 0; tap < KERNEL * KERNEL; tap++)
        found[warp][tap][lane] = sums[tap / KERNEL][tap % KERNEL];
    __syncthreads();
    float *part = parts + blockIdx.x * part_floats(&c, 1) + blockIdx.y * WARP;
    for (int i = threadIdx.x; i < KERNEL * KERNEL * WARP; i += THREADS) {
        float sum = 0;
        for (int k = 0; k < WARPS; k++)
            sum += found[k][i / WARP][i % WARP];
        part[(size_t)(i / WARP) * round_up(c.filters, FILTERS) + i % WARP] = sum;
    }
}

/* ---- the sum of the parts ---- */

/* A block adds up WARP elements, a warp every so many of the parts. */
static __global__ void sum_parts(struct convolution c, int channels, int parts_count,
                                 const float *parts, float *dweights) {
    SHARED(float, found, [SUM_LINES][WARP]);
    const int lane = (int)(threadIdx.x % WARP), warp = (int)(threadIdx.x / WARP);
    const size_t floats = part_floats(&c, channels), i = (size_t)blockIdx.x * WARP + lane;
    float sum = 0;
#pragma unroll 8
    for (int part = warp; part < parts_count; part += SUM_LINES)
        sum += parts[part * floats + i];
    found[warp][lane] = sum;
    __syncthreads();
    const int filters = round_up(c.filters, FILTERS), taps = c.kernel * c.kernel;
    const int channel = (int)(i % channels), filter = (int)(i / channels % filters);
    const size_t tap = i / channels / filters;
    if (warp > 0 || channel >= c.channels || filter >= c.filters)
        return;
    sum = 0;
#pragma unroll
    for (int k = 0; k < SUM_LINES; k++)
        sum += found[k][lane];
    dweights[((size_t)filter * c.channels + channel) * taps + tap] = sum;
}

/* ---- launches ---- */

static void launch_planes(const struct convolution *c, const struct division *division,
                          const float *x, const float *dz, float *parts, cudaStream_t stream) {
    const dim3 grid(division->parts, (unsigned)tiles_of(c));
    if (c->kernel == 3)
        LAUNCH(correlate_planes<3>, grid, THREADS, 0, stream, *c, *division, x, dz, parts);
    else
        LAUNCH(correlate_planes<5>, grid, THREADS, 0, stream, *c, *division, x, dz, parts);
}

static void launch_tiles(const struct convolution *c, const struct division *division,
                         const float *x, const float *dz, float *parts, cudaStream_t stream) {
    const int taps = c->kernel * c->kernel;
    const dim3 grid(division->parts, (unsigned)tiles_of(c), (unsigned)groups_of(c));
    const int threads = (taps < TAPS ? taps : TAPS) * WARP;
    const size_t bytes = room_of(c, division->width) * sizeof *x;
    if (c->channels % 4 == 0 && c->filters % 4 == 0)
        LAUNCH(correlate<4>, grid, threads, bytes, stream, *c, *division, x, dz, parts);
    else
        LAUNCH(correlate<1>, grid, threads, bytes, stream, *c, *division, x, dz, parts);
}

cudaError_t kernel_convolution_gradient(const struct convolution *c, int samples, const float *x,
                                        const float *dz, float *scratch, float *dweights,
                                        cudaStream_t stream) {
    const struct division division = division_of(c, samples);
    const int channels = part_channels(c);
    (convolution_has_planes(c) ? launch_planes : launch_tiles)(c, &division, x, dz, scratch,
                                                               stream);
    LAUNCH(sum_parts, (unsigned)(part_floats(c, channels) / WARP), SUM_LINES * WARP, 0, stream, *c,
           channels, (int)division.parts, scratch, dweights);
    return cudaGetLastError();
}
