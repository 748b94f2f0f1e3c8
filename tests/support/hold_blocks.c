#include "hold_blocks.h"
#include "block_reference.h"
#include "bounds.h"
#include "bounds_winograd.h"
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { LAYER = 3, UPDATE = 41, SPARE_SAMPLES = 2, MOST_HELD = 16 };
static const uint64_t seed = 0x5eed5eed5eedull;

/* Inputs and results, in device memory. */
struct device {
    struct backend *backend;
    float *weights, *bias, *x, *y, *dy, *dweights, *dbias, *dx;
    uint32_t *ids;
};

struct sizes {
    size_t weights, biases, x, y;
};

static struct sizes sizes_of(const struct block_desc *d, int samples) {
    size_t n = (size_t)samples;
    return (struct sizes){block_weights(d), block_biases(d), n * shape_size(d->input),
                          n * shape_size(d->output)};
}

static float *device_floats(struct backend *b, const float *values, size_t count) {
    void *memory;
    assert_ok(b->alloc(b, count * sizeof *values, &memory));
    assert_ok(b->upload(b, memory, values, count * sizeof *values));
    return memory;
}

/* NaNs: what the backend must overwrite. */
static void poison(struct backend *b, float *memory, size_t count) {
    float *nans = malloc((count + 1) * sizeof *nans);
    assert_non_null(nans);
    for (size_t i = 0; i < count; i++)
        nans[i] = NAN;
    assert_ok(b->upload(b, memory, nans, count * sizeof *nans));
    free(nans);
}

static struct device device_create(struct backend *b, const struct case_inputs *in,
                                   struct sizes size, int samples) {
    struct device dev = {.backend = b,
                         .weights = device_floats(b, in->weights, size.weights),
                         .bias = device_floats(b, in->bias, size.biases),
                         .x = device_floats(b, in->x, size.x),
                         .dy = device_floats(b, in->dy, size.y)};
    void *ids;
    assert_ok(b->alloc(b, (size_t)samples * sizeof(uint32_t), &ids));
    assert_ok(b->upload(b, ids, in->ids, (size_t)samples * sizeof(uint32_t)));
    dev.ids = ids;
    assert_ok(b->alloc(b, size.y * sizeof(float), (void **)&dev.y));
    assert_ok(b->alloc(b, size.weights * sizeof(float), (void **)&dev.dweights));
    assert_ok(b->alloc(b, size.biases * sizeof(float), (void **)&dev.dbias));
    assert_ok(b->alloc(b, size.x * sizeof(float), (void **)&dev.dx));
    return dev;
}

static void device_destroy(struct device *dev) {
    struct backend *b = dev->backend;
    void *const memory[] = {dev->weights,  dev->bias,  dev->x,  dev->y,  dev->dy,
                            dev->dweights, dev->dbias, dev->dx, dev->ids};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
}

static void compare(const struct block_case *row, struct backend *b, const char *what,
                    const float *device, const double *exact, const double *error, size_t count) {
    float *got = malloc((count + 1) * sizeof *got);
    assert_non_null(got);
    assert_ok(b->download(b, got, device, count * sizeof *got));
    for (size_t i = 0; i < count; i++) {
        double bound = error == NULL ? 0 : error[i];
        if (!(fabs(got[i] - exact[i]) <= bound))
            fail_msg("%s, %d threads: %s: %s[%zu] is %.9g, expected %.9g within %.3g", b->name,
                     b->threads, case_text(row), what, i, (double)got[i], exact[i], bound);
    }
    free(got);
}

/* ---- running a plan ---- */

struct run {
    const struct block_case *row;
    struct block_desc desc;
    struct sizes size;
    struct device dev;
    struct block_plan *plan;
    int room; /* samples that the plan is made for */
    bool first, exact;
};

static void run_forward(struct run *run, struct block_pass pass, bool training,
                        const struct block_bounds *want) {
    struct backend *b = run->dev.backend;
    const double *error = training ? want->y_error : want->y_evaluated_error;
    pass.sample_ids = run->dev.ids;
    pass.training = training;
    poison(b, run->dev.y, run->size.y);
    assert_ok(b->block_forward(run->plan, &pass, run->dev.x, run->dev.y));
    compare(run->row, b, training ? "y in training" : "y in evaluation", run->dev.y,
            training ? want->y : want->y_evaluated, run->exact ? NULL : error, run->size.y);
}

