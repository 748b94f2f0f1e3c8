/* Memory of the device, and copies on the backend's stream. */
#include "backend_cuda.h"

#include <string.h>

enum status cuda_allocate(size_t bytes, void **memory) {
    const cudaError_t error = cudaMalloc(memory, bytes > 0 ? bytes : 1);
    if (error == cudaSuccess)
        return ST_OK;
    *memory = NULL;
    if (error != cudaErrorMemoryAllocation)
        return cuda_failed(error, "cudaMalloc");
    (void)cudaGetLastError();
    FAIL(ST_MEMORY, "cuda: out of device memory: %zu bytes", bytes);
}

enum status cuda_alloc(struct backend *backend, size_t bytes, void **memory) {
    TRY(cuda_allocate(bytes, memory));
    return cuda_clear(backend, *memory, bytes);
}

void cuda_release(struct backend *backend, void *memory) {
    (void)backend;
    (void)cudaFree(memory); /* waits for what uses it */
}

enum status cuda_host_alloc(struct backend *backend, size_t bytes, void **memory) {
    (void)backend;
    TRY_CUDA(cudaMallocHost(memory, bytes > 0 ? bytes : 1));
    memset(*memory, 0, bytes);
    return ST_OK;
}

void cuda_host_release(struct backend *backend, void *memory) {
    (void)backend;
    if (memory != NULL)
        (void)cudaFreeHost(memory);
}

static enum status copy(struct backend *backend, void *to, const void *from, size_t bytes,
                        enum cudaMemcpyKind kind) {
    if (bytes > 0)
        TRY_CUDA(cudaMemcpyAsync(to, from, bytes, kind, cuda_of(backend)->stream));
    return ST_OK;
}

/* Memory that is not pinned has been read when this returns. */
enum status cuda_upload(struct backend *backend, void *device, const void *host, size_t bytes) {
    return copy(backend, device, host, bytes, cudaMemcpyHostToDevice);
}

enum status cuda_download(struct backend *backend, void *host, const void *device, size_t bytes) {
    TRY(copy(backend, host, device, bytes, cudaMemcpyDeviceToHost));
    return cuda_synchronise(backend);
}

enum status cuda_copy(struct backend *backend, void *to, const void *from, size_t bytes) {
    return copy(backend, to, from, bytes, cudaMemcpyDeviceToDevice);
}

enum status cuda_clear(struct backend *backend, void *device, size_t bytes) {
    if (bytes > 0)
        TRY_CUDA(cudaMemsetAsync(device, 0, bytes, cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_synchronise(struct backend *backend) {
    TRY_CUDA(cudaStreamSynchronize(cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_reserve_workspace(struct cuda_backend *cuda, size_t bytes) {
    if (bytes <= cuda->workspace_bytes)
        return ST_OK;
    cuda_forget_steps(&cuda->base); /* they use the old one */
    (void)cudaFree(cuda->workspace);
    cuda->workspace_bytes = 0;
    TRY(cuda_allocate(bytes, &cuda->workspace));
    cuda->workspace_bytes = bytes;
    return ST_OK;
}
