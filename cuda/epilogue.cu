/* What follows a block's linear map, and its gradient; weights in cuDNN's order.
 *
 * A thread has WIDE neighbouring channels of a window, in one sample after another: what the window
 * alone decides is found once. */
#include "epilogue.cuh"

enum { WIDEST = 4, ENOUGH_BLOCKS = 2048 };
/* Where samples of one window each are added up: channels of a block, its threads, their samples.
 */
enum { SUM_GROUPS = 4, SUM_THREADS = 512, SUM_TURNS = 8 };

/* ---- who computes what ---- */

/* Windows of a sample, those that the edge cuts off among them or not. */
struct tiling {
    unsigned threads;   /* for a sample */
    int across, groups; /* windows of a row, groups of channels */
    size_t samples;
};

/* A thread's window, and the first of its channels. */
struct window {
    int line, column, channel;
};

static struct tiling tiling_of(int down, int across, int groups, int samples) {
    const struct tiling tiling = {(unsigned)down * across * groups, across, groups,
                                  (size_t)samples};
    return tiling;
}

static __host__ __device__ inline bool has_one_window(const struct tiling *t) {
    return t->threads == (unsigned)t->groups;
}

/* Samples side by side where one has few windows; threads that have the same channels in all
 * samples and, where that is possible, in all windows. */
static dim3 block_of(const struct tiling *t) {
    const unsigned most = THREADS, groups = t->groups;
    if (t->threads < most)
        return dim3(t->threads, most / t->threads);
    return dim3(groups <= most ? most / groups * groups : most, 1);
}

/* So that few blocks have all samples of their channels. */
static dim3 summing_block_of(const struct tiling *t) {
    if (!has_one_window(t))
        return block_of(t);
    const unsigned groups = SUM_GROUPS, across = t->threads < groups ? t->threads : groups;
    const size_t most = SUM_THREADS / across;
    return dim3(across, (unsigned)(t->samples < most ? t->samples : most));
}

/* As many samples for each thread as leave blocks enough. */
static dim3 grid_of(const struct tiling *t, dim3 block) {
    const unsigned across = (t->threads - 1) / block.x + 1;
    const size_t down = (t->samples + block.y - 1) / block.y;
    const size_t most = across < ENOUGH_BLOCKS ? ENOUGH_BLOCKS / across : 1;
    const size_t turns = (down + most - 1) / most;
    return dim3(across, (unsigned)((down + turns - 1) / turns));
}

static dim3 summing_grid_of(const struct tiling *t, dim3 block) {
    dim3 grid = grid_of(t, block);
    if (has_one_window(t))
        grid.y = (unsigned)((t->samples - 1) / ((size_t)block.y * SUM_TURNS) + 1);
    return grid;
}

static __device__ inline unsigned own_thread() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ inline size_t first_sample() {
    return blockIdx.y * blockDim.y + threadIdx.y;
}

static __device__ inline size_t sample_stride() {
    return gridDim.y * blockDim.y;
}

template <int WIDE>
static __device__ inline struct window window_of(const struct tiling *t, unsigned thread) {
    const unsigned pixel = thread / t->groups;
    const struct window window = {(int)(pixel / t->across), (int)(pixel % t->across),
                                  (int)(thread % t->groups) * WIDE};
    return window;
}

/* ---- forward ---- */

/* Neither batch normalisation nor an activation with functions in it: it takes fewer registers. */
static bool is_plain(const struct epilogue *e) {
    return e->mean == NULL &&
           (e->activation == ACTIVATION_RELU || e->activation == ACTIVATION_NONE);
}

/* What is done to z before the activation. */
template <int WIDE> struct affine { float mean[WIDE], scale[WIDE], bias[WIDE]; };

template <int WIDE, bool PLAIN>
static __device__ inline struct affine<WIDE> affine_of(const struct epilogue *e, int channel) {
    struct affine<WIDE> affine;
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
        affine.mean[c] = PLAIN || e->mean == NULL ? 0 : e->mean[channel + c];
        affine.scale[c] = PLAIN || e->mean == NULL ? 1 : e->scale[channel + c];
        affine.bias[c] = e->bias == NULL ? 0 : e->bias[channel + c];
    }
    return affine;
}

