/* Dense layers of which few connections are left. A warp computes with one connection, or with as
 * many as it has groups of lanes, for a sample a lane; the inputs that it looks up lie in shared
 * memory. Every sum has an order of its own, whatever order blocks and warps run in. */
#include "device.cuh"

/* What a block sees of its samples, input after input; one more float a row keeps lanes that fill
 * it from meeting in a bank. */
template <int SAMPLES> struct seen {
    static const int columns = SPARSE_FLOATS / SAMPLES;
    static const int pitch = SAMPLES + 1;
};

/* x [samples][columns]: `width` columns of SAMPLES samples from `first` on, beyond the last zero.
 */
template <int SAMPLES>
static __device__ void fill(const float *x, int samples, int columns, int column, int width,
                            int first, float *to) {
    for (int c = threadIdx.x; c < width; c += THREADS) {
#pragma unroll
        for (int s = 0; s < SAMPLES; s++)
            to[c * seen<SAMPLES>::pitch + s] =
                first + s < samples ? x[(size_t)(first + s) * columns + column + c] : 0;
    }
}

/* The sum over a row's entries of one chunk, for one sample. */
template <int SAMPLES>
static __device__ float combine_row(const struct sparse_rows *m, const float *values, int chunk,
                                    int row, const float *sample) {
    const size_t at = (size_t)chunk * m->rows + row;
    const uint32_t end = m->begin[at + m->rows];
    float sum = 0;
#pragma unroll 4
    for (uint32_t e = m->begin[at]; e < end; e++) {
        const float value = values[m->order != NULL ? m->order[e] : e];
        sum += value * sample[m->column[e] * seen<SAMPLES>::pitch];
    }
    return sum;
}

/* Grid: tiles of samples, chunks of columns, parts of the rows. z [chunks][samples][rows]. */
template <int SAMPLES>
static __global__ void combine(struct sparse_rows m, const float *values, const float *x,
                               int samples, float *z) {
    SHARED(float, tile, [seen<SAMPLES>::columns * seen<SAMPLES>::pitch]);
    const int groups = THREADS / SAMPLES, chunk = (int)blockIdx.y, column = chunk * m.width;
    const int width = m.columns - column < m.width ? m.columns - column : m.width;
    const int first = (int)blockIdx.x * SAMPLES, own = threadIdx.x % SAMPLES;
    const int share = (m.rows + (int)gridDim.z - 1) / (int)gridDim.z;
    const int begin = (int)blockIdx.z * share;
    const int end = m.rows - begin < share ? m.rows : begin + share;
    fill<SAMPLES>(x, samples, m.columns, column, width, first, tile);
    __syncthreads();
    for (int row = begin + threadIdx.x / SAMPLES; row < end; row += groups) {
        const float sum = combine_row<SAMPLES>(&m, values, chunk, row, tile + own);
        if (first + own < samples)
            z[((size_t)chunk * samples + first + own) * m.rows + row] = sum;
    }
}

cudaError_t kernel_sparse_combine(const struct sparse_rows *m, struct sparse_grid grid,
                                  const float *values, const float *x, int samples, float *z,
                                  cudaStream_t stream) {
    const dim3 blocks((unsigned)grid.tiles, (unsigned)m->chunks, (unsigned)grid.parts);
    if (grid.samples == 8)
        LAUNCH(combine<8>, blocks, THREADS, 0, stream, *m, values, x, samples, z);
    else if (grid.samples == 16)
        LAUNCH(combine<16>, blocks, THREADS, 0, stream, *m, values, x, samples, z);
    else
        LAUNCH(combine<32>, blocks, THREADS, 0, stream, *m, values, x, samples, z);
    return cudaGetLastError();
}

/* ---- gradients ---- */

enum { EACH = SPARSE_PIECE / WARPS, PITCH = WARP + 1 }; /* entries of a warp */

/* As many of the columns of a tile as the matrix has, for a sample a lane. */
template <int COLUMNS>
static __device__ void fill_side(const float *from, int samples, int stride, int column, int first,
                                 float *to) {
    const int own = threadIdx.x % COLUMNS;
#pragma unroll 8
    for (int s = threadIdx.x / COLUMNS; s < WARP; s += THREADS / COLUMNS)
        to[own * PITCH + s] = first + s < samples && column + own < stride
                                  ? from[(size_t)(first + s) * stride + column + own]
                                  : 0;
}

static __device__ float warp_sum(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_down_sync(0xffffffffU, value, distance);
    return value;
}

/* Grid: pieces, parts of the samples. A block sums dz x over its samples for the entries of one
 * piece, each of which is one warp's. sums [parts][count]. */
static __global__ void __launch_bounds__(THREADS, 2)
    correlate(struct sparse_pieces m, const float *x, const float *dz, int samples, float *sums) {
    SHARED(float, inputs, [SPARSE_TILE_COLUMNS * PITCH]);
    SHARED(float, outputs, [SPARSE_TILE_ROWS * PITCH]);
    const struct sparse_piece piece = m.pieces[blockIdx.x];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int tiles = (samples + WARP - 1) / WARP;
    const int share = (tiles + (int)gridDim.y - 1) / (int)gridDim.y;
    const int begin = (int)blockIdx.y * share, end = tiles - begin < share ? tiles : begin + share;
    float sum[EACH] = {0};
    for (int tile = begin; tile < end; tile++) {
        __syncthreads(); /* the tile before has been read */
        fill_side<SPARSE_TILE_COLUMNS>(x, samples, m.columns, (int)piece.column, tile * WARP,
                                       inputs);
        fill_side<SPARSE_TILE_ROWS>(dz, samples, m.rows, (int)piece.row, tile * WARP, outputs);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i * WARPS + warp < (int)piece.count) {
                const uint32_t place = m.places[piece.begin + i * WARPS + warp];
                sum[i] +=
                    outputs[(place >> 16) * PITCH + lane] * inputs[(place & 0xffff) * PITCH + lane];
            }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (i * WARPS + warp < (int)piece.count) {
            const float whole = warp_sum(sum[i]);
            if (lane == 0)
                sums[(size_t)blockIdx.y * m.count + m.order[piece.begin + i * WARPS + warp]] =
                    whole;
        }
}

cudaError_t kernel_sparse_correlate(const struct sparse_pieces *m, int parts, const float *x,
                                    const float *dz, int samples, float *sums,
                                    cudaStream_t stream) {
    const dim3 blocks((unsigned)m->pieces_count, (unsigned)parts);
    if (m->pieces_count > 0)
        LAUNCH(correlate, blocks, THREADS, 0, stream, *m, x, dz, samples, sums);
    return cudaGetLastError();
}

static __global__ void add_parts(const float *parts, int parts_count, size_t count, float *sums) {
    for (size_t i = first_element(); i < count; i += stride()) {
        float sum = parts[i];
        for (int part = 1; part < parts_count; part++)
            sum += parts[part * count + i];
        sums[i] = sum;
    }
}

cudaError_t kernel_add_parts(const float *parts, int parts_count, size_t count, float *sums,
                             cudaStream_t stream) {
    if (count > 0)
        LAUNCH(add_parts, blocks_for(count), THREADS, 0, stream, parts, parts_count, count, sums);
    return cudaGetLastError();
}
