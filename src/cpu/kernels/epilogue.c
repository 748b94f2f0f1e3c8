/* What follows a linear map, for one sample: activation, pooling, dropout, and their gradients. */
#include "elementary.h"
#include "isa.h"
#include "philox.h"

/* ---- activations ---- */

/* An activation as loops over memory. Forward: a = value of v = z + bias. Backward: the gradient
 * from d = dy * scale and the activation a = y / scale, `keep` being 1 / scale. */
struct activation_loops {
    void (*forward)(size_t pixels, size_t channels, const float *bias, const float *z, float *a);
    void (*backward)(size_t count, float keep, const float *y, const float *dy, float *dz);
};

#define DEFINE_ACTIVATION(name, value, gradient)                                                   \
    static void name##_forward(size_t pixels, size_t channels, const float *bias, const float *z,  \
                               float *output) {                                                    \
        for (size_t p = 0; p < pixels; p++, z += channels, output += channels)                     \
            _Pragma("omp simd") for (size_t k = 0; k < channels; k++) {                            \
                const float v = z[k] + bias[k];                                                    \
                output[k] = (value);                                                               \
            }                                                                                      \
    }                                                                                              \
    static void name##_backward(size_t count, float keep, const float *y, const float *dy,         \
                                float *dz) {                                                       \
        const float scale = 1.0F / keep;                                                           \
        _Pragma("omp simd") for (size_t i = 0; i < count; i++) {                                   \
            const float a = y[i] * keep, d = dy[i] * scale;                                        \
            (void)a;                                                                               \
            dz[i] = (gradient);                                                                    \
        }                                                                                          \
    }

DEFINE_ACTIVATION(none, v, d)
DEFINE_ACTIVATION(relu, 0.0F > v ? 0.0F : v, a > 0.0F ? d : 0.0F) /* a NaN stays one */
DEFINE_ACTIVATION(sigmoid, elementary_sigmoid(v), d *a *(1.0F - a))
DEFINE_ACTIVATION(tanh, elementary_tanh(v), d *((1.0F - a) * (1.0F + a)))

static const struct activation_loops activations[ACTIVATION_COUNT] = {
    [ACTIVATION_NONE] = {none_forward, none_backward},
    [ACTIVATION_RELU] = {relu_forward, relu_backward},
    [ACTIVATION_SIGMOID] = {sigmoid_forward, sigmoid_backward},
    [ACTIVATION_TANH] = {tanh_forward, tanh_backward},
};

static void activate(enum activation activation, size_t pixels, size_t channels, const float *bias,
                     const float *z, float *a) {
    activations[activation].forward(pixels, channels, bias, z, a);
}

static void activate_backward(enum activation activation, size_t count, float keep, const float *y,
                              const float *dy, float *dz) {
    activations[activation].backward(count, keep, y, dy, dz);
}

/* ---- pooling ---- */

/* The windows of a block's pooling: places are counted along its rows. */
struct window {
    int pool;
    size_t row, column; /* floats to the next row and column of the image */
};

static struct window window_of(const struct block_desc *desc) {
    return (struct window){
        .pool = desc->pool,
        .row = (size_t)desc->linear.width * (size_t)desc->linear.channels,
        .column = (size_t)desc->linear.channels,
    };
}

/* Offset into z of the window's first pixel. */
static size_t window_start(const struct block_desc *desc, int row, int column) {
    const struct window w = window_of(desc);
    return (size_t)row * (size_t)w.pool * w.row + (size_t)column * (size_t)w.pool * w.column;
}

/* Up to LANES channels of a window. The first of equals wins; a NaN only in the first place. */
static inline void window_maximum(const struct window *w, const float *a, int channels, float *y,
                                  uint8_t *state) {
    vec best = vec_load_first(a, channels), place = vec_zero();
    for (int i = 0; i < w->pool; i++)
        for (int j = 0; j < w->pool; j++) {
            const float *here = a + (size_t)i * w->row + (size_t)j * w->column;
            const vec candidate = vec_load_first(here, channels);
            const vec_mask larger = vec_greater(candidate, best);
            best = vec_select(larger, candidate, best);
            place = vec_select(larger, vec_set((float)(i * w->pool + j)), place);
        }
    vec_store_first(y, best, channels);
    vec_store_bytes(state, place, channels);
}

static void pool_forward(const struct block_desc *desc, const float *a, float *y, uint8_t *state) {
    const struct window w = window_of(desc);
    const int channels = desc->output.channels;
    for (int row = 0; row < desc->output.height; row++)
        for (int column = 0; column < desc->output.width; column++) {
            const float *window = a + window_start(desc, row, column);
            int k = 0;
            for (; k + LANES <= channels; k += LANES)
                window_maximum(&w, window + k, LANES, y + k, state + k);
            if (k < channels)
                window_maximum(&w, window + k, channels - k, y + k, state + k);
            y += channels;
            state += channels;
        }
}

enum { CHANNELS_AT_ONCE = 64 }; /* of one window, in a local array */

