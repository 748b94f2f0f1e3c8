/* Dropout on every backend: which units fall is a function of seed, update, layer, data-set index
 * and unit alone. */
#include "bounds.h"
#include "cases.h"
#include "on_backends.h"
#include "run_block.h"

#include <espalier/rng.h>
#include <math.h>

enum { UNITS = 1001, BATCH = 30 };

static struct block_desc dropout_block(float rate, uint32_t layer) {
    const struct block_case row = {
        .kind = BLOCK_PASS, .input = {1, 1, UNITS}, .pool = 1, .dropout = rate};
    return case_desc(&row, layer);
}

static void fill_ids(uint32_t ids[BATCH]) {
    for (int i = 0; i < BATCH; i++)
        ids[i] = case_sample_id(i);
}

static float *ones(void) {
    float *values = malloc(sizeof(float) * BATCH * UNITS);
    assert_non_null(values);
    for (int i = 0; i < BATCH * UNITS; i++)
        values[i] = 1;
    return values;
}

/* What becomes of a batch of ones. */
static float *dropped_ones(struct backend *b, const struct block_desc *desc, uint64_t seed,
                           uint32_t update, const uint32_t *ids) {
    struct block_pass pass = {
        .samples = BATCH, .training = true, .seed = seed, .update = update, .sample_ids = ids};
    float *x = ones(), *y = run_block_forward(b, desc, &pass, (struct block_inputs){.x = x});
    free(x);
    return y;
}

ON_EACH_BACKEND(units_fall_as_the_contract_says) {
    const uint64_t seed = 0x123456789abcdefull;
    struct block_desc desc = dropout_block(0.25F, 6);
    uint32_t ids[BATCH], words[4];
    fill_ids(ids);
    float *y = dropped_ones(b, &desc, seed, 77, ids);
    for (uint32_t i = 0; i < BATCH; i++)
        for (uint32_t unit = 0; unit < UNITS; unit++) {
            rng_philox(seed, (struct rng_counter){unit / 4, ids[i], 77, 3u << 24 | 6}, words);
            bool keep = (float)(words[unit % 4] >> 8) / 16777216.0F >= 0.25F;
            assert_true((y[i * UNITS + unit] != 0) == keep);
        }
    free(y);
}

/* A part of a layer's channels: units fall by their numbers in the whole layer. */
ON_EACH_BACKEND(units_of_a_part_fall_as_in_the_layer) {
    enum { PIXELS = 7, LAYER = 143, KEPT = 36 };
    struct block_desc desc = dropout_block(0.25F, 6);
    uint32_t ids[BATCH], kept[KEPT], words[4], *device;
    desc.input = desc.linear = desc.output = (struct shape){1, PIXELS, KEPT};
    for (uint32_t k = 0; k < KEPT; k++)
        kept[k] = 4 * k + k % 3;
    fill_ids(ids);
    assert_ok(b->alloc(b, sizeof kept, (void **)&device));
    assert_ok(b->upload(b, device, kept, sizeof kept));
    desc.kept = device;
    desc.layer_channels = LAYER;
    float *y = dropped_ones(b, &desc, 5, 77, ids);
    for (uint32_t i = 0, at = 0; i < BATCH; i++)
        for (uint32_t pixel = 0; pixel < PIXELS; pixel++)
            for (uint32_t k = 0; k < KEPT; k++) {
                const uint32_t unit = pixel * LAYER + kept[k];
                rng_philox(5, (struct rng_counter){unit / 4, ids[i], 77, 3u << 24 | 6}, words);
                assert_true((y[at++] != 0) == (rng_uniform(words[unit % 4]) >= 0.25F));
            }
    free(y);
    b->release(b, device);
}

/* Draws are made for many groups of units side by side: every remainder of them. */
ON_EACH_BACKEND(any_number_of_units_falls_alike) {
    enum { MOST = 200 };
    const uint64_t seed = 0xfedcba9876543210ull;
    const uint32_t id = 0xfffffff0u;
    float x[MOST];
    for (int i = 0; i < MOST; i++)
        x[i] = 1;
    for (int units = 1; units <= MOST; units++) {
        struct block_desc desc = dropout_block(0.5F, 1);
        desc.input.channels = desc.linear.channels = desc.output.channels = units;
        struct block_pass pass = {
            .samples = 1, .training = true, .seed = seed, .update = UINT32_MAX, .sample_ids = &id};
        float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){.x = x});
        for (uint32_t unit = 0; unit < (uint32_t)units; unit++) {
            uint32_t words[4];
            rng_philox(seed, (struct rng_counter){unit / 4, id, UINT32_MAX, 3u << 24 | 1}, words);
            assert_true(y[unit] == (words[unit % 4] >> 31 != 0 ? 2 : 0));
        }
        free(y);
    }
}

