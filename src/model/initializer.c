#include <espalier/initializer.h>
#include <espalier/rng.h>

#include <math.h>

/* Uniform in [-limit, limit). */
static void fill_group_uniform(const uint32_t words[4], double scale, float values[4]) {
    for (int i = 0; i < 4; i++)
        values[i] = (float)(scale * (2.0 * (double)rng_uniform(words[i]) - 1.0));
}

/* Two pairs of normals of the given standard deviation (Box & Muller 1958). */
static void fill_group_normal(const uint32_t words[4], double scale, float values[4]) {
    const double tau = 6.283185307179586;
    for (int i = 0; i < 4; i += 2) {
        double u = 1.0 - (double)rng_uniform(words[i]); /* (0, 1]: its logarithm is finite */
        double radius = scale * sqrt(-2.0 * log(u));
        double angle = tau * (double)rng_uniform(words[i + 1]);
        values[i] = (float)(radius * cos(angle));
        values[i + 1] = (float)(radius * sin(angle));
    }
}

static double glorot_limit(double fan_in, double fan_out) {
    return sqrt(6.0 / (fan_in + fan_out));
}

static double he_deviation(double fan_in, double fan_out) {
    (void)fan_out;
    return sqrt(2.0 / fan_in);
}

static double he_limit(double fan_in, double fan_out) {
    (void)fan_out;
    return sqrt(6.0 / fan_in);
}

static const struct {
    double (*scale)(double fan_in, double fan_out);
    void (*fill_group)(const uint32_t words[4], double scale, float values[4]);
} initializers[INITIALIZER_COUNT] = {
    [INITIALIZER_GLOROT_UNIFORM] = {glorot_limit, fill_group_uniform},
    [INITIALIZER_HE_NORMAL] = {he_deviation, fill_group_normal},
    [INITIALIZER_HE_UNIFORM] = {he_limit, fill_group_uniform},
};

void initializer_fill(enum initializer kind, const struct block_desc *desc, uint64_t seed,
                      float *weights) {
    size_t count = block_weights(desc);
    double units = desc->linear.channels;
    double area = desc->kind == BLOCK_CONV ? (double)desc->kernel * desc->kernel : 1.0;
    double scale = initializers[kind].scale((double)count / units, units * area);
    for (size_t first = 0; first < count; first += 4) {
        uint32_t words[4];
        float values[4];
        rng_philox(seed,
                   (struct rng_counter){.group = (uint32_t)(first / 4),
                                        .stream = rng_stream(RNG_INITIALIZER, desc->layer)},
                   words);
        initializers[kind].fill_group(words, scale, values);
        for (size_t i = first; i < count && i < first + 4; i++)
            weights[i] = values[i - first];
    }
}
