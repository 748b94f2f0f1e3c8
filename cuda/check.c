#include "check.h"

#include <string.h>

/* The name of the function that a call is of. */
static int name_length(const char *call) {
    return (int)strcspn(call, "(");
}

enum status cuda_failed(cudaError_t error, const char *call) {
    (void)cudaGetLastError(); /* it would be reported again by the next launch */
    const enum status code = error == cudaErrorMemoryAllocation ? ST_MEMORY : ST_UNAVAILABLE;
    FAIL(code, "cuda: %.*s: %s (%s)", name_length(call), call, cudaGetErrorString(error),
         cudaGetErrorName(error));
}

enum status cublas_failed(cublasStatus_t error, const char *call) {
    const enum status code = error == CUBLAS_STATUS_ALLOC_FAILED ? ST_MEMORY : ST_UNAVAILABLE;
    FAIL(code, "cuda: %.*s: %s", name_length(call), call, cublasGetStatusString(error));
}

enum status cudnn_failed(cudnnStatus_t error, const char *call) {
    char detail[512] = "";
    cudnnGetLastErrorString(detail, sizeof detail);
    FAIL(ST_UNAVAILABLE, "cuda: %.*s: %s: %s", name_length(call), call, cudnnGetErrorString(error),
         detail);
}
