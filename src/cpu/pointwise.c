/* Batches, the loss, and the survivors' index operations. */
#include "cpu.h"

#include <espalier/bitmask.h>
#include <espalier/digest.h>
#include <math.h>

enum status cpu_gather_batch(struct backend *backend, const uint8_t *images, size_t pixels,
                             const uint32_t *ids, int samples, float *out) {
#pragma omp parallel for num_threads(backend->threads)
    for (int i = 0; i < samples; i++) {
        const uint8_t *image = images + (size_t)ids[i] * pixels;
        float *target = out + (size_t)i * pixels;
        for (size_t p = 0; p < pixels; p++)
            target[p] = (float)image[p] / 255.0F;
    }
    return ST_OK;
}

/* The first of the largest logits. */
static int largest(const float *logits, int classes) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}

/* Loss of one sample; its gradient to `gradient`, which may be `logits` or NULL. A label that is
 * no class has probability 0: an infinite loss, a gradient without the label's term. */
static double sample_loss(const float *logits, int classes, int label, float scale,
                          float *gradient) {
    const double maximum = logits[largest(logits, classes)];
    double sum = 0.0;
    for (int k = 0; k < classes; k++)
        sum += exp((double)logits[k] - maximum);
    const double loss =
        label < classes ? log(sum) - ((double)logits[label] - maximum) : (double)INFINITY;
    for (int k = 0; gradient != NULL && k < classes; k++) {
        const double p = exp((double)logits[k] - maximum) / sum;
        gradient[k] = (float)(scale * (p - (k == label ? 1.0 : 0.0)));
    }
    return loss;
}

enum status cpu_softmax_cross_entropy(struct backend *backend, const float *logits, int classes,
                                      const uint8_t *labels, const uint32_t *ids, int samples,
                                      float scale, float *dlogits, struct loss_sums *sums) {
    enum { ROUND = 512 }; /* samples between two additions to the sums, which go in their order */
    double loss[ROUND];
    bool correct[ROUND];
    for (int first = 0; first < samples; first += ROUND) {
        const int count = samples - first < ROUND ? samples - first : ROUND;
#pragma omp parallel for num_threads(backend->threads)
        for (int i = 0; i < count; i++) {
            const size_t at = (size_t)(first + i) * (size_t)classes;
            const int label = labels[ids[first + i]];
            correct[i] = largest(logits + at, classes) == label;
            loss[i] = sample_loss(logits + at, classes, label, scale,
                                  dlogits == NULL ? NULL : dlogits + at);
        }
        for (int i = 0; i < count; i++) {
            sums->loss += loss[i];
            sums->correct += correct[i];
        }
    }
    return ST_OK;
}

enum status cpu_gather(struct backend *backend, const float *dense, const uint32_t *indices,
                       size_t count, float *out) {
#pragma omp parallel for num_threads(backend->threads)
    for (size_t j = 0; j < count; j++)
        out[j] = dense[indices[j]];
    return ST_OK;
}

enum status cpu_scatter(struct backend *backend, const float *values, const uint32_t *indices,
                        size_t count, float *dense) {
#pragma omp parallel for num_threads(backend->threads)
    for (size_t j = 0; j < count; j++)
        dense[indices[j]] = values[j];
    return ST_OK;
}

enum status cpu_compact(struct backend *backend, const void *words, const uint64_t *mask,
                        size_t first_bit, size_t count, void *kept) {
    (void)backend;
    const uint32_t *from = words;
    uint32_t *to = kept; /* never ahead of from */
    for (size_t i = 0; i < count; i++)
        if (bitmask_get(mask, first_bit + i))
            *to++ = from[i];
    return ST_OK;
}

enum status cpu_hash(struct backend *backend, const void *words, size_t count, uint64_t *hash) {
    const uint32_t *word = words;
    uint64_t sum = 0; /* of integers: the order does not matter */
#pragma omp parallel for num_threads(backend->threads) reduction(+ : sum)
    for (size_t i = 0; i < count; i++)
        sum += hash_mix((uint64_t)i << 32 | word[i]);
    *hash = sum;
    return ST_OK;
}
