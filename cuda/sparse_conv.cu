/* Convolutions of which few connections are left. A block keeps a band of an image in shared
 * memory, channel after channel; a lane computes with one connection for eight places of it, which
 * are 32 apart, so that what the lanes of a warp look up lies side by side. Places behind the end
 * of a row are computed too, and dropped. Every sum has an order of its own, whatever order blocks
 * and warps run in. */
#include "device.cuh"

enum { EACH = CONV_PLACES / WARP, PITCH = CONV_PLACES + 4 }; /* PITCH: no two lanes of a bank */

/* What a block has in shared memory beside the band itself. */
struct maps {
    int sources[CONV_CELLS], targets[CONV_PLACES];
};

/* Where a place of the band is in the output of one image, [height][width][rows]; -1: nowhere. */
static __device__ int target_of(const struct conv_window *w, int first_row, int place) {
    const int row = place / w->across, y = first_row + row, x = place % w->across;
    if (row >= w->band || y % w->step != 0 || x % w->step != 0 || y / w->step >= w->out_height ||
        x / w->step >= w->out_width)
        return -1;
    return (y / w->step * w->out_width + x / w->step) * w->rows;
}

/* Which pixel of the input a place of the plane is; -1: one of the zeros around or between them. */
static __device__ int source_of(const struct conv_window *w, int y, int x) {
    const int row = y - w->padding, column = x - w->padding;
    if (row < 0 || column < 0 || row % w->dilation != 0 || column % w->dilation != 0 ||
        row / w->dilation >= w->height || column / w->dilation >= w->width)
        return -1;
    return row / w->dilation * w->width + column / w->dilation;
}

static __device__ void fill_maps(const struct conv_window *w, int first_row, struct maps *maps) {
    for (int cell = threadIdx.x; cell < w->pitch; cell += THREADS)
        maps->sources[cell] = source_of(w, first_row + cell / w->across, cell % w->across);
    maps->targets[threadIdx.x] = target_of(w, first_row, threadIdx.x);
}

/* x: of one image, [height][width][channels]; `count` channels from `channel` on. Eight loads are
 * under way at a time. */
static __device__ void fill_band(const struct conv_window *w, const struct maps *maps,
                                 const float *x, int channel, int count, float *tile) {
    for (int cell = threadIdx.x / WARP * EACH; cell < w->pitch; cell += WARPS * EACH)
        for (int c = threadIdx.x % WARP; c < count; c += WARP) {
            float values[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const int source = cell + i < w->pitch ? maps->sources[cell + i] : -1;
                values[i] = source < 0 ? 0 : x[(size_t)source * w->channels + channel + c];
            }
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (cell + i < w->pitch)
                    tile[c * w->pitch + cell + i] = values[i];
        }
    if (threadIdx.x < CONV_SLACK)
        tile[count * w->pitch + threadIdx.x] = 0;
}

/* Eight rows of the output, or of its gradient, pass through `stage`, so that what is read and
 * written outside is eight floats long. */
static __device__ void write_stage(const struct maps *maps, const float *stage, int row, int rows,
                                   float *to) {
    const int own = threadIdx.x % WARPS;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int place = threadIdx.x / WARPS + i * WARP, target = maps->targets[place];
        if (target >= 0 && row + own < rows)
            to[target + row + own] = stage[own * PITCH + place];
    }
}

