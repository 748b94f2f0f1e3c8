/* Blank regions that convolutions skip: what they see of them, that it changes no output, and no
 * gradient but in its rounding. */
#include "../../src/cpu/cpu.h"
#include "block_reference.h"
#include "chains.h"
#include "on_backends.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RELU ACTIVATION_RELU
#define NONE ACTIVATION_NONE
#define TANH ACTIVATION_TANH
#define SIGMOID ACTIVATION_SIGMOID

enum { PICTURES = 6, GRAINS_SAMPLES = 9 };

static const struct chain chains[] = {
    /* the poster's, small */
    {{20, 20, 1}, 9, 2, {CONV(8, 3, 1, 0, RELU, 1, 0), CONV(7, 3, 1, 0, RELU, 2, 0.5F)}, 0},
    {{18, 21, 1}, 9, 2, {CONV(33, 3, 1, 0, RELU, 1, 0), CONV(5, 3, 1, 0, NONE, 2, 0)}, 0},
    /* a block alone: pooled or not, padded, strided, of several channels */
    {{17, 16, 1}, 9, 1, {CONV(6, 5, 1, 0, RELU, 2, 0)}, 0},
    {{17, 16, 2}, 9, 1, {CONV(5, 3, 1, 1, RELU, 3, 0.5F)}, 0},
    {{15, 19, 3}, 9, 1, {CONV(17, 3, 2, 1, NONE, 1, 0)}, 0},
    {{14, 14, 7}, 9, 1, {CONV(9, 3, 1, 0, RELU, 2, 0)}, 0},
    {{19, 15, 8}, 9, 1, {CONV(5, 3, 1, 1, NONE, 3, 0)}, 0},
    {{13, 14, 9}, 9, 1, {CONV(20, 3, 1, 1, RELU, 1, 0.5F)}, 0},
    /* pooled before another; strides; padding at the second, and at the first */
    {{26, 24, 1}, 9, 2, {CONV(4, 5, 1, 0, RELU, 2, 0), CONV(6, 3, 1, 0, RELU, 2, 0)}, 0},
    {{26, 23, 1}, 9, 2, {CONV(6, 3, 1, 0, RELU, 1, 0), CONV(9, 3, 1, 1, RELU, 2, 0)}, 0},
    {{24, 24, 1}, 9, 2, {CONV(6, 2, 1, 1, NONE, 2, 0), CONV(5, 3, 2, 0, RELU, 1, 0)}, 0},
    {{24, 22, 1}, 9, 2, {CONV(8, 3, 1, 0, RELU, 1, 0), CONV(6, 3, 1, 0, NONE, 1, 0)}, 0},
    /* dropout between, which ends the map in training */
    {{20, 20, 1}, 9, 2, {CONV(6, 3, 1, 0, RELU, 1, 0.5F), CONV(7, 3, 1, 0, RELU, 2, 0)}, 0},
    /* three in a row */
    {{30, 29, 1},
     9,
     3,
     {CONV(4, 3, 1, 0, RELU, 1, 0), CONV(5, 3, 1, 0, RELU, 2, 0), CONV(6, 3, 1, 0, RELU, 2, 0)},
     0},
    {{22, 23, 1},
     9,
     3,
     {CONV(3, 2, 1, 0, NONE, 1, 0), CONV(4, 3, 1, 0, RELU, 2, 0), CONV(5, 2, 1, 0, RELU, 1, 0)},
     0},
    /* what is not zero at zero, nor piecewise linear */
    {{20, 20, 1}, 9, 2, {CONV(8, 3, 1, 0, TANH, 1, 0), CONV(7, 3, 1, 0, SIGMOID, 2, 0.5F)}, 0},
    {{26, 24, 1}, 9, 2, {CONV(4, 5, 1, 0, SIGMOID, 2, 0), CONV(6, 3, 1, 0, TANH, 1, 0)}, 0},
    /* one in sparse form: the map ends there, or it begins after it */
    {{20, 20, 1}, 9, 2, {CONV(8, 3, 1, 0, RELU, 1, 0), CONV(7, 3, 1, 0, RELU, 2, 0.5F)}, 2},
    {{20, 20, 1}, 9, 2, {CONV(8, 3, 1, 0, RELU, 1, 0), CONV(7, 3, 1, 0, RELU, 2, 0.5F)}, 1},
};

