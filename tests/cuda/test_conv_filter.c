/* The kernels of the gradients of convolutions' weights: every cut into tiles, strips, groups of
 * taps and parts, against the sums themselves, in both orders of threads. Of small integers, so
 * that sums are exact. */
#include "../../cuda/backend_cuda.h"
#include "cases.h"
#include "on_backends.h"

struct row {
    int height, width, channels, filters, kernel, stride, padding, samples;
};

static struct convolution convolution_of(const struct row *r) {
    return (struct convolution){
        .height = r->height,
        .width = r->width,
        .channels = r->channels,
        .out_height = (r->height + 2 * r->padding - r->kernel) / r->stride + 1,
        .out_width = (r->width + 2 * r->padding - r->kernel) / r->stride + 1,
        .filters = r->filters,
        .kernel = r->kernel,
        .stride = r->stride,
        .padding = r->padding};
}

/* Adds what one pixel of the output does. */
static void add_pixel(const struct convolution *c, int top, int left, const float *image,
                      const float *dz, float *dweights) {
    const int taps = c->kernel * c->kernel;
    for (int tap = 0; tap < taps; tap++) {
        const int y = top + tap / c->kernel, x = left + tap % c->kernel;
        if (y < 0 || y >= c->height || x < 0 || x >= c->width)
            continue;
        for (int f = 0; f < c->filters; f++)
            for (int k = 0; k < c->channels; k++)
                dweights[(f * c->channels + k) * taps + tap] +=
                    dz[f] * image[(y * c->width + x) * c->channels + k];
    }
}

static void add_all(const struct convolution *c, int samples, const float *x, const float *dz,
                    float *dweights) {
    const int pixels = c->out_height * c->out_width;
    for (int i = 0; i < samples * pixels; i++)
        add_pixel(c, i % pixels / c->out_width * c->stride - c->padding,
                  i % c->out_width * c->stride - c->padding,
                  x + (size_t)(i / pixels) * c->height * c->width * c->channels,
                  dz + (size_t)i * c->filters, dweights);
}

static void hold(struct backend *b, const struct row *row) {
    const struct convolution c = convolution_of(row);
    const size_t inputs = (size_t)row->samples * c.height * c.width * c.channels;
    const size_t outputs = (size_t)row->samples * c.out_height * c.out_width * c.filters;
    const size_t weights = (size_t)c.filters * c.channels * c.kernel * c.kernel;
    float *x = case_integers(5, 1, inputs), *dz = case_integers(5, 2, outputs);
    float *expected = calloc(weights, sizeof *expected), *found = calloc(weights, sizeof *found);
    void *scratch, *dweights,
        *sides[] = {device_of(b, x, inputs * sizeof *x), device_of(b, dz, outputs * sizeof *dz)};
    assert_ok(b->alloc(b, convolution_gradient_scratch(&c, row->samples) * sizeof *x, &scratch));
    assert_ok(b->alloc(b, weights * sizeof *x, &dweights));
    assert_true(convolution_gradient_fits(&c));
    assert_int_equal(kernel_convolution_gradient(&c, row->samples, sides[0], sides[1], scratch,
                                                 dweights, cuda_of(b)->stream),
                     cudaSuccess);
    assert_ok(b->download(b, found, dweights, weights * sizeof *found));
    add_all(&c, row->samples, x, dz, expected);
    for (size_t i = 0; i < weights; i++)
        if (found[i] != expected[i])
            fail_msg("%dx%dx%d, %d filters, kernel %d, stride %d, padding %d, %d samples: "
                     "dweights[%zu] is %g, expected %g",
                     c.height, c.width, c.channels, c.filters, c.kernel, c.stride, c.padding,
                     row->samples, i, found[i], expected[i]);
    void *const memory[] = {scratch, dweights, sides[0], sides[1]};
    for (int i = 0; i < 4; i++)
        b->release(b, memory[i]);
    free(x), free(dz), free(expected), free(found);
}

/* Parts of several rows, that end within images and go over from one to the next. */
static const struct row rows[] = {
    {6, 5, 4, 8, 3, 1, 0, 1},    /* one part, or as many as there are rows */
    {6, 5, 4, 8, 3, 1, 0, 300},  /* parts of several samples' rows */
    {6, 5, 3, 10, 3, 1, 1, 290}, /* one by one, and zeros around */
    {9, 7, 33, 40, 3, 1, 0, 40}, /* tiles that are cut off */
    {9, 9, 64, 36, 3, 1, 1, 20}, /* parts of tiles */
    {3, 70, 4, 4, 3, 1, 1, 100}, /* strips of a row */
    {3, 70, 4, 4, 3, 1, 1, 31},  /* a last strip that is narrower, and odd */
    {9, 9, 5, 3, 5, 1, 2, 60},   /* groups of taps */
    {9, 8, 8, 4, 3, 2, 1, 90},   /* a stride */
    {9, 10, 4, 4, 2, 3, 0, 100}, /* that leaves out rows */
    {4, 4, 7, 5, 1, 1, 0, 90},   /* one tap */
    {8, 9, 1, 3, 3, 1, 0, 2},    /* one channel */
    {8, 9, 1, 40, 3, 1, 1, 100}, {8, 9, 1, 40, 3, 1, 0, 700}, /* several rows a warp */
    {9, 8, 1, 5, 5, 1, 2, 30},   {9, 8, 1, 5, 3, 2, 1, 30},   /* one channel, but a stride */
};

ON_EACH_BACKEND(gradients_are_the_sums_over_pixels) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        hold(b, &rows[i]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_the_sums_over_pixels),
    };
    return RUN_TESTS(tests, argc, argv);
}
