#include "backend_reference.h"
#include "block_reference.h"
#include "regularisers_reference.h"
#include "select_reference.h"

#include <espalier/bitmask.h>
#include <espalier/digest.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct block_plan {
    struct block_desc desc;
    int max_samples;
    bool first;
    const float *weights, *bias; /* valid until the next load */
    float *statistics;           /* of a BLOCK_NORM */
    struct reference_statistics batch;
    bool sparse;
    size_t count;      /* survivors */
    uint32_t *indices; /* [count] in sparse form, else NULL */
};

/* ---- memory ---- */

static enum status reference_alloc(struct backend *b, size_t bytes, void **memory) {
    (void)b;
    size_t rounded = bytes / 64 * 64 + 64;
    *memory = aligned_alloc(64, rounded);
    if (*memory == NULL)
        FAIL(ST_MEMORY, "reference: out of memory for %zu bytes", bytes);
    memset(*memory, 0, rounded);
    return ST_OK;
}

static void reference_release(struct backend *b, void *memory) {
    (void)b;
    free(memory);
}

static enum status reference_upload(struct backend *b, void *device, const void *host,
                                    size_t bytes) {
    (void)b;
    if (bytes > 0)
        memcpy(device, host, bytes);
    return ST_OK;
}

static enum status reference_clear(struct backend *b, void *device, size_t bytes) {
    (void)b;
    if (bytes > 0)
        memset(device, 0, bytes);
    return ST_OK;
}

static enum status reference_synchronise(struct backend *b) {
    (void)b;
    return ST_OK;
}

/* There is nothing to choose. */
static enum status reference_block_plan_choose(struct block_plan *plan, int samples, bool measure,
                                               uint32_t choices[BLOCK_CHOICES]) {
    (void)plan, (void)samples, (void)measure, (void)choices;
    return ST_OK;
}

static enum step_mode reference_step_mode(struct backend *b, uint64_t key) {
    (void)b, (void)key;
    return STEP_PLAIN;
}

static enum status reference_run_step(struct backend *b, const struct step_values *values,
                                      const struct step_work *work) {
    (void)b;
    (void)values;
    return work->call(work->context);
}

static void reference_forget_steps(struct backend *b) {
    (void)b;
}

/* ---- data ---- */

static enum status reference_gather_batch(struct backend *b, const uint8_t *images, size_t pixels,
                                          const uint32_t *ids, int samples, float *out) {
    (void)b;
    for (size_t i = 0; i < (size_t)samples; i++)
        for (size_t p = 0; p < pixels; p++)
            out[i * pixels + p] = (float)images[ids[i] * pixels + p] / 255.0F;
    return ST_OK;
}

/* ---- blocks ---- */

static bool same_shape(struct shape a, struct shape b) {
    return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

static bool linear_fits(const struct block_desc *d) {
    if ((d->dropconnect > 0 && d->kind != BLOCK_DENSE) || d->dropconnect >= 1)
        return false;
    if (d->kind == BLOCK_PASS || d->kind == BLOCK_NORM)
        return same_shape(d->linear, d->input);
    if (d->kind == BLOCK_DENSE)
        return d->linear.height == 1 && d->linear.width == 1 && d->linear.channels > 0;
    int room_h = d->input.height + 2 * d->padding - d->kernel;
    int room_w = d->input.width + 2 * d->padding - d->kernel;
    return d->kernel > 0 && d->stride > 0 && d->padding >= 0 && room_h >= 0 && room_w >= 0 &&
           d->linear.channels > 0 && d->linear.height == room_h / d->stride + 1 &&
           d->linear.width == room_w / d->stride + 1;
}

static bool output_fits(const struct block_desc *d) {
    return d->pool >= 1 && d->pool <= 15 && d->output.height >= 1 && d->output.width >= 1 &&
           d->output.height == d->linear.height / d->pool &&
           d->output.width == d->linear.width / d->pool && d->output.channels == d->linear.channels;
}

static enum status reference_block_plan_create(struct backend *b, const struct block_desc *desc,
                                               int max_samples, bool first,
                                               struct block_plan **plan) {
    (void)b;
    *plan = NULL;
    if (!linear_fits(desc) || !output_fits(desc))
        FAIL(ST_SHAPE, "reference: block %u: its shapes do not fit each other",
             (unsigned)desc->layer);
    struct block_plan *made = calloc(1, sizeof *made);
    if (made == NULL)
        FAIL(ST_MEMORY, "reference: out of memory");
    made->desc = *desc;
    made->max_samples = max_samples;
    made->first = first;
    *plan = made;
    return ST_OK;
}

static void reference_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                                            const char **backward) {
    (void)plan;
    *forward = *backward = "reference";
}

