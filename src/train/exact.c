#include "exact.h"

#include <math.h>

/* Adding 1.5 * 2^52 quanta pushes all below a quantum out of a double, rounding to nearest. */
static const double to_gradient = 0x1.8p12, to_loss = 0x1.8p26;

bool exact_add(const float *restrict values, size_t count, bool first, double *restrict sums,
               int threads) {
    int beyond = 0;
#pragma omp parallel for simd num_threads(threads) reduction(| : beyond)
    for (size_t i = 0; i < count; i++) {
        const double rounded = ((double)values[i] + to_gradient) - to_gradient;
        beyond |= !(fabsf(values[i]) < EXACT_GRADIENT_LIMIT);
        sums[i] = first ? rounded : sums[i] + rounded;
    }
    return beyond == 0;
}

void exact_get(const double *restrict sums, size_t count, float *restrict values, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (size_t i = 0; i < count; i++)
        values[i] = (float)sums[i];
}

double exact_loss(double loss) {
    return (loss + to_loss) - to_loss;
}
