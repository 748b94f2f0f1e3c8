/* Which devices there are that the kernels can run on, and why not. Their indices leave out the
 * others.
 *
 * What there is code for is known from the build: to ask the runtime, a device must be set up,
 * which is left to the rank that computes on it. */
#include "backend_cuda.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Code for devices of these compute capabilities, major * 10 + minor (code.cmake). */
static const struct code {
    int first, last; /* INT_MAX: all that come */
} codes[] = {ESPALIER_CUDA_CODE};

enum { CODES = sizeof codes / sizeof codes[0] };

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

static bool has_code_for(const struct gpu *gpu) {
    const int capability = gpu->major * 10 + gpu->minor;
    for (int i = 0; i < CODES; i++)
        if (capability >= codes[i].first && capability <= codes[i].last)
            return true;
    return false;
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

/* "NVIDIA Thor has compute capability 11.0; this program has code for 8.0, 9.0, 12.0 and newer" */
static void explain_code(const struct gpu *gpu, char *text, size_t size) {
    int length = snprintf(text, size, "%s has compute capability %d.%d; this program has code for",
                          gpu->name, gpu->major, gpu->minor);
    for (int i = 0; i < CODES && (size_t)length < size; i++)
        length += snprintf(text + length, size - (size_t)length, "%s %d.%d%s", i > 0 ? "," : "",
                           codes[i].first / 10, codes[i].first % 10,
                           codes[i].last == INT_MAX ? " and newer" : "");
}

static enum status refuse(const struct gpu *gpu) {
    char text[GPU_REFUSED_MAX];
    explain_code(gpu, text, sizeof text);
    FAIL(ST_UNAVAILABLE, "backend cuda: %s", text);
}

/* The first that is refused, explained. */
static enum status count_usable(int all, struct devices_found *found) {
    for (int index = all - 1; index >= 0; index--) {
        struct gpu gpu = {.index = 0};
        TRY(describe(index, &gpu));
        if (has_code_for(&gpu))
            found->usable++;
        else
            explain_code(&gpu, found->refused, sizeof found->refused);
    }
    return ST_OK;
}

enum status backend_cuda_devices(struct devices_found *found) {
    int all;
    *found = (struct devices_found){.usable = 0};
    TRY(count_all(&all));
    TRY(count_usable(all, found));
    if (found->usable == 0)
        FAIL(ST_UNAVAILABLE, "backend cuda: %s", found->refused);
    return ST_OK;
}

enum status cuda_describe(int device, struct gpu *gpu) {
    struct devices_found found;
    int all, usable = 0;
    TRY(backend_cuda_devices(&found));
    TRY(count_all(&all));
    for (int index = 0; index < all; index++) {
        TRY(describe(index, gpu));
        if (has_code_for(gpu) && usable++ == device)
            return ST_OK;
    }
    FAIL(ST_USAGE, "backend cuda: device %d, but there are %d", device, found.usable);
}

enum status cuda_check_code(const struct gpu *gpu) {
    const cudaError_t error = kernel_check_code();
    if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction)
        return error == cudaSuccess ? ST_OK : cuda_failed(error, "cudaFuncGetAttributes");
    (void)cudaGetLastError();
    return refuse(gpu);
}