static void forget_batch(struct block_plan *plan) {
    free(plan->batch.mean);
    free(plan->batch.variance);
    plan->batch = (struct reference_statistics){NULL, NULL, 0};
}

static void reference_block_plan_destroy(struct block_plan *plan) {
    if (plan != NULL)
        forget_batch(plan);
    if (plan != NULL)
        free(plan->indices);
    free(plan);
}

static bool has_sparse_form(const struct block_desc *d) {
    return (d->kind == BLOCK_CONV || d->kind == BLOCK_DENSE) && d->dropconnect == 0;
}

static double reference_sparse_below(const struct block_plan *plan) {
    return has_sparse_form(&plan->desc) ? 0.5 : 0;
}

static enum status reference_set_survivors(struct block_plan *plan,
                                           const struct block_survivors *survivors) {
    if (survivors->sparse && (!has_sparse_form(&plan->desc) || survivors->indices == NULL))
        FAIL(ST_SHAPE, "reference: block %u has no sparse form", (unsigned)plan->desc.layer);
    free(plan->indices);
    plan->indices = NULL;
    plan->sparse = survivors->sparse;
    if (!plan->sparse)
        return ST_OK;
    plan->count = survivors->count;
    plan->indices = malloc((plan->count + 1) * sizeof *plan->indices);
    if (plan->indices == NULL)
        FAIL(ST_MEMORY, "reference: out of memory");
    memcpy(plan->indices, survivors->indices, plan->count * sizeof *plan->indices);
    return ST_OK;
}

static enum status reference_load_statistics(struct block_plan *plan, float *statistics) {
    plan->statistics = statistics;
    return ST_OK;
}

static void reference_part(struct block_plan *before, struct block_plan *after) {
    (void)before;
    (void)after;
}

static enum status reference_join(struct block_plan *before, struct block_plan *after,
                                  bool *joined) {
    (void)before;
    (void)after;
    *joined = false;
    return ST_OK;
}

static enum status reference_load_weights(struct block_plan *plan, const float *weights,
                                          const float *bias) {
    plan->weights = weights;
    plan->bias = bias;
    return ST_OK;
}

static double *widened(const float *values, size_t count) {
    double *wide = reference_array(count);
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i];
    return wide;
}

/* All weights, whatever the form. */
static double *dense_weights(const struct block_plan *plan) {
    if (!plan->sparse)
        return widened(plan->weights, block_weights(&plan->desc));
    double *dense = reference_array(block_weights(&plan->desc));
    for (size_t i = 0; i < block_weights(&plan->desc); i++)
        dense[i] = 0;
    for (size_t e = 0; e < plan->count; e++)
        dense[plan->indices[e]] = plan->weights[e];
    return dense;
}

static void narrow(const double *values, size_t count, float *out) {
    for (size_t i = 0; i < count; i++)
        out[i] = (float)values[i];
}

static enum status check_pass(const struct block_plan *plan, const struct block_pass *pass) {
    if (pass->samples < 0 || pass->samples > plan->max_samples)
        FAIL(ST_SHAPE, "reference: %d samples in a plan of at most %d", pass->samples,
             plan->max_samples);
    return ST_OK;
}

static void activate_all(const struct block_desc *d, double *z, size_t count) {
    for (size_t i = 0; i < count; i++)
        z[i] = reference_activate(d->activation, z[i]);
}

/* Batch normalisation, whose statistics the backward pass needs again, and what follows it. */
static enum status norm_forward(struct block_plan *plan, const struct block_pass *pass,
                                const double *weights, const double *bias, const double *x,
                                double *y) {
    const struct block_desc *d = &plan->desc;
    size_t count = (size_t)pass->samples * shape_size(d->linear);
    double *a = reference_array(count);
    forget_batch(plan);
    enum status status = reference_statistics_of(d, pass, x, plan->statistics, &plan->batch);
    if (status == ST_OK) {
        reference_norm_forward(d, pass->samples, &plan->batch, weights, bias, x, a);
        activate_all(d, a, count);
        reference_pool(d, pass, a, y);
    }
    free(a);
    return status;
}

struct norm_arrays {
    const double *weights, *bias, *x, *dy;
    double *dweights, *dbias, *dx;
};

static enum status norm_backward(const struct block_plan *plan, const struct block_pass *pass,
                                 struct norm_arrays at) {
    const struct block_desc *d = &plan->desc;
    size_t count = (size_t)pass->samples * shape_size(d->linear);
    double *a = reference_array(count), *dz = reference_array(count);
    reference_norm_forward(d, pass->samples, &plan->batch, at.weights, at.bias, at.x, a);
    activate_all(d, a, count);
    reference_pointwise_backward(d, pass, a, at.dy, dz);
    enum status status = reference_norm_backward(d, pass, &plan->batch, at.weights, at.x, dz,
                                                 at.dweights, at.dbias, at.dx);
    free(a);
    free(dz);
    return status;
}

