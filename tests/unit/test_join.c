/* Blocks whose passes are joined: the same bits as one after the other. */
#include "cases.h"
#include "on_backends.h"

#include <pthread.h>
#include <stdlib.h>

#define RELU ACTIVATION_RELU
#define NONE ACTIVATION_NONE
#define TANH ACTIVATION_TANH

enum { MOST_BLOCKS = 3, SPARE_SAMPLES = 3 };

/* Convolutions in a row: filters, kernel, stride, padding, activation, pool, dropout. */
struct chain {
    struct shape input;
    int samples, blocks;
    struct block_case rows[MOST_BLOCKS];
    unsigned sparse; /* bit i: block i is in sparse form, with every fifth weight */
};

#define CONV(filters, side, step, border, follows, window, drops)                                  \
    {                                                                                              \
        .kind = BLOCK_CONV, .units = filters, .kernel = side, .stride = step, .padding = border,   \
        .activation = follows, .pool = window, .dropout = drops                                    \
    }

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

struct link {
    struct block_desc desc;
    struct block_plan *plan;
    size_t weights, biases;
    float *w, *b, *y, *dy, *dweights, *dbias; /* dy NULL where the link is joined to the next */
};

static size_t floats_of(struct shape shape, int samples) {
    return shape_size(shape) * (size_t)samples;
}

static float *room(struct backend *b, size_t count) {
    float *memory;
    assert_ok(b->alloc(b, count * sizeof *memory, (void **)&memory));
    return memory;
}

static float *filled(struct backend *b, uint32_t stream, size_t count) {
    float *values = case_floats(17, stream, count);
    float *memory = device_of(b, values, count * sizeof *values);
    free(values);
    return memory;
}

/* Every fifth weight is left; dweights and w are of those. */
static void make_sparse(struct backend *b, struct link *link) {
    uint32_t *indices = malloc((link->weights / 5 + 1) * sizeof *indices);
    assert_non_null(indices);
    link->weights = link->weights / 5;
    for (uint32_t e = 0; e < link->weights; e++)
        indices[e] = 5 * e + 2;
    uint32_t *device = device_of(b, indices, link->weights * sizeof *indices);
    const struct block_survivors survivors = {device, link->weights, true};
    assert_ok(b->block_plan_set_survivors(link->plan, &survivors));
    b->release(b, device);
    free(indices);
}

static void create_links(struct backend *b, const struct chain *chain, bool join,
                         struct link *links) {
    const int most = chain->samples + SPARE_SAMPLES;
    struct shape input = chain->input;
    for (int i = 0; i < chain->blocks; i++) {
        struct block_case row = chain->rows[i];
        struct link *link = &links[i];
        row.input = input;
        link->desc = case_desc(&row, (uint32_t)i);
        link->weights = block_weights(&link->desc);
        link->biases = block_biases(&link->desc);
        link->w = filled(b, 2 * (uint32_t)i, link->weights);
        link->b = filled(b, 2 * (uint32_t)i + 1, link->biases);
        link->y = room(b, floats_of(link->desc.output, most));
        link->dweights = room(b, link->weights);
        link->dbias = room(b, link->biases);
        assert_ok(b->block_plan_create(b, &link->desc, most, i == 0, &link->plan));
        if (chain->sparse >> i & 1)
            make_sparse(b, link);
        input = link->desc.output;
    }
    for (int i = 0; i < chain->blocks; i++) {
        bool joined = false;
        if (join && i + 1 < chain->blocks) {
            assert_ok(b->block_plan_join(links[i].plan, links[i + 1].plan, &joined));
            assert_true(joined);
        }
        links[i].dy = joined ? NULL : room(b, floats_of(links[i].desc.output, most));
        assert_ok(b->block_plan_load_weights(links[i].plan, links[i].w, links[i].b));
    }
}

static void destroy_links(struct backend *b, int count, struct link *links) {
    for (int i = 0; i < count; i++) {
        struct link *l = &links[i];
        float *const memory[] = {l->w, l->b, l->y, l->dy, l->dweights, l->dbias};
        for (size_t m = 0; m < sizeof memory / sizeof memory[0]; m++)
            b->release(b, memory[m]);
    }
    for (int i = 0; i < count; i++)
        b->block_plan_destroy(links[i].plan);
}

static void called_by_master(void *context) {
    assert_true(pthread_equal(*(pthread_t *)context, pthread_self()));
}

static void forward_through(struct backend *b, const struct block_pass *pass, int last,
                            const float *x, const struct link *links) {
    for (int i = 0; i <= last; i++)
        assert_ok(b->block_forward(links[i].plan, pass, i > 0 ? links[i - 1].y : x, links[i].y));
}

static void pass_through(struct backend *b, const struct chain *chain, int samples,
                         const uint32_t *ids, const float *x, struct link *links) {
    const struct block_pass pass = {
        .samples = samples, .training = true, .seed = 3, .update = 8, .sample_ids = ids};
    pthread_t master = pthread_self();
    const struct poll poll = {called_by_master, &master};
    const int last = chain->blocks - 1;
    forward_through(b, &pass, last, x, links);
    float *dy = case_floats(18, 0, floats_of(links[last].desc.output, samples));
    assert_ok(
        b->upload(b, links[last].dy, dy, floats_of(links[last].desc.output, samples) * sizeof *dy));
    free(dy);
    for (int i = last; i >= 0; i--)
        assert_ok(b->block_backward(links[i].plan, &pass, i > 0 ? links[i - 1].y : x, links[i].y,
                                    links[i].dy, links[i].dweights, links[i].dbias,
                                    i > 0 ? links[i - 1].dy : NULL, poll));
}

static void assert_same(struct backend *b, const float *one, const float *other, size_t count) {
    float *values[] = {host_of(b, one, count * sizeof(float)),
                       host_of(b, other, count * sizeof(float))};
    assert_memory_equal(values[0], values[1], count * sizeof(float));
    free(values[0]);
    free(values[1]);
}

/* A full pass over other images first, so that what is left of it must not matter. */
static void hold_chain(struct backend *b, const struct chain *chain) {
    const int most = chain->samples + SPARE_SAMPLES;
    uint32_t ids[16];
    for (int i = 0; i < most; i++)
        ids[i] = case_sample_id(i);
    uint32_t *device_ids = device_of(b, ids, (size_t)most * sizeof *ids);
    float *others = filled(b, 100, floats_of(chain->input, most));
    float *x = filled(b, 101, floats_of(chain->input, most));
    struct link single[MOST_BLOCKS], joined[MOST_BLOCKS];
    create_links(b, chain, false, single);
    create_links(b, chain, true, joined);
    pass_through(b, chain, most, device_ids, others, joined);
    pass_through(b, chain, chain->samples, device_ids, x, single);
    pass_through(b, chain, chain->samples, device_ids, x, joined);
    for (int i = 0; i < chain->blocks; i++) {
        assert_same(b, single[i].dweights, joined[i].dweights, single[i].weights);
        assert_same(b, single[i].dbias, joined[i].dbias, single[i].biases);
        assert_same(b, single[i].y, joined[i].y, floats_of(single[i].desc.output, chain->samples));
    }
    const int last = chain->blocks - 1;
    forward_through(b, &(struct block_pass){.samples = chain->samples}, last, x, single);
    forward_through(b, &(struct block_pass){.samples = chain->samples}, last, x, joined);
    assert_same(b, single[last].y, joined[last].y,
                floats_of(single[last].desc.output, chain->samples));
    destroy_links(b, chain->blocks, single);
    destroy_links(b, chain->blocks, joined);
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
