/* DropConnect (Wan et al. 2013): each sample has connections of its own. */
#include "device.cuh"

size_t connect_words(int inputs, int units) {
    return ((size_t)units * (size_t)inputs + (size_t)units + 31) / 32;
}

static __device__ bool is_kept(const uint32_t *mask, size_t unit) {
    return mask[unit / 32] >> (unit % 32) & 1;
}

/* One thread a word of the mask. */
static __global__ void connect_masks(struct connect c, size_t words, size_t count,
                                     uint32_t *masks) {
    const uint32_t update = values_of(c.source).update;
    for (size_t i = first_element(); i < count; i += stride()) {
        uint32_t bits = 0;
        for (int bit = 0; bit < 32; bit++) {
            const uint32_t word =
                philox_word(c.seed, i % words * 32 + bit, c.ids[i / words], update, c.stream);
            bits |= (uint32_t)(uniform_of(word) >= c.dropped) << bit;
        }
        masks[i] = bits;
    }
}

cudaError_t kernel_connect_masks(const struct connect *c, int samples, uint32_t *masks,
                                 cudaStream_t stream) {
    const size_t words = connect_words(c->inputs, c->units), count = words * (size_t)samples;
    if (count > 0)
        LAUNCH(connect_masks, blocks_for(count), THREADS, 0, stream, *c, words, count, masks);
    return cudaGetLastError();
}

/* A block takes one unit of one sample at a time, numbered sample * units + unit. */
static __global__ void connect_forward(struct connect c, size_t words, size_t count,
                                       const uint32_t *masks, const float *weights,
                                       const float *bias, const float *x, float *z) {
    for (size_t i = blockIdx.x; i < count; i += gridDim.x) {
        const size_t unit = i % c.units, sample = i / c.units, first = unit * c.inputs;
        const uint32_t *mask = masks + sample * words;
        float sum = 0;
        for (int j = threadIdx.x; j < c.inputs; j += THREADS)
            if (is_kept(mask, first + j))
                sum += weights[first + j] * x[sample * c.inputs + j];
        sum = block_sum(sum);
        if (threadIdx.x == 0)
            z[i] = sum + (is_kept(mask, (size_t)c.units * c.inputs + unit) ? bias[unit] : 0);
    }
}

static size_t units_of(const struct connect *c, int samples) {
    return (size_t)c->units * (size_t)samples;
}

/* Their number may be beyond what a grid can have; so many keep a device busy. */
static unsigned unit_blocks(size_t units) {
    const size_t most = 2048;
    return (unsigned)(units < most ? units : most);
}

cudaError_t kernel_connect_forward(const struct connect *c, int samples, const uint32_t *masks,
                                   const float *weights, const float *bias, const float *x,
                                   float *z, cudaStream_t stream) {
    const size_t count = units_of(c, samples);
    if (count > 0)
        LAUNCH(connect_forward, unit_blocks(count), THREADS, 0, stream, *c,
               connect_words(c->inputs, c->units), count, masks, weights, bias, x, z);
    return cudaGetLastError();
}

/* One thread a connection, or bias, over all samples. */
static __global__ void connect_weights(struct connect c, size_t words, int samples,
                                       const uint32_t *masks, const float *x, const float *dz,
                                       float *dweights, float *dbias) {
    const size_t weights = (size_t)c.units * c.inputs;
    for (size_t i = first_element(); i < weights + c.units; i += stride()) {
        const bool is_bias = i >= weights;
        const size_t unit = is_bias ? i - weights : i / c.inputs, input = i % c.inputs;
        float sum = 0;
        for (size_t n = 0; n < (size_t)samples; n++)
            if (is_kept(masks + n * words, i))
                sum += dz[n * c.units + unit] * (is_bias ? 1 : x[n * c.inputs + input]);
        *(is_bias ? dbias + unit : dweights + i) = sum;
    }
}