/* Up to LANES channels: g goes to the place of each maximum; what is dropped (no place) and the
 * rest get 0. */
static inline void spread_lanes(const struct window *w, const float *g, const uint8_t *state,
                                int channels, float *dz) {
    float places[LANES] = {0};
#pragma omp simd
    for (int k = 0; k < channels; k++)
        places[k] = state[k];
    const vec place = vec_load(places), gradient = vec_load_first(g, channels);
    for (int i = 0; i < w->pool; i++)
        for (int j = 0; j < w->pool; j++) {
            const vec_mask here = vec_equal(place, vec_set((float)(i * w->pool + j)));
            vec_store_first(dz + (size_t)i * w->row + (size_t)j * w->column,
                            vec_select(here, gradient, vec_zero()), channels);
        }
}

static void window_spread(const struct window *w, const float *g, const uint8_t *state,
                          int channels, float *dz) {
    int k = 0;
    for (; k + LANES <= channels; k += LANES)
        spread_lanes(w, g + k, state + k, LANES, dz + k);
    if (k < channels)
        spread_lanes(w, g + k, state + k, channels - k, dz + k);
}

static void pool_backward(const struct block_desc *desc, float keep, const uint8_t *state,
                          const float *y, const float *dy, float *dz) {
    const struct window w = window_of(desc);
    const int channels = desc->output.channels;
    float g[CHANNELS_AT_ONCE];
    if (desc->linear.height % desc->pool != 0 || desc->linear.width % desc->pool != 0)
        memset(dz, 0, shape_size(desc->linear) * sizeof *dz); /* windows that were cut off */
    for (int row = 0; row < desc->output.height; row++)
        for (int column = 0; column < desc->output.width; column++) {
            float *window = dz + window_start(desc, row, column);
            for (int k = 0; k < channels; k += CHANNELS_AT_ONCE) {
                const int left = channels - k;
                const int count = left < CHANNELS_AT_ONCE ? left : CHANNELS_AT_ONCE;
                activate_backward(desc->activation, (size_t)count, keep, y + k, dy + k, g);
                window_spread(&w, g, state + k, count, window + k);
            }
            y += channels;
            dy += channels;
            state += channels;
        }
}

/* ---- dropout ---- */

static void drop_units(const uint32_t *restrict words, float rate, size_t units, float *restrict y,
                       uint8_t *restrict state) {
    const float scale = 1.0F / (1.0F - rate);
#pragma omp simd
    for (size_t i = 0; i < units; i++) {
        const bool dropped = rng_uniform(words[i]) < rate;
        y[i] = dropped ? 0.0F : y[i] * scale;
        state[i] = dropped ? STATE_DROPPED : state[i];
    }
}

static void drop_all(uint64_t seed, struct rng_counter counter, float rate, size_t units, float *y,
                     uint8_t *state) {
    uint32_t words[DRAWS];
    for (size_t first = 0; first < units; first += DRAWS, counter.group += DRAWS / 4) {
        const size_t left = units - first;
        philox_draw(seed, counter, words);
        drop_units(words, rate, left < DRAWS ? left : DRAWS, y + first, state + first);
    }
}

/* Some channels of a layer, each unit by the word that it has in the whole layer. */
static void drop_kept(uint64_t seed, struct rng_counter counter, const struct block_desc *desc,
                      float *y, uint8_t *state) {
    const size_t channels = (size_t)desc->output.channels, all = (size_t)desc->layer_channels;
    const size_t units = shape_size(desc->output) / channels * all;
    size_t drawn = 0; /* units of the layer, up to the end of the words */
    uint32_t words[DRAWS], chosen[DRAWS];
    for (size_t pixel = 0; pixel < units; pixel += all)
        for (size_t k = 0; k < channels;) {
            size_t count = 0;
            for (; k < channels && count < DRAWS; k++, count++) {
                const size_t unit = pixel + desc->kept[k];
                if (unit >= drawn) {
                    counter.group = (uint32_t)(unit / DRAWS * (DRAWS / 4));
                    philox_draw(seed, counter, words);
                    drawn = unit / DRAWS * DRAWS + DRAWS;
                }
                chosen[count] = words[unit % DRAWS];
            }
            drop_units(chosen, desc->dropout, count, y, state);
            y += count;
            state += count;
        }
}

static void drop(uint64_t seed, struct rng_counter counter, const struct block_desc *desc, float *y,
                 uint8_t *state) {
    if (desc->kept != NULL)
        drop_kept(seed, counter, desc, y, state);
    else
        drop_all(seed, counter, desc->dropout, shape_size(desc->output), y, state);
}

static void drop_backward(size_t units, const uint8_t *state, float *dz) {
    for (size_t i = 0; i < units; i++)
        dz[i] = state[i] == STATE_DROPPED ? 0.0F : dz[i];
}

const struct epilogue_kernels ISA_NAME(epilogue_kernels) = {
    activate, activate_backward, pool_forward, pool_backward, drop, drop_backward};
