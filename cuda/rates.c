/* What a device is taken to reach, from what it says of itself. */
#include "rates.h"

#include "check.h"

#include <math.h>

/* Parts of the peaks that products as cuBLAS computes them should reach; bytes a cycle that a
 * multiprocessor should get of the second cache; what stands for a clock that is not told. */
static const double products_part = 0.45, tf32_part = 0.15, cache_bytes = 32, least_clock = 1e9;

/* Products a cycle of a multiprocessor, by compute capability (major, minor): in FP32, and with
 * factors in TF32. */
static const struct {
    int capability, fp32, tf32;
} generations[] = {{75, 64, 64},    {80, 64, 512},    {86, 128, 128}, {89, 128, 128},
                   {90, 128, 1024}, {100, 128, 1024}, {120, 128, 128}};

enum { GENERATIONS = sizeof generations / sizeof generations[0] };

void device_rates_of(const struct device_numbers *numbers, bool tf32, struct device_rates *rates) {
    int g = 0;
    while (g + 1 < GENERATIONS && generations[g + 1].capability <= numbers->capability)
        g++;
    const double clock = fmax(1e3 * numbers->clock_khz, least_clock);
    const double cycles = clock * numbers->processors; /* of all of them */
    const double fp32 = 2 * generations[g].fp32 * cycles * products_part;
    const double rounded = 2 * generations[g].tf32 * cycles * tf32_part;
    *rates = (struct device_rates){.processors = numbers->processors,
                                   .clock = clock,
                                   .products = tf32 ? fmax(fp32, rounded) : fp32,
                                   .cache = cycles * cache_bytes};
}

enum status device_rates_read(int device, bool tf32, struct device_rates *rates) {
    struct device_numbers numbers;
    int major, minor;
    TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    TRY_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    TRY_CUDA(cudaDeviceGetAttribute(&numbers.processors, cudaDevAttrMultiProcessorCount, device));
    TRY_CUDA(cudaDeviceGetAttribute(&numbers.clock_khz, cudaDevAttrClockRate, device));
    numbers.capability = major * 10 + minor;
    device_rates_of(&numbers, tf32, rates);
    return ST_OK;
}
