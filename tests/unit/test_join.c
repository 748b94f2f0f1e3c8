/* Blocks whose passes are joined: the same bits as one after the other. */
#include "chains.h"
#include "on_backends.h"

#include <stdlib.h>

#define RELU ACTIVATION_RELU
#define NONE ACTIVATION_NONE
#define TANH ACTIVATION_TANH

static const struct chain chains[] = {
    /* the poster's, small; more than one grain of images */
    {{12, 11, 1}, 6, 2, {CONV(5, 3, 1, 0, RELU, 1, 0), CONV(7, 3, 1, 0, RELU, 2, 0.25F)}, 0},
    {{12, 11, 1}, 9, 2, {CONV(16, 3, 1, 0, RELU, 1, 0), CONV(3, 3, 1, 0, RELU, 2, 0)}, 0},
    /* pooled both; channels that need padding; a gradient that is dense */
    {{14, 15, 2}, 3, 2, {CONV(6, 5, 1, 0, RELU, 2, 0), CONV(9, 3, 1, 1, TANH, 2, 0.5F)}, 0},
    {{9, 9, 3}, 5, 2, {CONV(33, 3, 2, 1, TANH, 1, 0.5F), CONV(17, 2, 1, 0, NONE, 1, 0)}, 0},
    /* three in a row */
    {{13, 12, 1},
     6,
     3,
     {CONV(4, 3, 1, 0, RELU, 1, 0), CONV(8, 3, 1, 1, RELU, 2, 0.25F), CONV(5, 2, 1, 0, RELU, 1, 0)},
     0},
    {{8, 8, 2}, 0, 2, {CONV(4, 3, 1, 0, RELU, 1, 0), CONV(4, 3, 1, 0, RELU, 2, 0)}, 0},
    /* sparse form after dense, before it, and twice */
    {{12, 11, 1}, 6, 2, {CONV(5, 3, 1, 0, RELU, 1, 0), CONV(7, 3, 1, 0, RELU, 2, 0.25F)}, 2},
    {{12, 11, 1}, 9, 2, {CONV(16, 3, 1, 0, RELU, 1, 0), CONV(3, 3, 1, 0, RELU, 2, 0)}, 1},
    {{14, 15, 2}, 5, 2, {CONV(6, 5, 1, 0, RELU, 2, 0), CONV(9, 3, 2, 1, TANH, 1, 0.5F)}, 3},
};

enum { CHAINS = sizeof chains / sizeof chains[0] };

static float *filled(struct backend *b, uint32_t stream, size_t count) {
    float *values = case_floats(17, stream, count);
    float *memory = device_of(b, values, count * sizeof *values);
    free(values);
    return memory;
}

/* A full pass over other images first, so that what is left of it must not matter. */
static void hold_chain(struct backend *b, const struct chain *chain) {
    const int most = chain->samples + SPARE_SAMPLES;
    uint32_t ids[16];
    for (int i = 0; i < most; i++)
        ids[i] = case_sample_id(i);
    uint32_t *device_ids = device_of(b, ids, (size_t)most * sizeof *ids);
    float *others = filled(b, 100, chain_floats(chain->input, most));
    float *x = filled(b, 101, chain_floats(chain->input, most));
    struct link single[MOST_BLOCKS], joined[MOST_BLOCKS];
    chain_create(b, chain, false, case_floats, single);
    chain_create(b, chain, true, case_floats, joined);
    chain_train(b, chain, most, device_ids, others, case_floats, joined);
    chain_train(b, chain, chain->samples, device_ids, x, case_floats, single);
    chain_train(b, chain, chain->samples, device_ids, x, case_floats, joined);
    for (int i = 0; i < chain->blocks; i++) {
        assert_same_bits(b, single[i].dweights, joined[i].dweights, single[i].weights);
        assert_same_bits(b, single[i].dbias, joined[i].dbias, single[i].biases);
        assert_same_bits(b, single[i].y, joined[i].y,
                         chain_floats(single[i].desc.output, chain->samples));
    }
    const int last = chain->blocks - 1;
    chain_forward(b, &(struct block_pass){.samples = chain->samples}, last, x, single);
    chain_forward(b, &(struct block_pass){.samples = chain->samples}, last, x, joined);
    assert_same_bits(b, single[last].y, joined[last].y,
                     chain_floats(single[last].desc.output, chain->samples));
    chain_destroy(b, chain->blocks, single);
    chain_destroy(b, chain->blocks, joined);
    b->release(b, device_ids);
    b->release(b, others);
    b->release(b, x);
}

static void joined_convolutions_give_the_same_bits(void **state) {
    (void)state;
    struct backend *backends[MOST_BACKENDS];
    const int count = cpu_backends_with(NULL, backends);
    for (int i = 0; i < count; i++) {
        for (int c = 0; c < CHAINS; c++)
            hold_chain(backends[i], &chains[c]);
        backends[i]->destroy(backends[i]);
    }
}

/* What takes a whole batch at once stays by itself. */
static void dense_blocks_are_not_joined(void **state) {
    (void)state;
    struct backend *b = cpu_backend_with(NULL, NULL, 1);
    const struct block_case conv = {
        .kind = BLOCK_CONV, .input = {6, 6, 1}, .units = 2, .kernel = 3, .stride = 1, .pool = 1};
    const struct block_case dense = {
        .kind = BLOCK_DENSE, .input = {4, 4, 2}, .units = 3, .pool = 1};
    const struct block_desc descs[] = {case_desc(&conv, 0), case_desc(&dense, 1)};
    struct block_plan *before, *after;
    bool joined = true;
    assert_ok(b->block_plan_create(b, &descs[0], 1, true, &before));
    assert_ok(b->block_plan_create(b, &descs[1], 1, false, &after));
    assert_ok(b->block_plan_join(before, after, &joined));
    assert_false(joined);
    b->block_plan_destroy(before);
    b->block_plan_destroy(after);
    b->destroy(b);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joined_convolutions_give_the_same_bits),
        cmocka_unit_test(dense_blocks_are_not_joined),
    };
    return RUN_TESTS(tests, argc, argv);
}
