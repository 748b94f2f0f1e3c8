/* Sums over the rows of a matrix, in chunks of rows that depend on nothing: for biases, and for
 * batch normalisation (Ioffe & Szegedy 2015). All in double. */
#include "device.cuh"

enum { CHUNK_ROWS = 128, TILE = 32, LINES = 8, MOST_TERMS = 2 };

struct terms {
    double value[MOST_TERMS];
};

/* What is summed, at an element. */
struct plain {
    enum { TERMS = 1 };
    const float *values;
    __device__ struct terms at(size_t i, int) const {
        const struct terms terms = {{values[i], 0}};
        return terms;
    }
};

struct square {
    enum { TERMS = 1 };
    const float *values;
    const double *moments;
    __device__ struct terms at(size_t i, int column) const {
        const double deviation = values[i] - moments[1 + column] / moments[0];
        const struct terms terms = {{deviation * deviation, 0}};
        return terms;
    }
};

struct gradient {
    enum { TERMS = 2 };
    const float *x, *dz, *mean, *inverse;
    __device__ struct terms at(size_t i, int column) const {
        const double normal = ((double)x[i] - mean[column]) * inverse[column];
        const struct terms terms = {{dz[i], dz[i] * normal}};
        return terms;
    }
};

/* A block sums a tile of columns over a chunk of rows; parts is [TERMS][columns][chunks]. */
template <class Term>
static __global__ void sum_chunks(Term term, size_t rows, int columns, double *parts) {
    SHARED(double, lines, [Term::TERMS][LINES][TILE]);
    const int column = (int)(blockIdx.y * TILE + threadIdx.x);
    const size_t begin = (size_t)blockIdx.x * CHUNK_ROWS;
    const int count = column >= columns           ? 0
                      : rows - begin < CHUNK_ROWS ? (int)(rows - begin)
                                                  : CHUNK_ROWS;
    struct terms sums = {{0, 0}};
#pragma unroll 8
    for (int row = (int)threadIdx.y; row < count; row += LINES) {
        const struct terms terms = term.at((begin + row) * columns + column, column);
        for (int t = 0; t < Term::TERMS; t++)
            sums.value[t] += terms.value[t];
    }
    for (int t = 0; t < Term::TERMS; t++)
        lines[t][threadIdx.y][threadIdx.x] = sums.value[t];
    __syncthreads();
    if (threadIdx.y < Term::TERMS && column < columns) {
        double sum = 0;
        for (int line = 0; line < LINES; line++)
            sum += lines[threadIdx.y][line][threadIdx.x];
        parts[((size_t)threadIdx.y * columns + column) * gridDim.x + blockIdx.x] = sum;
    }
}

