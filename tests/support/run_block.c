#include "run_block.h"
#include "on_backends.h"

/* A plan with its pass, and all device memory of a run. */
struct run {
    struct backend *backend;
    struct block_plan *plan;
    struct block_pass pass;
    size_t weights, biases, inputs, outputs; /* bytes */
    float *w, *b, *x, *y;
};

static void run_start(struct run *run, const struct block_desc *d, const struct block_pass *pass,
                      struct block_inputs in) {
    struct backend *b = run->backend;
    size_t samples = (size_t)pass->samples;
    run->weights = block_weights(d) * sizeof(float);
    run->biases = block_biases(d) * sizeof(float);
    run->inputs = samples * shape_size(d->input) * sizeof(float);
    run->outputs = samples * shape_size(d->output) * sizeof(float);
    run->w = device_of(b, in.weights, run->weights);
    run->b = device_of(b, in.bias, run->biases);
    run->x = device_of(b, in.x, run->inputs);
    assert_ok(b->alloc(b, run->outputs, (void **)&run->y));
    run->pass = *pass;
    run->pass.sample_ids = device_of(b, pass->sample_ids, samples * sizeof(uint32_t));
    assert_ok(b->block_plan_create(b, d, pass->samples, false, &run->plan));
    assert_ok(b->block_plan_load_weights(run->plan, run->w, run->b));
    assert_ok(b->block_forward(run->plan, &run->pass, run->x, run->y));
}

static void run_end(struct run *run) {
    struct backend *b = run->backend;
    void *const memory[] = {run->w, run->b, run->x, run->y,
                            (void *)(uintptr_t)run->pass.sample_ids};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
    b->block_plan_destroy(run->plan);
}

float *run_block_forward(struct backend *backend, const struct block_desc *desc,
                         const struct block_pass *pass, struct block_inputs in) {
    struct run run = {.backend = backend};
    run_start(&run, desc, pass, in);
    float *y = host_of(backend, run.y, run.outputs);
    run_end(&run);
    return y;
}

float *run_block_backward(struct backend *backend, const struct block_desc *desc,
                          const struct block_pass *pass, struct block_inputs in, const float *dy) {
    struct run run = {.backend = backend};
    run_start(&run, desc, pass, in);
    float *gradient = device_of(backend, dy, run.outputs), *dweights, *dbias, *dx;
    assert_ok(backend->alloc(backend, run.weights, (void **)&dweights));
    assert_ok(backend->alloc(backend, run.biases, (void **)&dbias));
    assert_ok(backend->alloc(backend, run.inputs, (void **)&dx));
    assert_ok(backend->block_backward(run.plan, &run.pass, run.x, run.y, gradient, dweights, dbias,
                                      dx, (struct poll){NULL, NULL}));
    float *result = host_of(backend, dx, run.inputs);
    void *const memory[] = {gradient, dweights, dbias, dx};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        backend->release(backend, memory[i]);
    run_end(&run);
    return result;
}