template <int WIDE, bool PLAIN>
static __device__ inline pack<float, WIDE>
activated_pack(const struct epilogue *e, const struct affine<WIDE> *affine, pack<float, WIDE> z) {
    const bool cut = e->activation == ACTIVATION_RELU;
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
        const float normal = (z.at[c] - affine->mean[c]) * affine->scale[c];
        const float moved = e->factor * (normal + affine->bias[c]);
        z.at[c] = PLAIN ? cut && moved < 0 ? 0 : moved : activate(e->activation, moved);
    }
    return z;
}

/* The first maximum of each channel's window, and its place. POOL 0: any. */
template <int WIDE, int POOL, bool PLAIN>
static __device__ inline pack<float, WIDE> pooled(const struct epilogue *e,
                                                  const struct affine<WIDE> *affine, const float *z,
                                                  pack<uint8_t, WIDE> *places) {
    const int pool = POOL > 0 ? POOL : e->pool;
    pack<float, WIDE> best = {};
#pragma unroll(POOL > 0 ? POOL : 1)
    for (int i = 0; i < pool; i++)
#pragma unroll(POOL > 0 ? POOL : 1)
        for (int j = 0; j < pool; j++) {
            const size_t at = (size_t)(i * e->width + j) * e->channels;
            const pack<float, WIDE> a = activated_pack<WIDE, PLAIN>(e, affine, load<WIDE>(z + at));
#pragma unroll
            for (int c = 0; c < WIDE; c++)
                if (i + j == 0 || a.at[c] > best.at[c]) {
                    best.at[c] = a.at[c];
                    places->at[c] = (uint8_t)(i * pool + j);
                }
        }
    return best;
}

/* A bit for each of WIDE units, from `first` on: neighbours in the whole layer are drawn together.
 */
template <int WIDE>
static __device__ inline unsigned dropped(const struct epilogue *e, const struct unit *first,
                                          uint32_t update) {
    unsigned bits = 0;
    if (WIDE == 4 && e->kept == NULL) {
        uint32_t words[4];
        philox_draw(e->seed, (uint32_t)(first->index / 4), e->ids[first->sample], update, e->stream,
                    words);
#pragma unroll
        for (int c = 0; c < WIDE; c++)
            bits |= (unsigned)(uniform_of(words[c]) < e->dropout) << c;
        return bits;
    }
    for (int c = 0; c < WIDE; c++) {
        const struct unit unit = {first->sample, first->index + c, first->channel + c, 0, 0};
        bits |= (unsigned)is_dropped(e, &unit) << c;
    }
    return bits;
}

template <int WIDE>
static __device__ inline void drop(float dropout, unsigned bits, pack<float, WIDE> *a,
                                   pack<uint8_t, WIDE> *places) {
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
        const bool falls = bits >> c & 1;
        a->at[c] = falls ? 0 : a->at[c] * (1 / (1 - dropout));
        places->at[c] = falls ? (uint8_t)DROPPED : places->at[c];
    }
}

/* Without pooling and dropout there is nothing to choose. */
static __host__ __device__ inline bool chooses(const struct epilogue *e) {
    return e->pool > 1 || e->dropout > 0;
}