enum { CHAINS = sizeof chains / sizeof chains[0] };

/* ---- pictures ---- */

/* True where a picture of a kind is blank: everywhere, nowhere, at a border, but in one pixel, in
 * some boxes, but in some rows. */
static bool is_blank(int kind, struct shape s, int row, int column) {
    const int cell = (row / 5 * 7 + column / 6 * 3) % 4;
    const bool blank[PICTURES] = {
        true,
        false,
        row < 7 || column < 6 || row >= s.height - 6 || column >= s.width - 5,
        row != s.height / 2 || column != s.width / 3,
        cell != 0,
        row < 9 || row > 11,
    };
    return blank[kind];
}

static void paint(struct shape shape, int samples, float *x) {
    for (int n = 0; n < samples; n++)
        for (int i = 0; i < shape.height; i++)
            for (int j = 0; j < shape.width; j++)
                for (int c = 0; c < shape.channels; c++, x++)
                    *x = is_blank(n % PICTURES, shape, i, j) ? 0 : *x == 0 ? 1 : *x;
}

static float *pictures(const struct chain *chain, fill_values *fill) {
    const int samples = chain->samples + SPARE_SAMPLES;
    float *x = fill(101, 1, chain_floats(chain->input, samples));
    paint(chain->input, samples, x);
    return x;
}

/* ---- a chain on a backend that skips, one that does not, and the reference ---- */

enum { SKIPS, DOES_NOT, REFERENCE, KINDS };

struct run {
    const struct chain *chain;
    struct backend *backend;
    struct link links[MOST_BLOCKS];
    uint32_t *ids;
    float *x;
};

static struct backend *backend_of(int kind, const char *isa, const char *conv, int threads) {
    struct backend *backend;
    if (kind == REFERENCE) {
        assert_ok(backend_reference_create(&backend));
        return backend;
    }
    if (kind == DOES_NOT)
        assert_int_equal(setenv("ESPALIER_BLANK", "0", 1), 0);
    backend = cpu_backend_with(isa, conv, threads);
    unsetenv("ESPALIER_BLANK");
    return backend;
}

static void run_create(struct run *run, const struct chain *chain, struct backend *backend,
                       fill_values *fill) {
    const int samples = chain->samples + SPARE_SAMPLES;
    float *x = pictures(chain, fill);
    uint32_t ids[GRAINS_SAMPLES + SPARE_SAMPLES];
    for (int i = 0; i < samples; i++)
        ids[i] = case_sample_id(i);
    run->chain = chain;
    run->backend = backend;
    run->ids = device_of(backend, ids, (size_t)samples * sizeof *ids);
    run->x = device_of(backend, x, chain_floats(chain->input, samples) * sizeof *x);
    free(x);
    chain_create(backend, chain, strcmp(backend->name, "cpu") == 0, fill, run->links);
    /* Others first, so that what is left of them must not matter. */
    float *others = run->x + shape_size(chain->input);
    chain_train(backend, chain, samples - 1, run->ids, others, fill, run->links);
    chain_train(backend, chain, chain->samples, run->ids, run->x, fill, run->links);
}

static void run_destroy(struct run *run) {
    chain_destroy(run->backend, run->chain->blocks, run->links);
    run->backend->release(run->backend, run->ids);
    run->backend->release(run->backend, run->x);
}

static void evaluate(struct run *run) {
    chain_forward(run->backend, &(struct block_pass){.samples = run->chain->samples},
                  run->chain->blocks - 1, run->x, run->links);
}

typedef void hold_runs(struct run runs[KINDS]);

/* Both of each set and both numbers of threads. */
static void on_chain(const struct chain *chain, const char *conv, bool reference, fill_values *fill,
                     hold_runs *hold) {
    const char *const *isas = kernels_available();
    for (int i = 0; isas[i] != NULL; i++) {
        struct run runs[KINDS] = {{NULL}};
        for (int kind = 0; kind < (reference ? KINDS : REFERENCE); kind++)
            run_create(&runs[kind], chain, backend_of(kind, isas[i], conv, 2 - (i + kind) % 2),
                       fill);
        hold(runs);
        for (int kind = 0; kind < KINDS; kind++)
            if (runs[kind].chain != NULL) {
                run_destroy(&runs[kind]);
                runs[kind].backend->destroy(runs[kind].backend);
            }
    }
}

/* ---- maps ---- */

