/* Steps of training as CUDA graphs: captured once, then replayed, or updated where they have been
 * forgotten. */
#include "backend_cuda.h"

struct step_source cuda_step_source(const struct cuda_backend *cuda, struct step_values given) {
    return (struct step_source){cuda->in_step ? cuda->values : NULL, given};
}

/* What is under way of it goes on. */
static void drop(struct captured_step *step) {
    if (step->exec != NULL)
        (void)cudaGraphExecDestroy(step->exec);
    *step = (struct captured_step){.key = 0};
}

void cuda_forget_steps(struct backend *backend) {
    struct cuda_backend *cuda = cuda_of(backend);
    for (int i = 0; i < STEP_KEYS; i++)
        cuda->captured[i].is_current = false;
}

void cuda_destroy_steps(void *owner) {
    struct cuda_backend *cuda = owner;
    for (int i = 0; i < STEP_KEYS; i++)
        drop(&cuda->captured[i]);
}

/* NULL: it has not run, or was forgotten for others. */
static struct captured_step *known_step(struct cuda_backend *cuda, uint64_t key) {
    for (int i = 0; i < STEP_KEYS; i++)
        if (cuda->captured[i].ran > 0 && cuda->captured[i].key == key)
            return &cuda->captured[i];
    return NULL;
}

/* The step of a key; a new one takes the place of the one that has not run for longest. */
static struct captured_step *find_step(struct cuda_backend *cuda, uint64_t key) {
    struct captured_step *oldest = &cuda->captured[0], *known = known_step(cuda, key);
    if (known != NULL)
        return known;
    for (int i = 1; i < STEP_KEYS; i++)
        if (cuda->captured[i].ran < oldest->ran)
            oldest = &cuda->captured[i];
    drop(oldest);
    oldest->key = key;
    return oldest;
}

/* Libraries set themselves up, and plans allocate, in the first run. */
static enum status run_plainly(struct cuda_backend *cuda, struct captured_step *step,
                               const struct step_work *work) {
    cuda->in_step = true;
    const enum status status = work->call(work->context);
    cuda->in_step = false;
    if (status == ST_OK)
        step->prepared = cuda->preparations;
    return status;
}

static enum status capture(struct cuda_backend *cuda, const struct step_work *work,
                           cudaGraph_t *graph) {
    TRY_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    cuda->in_step = true;
    const enum status status = work->call(work->context);
    cuda->in_step = false;
    const cudaError_t error = cudaStreamEndCapture(cuda->stream, graph);
    if (status != ST_OK) {
        (void)cudaGetLastError();
        return status; /* the first failure, not what came of it */
    }
    return error == cudaSuccess ? ST_OK : cuda_failed(error, "cudaStreamEndCapture");
}

/* Into what there is, where the graph has the same form; that is much cheaper. */
static enum status instantiate(struct captured_step *step, cudaGraph_t graph) {
    cudaGraphExecUpdateResultInfo result;
    if (step->exec != NULL) {
        if (cudaGraphExecUpdate(step->exec, graph, &result) == cudaSuccess)
            return ST_OK;
        (void)cudaGetLastError();
        (void)cudaGraphExecDestroy(step->exec);
        step->exec = NULL;
    }
    TRY_CUDA(cudaGraphInstantiate(&step->exec, graph, 0));
    return ST_OK;
}

static enum status capture_step(struct cuda_backend *cuda, struct captured_step *step,
                                const struct step_work *work) {
    cudaGraph_t graph = NULL;
    enum status status = capture(cuda, work, &graph);
    if (status == ST_OK)
        status = instantiate(step, graph);
    if (graph != NULL)
        (void)cudaGraphDestroy(graph);
    step->is_current = status == ST_OK;
    return status;
}

enum step_mode cuda_step_mode(struct backend *backend, uint64_t key) {
    struct cuda_backend *cuda = cuda_of(backend);
    const struct captured_step *step = known_step(cuda, key);
    if (!cuda->captures || step == NULL)
        return STEP_PLAIN;
    if (step->is_current)
        return STEP_REPLAYED;
    return step->prepared == cuda->preparations ? STEP_RECORDED : STEP_PLAIN;
}

enum status cuda_run_step(struct backend *backend, const struct step_values *values,
                          const struct step_work *work) {
    struct cuda_backend *cuda = cuda_of(backend);
    TRY_CUDA(kernel_set_step(*values, cuda->values, cuda->stream));
    struct captured_step *step = find_step(cuda, work->key);
    step->ran = ++cuda->steps;
    if (work->mode == STEP_PLAIN)
        return run_plainly(cuda, step, work);
    if (work->mode == STEP_RECORDED)
        TRY(capture_step(cuda, step, work));
    TRY_CUDA(cudaGraphLaunch(step->exec, cuda->stream));
    return ST_OK;
}
