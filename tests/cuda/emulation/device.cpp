/* Devices, their properties, and the runtime's errors. */
#include "emulation_internal.h"

#include <cstdio>
#include <cstring>
#include <map>

namespace emulation {

static cudaError_t last_error = cudaSuccess;
static int current_device;

cudaError_t told(cudaError_t error) {
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

/* Of a device, major * 10 + minor. */
static int capability(int device) {
    const std::vector<int> &given = set().capabilities;
    return static_cast<size_t>(device) < given.size() ? given[static_cast<size_t>(device)] : 90;
}

static bool is_device(int device) {
    return device >= 0 && device < set().devices;
}

} // namespace emulation

using namespace emulation;

extern "C" {

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return last_error;
}

static const std::map<int, std::pair<const char *, const char *>> &error_texts() {
    static const std::map<int, std::pair<const char *, const char *>> texts = {
        {cudaSuccess, {"cudaSuccess", "no error"}},
        {cudaErrorInvalidValue, {"cudaErrorInvalidValue", "invalid argument"}},
        {cudaErrorMemoryAllocation, {"cudaErrorMemoryAllocation", "out of memory"}},
        {cudaErrorInsufficientDriver,
         {"cudaErrorInsufficientDriver",
          "CUDA driver version is insufficient for CUDA runtime version"}},
        {cudaErrorNoDevice, {"cudaErrorNoDevice", "no CUDA-capable device is detected"}},
        {cudaErrorInvalidDevice, {"cudaErrorInvalidDevice", "invalid device ordinal"}},
        {cudaErrorNoKernelImageForDevice,
         {"cudaErrorNoKernelImageForDevice",
          "no kernel image is available for execution on the device"}},
        {cudaErrorIllegalAddress,
         {"cudaErrorIllegalAddress", "an illegal memory access was encountered"}},
        {cudaErrorInvalidConfiguration,
         {"cudaErrorInvalidConfiguration", "invalid configuration argument"}},
        {cudaErrorNotReady, {"cudaErrorNotReady", "device not ready"}},
    };
    return texts;
}

const char *cudaGetErrorString(cudaError_t error) {
    auto found = error_texts().find(error);
    return found == error_texts().end() ? "an emulated error" : found->second.second;
}

const char *cudaGetErrorName(cudaError_t error) {
    auto found = error_texts().find(error);
    return found == error_texts().end() ? "cudaErrorEmulated" : found->second.first;
}

cudaError_t cudaGetDeviceCount(int *count) {
    ENTER_CUDA(cudaErrorNoDevice);
    *count = set().devices;
    return told(set().devices == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaSetDevice(int device) {
    ENTER_CUDA(cudaErrorInvalidDevice);
    if (!is_device(device))
        return told(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
    ENTER_CUDA(cudaErrorNoDevice);
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    ENTER_CUDA(cudaErrorInvalidDevice);
    if (!is_device(device))
        return told(cudaErrorInvalidDevice);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "Emulated GPU");
    memset(properties->uuid.bytes, set().first + device + 1, sizeof properties->uuid.bytes);
    properties->major = capability(device) / 10;
    properties->minor = capability(device) % 10;
    properties->totalGlobalMem = set().memory;
    properties->multiProcessorCount = 3;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = 48 << 10;
    properties->l2CacheSize = 1 << 20;
    properties->memoryBusWidth = 64;
    properties->pciBusID = set().first + device;
    properties->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    ENTER_CUDA(cudaErrorInvalidDevice);
    const std::map<int, int> values = {
        {cudaDevAttrComputeCapabilityMajor, capability(device) / 10},
        {cudaDevAttrComputeCapabilityMinor, capability(device) % 10},
        {cudaDevAttrMultiProcessorCount, 3},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrL2CacheSize, 1 << 20},
        {cudaDevAttrComputeMode, 0},
        {cudaDevAttrClockRate, 1000000},
    };
    auto found = values.find(attribute);
    if (!is_device(device) || found == values.end())
        return told(is_device(device) ? cudaErrorNotSupported : cudaErrorInvalidDevice);
    *value = found->second;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel) {
    ENTER_CUDA(cudaErrorNoKernelImageForDevice);
    if (kernel == nullptr)
        return told(cudaErrorInvalidDeviceFunction);
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    ENTER_CUDA(cudaErrorInvalidDevice);
    if (!is_device(device))
        return told(cudaErrorInvalidDevice);
    snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", device);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    ENTER_CUDA(cudaErrorInvalidValue);
    *version = set().devices == 0 ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    ENTER_CUDA(cudaErrorInvalidValue);
    *version = CUDART_VERSION;
    return cudaSuccess;
}
}