static unsigned chunks_of(size_t rows) {
    return (unsigned)((rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
}

size_t column_scratch(size_t rows, int columns) {
    return (size_t)chunks_of(rows) * MOST_TERMS * (size_t)columns;
}

template <class Term>
static void launch_chunks(Term term, size_t rows, int columns, double *parts, cudaStream_t stream) {
    const dim3 grid(chunks_of(rows), (unsigned)(columns + TILE - 1) / TILE);
    if (rows > 0)
        LAUNCH((sum_chunks<Term>), grid, dim3(TILE, LINES), 0, stream, term, rows, columns, parts);
}

/* A warp adds up a column's parts; the sum is its first lane's. */
static __device__ double sum_parts(const double *parts, unsigned chunks, size_t column) {
    const int lane = (int)(threadIdx.x % WARP), count = (int)chunks;
    double sum = 0;
#pragma unroll 8
    for (int chunk = lane; chunk < count; chunk += WARP)
        sum += parts[column * chunks + chunk];
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        sum += __shfl_down_sync(0xffffffffU, sum, distance);
    return sum;
}

static __device__ int own_column() {
    return (int)(first_element() / WARP);
}

/* In the warp that has the column, the lane that has its sum. */
static __device__ bool is_first_lane() {
    return threadIdx.x % WARP == 0;
}

static unsigned column_blocks(int columns) {
    return ((unsigned)columns + WARPS - 1) / WARPS;
}

static __global__ void finish_sums(const double *parts, unsigned chunks, int columns, float *sums) {
    const int column = own_column();
    if (column >= columns)
        return;
    const double sum = sum_parts(parts, chunks, column);
    if (is_first_lane())
        sums[column] = (float)sum;
}

cudaError_t kernel_finish_columns(const double *parts, unsigned count, int columns, float *sums,
                                  cudaStream_t stream) {
    LAUNCH(finish_sums, column_blocks(columns), THREADS, 0, stream, parts, count, columns, sums);
    return cudaGetLastError();
}

cudaError_t kernel_column_sums(const float *values, size_t rows, int columns, double *scratch,
                               float *sums, cudaStream_t stream) {
    const struct plain term = {values};
    launch_chunks(term, rows, columns, scratch, stream);
    return kernel_finish_columns(scratch, chunks_of(rows), columns, sums, stream);
}

/* ---- batch normalisation ---- */

static __global__ void finish_moments(const double *parts, unsigned chunks, int columns,
                                      size_t rows, double *moments) {
    const int column = own_column();
    if (column >= columns)
        return;
    const double sum = sum_parts(parts, chunks, column);
    if (is_first_lane())
        moments[1 + column] = sum;
    if (is_first_lane() && column == 0)
        moments[0] = (double)rows;
}

cudaError_t kernel_norm_moments(const struct norm_channels *norm, const float *x, size_t rows,
                                double *scratch, cudaStream_t stream) {
    const struct plain term = {x};
    launch_chunks(term, rows, norm->channels, scratch, stream);
    LAUNCH(finish_moments, column_blocks(norm->channels), THREADS, 0, stream, scratch,
           chunks_of(rows), norm->channels, rows, norm->moments);
    return cudaGetLastError();
}

static __global__ void finish_squares(const double *parts, unsigned chunks, int columns,
                                      double *squares) {
    const int column = own_column();
    if (column >= columns)
        return;
    const double sum = sum_parts(parts, chunks, column);
    if (is_first_lane())
        squares[column] = sum;
}

cudaError_t kernel_norm_squares(const struct norm_channels *norm, const float *x, size_t rows,
                                double *scratch, cudaStream_t stream) {
    const struct square term = {x, norm->moments};
    launch_chunks(term, rows, norm->channels, scratch, stream);
    LAUNCH(finish_squares, column_blocks(norm->channels), THREADS, 0, stream, scratch,
           chunks_of(rows), norm->channels, norm->squares);
    return cudaGetLastError();
}

static __device__ void set_channel(const struct norm_channels *norm, int k, double mean,
                                   double variance, float weight) {
    const double inverse = 1 / sqrt(variance + (double)norm->epsilon);
    norm->mean[k] = (float)mean;
    norm->inverse[k] = (float)inverse;
    norm->scale[k] = (float)(weight * inverse);
}

static __global__ void norm_of_batch(struct norm_channels norm, const float *weights,
                                     float *running) {
    const int k = own_element();
    if (k >= norm.channels)
        return;
    const double count = norm.moments[0], momentum = norm.momentum;
    const double mean = count > 0 ? norm.moments[1 + k] / count : 0;
    const double variance = count > 0 ? norm.squares[k] / count : 0;
    set_channel(&norm, k, mean, variance, weights[k]);
    if (count > 1) { /* a single value has no unbiased variance */
        float *of_variance = running + norm.channels + k;
        running[k] = (float)(momentum * running[k] + (1 - momentum) * mean);
        *of_variance =
            (float)(momentum * *of_variance + (1 - momentum) * (norm.squares[k] / (count - 1)));
    }
}

cudaError_t kernel_norm_of_batch(const struct norm_channels *norm, const float *weights,
                                 float *running, cudaStream_t stream) {
    LAUNCH(norm_of_batch, blocks_for(norm->channels), THREADS, 0, stream, *norm, weights, running);
    return cudaGetLastError();
}

static __global__ void norm_of_running(struct norm_channels norm, const float *weights,
                                       const float *running) {
    const int k = own_element();
    if (k < norm.channels)
        set_channel(&norm, k, running[k], running[norm.channels + k], weights[k]);
}

cudaError_t kernel_norm_of_running(const struct norm_channels *norm, const float *weights,
                                   const float *running, cudaStream_t stream) {
    LAUNCH(norm_of_running, blocks_for(norm->channels), THREADS, 0, stream, *norm, weights,
           running);
    return cudaGetLastError();
}

static __global__ void finish_gradients(const double *parts, unsigned chunks, int columns,
                                        double *sums, float *dweights, float *dbias) {
    const int column = own_column();
    if (column >= columns)
        return;
    const double sum = sum_parts(parts, chunks, column);
    const double of_normal = sum_parts(parts, chunks, (size_t)columns + column);
    if (!is_first_lane())
        return;
    sums[column] = sum;
    sums[columns + column] = of_normal;
    dbias[column] = (float)sums[column];
    dweights[column] = (float)sums[columns + column];
}

cudaError_t kernel_norm_gradients(const struct norm_channels *norm, const float *x, const float *dz,
                                  size_t rows, double *scratch, float *dweights, float *dbias,
                                  cudaStream_t stream) {
    const struct gradient term = {x, dz, norm->mean, norm->inverse};
    launch_chunks(term, rows, norm->channels, scratch, stream);
    LAUNCH(finish_gradients, column_blocks(norm->channels), THREADS, 0, stream, scratch,
           chunks_of(rows), norm->channels, norm->gradients, dweights, dbias);
    return cudaGetLastError();
}

static __global__ void norm_input(struct norm_channels norm, bool of_batch, const float *x,
                                  const float *dz, size_t count, float *dx) {
    for (size_t i = first_element(); i < count; i += stride()) {
        const int k = (int)(i % norm.channels);
        const float normal = (x[i] - norm.mean[k]) * norm.inverse[k];
        float mean = 0, slope = 0;
        if (of_batch) {
            mean = (float)(norm.gradients[k] / norm.moments[0]);
            slope = (float)(norm.gradients[norm.channels + k] / norm.moments[0]);
        }
        dx[i] = norm.scale[k] * (dz[i] - mean - normal * slope);
    }
}

cudaError_t kernel_norm_input(const struct norm_channels *norm, bool of_batch, const float *x,
                              const float *dz, size_t rows, float *dx, cudaStream_t stream) {
    const size_t count = rows * (size_t)norm->channels;
    if (count > 0)
        LAUNCH(norm_input, blocks_for(count), THREADS, 0, stream, *norm, of_batch, x, dz, count,
               dx);
    return cudaGetLastError();
}
