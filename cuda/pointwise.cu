/* The batch, the loss, survivors to and fro: one thread an element. */
#include "device.cuh"

static __global__ void set_step(struct step_values values, struct step_values *step) {
    *step = values;
}

cudaError_t kernel_check_code(void) {
    struct cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, (const void *)set_step);
}

cudaError_t kernel_set_step(struct step_values values, struct step_values *step,
                            cudaStream_t stream) {
    LAUNCH(set_step, 1, 1, 0, stream, values, step);
    return cudaGetLastError();
}

static __global__ void gather_batch(const uint8_t *images, size_t pixels, const uint32_t *ids,
                                    size_t count, float *out) {
    for (size_t i = first_element(); i < count; i += stride())
        out[i] = (float)images[ids[i / pixels] * pixels + i % pixels] / 255.0F;
}

cudaError_t kernel_gather_batch(const uint8_t *images, size_t pixels, const uint32_t *ids,
                                int samples, float *out, cudaStream_t stream) {
    const size_t count = (size_t)samples * pixels;
    if (count > 0)
        LAUNCH(gather_batch, blocks_for(count), THREADS, 0, stream, images, pixels, ids, count,
               out);
    return cudaGetLastError();
}

static __global__ void gather(const float *dense, const uint32_t *indices, size_t count,
                              float *out) {
    for (size_t i = first_element(); i < count; i += stride())
        out[i] = dense[indices[i]];
}

cudaError_t kernel_gather(const float *dense, const uint32_t *indices, size_t count, float *out,
                          cudaStream_t stream) {
    if (count > 0)
        LAUNCH(gather, blocks_for(count), THREADS, 0, stream, dense, indices, count, out);
    return cudaGetLastError();
}

static __global__ void scatter(const float *values, const uint32_t *indices, size_t count,
                               float *dense) {
    for (size_t i = first_element(); i < count; i += stride())
        dense[indices[i]] = values[i];
}

cudaError_t kernel_scatter(const float *values, const uint32_t *indices, size_t count, float *dense,
                           cudaStream_t stream) {
    if (count > 0)
        LAUNCH(scatter, blocks_for(count), THREADS, 0, stream, values, indices, count, dense);
    return cudaGetLastError();
}

/* ---- loss ---- */

struct sample_loss {
    double loss;
    int correct;
};

/* One sample's, whose logits are read before the gradient is written: they may be the same. */
static __device__ struct sample_loss softmax_of(const float *logits, int classes, int label,
                                                float scale, float *dlogits) {
    int best = 0;
    for (int k = 1; k < classes; k++)
        best = logits[k] > logits[best] ? k : best;
    const float maximum = logits[best], of_label = logits[label] - maximum;
    float sum = 0;
    for (int k = 0; k < classes; k++)
        sum += expf(logits[k] - maximum);
    for (int k = 0; dlogits != NULL && k < classes; k++) {
        const float p = expf(logits[k] - maximum) / sum;
        dlogits[k] = scale * (p - (k == label ? 1.0F : 0.0F));
    }
    const struct sample_loss result = {(double)logf(sum) - (double)of_label, best == label};
    return result;
}

/* One block, so that the sums have one order. */
static __global__ void softmax(const float *logits, int classes, const uint8_t *labels,
                               const uint32_t *ids, int samples, float scale, float *dlogits,
                               struct loss_sums *sums) {
    double loss = 0;
    int correct = 0;
    for (int i = threadIdx.x; i < samples; i += THREADS) {
        const size_t first = (size_t)i * classes;
        const struct sample_loss sample = softmax_of(logits + first, classes, labels[ids[i]], scale,
                                                     dlogits == NULL ? NULL : dlogits + first);
        loss += sample.loss;
        correct += sample.correct;
    }
    loss = block_sum(loss);
    correct = block_sum(correct);
    if (threadIdx.x == 0) {
        sums->loss += loss;
        sums->correct += correct;
    }
}

cudaError_t kernel_softmax(const float *logits, int classes, const uint8_t *labels,
                           const uint32_t *ids, int samples, float scale, float *dlogits,
                           struct loss_sums *sums, cudaStream_t stream) {
    if (samples > 0)
        LAUNCH(softmax, 1, THREADS, 0, stream, logits, classes, labels, ids, samples, scale,
               dlogits, sums);
    return cudaGetLastError();
}