template <int WIDE, int POOL, bool PLAIN>
static __global__ void epilogue_forward(struct epilogue e, struct tiling t, const float *z,
                                        float *y, uint8_t *state) {
    const unsigned thread = own_thread();
    if (thread >= t.threads)
        return;
    const struct window window = window_of<WIDE>(&t, thread);
    const struct affine<WIDE> affine = affine_of<WIDE, PLAIN>(&e, window.channel);
    const size_t size = (size_t)e.height * e.width * e.channels;
    const size_t corner = (size_t)(window.line * e.width + window.column) * e.pool * e.channels;
    const uint32_t update = e.dropout > 0 ? values_of(e.source).update : 0;
    for (size_t sample = first_sample(); sample < t.samples; sample += sample_stride()) {
        const struct unit unit = {sample, (size_t)thread * WIDE, window.channel, 0, 0};
        const size_t at = sample * ((size_t)t.threads * WIDE) + unit.index;
        pack<uint8_t, WIDE> places = {};
        pack<float, WIDE> a = pooled<WIDE, POOL, PLAIN>(
            &e, &affine, z + sample * size + corner + window.channel, &places);
        if (e.dropout > 0)
            drop<WIDE>(e.dropout, dropped<WIDE>(&e, &unit, update), &a, &places);
        store(y + at, a);
        if (chooses(&e))
            store(state + at, places);
    }
}

typedef void forward_kernel(struct epilogue, struct tiling, const float *, float *, uint8_t *);

template <int WIDE, bool PLAIN> static forward_kernel *forward_of(int pool) {
    return pool == 1   ? epilogue_forward<WIDE, 1, PLAIN>
           : pool == 2 ? epilogue_forward<WIDE, 2, PLAIN>
                       : epilogue_forward<WIDE, 0, PLAIN>;
}

/* Channels that a thread can take at once. */
static int width_of(const struct epilogue *e, const float *a, const float *b, const float *c,
                    const uint8_t *state) {
    const bool wide = e->channels % WIDEST == 0 && is_aligned<WIDEST>(a) && is_aligned<WIDEST>(b) &&
                      is_aligned<WIDEST>(c) && is_aligned<WIDEST>(state);
    return wide ? WIDEST : 1;
}

cudaError_t kernel_epilogue(const struct epilogue *e, int samples, const float *z, float *y,
                            uint8_t *state, cudaStream_t stream) {
    const int width = width_of(e, z, y, y, state);
    const struct tiling tiling =
        tiling_of(e->out_height, e->out_width, e->channels / width, samples);
    const dim3 block = block_of(&tiling);
    forward_kernel *const epilogue_forward =
        (width > 1     ? is_plain(e) ? forward_of<WIDEST, true> : forward_of<WIDEST, false>
             : is_plain(e) ? forward_of<1, true>
                       : forward_of<1, false>)(e->pool);
    if (samples > 0)
        LAUNCH(epilogue_forward, grid_of(&tiling, block), block, 0, stream, *e, tiling, z, y,
               state);
    return cudaGetLastError();
}

/* ---- backward ---- */

/* What the windows' places that were chosen get. */
template <int WIDE>
static __device__ inline pack<float, WIDE> gradients_of(const struct epilogue *e, const float *y,
                                                        const float *dy) {
    const float keep = 1 - e->dropout;
    pack<float, WIDE> gradients = load<WIDE>(dy), of = {};
    if (e->activation != ACTIVATION_NONE)
        of = load<WIDE>(y);
#pragma unroll
    for (int c = 0; c < WIDE; c++) /* y keep: the activation's value */
        gradients.at[c] = gradients.at[c] * (1 / keep) * slope(e->activation, of.at[c] * keep);
    return gradients;
}

/* All of a window, as far as it is inside. */
template <int WIDE, int POOL>
static __device__ inline void spread(const struct epilogue *e, const struct window *window,
                                     const pack<float, WIDE> &gradients,
                                     const pack<uint8_t, WIDE> &places, float *dz) {
    const int pool = POOL > 0 ? POOL : e->pool;
    const int lines = e->height - window->line * pool, columns = e->width - window->column * pool;
#pragma unroll(POOL > 0 ? POOL : 1)
    for (int i = 0; i < pool; i++)
#pragma unroll(POOL > 0 ? POOL : 1)
        for (int j = 0; j < pool; j++) {
            pack<float, WIDE> values;
#pragma unroll
            for (int c = 0; c < WIDE; c++)
                values.at[c] = places.at[c] == i * pool + j ? gradients.at[c] : 0;
            if (POOL == 1 || (i < lines && j < columns))
                store(dz + (size_t)(i * e->width + j) * e->channels, values);
        }
}