/* By the definition, from the picture: kind's blank pixels, block after block. */
static void erode_slowly(const struct block_desc *d, const bool *in, bool *linear, bool *out) {
    for (int i = 0; i < d->linear.height; i++)
        for (int j = 0; j < d->linear.width; j++) {
            bool blank = true;
            for (int a = 0; a < d->kernel * d->kernel; a++) {
                const int y = i * d->stride - d->padding + a / d->kernel;
                const int x = j * d->stride - d->padding + a % d->kernel;
                blank = blank && y >= 0 && y < d->input.height && x >= 0 && x < d->input.width &&
                        in[y * d->input.width + x];
            }
            linear[i * d->linear.width + j] = blank;
        }
    for (int i = 0; i < d->output.height; i++)
        for (int j = 0; j < d->output.width; j++) {
            bool blank = true;
            for (int a = 0; a < d->pool * d->pool; a++)
                blank = blank && linear[(i * d->pool + a / d->pool) * d->linear.width +
                                        j * d->pool + a % d->pool];
            out[i * d->output.width + j] = blank;
        }
}

static int hold_map(const uint8_t *map, const bool *want, int pixels) {
    int blank = 0;
    for (int p = 0; p < pixels; p++) {
        assert_int_equal(map != NULL && map[p] != 0, want[p]);
        blank += want[p];
    }
    return blank;
}

enum { MOST_PIXELS = 1024 };

/* The direct convolutions' maps go on through all blocks. */
static void hold_maps(struct run runs[KINDS]) {
    const struct run *run = &runs[SKIPS];
    const struct shape in = run->chain->input;
    int found = 0;
    evaluate(&runs[SKIPS]);
    for (int n = 0; n < run->chain->samples; n++) {
        bool map[MOST_PIXELS], linear[MOST_PIXELS], out[MOST_PIXELS];
        assert_true(in.height * in.width <= MOST_PIXELS);
        for (int p = 0; p < in.height * in.width; p++)
            map[p] = is_blank(n % PICTURES, in, p / in.width, p % in.width);
        for (int i = 0; i < run->chain->blocks && run->links[i].plan->blank.on; i++) {
            const struct block_desc *d = &run->links[i].desc;
            erode_slowly(d, map, linear, out);
            found += hold_map(blank_positions(run->links[i].plan, n), linear,
                              d->linear.height * d->linear.width);
            hold_map(blank_outputs(run->links[i].plan, n), out, d->output.height * d->output.width);
            memcpy(map, out, sizeof map);
        }
    }
    if (run->chain->sparse == 0)
        assert_true(run->links[run->chain->blocks - 1].plan->blank.on);
    assert_true(found > 0 || (run->chain->sparse & 1));
}

static void maps_are_what_blocks_see(void **state) {
    (void)state;
    for (int c = 0; c < CHAINS; c++)
        on_chain(&chains[c], "direct", false, case_floats, hold_maps);
}

/* ---- forward ---- */

static void hold_outputs(struct run runs[KINDS]) {
    struct backend *b = runs[SKIPS].backend;
    const struct chain *chain = runs[SKIPS].chain;
    const int last = chain->blocks - 1;
    for (int i = 0; i <= last; i++)
        assert_same_bits(b, runs[SKIPS].links[i].y, runs[DOES_NOT].links[i].y,
                         chain_floats(runs[SKIPS].links[i].desc.output, chain->samples));
    evaluate(&runs[SKIPS]);
    evaluate(&runs[DOES_NOT]);
    assert_same_bits(b, runs[SKIPS].links[last].y, runs[DOES_NOT].links[last].y,
                     chain_floats(runs[SKIPS].links[last].desc.output, chain->samples));
}

static void outputs_are_the_same_bits(void **state) {
    static const char *const convs[] = {NULL, "direct", "sparse", "winograd"};
    (void)state;
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < 4; i++)
            on_chain(&chains[c], convs[i], false, case_floats, hold_outputs);
}

/* ---- backward ---- */

static void hold_equal(const struct run *one, const struct run *other, const float *a,
                       const float *b, size_t count) {
    float *x = host_of(one->backend, a, count * sizeof *x);
    float *y = host_of(other->backend, b, count * sizeof *y);
    for (size_t i = 0; i < count; i++)
        if (!(x[i] == y[i]))
            fail_msg("%s: value %zu is %.9g, expected %.9g", other->backend->name, i, (double)x[i],
                     (double)y[i]);
    free(x);
    free(y);
}

