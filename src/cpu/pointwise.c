/* Batches, the loss, and the survivors' index operations. */
#include "cpu.h"

#include <espalier/bitmask.h>
#include <espalier/digest.h>
#include <string.h>

/* Shuffled images are nowhere near each other: ask for one while working on another. */
static void prefetch(const uint8_t *bytes, size_t count) {
    enum { CACHE_LINE = 64 };
    for (size_t i = 0; i < count; i += CACHE_LINE)
        __builtin_prefetch(bytes + i);
}

enum status cpu_gather_batch(struct backend *backend, const uint8_t *images, size_t pixels,
                             const uint32_t *ids, int samples, float *out) {
    enum { AHEAD = 6 }; /* images: memory takes longer than one of them */
    const struct pointwise_kernels *kernels = cpu_kernels(backend)->pointwise;
#pragma omp parallel for num_threads(backend->threads)
    for (int i = 0; i < samples; i++) {
        if (i + AHEAD < samples)
            prefetch(images + (size_t)ids[i + AHEAD] * pixels, pixels);
        kernels->pixels(pixels, images + (size_t)ids[i] * pixels, out + (size_t)i * pixels);
    }
    return ST_OK;
}

enum status cpu_softmax_cross_entropy(struct backend *backend, const float *logits, int classes,
                                      const uint8_t *labels, const uint32_t *ids, int samples,
                                      float scale, float *dlogits, struct loss_sums *sums) {
    enum { ROUND = 512 }; /* samples between two additions to the sums, which go in their order */
    const struct pointwise_kernels *kernels = cpu_kernels(backend)->pointwise;
    double loss[ROUND];
    bool correct[ROUND];
    for (int first = 0; first < samples; first += ROUND) {
        const int count = samples - first < ROUND ? samples - first : ROUND;
#pragma omp parallel for num_threads(backend->threads)
        for (int i = 0; i < count; i++) {
            const size_t at = (size_t)(first + i) * (size_t)classes;
            correct[i] = kernels->softmax(logits + at, classes, labels[ids[first + i]], scale,
                                          dlogits == NULL ? NULL : dlogits + at, &loss[i]);
        }
        for (int i = 0; i < count; i++) {
            sums->loss += loss[i];
            sums->correct += correct[i];
        }
    }
    return ST_OK;
}

/* What is done before a team has met needs none; a region with one thread costs half as much as a
 * team. Indices often go on by one, for a RUN of them. */
enum { FEW = 4096, RUN = 16, BLOCK = 2048 };

static bool is_run(const uint32_t *indices) {
    uint32_t differ = 0;
    for (uint32_t i = 0; i < RUN; i++)
        differ |= indices[i] ^ (indices[0] + i);
    return differ == 0;
}

static void gather(const float *dense, const uint32_t *indices, size_t count, float *out) {
    size_t j = 0;
    for (; j + RUN <= count; j += RUN)
        if (is_run(indices + j))
            memcpy(out + j, dense + indices[j], RUN * sizeof *out);
        else
            for (size_t i = j; i < j + RUN; i++)
                out[i] = dense[indices[i]];
    for (; j < count; j++)
        out[j] = dense[indices[j]];
}

static void scatter(const float *values, const uint32_t *indices, size_t count, float *dense) {
    size_t j = 0;
    for (; j + RUN <= count; j += RUN)
        if (is_run(indices + j))
            memcpy(dense + indices[j], values + j, RUN * sizeof *dense);
        else
            for (size_t i = j; i < j + RUN; i++)
                dense[indices[i]] = values[i];
    for (; j < count; j++)
        dense[indices[j]] = values[j];
}

static size_t block_from(size_t first, size_t count) {
    return count - first < BLOCK ? count - first : BLOCK;
}

enum status cpu_gather(struct backend *backend, const float *dense, const uint32_t *indices,
                       size_t count, float *out) {
    if (count <= FEW) {
        gather(dense, indices, count, out);
        return ST_OK;
    }
#pragma omp parallel for num_threads(backend->threads)
    for (size_t first = 0; first < count; first += BLOCK)
        gather(dense, indices + first, block_from(first, count), out + first);
    return ST_OK;
}

enum status cpu_scatter(struct backend *backend, const float *values, const uint32_t *indices,
                        size_t count, float *dense) {
    if (count <= FEW) {
        scatter(values, indices, count, dense);
        return ST_OK;
    }
#pragma omp parallel for num_threads(backend->threads)
    for (size_t first = 0; first < count; first += BLOCK)
        scatter(values + first, indices + first, block_from(first, count), dense);
    return ST_OK;
}

static size_t keep_words(const float *values, uint64_t bits, float *kept) {
    size_t count = 0;
    for (; bits != 0; bits &= bits - 1)
        kept[count++] = values[__builtin_ctzll(bits)];
    return count;
}

/* The kernel writes more than it keeps, so not at the end. Words are moved as floats: the same
 * bits. */
enum status cpu_compact(struct backend *backend, const void *words, const uint64_t *mask,
                        size_t first_bit, size_t count, void *kept) {
    const struct select_kernels *kernels = cpu_kernels(backend)->select;
    const float *from = words;
    float *to = kept; /* never ahead of from */
    size_t left = bitmask_count_range(mask, first_bit, count);
    for (size_t i = 0; i < count && left > 0; i += 64) {
        const size_t part = count - i < 64 ? count - i : 64;
        uint64_t bits = 0;
        bitmask_copy(mask, first_bit + i, &bits, 0, part);
        const size_t moved = part == 64 && left >= 64 ? kernels->compact(from + i, bits, to)
                                                      : keep_words(from + i, bits, to);
        to += moved;
        left -= moved;
    }
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
