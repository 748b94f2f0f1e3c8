/* Batches and the loss: one image, one sample. */
#include "elementary.h"
#include "isa.h"

#include <math.h>

/* 1 / 255 = high + low. A byte's product with the 9 bits of `high` is exact, so that one rounding
 * is left: for all bytes, that of the division. */
static void pixels(size_t count, const uint8_t *bytes, float *values) {
    const float high = 0x1.01p-8F, low = (float)(1.0 / 255 - 0x1.01p-8);
#pragma omp simd
    for (size_t p = 0; p < count; p++) {
        const float byte = (float)bytes[p];
        values[p] = byte * high + byte * low;
    }
}

/* The first of the largest logits. */
static int largest(const float *logits, int classes) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}

/* e^(logit - maximum) to `terms`, which may be `logits`; their sum. */
static float exponentials(const float *logits, int classes, float maximum, float *terms) {
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (int k = 0; k < classes; k++) {
        terms[k] = elementary_exp(logits[k] - maximum);
        sum += terms[k];
    }
    return sum;
}

static float sum_of_exponentials(const float *logits, int classes, float maximum) {
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (int k = 0; k < classes; k++)
        sum += elementary_exp(logits[k] - maximum);
    return sum;
}

static bool softmax(const float *logits, int classes, int label, float scale, float *gradient,
                    double *loss) {
    const int best = largest(logits, classes);
    const float maximum = logits[best];
    const double margin =
        label < classes ? (double)logits[label] - (double)maximum : -(double)INFINITY;
    const float sum = gradient == NULL ? sum_of_exponentials(logits, classes, maximum)
                                       : exponentials(logits, classes, maximum, gradient);
    *loss = log((double)sum) - margin;
    if (gradient != NULL) {
#pragma omp simd
        for (int k = 0; k < classes; k++)
            gradient[k] *= scale / sum;
        if (label < classes)
            gradient[label] -= scale;
    }
    return best == label;
}

const struct pointwise_kernels ISA_NAME(pointwise_kernels) = {pixels, softmax};
