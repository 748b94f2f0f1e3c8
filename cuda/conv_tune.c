#include "conv_tune.h"

#include "conv_direct.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 5 }; /* the fastest counts; what comes before them warms up */

/* What a configuration was tried for, and what was found. */
struct conv_finding {
    struct {
        enum conv_pass pass;
        struct shape input, linear;
        int kernel, stride, padding, samples;
    } of;
    uint32_t choice;
    float milliseconds;
    struct conv_finding *next;
};

/* ---- trials ---- */

/* Device memory that passes can run on; its values do not matter. */
struct trial {
    struct cuda_backend *cuda;
    cudaEvent_t begin, end;
    float *x, *w, *y, *bias;
    uint8_t *state; /* of the epilogue */
};

static void trial_destroy(struct trial *t) {
    void *const memory[] = {t->x, t->w, t->y, t->bias, t->state};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        cuda_release(&t->cuda->base, memory[i]);
    if (t->begin != NULL)
        (void)cudaEventDestroy(t->begin);
    if (t->end != NULL)
        (void)cudaEventDestroy(t->end);
}

/* Weights in the order of any pass. */
static size_t most_weights(const struct block_desc *desc) {
    const size_t forward = conv_direct_weights(desc, CONV_FORWARD);
    const size_t backward = conv_direct_weights(desc, CONV_BACKWARD_DATA);
    return forward > backward ? forward : backward;
}

static enum status trial_allocate(struct trial *t, const struct block_desc *desc, int samples) {
    struct backend *backend = &t->cuda->base;
    const size_t n = (size_t)samples, outputs = n * shape_size(desc->linear);
    TRY(cuda_alloc(backend, n * shape_size(desc->input) * sizeof *t->x, (void **)&t->x));
    TRY(cuda_alloc(backend, most_weights(desc) * sizeof *t->w, (void **)&t->w));
    TRY(cuda_alloc(backend, outputs * sizeof *t->y, (void **)&t->y));
    TRY(cuda_alloc(backend, block_biases(desc) * sizeof *t->bias, (void **)&t->bias));
    TRY(cuda_alloc(backend, outputs, (void **)&t->state));
    TRY_CUDA(cudaEventCreate(&t->begin));
    TRY_CUDA(cudaEventCreate(&t->end));
    return ST_OK;
}

/* *milliseconds: the least of several runs. */
static enum status time_run(const struct trial *t,
                            enum status (*run)(const struct trial *t, void *context), void *context,
                            float *milliseconds) {
    *milliseconds = INFINITY;
    for (int i = 0; i <= REPEATS; i++) {
        float elapsed;
        TRY_CUDA(cudaEventRecord(t->begin, t->cuda->stream));
        TRY(run(t, context));
        TRY_CUDA(cudaEventRecord(t->end, t->cuda->stream));
        TRY_CUDA(cudaEventSynchronize(t->end));
        TRY_CUDA(cudaEventElapsedTime(&elapsed, t->begin, t->end));
        if (i > 0)
            *milliseconds = fminf(*milliseconds, elapsed);
    }
    return ST_OK;
}

/* ---- configurations ---- */

static enum status run_plan(const struct trial *t, void *plan) {
    const struct conv_arguments arguments = {
        t->x, t->w, t->y, conv_plan_pass(plan) == CONV_FORWARD_RELU ? t->bias : NULL};
    return conv_plan_run(plan, t->cuda->cudnn, &arguments, t->cuda->workspace);
}

/* A pass by the backend's own kernels. */
struct direct_run {
    const struct block_desc *desc;
    enum conv_pass pass;
    int samples;
};

static enum status run_direct(const struct trial *t, void *context) {
    const struct direct_run *run = context;
    const struct conv_arguments arguments = {t->x, t->w, t->y,
                                             run->pass == CONV_FORWARD_RELU ? t->bias : NULL};
    return conv_direct_run(t->cuda, run->desc, run->pass, run->samples, &arguments);
}

/* *milliseconds stays infinite where the configuration cannot be run after all. */
static enum status try_candidate(const struct trial *t, const struct conv_finding *finding,
                                 const struct block_desc *desc, uint32_t name,
                                 float *milliseconds) {
    struct cuda_backend *cuda = t->cuda;
    const struct conv_target target = {.handle = cuda->cudnn, .tf32 = cuda->tf32, .choice = name};
    struct conv_plan *plan;
    enum status status = ST_OK;
    *milliseconds = INFINITY;
    TRY(conv_plan_find(&target, finding->of.pass, desc, finding->of.samples, &plan));
    if (plan == NULL || conv_plan_name(plan) != name)
        goto out;
    TRY_OUT(cuda_reserve_workspace(cuda, conv_plan_workspace(plan)));
    if (time_run(t, run_plan, plan, milliseconds) != ST_OK)
        *milliseconds = INFINITY;
out:
    conv_plan_destroy(plan);
    return status;
}

