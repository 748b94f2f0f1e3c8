/* Which devices there are, and why not. */
#include "backend_cuda.h"

#include <stdlib.h>

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

enum status backend_cuda_devices(int *count) {
    const cudaError_t error = cudaGetDeviceCount(count);
    if (error == cudaSuccess && *count > 0)
        return ST_OK;
    *count = 0;
    return explain(error == cudaSuccess ? cudaErrorNoDevice : error);
}
