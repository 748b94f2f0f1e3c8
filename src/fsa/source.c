#include <espalier/fsa.h>
#include <espalier/rng.h>
#include <math.h>

/* What a set of samples draws; the set is added. */
enum { STREAM_VALUES = 0, STREAM_LABELS = 2 };

static struct rng_counter counter_of(const struct fsa_source *source, uint32_t what) {
    return (struct rng_counter){.time = source->run,
                                .stream = rng_stream(RNG_SYNTHETIC, what + source->set)};
}

/* Two independent standard normals of two words (Box and Muller 1958). */
static void normal_pair(const uint32_t words[2], double z[2]) {
    const double turn = 6.283185307179586;
    double radius = sqrt(-2 * log(((double)words[0] + 1) * 0x1p-32)); /* of (0, 1] */
    double angle = turn * ((double)words[1] * 0x1p-32);
    z[0] = radius * cos(angle);
    z[1] = radius * sin(angle);
}

/* Standard normals z [samples] of one variable. */
static void draw_column(const struct fsa_source *source, int column, int samples, double *z) {
    struct rng_counter counter = counter_of(source, STREAM_VALUES);
    counter.sample = (uint32_t)column;
    for (int i = 0; i < samples; i += 4) {
        uint32_t words[4];
        double four[4];
        counter.group = (uint32_t)i / 4;
        rng_philox(source->seed, counter, words);
        normal_pair(words, four);
        normal_pair(words + 2, four + 2);
        for (int j = 0; j < 4 && i + j < samples; j++)
            z[i + j] = four[j];
    }
}

void fsa_generate(const struct fsa_source *source, const int *columns, int count, int samples,
                  double *x) {
    for (int c = 0; c < count; c++) {
        double *column = x + (size_t)c * (size_t)samples;
        draw_column(source, columns[c], samples, column);
        if (c == 0)
            continue;
        const double *before = column - samples;
        double r = pow(source->correlation, columns[c] - columns[c - 1]), rest = sqrt(1 - r * r);
        for (int i = 0; i < samples; i++)
            column[i] = r * before[i] + rest * column[i];
    }
}

void fsa_label(const struct fsa_source *source, const double *sums, int samples, double noise,
               double *y) {
    struct rng_counter counter = counter_of(source, STREAM_LABELS);
    for (int i = 0; i < samples; i++) {
        uint32_t words[4];
        counter.group = (uint32_t)i;
        rng_philox(source->seed, counter, words);
        y[i] = sums[i] > 0 ? 1 : -1;
        if ((double)words[0] * 0x1p-32 < noise)
            y[i] = words[1] >> 31 ? 1 : -1;
    }
}