/* One thread an input of a sample, over all units. */
static __global__ void connect_inputs(struct connect c, size_t words, size_t count,
                                      const uint32_t *masks, const float *weights, const float *dz,
                                      float *dx) {
    for (size_t i = first_element(); i < count; i += stride()) {
        const size_t sample = i / c.inputs, input = i % c.inputs;
        float sum = 0;
        for (size_t unit = 0; unit < (size_t)c.units; unit++) {
            const size_t at = unit * c.inputs + input;
            if (is_kept(masks + sample * words, at))
                sum += weights[at] * dz[sample * c.units + unit];
        }
        dx[i] = sum;
    }
}

cudaError_t kernel_connect_backward(const struct connect *c, int samples, const uint32_t *masks,
                                    const float *weights, const float *x, const float *dz,
                                    float *dweights, float *dbias, float *dx, cudaStream_t stream) {
    const size_t words = connect_words(c->inputs, c->units);
    const size_t inputs = (size_t)samples * (size_t)c->inputs;
    LAUNCH(connect_weights, blocks_for(32 * words), THREADS, 0, stream, *c, words, samples, masks,
           x, dz, dweights, dbias);
    if (dx != NULL && inputs > 0)
        LAUNCH(connect_inputs, blocks_for(inputs), THREADS, 0, stream, *c, words, inputs, masks,
               weights, dz, dx);
    return cudaGetLastError();
}

/* ---- evaluation by sampling ---- */

/* Number `unit` of a sample's normals (Box & Muller 1958): two neighbours share a pair of words. */
static __device__ float normal(const struct connect *c, size_t unit, uint32_t sample) {
    const size_t pair = unit / 2 * 2;
    const float v = 1 - uniform_of(philox_word(c->seed, pair, sample, 0, c->draws_stream));
    const float w = uniform_of(philox_word(c->seed, pair + 1, sample, 0, c->draws_stream));
    const float radius = sqrtf(-2 * logf(v));
    return radius * (unit % 2 == 0 ? cospif(2 * w) : sinpif(2 * w));
}

/* Mean and deviation of a unit's input in evaluation, to all of the block. */
static __device__ void find_moments(const struct connect *c, size_t unit, const float *weights,
                                    const float *bias, const float *x, float *moments) {
    const size_t first = unit * c->inputs;
    float sum = 0, squares = 0;
    for (int j = threadIdx.x; j < c->inputs; j += THREADS) {
        const float product = weights[first + j] * x[j];
        sum += product;
        squares += product * product;
    }
    sum = block_sum(sum);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        const float p = 1 - c->dropped;
        moments[0] = p * (bias[unit] + sum);
        moments[1] = sqrtf(p * (1 - p) * (bias[unit] * bias[unit] + squares));
    }
    __syncthreads();
}

static __global__ void connect_sample(struct connect c, size_t count, const float *weights,
                                      const float *bias, const float *x, float *y) {
    SHARED(float, moments, [2]);
    for (size_t i = blockIdx.x; i < count; i += gridDim.x) {
        const size_t unit = i % c.units, sample = i / c.units;
        find_moments(&c, unit, weights, bias, x + sample * c.inputs, moments);
        float activations = 0;
        for (int draw = threadIdx.x; draw < c.draws; draw += THREADS) {
            const float drawn = normal(&c, unit * c.draws + draw, c.ids[sample]);
            activations += activate(c.activation, moments[0] + moments[1] * drawn);
        }
        activations = block_sum(activations);
        if (threadIdx.x == 0)
            y[i] = activations / c.draws;
    }
}

cudaError_t kernel_connect_sample(const struct connect *c, int samples, const float *weights,
                                  const float *bias, const float *x, float *y,
                                  cudaStream_t stream) {
    const size_t count = units_of(c, samples);
    if (count > 0)
        LAUNCH(connect_sample, unit_blocks(count), THREADS, 0, stream, *c, count, weights, bias, x,
               y);
    return cudaGetLastError();
}