static void called_by_master(void *context) {
    assert_true(pthread_equal(*(pthread_t *)context, pthread_self()));
}

static void run_backward(struct run *run, struct block_pass pass, const struct block_bounds *want,
                         const float *dy) {
    struct backend *b = run->dev.backend;
    struct device *dev = &run->dev;
    pthread_t master = pthread_self();
    struct poll poll = {run->first ? NULL : called_by_master, &master};
    pass.sample_ids = dev->ids;
    assert_ok(b->upload(b, dev->dy, dy, run->size.y * sizeof *dy));
    poison(b, dev->dweights, run->size.weights);
    poison(b, dev->dbias, run->size.biases);
    poison(b, dev->dx, run->size.x);
    assert_ok(b->block_backward(run->plan, &pass, dev->x, dev->y, dev->dy, dev->dweights,
                                dev->dbias, run->first ? NULL : dev->dx, poll));
    bool exact = run->exact;
    compare(run->row, b, "dweights", dev->dweights, want->dweights,
            exact ? NULL : want->dweights_error, run->size.weights);
    compare(run->row, b, "dbias", dev->dbias, want->dbias, exact ? NULL : want->dbias_error,
            run->size.biases);
    if (!run->first)
        compare(run->row, b, "dx", dev->dx, want->dx, exact ? NULL : want->dx_error, run->size.x);
}

/* A full pass over other samples, so that what a plan keeps from one pass to the next is not what
 * the next one needs. */
static void run_others(struct run *run) {
    struct case_inputs others = case_inputs_create(&run->desc, run->room, seed, case_floats);
    struct device dev =
        device_create(run->dev.backend, &others, sizes_of(&run->desc, run->room), run->room);
    struct block_pass pass = {
        .samples = run->room, .training = true, .seed = seed + 1, .sample_ids = dev.ids};
    struct backend *b = dev.backend;
    assert_ok(b->block_forward(run->plan, &pass, dev.x, dev.y));
    assert_ok(b->block_backward(run->plan, &pass, dev.x, dev.y, dev.dy, dev.dweights, dev.dbias,
                                run->first ? NULL : dev.dx, (struct poll){NULL, NULL}));
    device_destroy(&dev);
    case_inputs_destroy(&others);
}

/* The same calls give the same bits. */
static void run_again(struct run *run, const struct block_bounds *want,
                      const struct case_inputs *in) {
    struct device *dev = &run->dev;
    struct backend *b = dev->backend;
    size_t bytes = run->size.weights * sizeof(float);
    char *once = malloc(bytes + 1), *twice = malloc(bytes + 1);
    assert_true(once != NULL && twice != NULL);
    assert_ok(b->download(b, once, dev->dweights, bytes));
    run_forward(run, want->pass, true, want);
    run_backward(run, want->pass, want, in->dy);
    assert_ok(b->download(b, twice, dev->dweights, bytes));
    assert_memory_equal(once, twice, bytes);
    free(once);
    free(twice);
}

/* The plan keeps no pointer to the indices. */
static void set_survivors(struct run *run, const struct block_left *left) {
    struct backend *b = run->dev.backend;
    void *indices;
    assert_ok(b->alloc(b, left->count * sizeof(uint32_t), &indices));
    assert_ok(b->upload(b, indices, left->indices, left->count * sizeof(uint32_t)));
    const struct block_survivors survivors = {indices, left->count, true};
    assert_ok(b->block_plan_set_survivors(run->plan, &survivors));
    b->release(b, indices);
}

static void hold_plan(struct run *run, const struct block_bounds *want,
                      const struct case_inputs *in) {
    struct backend *b = run->dev.backend;
    assert_ok(b->block_plan_create(b, &run->desc, run->room, run->first, &run->plan));
    if (in->left.indices != NULL)
        set_survivors(run, &in->left);
    assert_ok(b->block_plan_load_weights(run->plan, run->dev.weights, run->dev.bias));
    run_others(run);
    run_forward(run, want->pass, true, want);
    run_forward(run, want->pass, false, want);
    run_forward(run, want->pass, true, want);
    run_backward(run, want->pass, want, in->dy);
    run_again(run, want, in);
    b->block_plan_destroy(run->plan);
}