/* A unit whose draw equals the rate is kept; one float more of rate, and it falls. */
ON_EACH_BACKEND(boundary_of_the_rate_is_kept) {
    uint32_t ids[BATCH], words[4];
    fill_ids(ids);
    rng_philox(21, (struct rng_counter){0, ids[0], 0, rng_stream(RNG_DROPOUT, 0)}, words);
    float rate = rng_uniform(words[2]);
    assert_true(rate > 0);
    struct block_desc equal = dropout_block(rate, 0), above = dropout_block(nextafterf(rate, 1), 0);
    float *kept = dropped_ones(b, &equal, 21, 0, ids),
          *fallen = dropped_ones(b, &above, 21, 0, ids);
    assert_true(kept[2] > 0);
    assert_true(fallen[2] == 0);
    free(kept);
    free(fallen);
}

/* Rank r of `ranks` gets the r-th contiguous slice. */
static void check_ranks(struct backend *b, int ranks, const struct block_desc *desc,
                        const uint32_t *ids, struct block_inputs in, const float *whole) {
    size_t inputs = shape_size(desc->input), outputs = shape_size(desc->output);
    for (int rank = 0; rank < ranks; rank++) {
        int first = BATCH * rank / ranks, last = BATCH * (rank + 1) / ranks;
        struct block_pass pass = {.samples = last - first,
                                  .training = true,
                                  .seed = 5,
                                  .update = 9,
                                  .sample_ids = ids + first};
        struct block_inputs slice = in;
        slice.x += (size_t)first * inputs;
        float *y = run_block_forward(b, desc, &pass, slice);
        for (size_t i = 0; i < (size_t)pass.samples * outputs; i++)
            assert_true(y[i] == whole[(size_t)first * outputs + i]);
        free(y);
    }
}

/* Integers and rate 1/2, so that all values are exact and == compares units and values alike. */
static void check_partition(struct backend *b, struct block_case row) {
    struct block_desc desc = case_desc(&row, 1);
    float *w = case_integers(1, 1, block_weights(&desc));
    float *bias = case_integers(1, 2, block_biases(&desc));
    float *x = case_integers(1, 3, BATCH * shape_size(desc.input));
    struct block_inputs in = {w, bias, x};
    uint32_t ids[BATCH];
    fill_ids(ids);
    struct block_pass pass = {
        .samples = BATCH, .training = true, .seed = 5, .update = 9, .sample_ids = ids};
    float *whole = run_block_forward(b, &desc, &pass, in);
    for (int ranks = 1; ranks <= 4; ranks++)
        check_ranks(b, ranks, &desc, ids, in, whole);
    free(whole);
    free(w);
    free(bias);
    free(x);
}

ON_EACH_BACKEND(ranks_drop_what_one_rank_drops) {
    check_partition(
        b, (struct block_case){.kind = BLOCK_PASS, .input = {6, 6, 5}, .pool = 2, .dropout = 0.5F});
    check_partition(
        b, (struct block_case){
               .kind = BLOCK_DENSE, .input = {1, 1, 7}, .units = 33, .pool = 1, .dropout = 0.5F});
    check_partition(b, (struct block_case){.kind = BLOCK_CONV,
                                           .input = {7, 7, 2},
                                           .units = 5,
                                           .kernel = 3,
                                           .stride = 1,
                                           .activation = ACTIVATION_RELU,
                                           .pool = 2,
                                           .dropout = 0.5F});
}

static int count_kept(const float *y) {
    int kept = 0;
    for (int i = 0; i < BATCH * UNITS; i++)
        kept += y[i] != 0;
    return kept;
}

/* Binomial: six standard deviations, exceeded with probability 2e-9 by a fair mask. */
static void assert_binomial(double count, double p) {
    double n = BATCH * UNITS;
    assert_true(fabs(count - n * p) <= 6 * sqrt(n * p * (1 - p)));
}

ON_EACH_BACKEND(kept_fraction_is_binomial) {
    static const float rates[] = {0.1F, 0.25F, 0.5F, 0.9F};
    uint32_t ids[BATCH];
    fill_ids(ids);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct block_desc desc = dropout_block(rates[i], 0);
        float *y = dropped_ones(b, &desc, 31, 2, ids);
        assert_binomial(count_kept(y), 1 - (double)rates[i]);
        free(y);
    }
}

