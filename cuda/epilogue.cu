/* What follows a block's linear map, and its gradient; weights in cuDNN's order. */
#include "epilogue.cuh"

static __device__ struct unit unit_of(const struct epilogue *e, size_t i) {
    const size_t size = (size_t)e->out_height * e->out_width * e->channels;
    struct unit unit = {i / size, i % size, 0, 0, 0};
    const int pixel = (int)(unit.index / e->channels);
    unit.channel = (int)(unit.index % e->channels);
    unit.top = pixel / e->out_width * e->pool;
    unit.left = pixel % e->out_width * e->pool;
    return unit;
}

static __device__ size_t linear_index(const struct epilogue *e, size_t sample, int y, int x,
                                      int channel) {
    return ((sample * e->height + y) * e->width + x) * e->channels + channel;
}

/* The first maximum of the window, and its place. */
static __device__ float pooled(const struct epilogue *e, const float *z, const struct unit *unit,
                               int *place) {
    float best = 0;
    for (int i = 0; i < e->pool; i++)
        for (int j = 0; j < e->pool; j++) {
            const size_t at =
                linear_index(e, unit->sample, unit->top + i, unit->left + j, unit->channel);
            const float a = activated(e, z[at], unit->channel);
            if (i + j == 0 || a > best) {
                best = a;
                *place = i * e->pool + j;
            }
        }
    return best;
}

static __global__ void epilogue_forward(struct epilogue e, size_t count, const float *z, float *y,
                                        uint8_t *state) {
    for (size_t i = first_element(); i < count; i += stride()) {
        const struct unit unit = unit_of(&e, i);
        int place = 0;
        const float a = pooled(&e, z, &unit, &place);
        put_unit(&e, &unit, a, place, i, y, state);
    }
}

cudaError_t kernel_epilogue(const struct epilogue *e, int samples, const float *z, float *y,
                            uint8_t *state, cudaStream_t stream) {
    const size_t count = (size_t)samples * e->out_height * e->out_width * e->channels;
    if (count > 0)
        LAUNCH(epilogue_forward, blocks_for(count), THREADS, 0, stream, *e, count, z, y, state);
    return cudaGetLastError();
}

/* One thread for each element of dz: it looks up whether its window chose it. */
static __global__ void epilogue_backward(struct epilogue e, size_t count, const float *y,
                                         const uint8_t *state, const float *dy, float *dz) {
    const size_t row = (size_t)e.width * e.channels, size = row * e.height;
    const float keep = 1 - e.dropout;
    for (size_t i = first_element(); i < count; i += stride()) {
        const size_t sample = i / size;
        const int line = (int)(i % size / row), column = (int)(i % row / e.channels);
        const int out_line = line / e.pool, out_column = column / e.pool;
        float gradient = 0;
        if (out_line < e.out_height && out_column < e.out_width) {
            const size_t unit =
                ((sample * e.out_height + out_line) * e.out_width + out_column) * e.channels +
                i % e.channels;
            const int place = line % e.pool * e.pool + column % e.pool;
            if (state[unit] == place) /* y keep: the activation's value */
                gradient = dy[unit] * (1 / keep) * slope(e.activation, y[unit] * keep);
        }
        dz[i] = gradient;
    }
}

cudaError_t kernel_epilogue_backward(const struct epilogue *e, int samples, const float *y,
                                     const uint8_t *state, const float *dy, float *dz,
                                     cudaStream_t stream) {
    const size_t count = (size_t)samples * e->height * e->width * e->channels;
    if (count > 0)
        LAUNCH(epilogue_backward, blocks_for(count), THREADS, 0, stream, *e, count, y, state, dy,
               dz);
    return cudaGetLastError();
}

/* ---- weights ---- */

static __global__ void swap_inner(const float *from, size_t count, int inner, int taps, float *to) {
    const size_t size = (size_t)inner * taps;
    for (size_t i = first_element(); i < count; i += stride()) {
        const size_t outer = i / size, tap = i % size / inner, in = i % inner;
        to[i] = from[outer * size + in * taps + tap];
    }
}

cudaError_t kernel_swap_inner(const float *from, int outer, int inner, int taps, float *to,
                              cudaStream_t stream) {
    const size_t count = (size_t)outer * inner * taps;
    if (count > 0)
        LAUNCH(swap_inner, blocks_for(count), THREADS, 0, stream, from, count, inner, taps, to);
    return cudaGetLastError();
}