/* A thread's windows; those that the edge cuts off have chosen nothing. */
template <int WIDE, int POOL, bool SUMS>
static __device__ inline void go_back(const struct epilogue *e, const struct tiling *t,
                                      unsigned thread, const float *y, const uint8_t *state,
                                      const float *dy, float *dz, double (&sums)[WIDE]) {
    const struct window window = window_of<WIDE>(t, thread);
    const bool whole = window.line < e->out_height && window.column < e->out_width;
    const size_t size = (size_t)e->height * e->width * e->channels;
    const size_t out_size = (size_t)e->out_height * e->out_width * e->channels;
    const size_t corner = (size_t)(window.line * e->width + window.column) * e->pool * e->channels;
    const size_t unit = (size_t)(window.line * e->out_width + window.column) * e->channels;
    for (size_t sample = first_sample(); sample < t->samples; sample += sample_stride()) {
        const size_t at = sample * out_size + unit + window.channel;
        pack<float, WIDE> gradients = {};
        pack<uint8_t, WIDE> places = {};
        if (whole)
            gradients = gradients_of<WIDE>(e, y + at, dy + at);
        if (whole && chooses(e))
            places = load<WIDE>(state + at);
        if (dz != NULL)
            spread<WIDE, POOL>(e, &window, gradients, places,
                               dz + sample * size + corner + window.channel);
#pragma unroll
        for (int c = 0; SUMS && c < WIDE; c++)
            sums[c] += places.at[c] == DROPPED ? 0 : gradients.at[c];
    }
}

/* Of each channel: parts [channels][parts], or where there is one, the sum itself. */
struct totals {
    double *parts;
    float *sums;
};

/* Over the block's threads that have the same channels, by halves. */
template <int WIDE>
static __device__ inline void add_up(const struct tiling *t, const struct totals *to,
                                     const double (&sums)[WIDE]) {
    SHARED_BYTES(double, shared);
    const unsigned threads = blockDim.x * blockDim.y, own = threadIdx.y * blockDim.x + threadIdx.x;
    const unsigned period = has_one_window(t) ? blockDim.x : t->groups;
    const unsigned parts = has_one_window(t) ? gridDim.y : gridDim.y * gridDim.x;
    const unsigned part = has_one_window(t) ? blockIdx.y : blockIdx.y * gridDim.x + blockIdx.x;
    for (int c = 0; c < WIDE; c++)
        shared[c * threads + own] = sums[c];
    for (unsigned left = threads / period, half; left > 1; left = half) {
        half = (left + 1) / 2;
        __syncthreads();
        for (int c = 0; c < WIDE && own < (left - half) * period; c++)
            shared[c * threads + own] += shared[c * threads + own + half * period];
    }
    const size_t column = own_thread() % t->groups * WIDE;
    for (int c = 0; c < WIDE && own < period && own_thread() < t->threads; c++)
        if (parts > 1)
            to->parts[(column + c) * parts + part] = shared[c * threads + own];
        else
            to->sums[column + c] = (float)shared[c * threads + own];
}

template <int WIDE, int POOL, bool SUMS>
static __global__ void __launch_bounds__(SUM_THREADS)
    epilogue_backward(struct epilogue e, struct tiling t, const float *y, const uint8_t *state,
                      const float *dy, float *dz, struct totals totals) {
    double sums[WIDE] = {};
    if (own_thread() < t.threads)
        go_back<WIDE, POOL, SUMS>(&e, &t, own_thread(), y, state, dy, dz, sums);
    if (SUMS)
        add_up<WIDE>(&t, &totals, sums);
}

typedef void backward_kernel(struct epilogue, struct tiling, const float *, const uint8_t *,
                             const float *, float *, struct totals);

template <int WIDE, bool SUMS> static backward_kernel *backward_of(int pool) {
    return pool == 1   ? epilogue_backward<WIDE, 1, SUMS>
           : pool == 2 ? epilogue_backward<WIDE, 2, SUMS>
                       : epilogue_backward<WIDE, 0, SUMS>;
}