static void hold(struct backend *b, const struct block_case *row, const struct block_bounds *want,
                 const struct case_inputs *in, bool exact) {
    struct run run = {.row = row,
                      .desc = want->desc,
                      .size = sizes_of(&want->desc, row->samples),
                      .room = row->samples + SPARE_SAMPLES,
                      .exact = exact};
    if (in->left.indices != NULL)
        run.size.weights = in->left.count;
    run.dev = device_create(b, in, run.size, row->samples);
    for (int first = 0; first <= 1; first++) {
        run.first = first == 1;
        hold_plan(&run, want, in);
    }
    device_destroy(&run.dev);
}

static struct block_bounds expect(const struct block_case *row, const struct block_desc *desc,
                                  const struct case_inputs *in, bool winograd) {
    struct block_pass pass = {.samples = row->samples,
                              .training = true,
                              .seed = seed,
                              .update = UPDATE,
                              .sample_ids = in->ids};
    struct block_bounds want;
    bounds_create(&want, desc, &pass, winograd, in->weights, in->bias, in->x);
    return want;
}

/* Backends whose forward pass of a block is, or is not, Winograd's; returns how many. */
static int pick(struct backend *const *backends, int count, const struct block_desc *desc,
                bool winograd, struct backend **picked) {
    int found = 0;
    for (int i = 0; i < count; i++)
        if (winograd_is_used(backends[i], desc) == winograd)
            picked[found++] = backends[i];
    return found;
}

static void hold_rounded_on(struct backend *const *backends, int count,
                            const struct block_case *row, const struct block_desc *desc,
                            bool winograd) {
    struct case_inputs in = case_inputs_create(desc, row->samples, seed, case_floats);
    struct block_bounds want = expect(row, desc, &in, winograd);
    bounds_backward(&want, in.dy);
    size_t outputs = sizes_of(desc, row->samples).y;
    if (want.ambiguous * 20 > outputs)
        fail_msg("%s: %zu of %zu outputs are undecided: the inputs show too little", case_text(row),
                 want.ambiguous, outputs);
    for (int i = 0; i < count; i++)
        hold(backends[i], row, &want, &in, false);
    bounds_destroy(&want);
    case_inputs_destroy(&in);
}

/* Weights of 576 = 4 * 4 * 6 * 6 and pixels that are 0 or 1 with a sign, few of them where there
 * are many channels: Winograd's transforms are integers, and exact while they are below 2^24. */
static void make_whole(const struct block_desc *desc, int samples, struct case_inputs *in) {
    const size_t few = ((size_t)desc->input.channels + 7) / 8;
    for (size_t i = 0; i < block_weights(desc); i++)
        in->weights[i] = 576.0F * (float)((in->weights[i] > 0) - (in->weights[i] < 0));
    for (size_t i = 0; i < (size_t)samples * shape_size(desc->input); i++)
        in->x[i] = i % few == 0 ? (float)((in->x[i] > 0) - (in->x[i] < 0)) : 0;
}

static void check_whole(const struct block_case *row, const struct block_bounds *want) {
    double *magnitudes =
        winograd_magnitudes(&want->desc, want->pass.samples, want->weights, want->x);
    for (size_t i = 0; i < (size_t)want->pass.samples * shape_size(want->desc.linear); i++)
        if (magnitudes[i] + 3 >= 0x1p24)
            fail_msg("%s: sums of up to %g are not exact", case_text(row), magnitudes[i]);
    free(magnitudes);
}

/* The gradients at in->dy, all of it. */
static void expect_gradients(const struct case_inputs *in, struct block_bounds *want) {
    size_t outputs = sizes_of(&want->desc, want->pass.samples).y;
    double *dy = reference_array(outputs);
    for (size_t i = 0; i < outputs; i++)
        dy[i] = in->dy[i];
    reference_block_backward_double(&want->desc, &want->pass, want->weights, want->bias, want->x,
                                    dy, want->dweights, want->dbias, want->dx);
    free(dy);
}

