/* Which devices there are that the kernels can run on, and why not. Their indices leave out the
 * others. */
#include "backend_cuda.h"

#include <stdlib.h>
#include <string.h>

/* Why the runtime finds nothing to run on. */
static enum status explain(cudaError_t error) {
    int driver = 0, runtime = 0;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        FAIL(ST_UNAVAILABLE, "backend cuda: no NVIDIA driver is installed");
    if (error == cudaErrorInsufficientDriver)
        FAIL(ST_UNAVAILABLE,
             "backend cuda: the NVIDIA driver is too old: it is made for CUDA %d.%d, this program "
             "needs CUDA %d.%d",
             driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (error == cudaErrorNoDevice && getenv("CUDA_VISIBLE_DEVICES") != NULL)
        FAIL(ST_UNAVAILABLE, "backend cuda: no device is visible: CUDA_VISIBLE_DEVICES=%s",
             getenv("CUDA_VISIBLE_DEVICES"));
    FAIL(ST_UNAVAILABLE, "backend cuda: no device: %s", cudaGetErrorString(error));
}

static enum status count_all(int *count) {
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error == cudaSuccess && *count > 0)
        return ST_OK;
    *count = 0;
    return explain(error == cudaSuccess ? cudaErrorNoDevice : error);
}

/* Kernels are compiled for ESPALIER_CUDA_LEAST and newer: major * 10 + minor. */
static enum status is_new_enough(int index, bool *is_new) {
    int major, minor;
    TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    TRY_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
    *is_new = major * 10 + minor >= ESPALIER_CUDA_LEAST;
    return ST_OK;
}

static enum status describe(int index, struct gpu *gpu) {
    struct cudaDeviceProp properties;
    TRY_CUDA(cudaGetDeviceProperties(&properties, index));
    gpu->index = index;
    gpu->major = properties.major;
    gpu->minor = properties.minor;
    gpu->memory_bytes = properties.totalGlobalMem;
    memcpy(gpu->name, properties.name, sizeof gpu->name - 1);
    memcpy(gpu->uuid, properties.uuid.bytes, sizeof gpu->uuid);
    return ST_OK;
}

static enum status refuse(int index) {
    struct gpu gpu = {.index = 0};
    TRY(describe(index, &gpu));
    FAIL(ST_UNAVAILABLE,
         "backend cuda: %s has compute capability %d.%d, this program needs %d.%d or newer",
         gpu.name, gpu.major, gpu.minor, ESPALIER_CUDA_LEAST / 10, ESPALIER_CUDA_LEAST % 10);
}

enum status backend_cuda_devices(int *count) {
    int all;
    *count = 0;
    TRY(count_all(&all));
    for (int index = 0; index < all; index++) {
        bool is_new = false;
        TRY(is_new_enough(index, &is_new));
        *count += is_new;
    }
    return *count > 0 ? ST_OK : refuse(0);
}

enum status cuda_describe(int device, struct gpu *gpu) {
    int all, found = 0;
    TRY(count_all(&all));
    for (int index = 0; index < all; index++) {
        bool is_new = false;
        TRY(is_new_enough(index, &is_new));
        if (is_new && found++ == device)
            return describe(index, gpu);
    }
    if (found == 0)
        return refuse(0);
    FAIL(ST_USAGE, "backend cuda: device %d, but there are %d", device, found);
}
