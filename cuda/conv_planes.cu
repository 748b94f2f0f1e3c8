/* Convolutions of images of one channel: bound by what they write, with little to read. A thread
 * computes SIDE pixels of a row by as many filters. */
#include "conv_direct.cuh"

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

bool convolution_has_planes(const struct convolution *c) {
    return c->channels == 1 && c->stride == 1 && (c->kernel == 3 || c->kernel == 5);
}

void convolution_launch_planes(const struct convolution *c, int samples, const float *x,
                               const float *weights, float *y, cudaStream_t stream) {
    const size_t quads = (c->filters + SIDE - 1) / SIDE, strips = (c->out_width + SIDE - 1) / SIDE;
    const size_t count = quads * strips * c->out_height * samples;
    if (c->kernel == 3)
        LAUNCH(convolve_planes<3>, blocks_for(count), THREADS, 0, stream, *c, count, x, weights, y);
    else
        LAUNCH(convolve_planes<5>, blocks_for(count), THREADS, 0, stream, *c, count, x, weights, y);
}