static void hold_exact_on(struct backend *const *backends, int count, const struct block_case *row,
                          const struct block_desc *desc, bool winograd) {
    struct case_inputs in = case_inputs_create(desc, row->samples, seed, case_integers);
    if (winograd)
        make_whole(desc, row->samples, &in);
    struct block_bounds want = expect(row, desc, &in, winograd);
    if (winograd)
        check_whole(row, &want);
    expect_gradients(&in, &want);
    for (int i = 0; i < count; i++)
        hold(backends[i], row, &want, &in, true);
    bounds_destroy(&want);
    case_inputs_destroy(&in);
}

typedef void hold_on(struct backend *const *backends, int count, const struct block_case *row,
                     const struct block_desc *desc, bool winograd);

/* Each plan against what it can be held against. */
static void hold_apart(struct backend *const *backends, int count, const struct block_case *row,
                       const struct block_desc *desc, hold_on *hold) {
    struct backend *picked[MOST_HELD];
    assert_true(count <= MOST_HELD);
    for (int winograd = 0; winograd <= 1; winograd++) {
        int found = pick(backends, count, desc, winograd == 1, picked);
        if (found > 0)
            hold(picked, found, row, desc, winograd == 1);
    }
}

void hold_rounded(struct backend *const *backends, int count, const struct block_case *row) {
    struct block_desc desc = case_desc(row, LAYER);
    hold_apart(backends, count, row, &desc, hold_rounded_on);
}

static struct block_desc exact_desc(const struct block_case *row) {
    struct block_desc desc = case_desc(row, LAYER);
    if (desc.activation != ACTIVATION_NONE)
        desc.activation = ACTIVATION_RELU;
    desc.dropout = desc.dropout > 0 ? 0.5F : 0;
    desc.dropconnect = desc.dropconnect > 0 ? 0.5F : 0;
    return desc;
}

void hold_exact(struct backend *const *backends, int count, const struct block_case *row) {
    struct block_desc desc = exact_desc(row);
    hold_apart(backends, count, row, &desc, hold_exact_on);
}

/* ---- sparse form ---- */

/* Zeros in place of the weights that are not left. */
static void choose_left(const struct block_desc *d, weight_is_left *is_left,
                        struct case_inputs *in) {
    size_t total = block_weights(d), columns = total / (size_t)d->linear.channels;
    in->left.indices = malloc((total + 1) * sizeof *in->left.indices);
    assert_non_null(in->left.indices);
    for (size_t i = 0; i < total; i++)
        if (is_left(d, (int)(i / columns), (int)(i % columns)))
            in->left.indices[in->left.count++] = (uint32_t)i;
        else
            in->weights[i] = 0;
}

/* Weights as they are handed over, and what their gradient should be, in place. */
static void compress(struct case_inputs *in, struct block_bounds *want) {
    for (size_t e = 0; e < in->left.count; e++) {
        in->weights[e] = in->weights[in->left.indices[e]];
        want->dweights[e] = want->dweights[in->left.indices[e]];
        want->dweights_error[e] = want->dweights_error[in->left.indices[e]];
    }
}

static void hold_sparse(struct backend *const *backends, int count, const struct block_case *row,
                        struct case_inputs *in, struct block_bounds *want, bool exact) {
    compress(in, want);
    for (int i = 0; i < count; i++)
        hold(backends[i], row, want, in, exact);
    bounds_destroy(want);
    case_inputs_destroy(in);
}

/* Where an output has no weight left, all of a window ties: hold_sparse_exact sees to that. */
void hold_sparse_rounded(struct backend *const *backends, int count, const struct block_case *row,
                         weight_is_left *is_left) {
    struct block_desc desc = case_desc(row, LAYER);
    struct case_inputs in = case_inputs_create(&desc, row->samples, seed, case_floats);
    choose_left(&desc, is_left, &in);
    struct block_bounds want = expect(row, &desc, &in, false);
    bounds_backward(&want, in.dy);
    hold_sparse(backends, count, row, &in, &want, false);
}

void hold_sparse_exact(struct backend *const *backends, int count, const struct block_case *row,
                       weight_is_left *is_left) {
    struct block_desc desc = exact_desc(row);
    struct case_inputs in = case_inputs_create(&desc, row->samples, seed, case_integers);
    choose_left(&desc, is_left, &in);
    struct block_bounds want = expect(row, &desc, &in, false);
    expect_gradients(&in, &want);
    hold_sparse(backends, count, row, &in, &want, true);
}
