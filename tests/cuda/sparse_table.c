/* What the CUDA backend's models say of devices and layers that are given on lines of its input:
 *   capability processors clock_khz tf32 samples first density dense inputs units
 *   capability processors clock_khz tf32 samples first density conv height width channels filters
 *                                                               kernel stride padding
 * For each: seconds in dense form, in sparse form, and the density below which sparse form pays. */
#include "../../cuda/sparse_conv.h"

#include <stdio.h>
#include <string.h>

struct line {
    struct device_rates rates;
    int samples;
    bool first;
    double density;
};

static void print_dense(const struct line *line) {
    struct sparse_layer l = {
        .samples = line->samples, .first = line->first, .density = line->density};
    if (scanf("%d %d", &l.inputs, &l.units) == 2)
        printf("%.9g %.9g %.9g\n", dense_seconds(&line->rates, &l),
               sparse_seconds(&line->rates, &l), sparse_break_even(&line->rates, &l));
}

static int output_of(const struct block_desc *d, int size) {
    return (size + 2 * d->padding - d->kernel) / d->stride + 1;
}

static void print_conv(const struct line *line) {
    struct block_desc d = {.kind = BLOCK_CONV, .pool = 1};
    const struct conv_layer l = {&d, line->samples, line->first};
    if (scanf("%d %d %d %d %d %d %d", &d.input.height, &d.input.width, &d.input.channels,
              &d.linear.channels, &d.kernel, &d.stride, &d.padding) != 7)
        return;
    d.linear.height = output_of(&d, d.input.height);
    d.linear.width = output_of(&d, d.input.width);
    printf("%.9g %.9g %.9g\n", conv_dense_seconds(&line->rates, &l),
           conv_sparse_seconds(&line->rates, &l, line->density), conv_break_even(&line->rates, &l));
}

int main(void) {
    struct device_numbers n;
    struct line line;
    int tf32, first;
    char kind[8];
    while (scanf("%d %d %d %d %d %d %lf %7s", &n.capability, &n.processors, &n.clock_khz, &tf32,
                 &line.samples, &first, &line.density, kind) == 8) {
        line.first = first != 0;
        device_rates_of(&n, tf32 != 0, &line.rates);
        (strcmp(kind, "conv") == 0 ? print_conv : print_dense)(&line);
    }
    return 0;
}