static struct tiling backward_tiling(const struct epilogue *e, int width, int samples) {
    return tiling_of((e->height + e->pool - 1) / e->pool, (e->width + e->pool - 1) / e->pool,
                     e->channels / width, samples);
}

/* Whether a block's threads have few channels. */
static bool can_sum(const struct tiling *t) {
    return t->samples > 0 && (has_one_window(t) || t->groups <= THREADS);
}

static unsigned parts_of(const struct tiling *t) {
    const dim3 block = summing_block_of(t), grid = summing_grid_of(t, block);
    return has_one_window(t) ? grid.y : grid.x * grid.y;
}

/* For as many samples, or fewer. */
static size_t most_parts_of(const struct tiling *t) {
    const dim3 block = summing_block_of(t), grid = summing_grid_of(t, block);
    const size_t down = (t->samples + block.y - 1) / block.y;
    const size_t enough = ENOUGH_BLOCKS, most = grid.x < enough ? enough : grid.x;
    if (has_one_window(t))
        return grid.y;
    return down * grid.x < most ? down * grid.x : most;
}

static void launch_backward(const struct epilogue *e, int width, int samples, const float *y,
                            const uint8_t *state, const float *dy, float *dz, cudaStream_t stream) {
    const struct tiling tiling = backward_tiling(e, width, samples);
    const struct totals none = {NULL, NULL};
    const dim3 block = block_of(&tiling);
    backward_kernel *const epilogue_backward =
        (width > 1 ? backward_of<WIDEST, false> : backward_of<1, false>)(e->pool);
    if (samples > 0 && dz != NULL)
        LAUNCH(epilogue_backward, grid_of(&tiling, block), block, 0, stream, *e, tiling, y, state,
               dy, dz, none);
}

static void launch_summing(const struct epilogue *e, int width, int samples, const float *y,
                           const uint8_t *state, const float *dy, float *dz,
                           const struct totals *totals, cudaStream_t stream) {
    const struct tiling tiling = backward_tiling(e, width, samples);
    const dim3 block = summing_block_of(&tiling);
    const size_t bytes = (size_t)block.x * block.y * width * sizeof(double);
    backward_kernel *const summing_backward =
        (width > 1 ? backward_of<WIDEST, true> : backward_of<1, true>)(e->pool);
    LAUNCH(summing_backward, summing_grid_of(&tiling, block), block, bytes, stream, *e, tiling, y,
           state, dy, dz, *totals);
}

/* However its arrays are aligned, and for fewer samples too. */
size_t epilogue_scratch(const struct epilogue *e, int samples) {
    size_t most = column_scratch((size_t)samples * e->height * e->width, e->channels);
    for (int width = 1; e->channels % width == 0 && width <= WIDEST; width += WIDEST - 1) {
        const struct tiling tiling = backward_tiling(e, width, samples);
        const size_t parts = can_sum(&tiling) ? most_parts_of(&tiling) : 0;
        most = parts * e->channels > most ? parts * e->channels : most;
    }
    return most;
}

cudaError_t kernel_epilogue_backward(const struct epilogue *e, int samples, const float *y,
                                     const uint8_t *state, const float *dy, float *dz,
                                     double *scratch, float *sums, cudaStream_t stream) {
    const int width = width_of(e, y, dy, dz == NULL ? dy : dz, state);
    const struct tiling tiling = backward_tiling(e, width, samples);
    const struct totals totals = {scratch, sums};
    if (sums != NULL && can_sum(&tiling)) {
        launch_summing(e, width, samples, y, state, dy, dz, &totals, stream);
        if (parts_of(&tiling) > 1)
            return kernel_finish_columns(scratch, parts_of(&tiling), e->channels, sums, stream);
        return cudaGetLastError();
    }
    launch_backward(e, width, samples, y, state, dy, dz, stream);
    if (sums != NULL)
        return kernel_column_sums(dz == NULL ? dy : dz, (size_t)samples * e->height * e->width,
                                  e->channels, scratch, sums, stream);
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
