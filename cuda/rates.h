/* rates.h - how fast a device should be: assumptions, none of which has been measured. */
#ifndef ESPALIER_CUDA_RATES_H
#define ESPALIER_CUDA_RATES_H

#include <espalier/status.h>
#include <stdbool.h>

/** What a device says of itself. */
struct device_numbers {
    int capability; /* major * 10 + minor */
    int processors, clock_khz;
};

struct device_rates {
    int processors;
    double clock;    /* cycles a second */
    double products; /* FLOPs a second that a dense product should reach */
    double cache;    /* bytes a second of the second cache, in which what one kernel leaves to the
                      * next is taken to lie */
};

/** tf32: factors of products may be rounded, which some generations are faster with. */
void device_rates_of(const struct device_numbers *numbers, bool tf32, struct device_rates *rates);

/** Of the device of this index. */
enum status device_rates_read(int device, bool tf32, struct device_rates *rates);

#endif
