/* epilogue.cuh - what follows a block's linear map, for one unit of its output. */
#ifndef ESPALIER_CUDA_EPILOGUE_CUH
#define ESPALIER_CUDA_EPILOGUE_CUH

#include "device.cuh"

enum { DROPPED = 255 }; /* in the state, beside the places of windows of at most 15 x 15 */

/* A unit of the output, and where its window begins. */
struct unit {
    size_t sample, index; /* index: within the sample's output */
    int channel, top, left;
};

static __device__ inline float activated(const struct epilogue *e, float z, int channel) {
    if (e->mean != NULL)
        z = (z - e->mean[channel]) * e->scale[channel];
    if (e->bias != NULL)
        z += e->bias[channel];
    return activate(e->activation, e->factor * z);
}

/* The unit's index among all those of its layer. */
static __device__ inline size_t number_of(const struct epilogue *e, const struct unit *unit) {
    if (e->kept == NULL)
        return unit->index;
    return unit->index / e->channels * e->layer_channels + e->kept[unit->channel];
}

static __device__ inline bool is_dropped(const struct epilogue *e, const struct unit *unit) {
    if (e->dropout == 0)
        return false;
    const uint32_t word = philox_word(e->seed, number_of(e, unit), e->ids[unit->sample],
                                      values_of(e->source).update, e->stream);
    return uniform_of(word) < e->dropout;
}

static __device__ inline void put_unit(const struct epilogue *e, const struct unit *unit, float a,
                                       int place, size_t i, float *y, uint8_t *state) {
    const bool dropped = is_dropped(e, unit);
    y[i] = dropped ? 0 : e->dropout > 0 ? a * (1 / (1 - e->dropout)) : a;
    state[i] = (uint8_t)(dropped ? DROPPED : place);
}

#endif
