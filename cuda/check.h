/* check.h - failures of NVIDIA's libraries as enum status: which call, and what it said. */
#ifndef ESPALIER_CUDA_CHECK_H
#define ESPALIER_CUDA_CHECK_H

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <espalier/status.h>

/** ST_MEMORY where the device has no more, ST_UNAVAILABLE for everything else. */
enum status cuda_failed(cudaError_t error, const char *call);
enum status cublas_failed(cublasStatus_t error, const char *call);
enum status cudnn_failed(cudnnStatus_t error, const char *call);

#define TRY_CUDA(call)                                                                             \
    do {                                                                                           \
        const cudaError_t try_cuda_ = (call);                                                      \
        if (try_cuda_ != cudaSuccess)                                                              \
            return cuda_failed(try_cuda_, #call);                                                  \
    } while (0)

#define TRY_CUBLAS(call)                                                                           \
    do {                                                                                           \
        const cublasStatus_t try_cublas_ = (call);                                                 \
        if (try_cublas_ != CUBLAS_STATUS_SUCCESS)                                                  \
            return cublas_failed(try_cublas_, #call);                                              \
    } while (0)

#define TRY_CUDNN(call)                                                                            \
    do {                                                                                           \
        const cudnnStatus_t try_cudnn_ = (call);                                                   \
        if (try_cudnn_ != CUDNN_STATUS_SUCCESS)                                                    \
            return cudnn_failed(try_cudnn_, #call);                                                \
    } while (0)

#endif