static enum status reference_block_forward(struct block_plan *plan, const struct block_pass *pass,
                                           const float *x, float *y) {
    TRY(check_pass(plan, pass));
    const struct block_desc *d = &plan->desc;
    size_t inputs = (size_t)pass->samples * shape_size(d->input);
    size_t outputs = (size_t)pass->samples * shape_size(d->output);
    double *wx = widened(x, inputs), *wy = reference_array(outputs);
    double *ww = dense_weights(plan);
    double *wb = widened(plan->bias, block_biases(d));
    enum status status = ST_OK;
    if (d->kind == BLOCK_NORM)
        status = norm_forward(plan, pass, ww, wb, wx, wy);
    else if (!pass->training && d->dropconnect > 0)
        reference_connect_evaluate(d, pass, ww, wb, wx, wy);
    else
        reference_block_forward_double(d, pass, ww, wb, wx, wy);
    narrow(wy, outputs, y);
    free(wx);
    free(wy);
    free(ww);
    free(wb);
    return status;
}

static enum status reference_block_backward(struct block_plan *plan, const struct block_pass *pass,
                                            const float *x, const float *y, float *dy,
                                            float *dweights, float *dbias, float *dx,
                                            struct poll poll) {
    (void)y;
    TRY(check_pass(plan, pass));
    if (plan->first != (dx == NULL))
        FAIL(ST_SHAPE, "reference: an input gradient is for all plans but the first block's");
    const struct block_desc *d = &plan->desc;
    size_t inputs = (size_t)pass->samples * shape_size(d->input), biases = block_biases(d);
    size_t outputs = (size_t)pass->samples * shape_size(d->output), weights = block_weights(d);
    double *wx = widened(x, inputs), *wdy = widened(dy, outputs);
    double *ww = dense_weights(plan), *wb = widened(plan->bias, biases);
    double *dw = reference_array(weights), *db = reference_array(biases);
    double *wdx = dx == NULL ? NULL : reference_array(inputs);
    enum status status = ST_OK;
    if (d->kind == BLOCK_NORM)
        status = norm_backward(plan, pass, (struct norm_arrays){ww, wb, wx, wdy, dw, db, wdx});
    else
        reference_block_backward_double(d, pass, ww, wb, wx, wdy, dw, db, wdx);
    if (plan->sparse)
        for (size_t e = 0; e < plan->count; e++)
            dweights[e] = (float)dw[plan->indices[e]];
    else
        narrow(dw, weights, dweights);
    narrow(db, biases, dbias);
    if (dx != NULL)
        narrow(wdx, inputs, dx);
    if (poll.call != NULL)
        poll.call(poll.context);
    double *const arrays[] = {wx, wdy, ww, wb, dw, db, wdx};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
    return status;
}

/* ---- loss ---- */

static bool is_correct(const float *logits, int classes, int label) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        best = logits[k] > logits[best] ? k : best;
    return best == label;
}

static enum status reference_softmax(struct backend *b, const float *logits, int classes,
                                     const uint8_t *labels, const uint32_t *ids, int samples,
                                     float scale, float *dlogits, struct loss_sums *sums) {
    (void)b;
    double *gradient = reference_array((size_t)classes);
    for (int i = 0; i < samples; i++) {
        size_t first = (size_t)i * (size_t)classes;
        double *wide = widened(logits + first, (size_t)classes);
        int label = labels[ids[i]];
        sums->correct += is_correct(logits + first, classes, label) ? 1 : 0;
        sums->loss += reference_cross_entropy_double(wide, classes, label, gradient);
        for (int k = 0; dlogits != NULL && k < classes; k++)
            dlogits[first + (size_t)k] = (float)(scale * gradient[k]);
        free(wide);
    }
    free(gradient);
    return ST_OK;
}

/* ---- survivors ---- */

static enum status reference_gather(struct backend *b, const float *dense, const uint32_t *indices,
                                    size_t count, float *out) {
    (void)b;
    for (size_t j = 0; j < count; j++)
        out[j] = dense[indices[j]];
    return ST_OK;
}

static enum status reference_scatter(struct backend *b, const float *values,
                                     const uint32_t *indices, size_t count, float *dense) {
    (void)b;
    for (size_t j = 0; j < count; j++)
        dense[indices[j]] = values[j];
    return ST_OK;
}

