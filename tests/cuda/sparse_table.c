/* What the CUDA backend's model of dense layers says of devices and layers that are given on lines
 * of its input:
 *   capability processors clock_khz tf32 inputs units samples first density
 * For each: seconds in dense form, in sparse form, and the density below which sparse form pays. */
#include "../../cuda/sparse.h"

#include <stdio.h>

int main(void) {
    struct device_numbers n;
    struct sparse_layer l;
    int tf32, first;
    while (scanf("%d %d %d %d %d %d %d %d %lf", &n.capability, &n.processors, &n.clock_khz, &tf32,
                 &l.inputs, &l.units, &l.samples, &first, &l.density) == 9) {
        struct device_rates rates;
        l.first = first != 0;
        device_rates_of(&n, tf32 != 0, &rates);
        printf("%.9g %.9g %.9g\n", dense_seconds(&rates, &l), sparse_seconds(&rates, &l),
               sparse_break_even(&rates, &l));
    }
    return 0;
}