/* Independent masks of rate 1/2 agree in half of the units. */
static void assert_independent(const float *y, const float *z) {
    int agree = 0;
    for (int i = 0; i < BATCH * UNITS; i++)
        agree += (y[i] != 0) == (z[i] != 0);
    assert_binomial(agree, 0.5);
}

ON_EACH_BACKEND(masks_depend_on_seed_update_layer_and_sample) {
    struct block_desc desc = dropout_block(0.5F, 3), next = dropout_block(0.5F, 4);
    uint32_t ids[BATCH], others[BATCH];
    fill_ids(ids);
    for (int i = 0; i < BATCH; i++)
        others[i] = ids[i] + 1;
    float *y = dropped_ones(b, &desc, 31, 2, ids);
    float *changed[] = {dropped_ones(b, &desc, 32, 2, ids),
                        dropped_ones(b, &desc, 31 + (1ull << 32), 2, ids),
                        dropped_ones(b, &desc, 31, 3, ids), dropped_ones(b, &next, 31, 2, ids),
                        dropped_ones(b, &desc, 31, 2, others)};
    for (size_t i = 0; i < sizeof changed / sizeof changed[0]; i++) {
        assert_independent(y, changed[i]);
        free(changed[i]);
    }
    float *again = dropped_ones(b, &desc, 31, 2, ids);
    assert_memory_equal(y, again, sizeof(float) * BATCH * UNITS);
    free(y);
    free(again);
}

ON_EACH_BACKEND(kept_units_are_scaled) {
    static const float rates[] = {0.1F, 0.25F, 0.5F, 0.9F};
    uint32_t ids[BATCH];
    fill_ids(ids);
    for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++) {
        struct block_desc desc = dropout_block(rates[r], 0);
        double scale = 1 / (1 - (double)rates[r]);
        float *y = dropped_ones(b, &desc, 8, 8, ids);
        for (int i = 0; i < BATCH * UNITS; i++)
            if (y[i] != 0)
                assert_true(fabs(y[i] - scale) <= bound_gamma(3) * scale);
        free(y);
    }
}

ON_EACH_BACKEND(evaluation_is_the_identity) {
    struct block_desc desc = dropout_block(0.5F, 0);
    uint32_t ids[BATCH];
    fill_ids(ids);
    float *x = case_floats(4, 4, BATCH * UNITS);
    struct block_pass pass = {.samples = BATCH, .seed = 3, .update = 1, .sample_ids = ids};
    float *y = run_block_forward(b, &desc, &pass, (struct block_inputs){.x = x});
    assert_memory_equal(x, y, sizeof(float) * BATCH * UNITS);
    free(y);
    desc = dropout_block(0, 0);
    pass.training = true;
    y = run_block_forward(b, &desc, &pass, (struct block_inputs){.x = x});
    assert_memory_equal(x, y, sizeof(float) * BATCH * UNITS);
    free(y);
    free(x);
}

/* The gradient passes where the value passed, scaled alike. */
ON_EACH_BACKEND(gradient_falls_with_its_unit) {
    struct block_desc desc = dropout_block(0.25F, 2);
    uint32_t ids[BATCH];
    fill_ids(ids);
    struct block_pass pass = {
        .samples = BATCH, .training = true, .seed = 6, .update = 4, .sample_ids = ids};
    float *x = ones();
    struct block_inputs in = {.x = x};
    float *y = run_block_forward(b, &desc, &pass, in);
    float *dx = run_block_backward(b, &desc, &pass, in, x);
    for (int i = 0; i < BATCH * UNITS; i++) {
        assert_true((y[i] != 0) == (dx[i] != 0));
        assert_true(fabs((double)y[i] - dx[i]) <= bound_gamma(6) * y[i]);
    }
    free(x);
    free(y);
    free(dx);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_fall_as_the_contract_says),
        cmocka_unit_test(units_of_a_part_fall_as_in_the_layer),
        cmocka_unit_test(any_number_of_units_falls_alike),
        cmocka_unit_test(boundary_of_the_rate_is_kept),
        cmocka_unit_test(ranks_drop_what_one_rank_drops),
        cmocka_unit_test(kept_fraction_is_binomial),
        cmocka_unit_test(masks_depend_on_seed_update_layer_and_sample),
        cmocka_unit_test(kept_units_are_scaled),
        cmocka_unit_test(evaluation_is_the_identity),
        cmocka_unit_test(gradient_falls_with_its_unit),
    };
    return RUN_TESTS(tests, argc, argv);
}
