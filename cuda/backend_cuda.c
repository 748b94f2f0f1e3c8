/* The CUDA backend's table, and its life. */
#include "conv_direct.h"
#include "conv_tune.h"

#include <stdlib.h>
#include <string.h>

/* What cuBLAS is given once, so that it need not allocate while a step is captured. */
static const size_t cublas_workspace_bytes = (size_t)32 << 20;

static void cuda_destroy(struct backend *backend) {
    struct cuda_backend *cuda = cuda_of(backend);
    if (cuda->stream != NULL)
        (void)cudaStreamSynchronize(cuda->stream);
    cuda_destroy_steps(cuda);
    conv_tune_forget(cuda);
    if (cuda->cublas != NULL)
        (void)cublasDestroy(cuda->cublas);
    if (cuda->cudnn != NULL)
        (void)cudnnDestroy(cuda->cudnn);
    void *const memory[] = {cuda->cublas_workspace, cuda->workspace, cuda->values};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        cuda_release(backend, memory[i]);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static const struct backend table = {
    .name = "cuda",
    .alloc = cuda_alloc,
    .release = cuda_release,
    .host_alloc = cuda_host_alloc,
    .host_release = cuda_host_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .clear = cuda_clear,
    .copy = cuda_copy,
    .synchronise = cuda_synchronise,
    .step_mode = cuda_step_mode,
    .run_step = cuda_run_step,
    .forget_steps = cuda_forget_steps,
    .gather_batch = cuda_gather_batch,
    .block_plan_create = cuda_block_plan_create,
    .block_plan_destroy = cuda_block_plan_destroy,
    .block_plan_algorithms = cuda_block_plan_algorithms,
    .block_plan_join = cuda_block_plan_join,
    .block_plan_part = cuda_block_plan_part,
    .block_plan_set_survivors = cuda_block_plan_set_survivors,
    .block_plan_sparse_below = cuda_block_plan_sparse_below,
    .block_plan_choose = cuda_block_plan_choose,
    .block_plan_load_weights = cuda_block_plan_load_weights,
    .block_plan_load_statistics = cuda_block_plan_load_statistics,
    .block_forward = cuda_block_forward,
    .block_backward = cuda_block_backward,
    .softmax_cross_entropy = cuda_softmax_cross_entropy,
    .gather = cuda_gather,
    .scatter = cuda_scatter,
    .compact = cuda_compact,
    .hash = cuda_hash,
    .update = cuda_update,
    .select_largest = cuda_select_largest,
    .destroy = cuda_destroy,
};

/* Captured steps are the default; ESPALIER_CUDA_GRAPH=0 is for comparison. */
static bool captures_steps(void) {
    const char *wish = getenv("ESPALIER_CUDA_GRAPH");
    return wish == NULL || strcmp(wish, "0") != 0;
}

static enum status start_libraries(struct cuda_backend *cuda) {
    TRY_CUBLAS(cublasCreate(&cuda->cublas));
    TRY_CUBLAS(cublasSetStream(cuda->cublas, cuda->stream));
    TRY_CUBLAS(cublasSetMathMode(cuda->cublas,
                                 cuda->tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
    TRY(cuda_allocate(cublas_workspace_bytes, &cuda->cublas_workspace));
    TRY_CUBLAS(cublasSetWorkspace(cuda->cublas, cuda->cublas_workspace, cublas_workspace_bytes));
    TRY_CUDNN(cudnnCreate(&cuda->cudnn));
    TRY_CUDNN(cudnnSetStream(cuda->cudnn, cuda->stream));
    return ST_OK;
}

static enum status start(struct cuda_backend *cuda, int device) {
    TRY(conv_direct_wish(&cuda->conv_wish));
    TRY(cuda_describe(device, &cuda->gpu));
    TRY(device_rates_read(cuda->gpu.index, cuda->tf32, &cuda->rates));
    TRY_CUDA(cudaSetDevice(cuda->gpu.index));
    TRY(cuda_check_code(&cuda->gpu));
    TRY_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    cuda->gpu.stream = cuda->stream;
    cuda->gpu.drop_recorded = cuda_destroy_steps;
    cuda->gpu.owner = cuda;
    TRY(cuda_allocate(sizeof *cuda->values, (void **)&cuda->values));
    return start_libraries(cuda);
}

enum status backend_cuda_create(const struct backend_options *options, struct backend **backend) {
    struct cuda_backend *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL)
        FAIL(ST_MEMORY, "out of memory");
    cuda->base = table;
    cuda->base.threads = options->threads;
    cuda->base.gpu = &cuda->gpu;
    cuda->tf32 = options->tf32;
    cuda->captures = captures_steps();
    cuda->preparations = 1;
    const enum status status = start(cuda, options->device);
    if (status != ST_OK)
        cuda_destroy(&cuda->base);
    else
        *backend = &cuda->base;
    return status;
}