static __device__ void read_stage(const struct maps *maps, const float *from, int row, int rows,
                                  float *stage) {
    const int own = threadIdx.x % WARPS;
    float values[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int target = maps->targets[threadIdx.x / WARPS + i * WARP];
        values[i] = target >= 0 && row + own < rows ? from[target + row + own] : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        stage[own * PITCH + threadIdx.x / WARPS + i * WARP] = values[i];
}

/* The part of rows 0 .. rows - 1 that is a block's, in whole eights. */
static __device__ int share_begin(int rows, unsigned part, unsigned parts) {
    const int eights = (rows + WARPS - 1) / WARPS;
    const int share = (eights + (int)parts - 1) / (int)parts;
    const int begin = (int)part * share * WARPS;
    return begin < rows ? begin : rows;
}

/* What a block is to compute, by its place in the grid. */
struct share {
    int channel, count;       /* that it reads */
    int rows_begin, rows_end; /* that it writes */
    const uint32_t *begin;    /* [rows] of the chunk, and of the next */
    size_t inputs, outputs;   /* floats of an image */
};

static __device__ struct share share_of(const struct conv_window *w, const uint32_t *begin) {
    const int channel = (int)blockIdx.y * w->chunk, left = w->channels - channel;
    const struct share share = {channel,
                                left < w->chunk ? left : w->chunk,
                                share_begin(w->rows, blockIdx.z, gridDim.z),
                                share_begin(w->rows, blockIdx.z + 1, gridDim.z),
                                begin + (size_t)blockIdx.y * w->rows,
                                (size_t)w->height * w->width * w->channels,
                                (size_t)w->out_height * w->out_width * w->rows};
    return share;
}

/* A row's output at the band's places, from `to` on. */
static __device__ void combine_row(const struct conv_window *w, const struct conv_list *list,
                                   const float *values, uint32_t begin, uint32_t end,
                                   const float *tile, float *to) {
    const int lane = threadIdx.x % WARP;
    float sum[EACH] = {0};
#pragma unroll 2
    for (uint32_t e = begin; e < end; e++) {
        const float value = values[list->order != NULL ? list->order[e] : e];
        const float *at = tile + list->place[e] + lane;
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * WARP < w->places)
                sum[i] += value * at[i * WARP];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        to[i * WARP + lane] = sum[i];
}

/* Grid: bands of images, chunks of channels, parts of the rows. z [chunks][samples][out][rows]. */
static __global__ void __launch_bounds__(THREADS, 2)
    conv_combine(struct conv_window w, struct conv_list list, const float *values, const float *x,
                 int samples, float *z) {
    SHARED(float, tile, [CONV_FLOATS + CONV_SLACK]);
    SHARED(float, stage, [WARPS * PITCH]);
    SHARED(struct maps, maps, [1]);
    const struct share share = share_of(&w, list.begin);
    const int image = (int)blockIdx.x / w.bands, warp = threadIdx.x / WARP;
    float *const to = z + ((size_t)blockIdx.y * samples + image) * share.outputs;
    if (share.rows_begin == share.rows_end)
        return;
    fill_maps(&w, (int)blockIdx.x % w.bands * w.band, maps);
    __syncthreads();
    fill_band(&w, maps, x + image * share.inputs, share.channel, share.count, tile);
    __syncthreads();
    for (int first = share.rows_begin; first < share.rows_end; first += WARPS) {
        const int row = first + warp;
        if (row < w.rows)
            combine_row(&w, &list, values, share.begin[row], share.begin[w.rows + row], tile,
                        stage + warp * PITCH);
        __syncthreads();
        write_stage(maps, stage, first, w.rows, to);
        __syncthreads(); /* before the next rows come */
    }
}

cudaError_t kernel_conv_combine(const struct conv_window *w, const struct conv_list *list,
                                int parts, const float *values, const float *x, int samples,
                                float *z, cudaStream_t stream) {
    const dim3 blocks((unsigned)samples * (unsigned)w->bands, (unsigned)w->chunks, (unsigned)parts);
    LAUNCH(conv_combine, blocks, THREADS, 0, stream, *w, *list, values, x, samples, z);
    return cudaGetLastError();
}

/* ---- gradients ---- */

/* Lane l gets the sum over the lanes of sum[l / 4]. */
static __device__ float lane_sums(float sum[EACH]) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int half = EACH / 2; half > 0; half /= 2)
#pragma unroll
        for (int i = 0; i < half; i++) {
            const bool upper = (lane & 4 * half) != 0;
            const float kept = upper ? sum[i + half] : sum[i];
            const float given = upper ? sum[i] : sum[i + half];
            sum[i] = kept + __shfl_xor_sync(0xffffffffU, given, 4 * half);
        }
    sum[0] += __shfl_xor_sync(0xffffffffU, sum[0], 2);
    return sum[0] + __shfl_xor_sync(0xffffffffU, sum[0], 1);
}

/* Adds the products of one row's gradient and of what each entry looks up, eight at a time, to the
 * entries' sums, which one warp alone adds to. */
static __device__ void correlate_row(const struct conv_window *w, const uint16_t *places,
                                     uint32_t begin, uint32_t end, const float *tile,
                                     const float *stage, bool is_first, float *sums) {
    const int lane = threadIdx.x % WARP;
    float gradient[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        gradient[i] = stage[i * WARP + lane];
    for (uint32_t e = begin; e < end; e += EACH) {
        float sum[EACH] = {0};
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const float *at = tile + places[e + j < end ? e + j : e] + lane;
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (i * WARP < w->places)
                    sum[j] += gradient[i] * at[i * WARP];
        }
        const float whole = lane_sums(sum);
        const uint32_t own = e + lane / 4;
        if (lane % 4 == 0 && own < end)
            sums[own] = is_first ? whole : sums[own] + whole;
    }
}

/* Grid: parts of the bands of images, chunks of channels, parts of the rows. A block goes through
 * its bands one after the other. x is what the window reads, dz what it writes; sums
 * [parts][count].
 */
static __global__ void __launch_bounds__(THREADS, 2)
    conv_correlate(struct conv_window w, struct conv_list list, const float *x, const float *dz,
                   int all_bands, float *sums) {
    SHARED(float, tile, [CONV_FLOATS + CONV_SLACK]);
    SHARED(float, stage, [WARPS * PITCH]);
    SHARED(struct maps, maps, [1]);
    const struct share share = share_of(&w, list.begin);
    const int each = (all_bands + (int)gridDim.x - 1) / (int)gridDim.x, warp = threadIdx.x / WARP;
    const int begin = (int)blockIdx.x * each;
    const int end = all_bands - begin < each ? all_bands : begin + each;
    if (share.rows_begin == share.rows_end)
        return;
    for (int band = begin; band < end; band++) {
        const int image = band / w.bands;
        fill_maps(&w, band % w.bands * w.band, maps); /* all have done with the band's before */
        __syncthreads();
        fill_band(&w, maps, x + image * share.inputs, share.channel, share.count, tile);
        for (int first = share.rows_begin; first < share.rows_end; first += WARPS) {
            const int row = first + warp;
            __syncthreads();
            read_stage(maps, dz + image * share.outputs, first, w.rows, stage);
            __syncthreads();
            if (row < w.rows)
                correlate_row(&w, list.place, share.begin[row], share.begin[w.rows + row], tile,
                              stage + warp * PITCH, band == begin, sums + blockIdx.x * list.count);
        }
    }
}

cudaError_t kernel_conv_correlate(const struct conv_window *w, const struct conv_list *list,
                                  struct conv_parts parts, const float *x, const float *dz,
                                  int samples, float *sums, cudaStream_t stream) {
    const dim3 blocks((unsigned)parts.bands, (unsigned)w->chunks, (unsigned)parts.rows);
    LAUNCH(conv_correlate, blocks, THREADS, 0, stream, *w, *list, x, dz, samples * w->bands, sums);
    return cudaGetLastError();
}