static enum status reference_compact(struct backend *b, const void *words, const uint64_t *mask,
                                     size_t first_bit, size_t count, void *kept) {
    (void)b;
    const uint32_t *from = words;
    uint32_t *to = kept;
    for (size_t i = 0; i < count; i++)
        if (bitmask_get(mask, first_bit + i))
            *to++ = from[i];
    return ST_OK;
}

static enum status reference_hash(struct backend *b, const void *words, size_t count,
                                  uint64_t *hash) {
    (void)b;
    const uint32_t *word = words;
    *hash = 0;
    for (size_t i = 0; i < count; i++)
        *hash += hash_mix(((uint64_t)i << 32) + word[i]);
    return ST_OK;
}

/* ---- optimizer ---- */

static void update_sgd(const struct update_args *a, double g, float *w, float *s0, float *s1) {
    (void)s1;
    double v = s0 == NULL ? g : (double)a->momentum * *s0 + g;
    double direction = a->nesterov && s0 != NULL ? g + a->momentum * v : v;
    *w = (float)(*w - a->learning_rate * direction);
    if (s0 != NULL)
        *s0 = (float)v;
}

static void update_adadelta(const struct update_args *a, double g, float *w, float *s0, float *s1) {
    double rho = a->rho, mean = rho * *s0 + (1 - rho) * g * g;
    double u = g * sqrt((double)*s1 + a->epsilon) / sqrt(mean + a->epsilon);
    *w = (float)(*w - a->learning_rate * u);
    *s0 = (float)mean;
    *s1 = (float)(rho * *s1 + (1 - rho) * u * u);
}

static void update_adam(const struct update_args *a, double g, float *w, float *s0, float *s1) {
    double b1 = a->beta1, b2 = a->beta2, t = (double)a->step;
    double m = b1 * *s0 + (1 - b1) * g, v = b2 * *s1 + (1 - b2) * g * g;
    double m_hat = m / (1 - pow(b1, t)), v_hat = v / (1 - pow(b2, t));
    *w = (float)(*w - a->learning_rate * m_hat / (sqrt(v_hat) + a->epsilon));
    *s0 = (float)m;
    *s1 = (float)v;
}

static enum status reference_update(struct backend *b, const struct update_args *args, float *beta,
                                    float *gradient, float *state0, float *state1, size_t count) {
    (void)b;
    static void (*const rules[])(const struct update_args *, double, float *, float *, float *) = {
        [OPTIMIZER_SGD] = update_sgd,
        [OPTIMIZER_ADADELTA] = update_adadelta,
        [OPTIMIZER_ADAM] = update_adam,
    };
    for (size_t i = 0; i < count; i++) {
        double sign = (beta[i] > 0) - (beta[i] < 0);
        double g = gradient[i] + (double)args->l1 * sign + (double)args->l2 * beta[i];
        rules[args->kind](args, g, beta + i, state0 == NULL ? NULL : state0 + i,
                          state1 == NULL ? NULL : state1 + i);
    }
    return ST_OK;
}

static void reference_destroy(struct backend *b) {
    free(b);
}

enum status backend_reference_create(struct backend **backend) {
    *backend = malloc(sizeof **backend);
    if (*backend == NULL)
        FAIL(ST_MEMORY, "reference: out of memory");
    **backend = (struct backend){.name = "reference",
                                 .threads = 1,
                                 .alloc = reference_alloc,
                                 .release = reference_release,
                                 .host_alloc = reference_alloc,
                                 .host_release = reference_release,
                                 .upload = reference_upload,
                                 .download = reference_upload,
                                 .clear = reference_clear,
                                 .copy = reference_upload,
                                 .synchronise = reference_synchronise,
                                 .step_mode = reference_step_mode,
                                 .block_plan_choose = reference_block_plan_choose,
                                 .run_step = reference_run_step,
                                 .forget_steps = reference_forget_steps,
                                 .gather_batch = reference_gather_batch,
                                 .block_plan_create = reference_block_plan_create,
                                 .block_plan_destroy = reference_block_plan_destroy,
                                 .block_plan_algorithms = reference_block_plan_algorithms,
                                 .block_plan_join = reference_join,
                                 .block_plan_part = reference_part,
                                 .block_plan_set_survivors = reference_set_survivors,
                                 .block_plan_sparse_below = reference_sparse_below,
                                 .block_plan_load_weights = reference_load_weights,
                                 .block_plan_load_statistics = reference_load_statistics,
                                 .block_forward = reference_block_forward,
                                 .block_backward = reference_block_backward,
                                 .softmax_cross_entropy = reference_softmax,
                                 .gather = reference_gather,
                                 .scatter = reference_scatter,
                                 .compact = reference_compact,
                                 .hash = reference_hash,
                                 .update = reference_update,
                                 .select_largest = reference_select,
                                 .destroy = reference_destroy};
    return ST_OK;
}