static void hold_exactly(struct run runs[KINDS]) {
    for (int kind = DOES_NOT; kind < KINDS && runs[kind].chain != NULL; kind++)
        for (int i = 0; i < runs[SKIPS].chain->blocks; i++) {
            const struct link *ours = &runs[SKIPS].links[i], *other = &runs[kind].links[i];
            hold_equal(&runs[SKIPS], &runs[kind], ours->dweights, other->dweights, ours->weights);
            hold_equal(&runs[SKIPS], &runs[kind], ours->dbias, other->dbias, ours->biases);
        }
}

static bool is_exact(const struct chain *chain) {
    for (int i = 0; i < chain->blocks; i++)
        if (chain->rows[i].activation != RELU && chain->rows[i].activation != NONE)
            return false;
    return true;
}

/* Small integers: all sums are exact, and so equal in any order. The reference has no sparse form.
 */
static void gradients_of_integers_are_exact(void **state) {
    static const char *const convs[] = {"direct", "sparse"};
    (void)state;
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < 2 && is_exact(&chains[c]); i++)
            on_chain(&chains[c], convs[i], chains[c].sparse == 0, case_integers, hold_exactly);
}

static size_t gradient_weights(const struct run *run, int i) {
    return run->links[i].weights / (run->chain->sparse >> i & 1 ? 5 : 1);
}

/* To rounding, of a sum whose terms may cancel: by the largest of its kind. */
static void hold_near(struct backend *b, const float *ours, const float *other, size_t count) {
    float *x = host_of(b, ours, count * sizeof *x), *y = host_of(b, other, count * sizeof *y);
    float largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(y[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(x[i] - y[i]) <= 0x1p-16F * largest))
            fail_msg("value %zu is %.9g, expected %.9g, the largest %.9g", i, (double)x[i],
                     (double)y[i], (double)largest);
    free(x);
    free(y);
}

static void hold_gradients(struct run runs[KINDS]) {
    struct backend *b = runs[SKIPS].backend;
    for (int i = 0; i < runs[SKIPS].chain->blocks; i++) {
        const struct link *ours = &runs[SKIPS].links[i], *other = &runs[DOES_NOT].links[i];
        hold_near(b, ours->dweights, other->dweights, gradient_weights(&runs[SKIPS], i));
        hold_near(b, ours->dbias, other->dbias, ours->biases);
    }
}

static void gradients_agree_to_rounding(void **state) {
    (void)state;
    for (int c = 0; c < CHAINS; c++) {
        on_chain(&chains[c], NULL, false, case_floats, hold_gradients);
        on_chain(&chains[c], "direct", false, case_floats, hold_gradients);
    }
}

static void hold_left_out(struct run runs[KINDS]) {
    const struct run *run = &runs[SKIPS];
    for (int i = 0; i < run->chain->blocks; i++) {
        const struct block_plan *plan = run->links[i].plan;
        float sum = 0;
        for (int k = 0; k < run->links[i].desc.output.channels; k++)
            sum += fabsf(blank_sum(plan, GRAINS_SAMPLES / GRAIN_IMAGES, k));
        assert_true(sum > 0);
    }
}

static void blank_gradients_are_left_out(void **state) {
    (void)state;
    on_chain(&chains[0], NULL, false, case_floats, hold_left_out);
    on_chain(&chains[2], NULL, false, case_floats, hold_left_out);
    on_chain(&chains[8], "sparse", false, case_floats, hold_left_out);
}

static void other_settings_are_refused(void **state) {
    (void)state;
    struct backend *backend;
    assert_int_equal(setenv("ESPALIER_BLANK", "no", 1), 0);
    assert_fails(backend_cpu_create(1, &backend), ST_USAGE, "ESPALIER_BLANK=no");
    unsetenv("ESPALIER_BLANK");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_are_what_blocks_see),
        cmocka_unit_test(outputs_are_the_same_bits),
        cmocka_unit_test(gradients_of_integers_are_exact),
        cmocka_unit_test(gradients_agree_to_rounding),
        cmocka_unit_test(blank_gradients_are_left_out),
        cmocka_unit_test(other_settings_are_refused),
    };
    return RUN_TESTS(tests, argc, argv);
}
