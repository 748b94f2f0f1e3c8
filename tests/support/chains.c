#include "chains.h"
#include "on_backends.h"

#include <pthread.h>
#include <stdlib.h>

size_t chain_floats(struct shape shape, int samples) {
    return shape_size(shape) * (size_t)samples;
}

static float *room(struct backend *b, size_t count) {
    float *memory;
    assert_ok(b->alloc(b, count * sizeof *memory, (void **)&memory));
    return memory;
}

static float *filled(struct backend *b, fill_values *fill, uint32_t stream, size_t count) {
    float *values = fill(17, stream, count);
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

void chain_create(struct backend *b, const struct chain *chain, bool join, fill_values *fill,
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
        link->w = filled(b, fill, 2 * (uint32_t)i, link->weights);
        link->b = filled(b, fill, 2 * (uint32_t)i + 1, link->biases);
        link->y = room(b, chain_floats(link->desc.output, most));
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
        links[i].dy = joined ? NULL : room(b, chain_floats(links[i].desc.output, most));
        assert_ok(b->block_plan_load_weights(links[i].plan, links[i].w, links[i].b));
    }
}

void chain_destroy(struct backend *b, int count, struct link *links) {
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

void chain_forward(struct backend *b, const struct block_pass *pass, int last, const float *x,
                   const struct link *links) {
    for (int i = 0; i <= last; i++)
        assert_ok(b->block_forward(links[i].plan, pass, i > 0 ? links[i - 1].y : x, links[i].y));
}

void chain_train(struct backend *b, const struct chain *chain, int samples, const uint32_t *ids,
                 const float *x, fill_values *fill, struct link *links) {
    const struct block_pass pass = {
        .samples = samples, .training = true, .seed = 3, .update = 8, .sample_ids = ids};
    pthread_t master = pthread_self();
    const struct poll poll = {called_by_master, &master};
    const int last = chain->blocks - 1;
    chain_forward(b, &pass, last, x, links);
    float *dy = fill(18, 0, chain_floats(links[last].desc.output, samples));
    assert_ok(b->upload(b, links[last].dy, dy,
                        chain_floats(links[last].desc.output, samples) * sizeof *dy));
    free(dy);
    for (int i = last; i >= 0; i--)
        assert_ok(b->block_backward(links[i].plan, &pass, i > 0 ? links[i - 1].y : x, links[i].y,
                                    links[i].dy, links[i].dweights, links[i].dbias,
                                    i > 0 ? links[i - 1].dy : NULL, poll));
}

void assert_same_bits(struct backend *b, const float *one, const float *other, size_t count) {
    float *values[] = {host_of(b, one, count * sizeof(float)),
                       host_of(b, other, count * sizeof(float))};
    assert_memory_equal(values[0], values[1], count * sizeof(float));
    free(values[0]);
    free(values[1]);
}