static enum status try_direct(const struct trial *t, struct conv_finding *finding,
                              const struct block_desc *desc) {
    struct direct_run run = {desc, finding->of.pass, finding->of.samples};
    float milliseconds;
    if (t->cuda->conv_wish == CONV_WISH_CUDNN || !conv_direct_takes(desc, run.pass, run.samples))
        return ST_OK;
    TRY(conv_direct_prepare(t->cuda, desc, run.pass, run.samples));
    TRY(time_run(t, run_direct, &run, &milliseconds));
    if (milliseconds < finding->milliseconds) {
        finding->milliseconds = milliseconds;
        finding->choice = CONV_DIRECT;
    }
    return ST_OK;
}

static enum status try_all(const struct trial *t, struct conv_finding *finding,
                           const struct block_desc *desc) {
    struct cuda_backend *cuda = t->cuda;
    const struct conv_target target = {.handle = cuda->cudnn, .tf32 = cuda->tf32};
    uint32_t names[CONV_CANDIDATES];
    int count;
    TRY(conv_plan_candidates(&target, finding->of.pass, desc, finding->of.samples, names, &count));
    for (int i = 0; i < count; i++) {
        float milliseconds;
        TRY(try_candidate(t, finding, desc, names[i], &milliseconds));
        if (milliseconds < finding->milliseconds) {
            finding->milliseconds = milliseconds;
            finding->choice = names[i];
        }
    }
    return try_direct(t, finding, desc);
}

/* ---- findings ---- */

static enum status find(struct cuda_backend *cuda, struct conv_finding *finding,
                        const struct block_desc *desc) {
    struct trial trial = {.cuda = cuda};
    enum status status = trial_allocate(&trial, desc, finding->of.samples);
    if (status == ST_OK)
        status = try_all(&trial, finding, desc);
    trial_destroy(&trial);
    return status;
}

static enum status recall(struct cuda_backend *cuda, const struct conv_finding *wanted,
                          const struct block_desc *desc, struct conv_finding **finding) {
    for (*finding = cuda->findings; *finding != NULL; *finding = (*finding)->next)
        if (memcmp(&(*finding)->of, &wanted->of, sizeof wanted->of) == 0)
            return ST_OK;
    struct conv_finding *made = malloc(sizeof *made);
    if (made == NULL)
        FAIL(ST_MEMORY, "out of memory: a convolution's times");
    *made = *wanted;
    const enum status status = find(cuda, made, desc);
    if (status != ST_OK) {
        free(made);
        return status;
    }
    made->next = cuda->findings;
    *finding = cuda->findings = made;
    return ST_OK;
}

enum status conv_tune(struct cuda_backend *cuda, enum conv_pass pass, const struct block_desc *desc,
                      int samples, uint32_t *choice, float *milliseconds) {
    const struct conv_finding wanted = {
        .of = {pass, desc->input, desc->linear, desc->kernel, desc->stride, desc->padding, samples},
        .choice = CONV_HEURISTICS,
        .milliseconds = INFINITY};
    struct conv_finding *finding;
    TRY(recall(cuda, &wanted, desc, &finding));
    *choice = finding->choice;
    *milliseconds = finding->milliseconds;
    return ST_OK;
}

void conv_tune_forget(struct cuda_backend *cuda) {
    while (cuda->findings != NULL) {
        struct conv_finding *next = cuda->findings->next;
        free(cuda->findings);
        cuda->findings = next;
    }
}

/* ---- the alternative to a fused relu ---- */

struct epilogue_run {
    struct epilogue epilogue;
    int samples;
};

static enum status run_epilogue(const struct trial *t, void *context) {
    const struct epilogue_run *run = context;
    TRY_CUDA(kernel_epilogue(&run->epilogue, run->samples, t->y, t->y, t->state, t->cuda->stream));
    return ST_OK;
}

enum status conv_tune_epilogue(struct cuda_backend *cuda, const struct block_desc *desc,
                               int samples, float *milliseconds) {
    struct trial trial = {.cuda = cuda};
    enum status status;
    TRY_OUT(trial_allocate(&trial, desc, samples));
    struct epilogue_run run = {{.height = desc->linear.height,
                                .width = desc->linear.width,
                                .channels = desc->linear.channels,
                                .out_height = desc->linear.height,
                                .out_width = desc->linear.width,
                                .pool = 1,
                                .activation = desc->activation,
                                .factor = 1,
                                .bias = trial.bias},
                               samples};
    TRY_OUT(time_run(&trial, run_epilogue, &run, milliseconds));
out:
    trial_destroy(&trial);
    return status;
}
