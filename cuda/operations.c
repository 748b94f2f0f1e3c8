/* The operations outside blocks. */
#include "backend_cuda.h"

#include <espalier/bitmask.h>

enum status cuda_gather_batch(struct backend *backend, const uint8_t *images, size_t pixels,
                              const uint32_t *ids, int samples, float *out) {
    TRY_CUDA(kernel_gather_batch(images, pixels, ids, samples, out, cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_softmax_cross_entropy(struct backend *backend, const float *logits, int classes,
                                       const uint8_t *labels, const uint32_t *ids, int samples,
                                       float scale, float *dlogits, struct loss_sums *sums) {
    TRY_CUDA(kernel_softmax(logits, classes, labels, ids, samples, scale, dlogits, sums,
                            cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_gather(struct backend *backend, const float *dense, const uint32_t *indices,
                        size_t count, float *out) {
    TRY_CUDA(kernel_gather(dense, indices, count, out, cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_scatter(struct backend *backend, const float *values, const uint32_t *indices,
                         size_t count, float *dense) {
    TRY_CUDA(kernel_scatter(values, indices, count, dense, cuda_of(backend)->stream));
    return ST_OK;
}

enum status cuda_update(struct backend *backend, const struct update_args *args, float *beta,
                        float *gradient, float *state0, float *state1, size_t count) {
    const struct cuda_backend *cuda = cuda_of(backend);
    const struct step_values given = {.learning_rate = args->learning_rate,
                                      .optimizer_step = args->step};
    TRY_CUDA(kernel_update(args, cuda_step_source(cuda, given), beta, gradient, state0, state1,
                           count, cuda->stream));
    return ST_OK;
}

/* By way of a copy: the blocks of the kernel do not wait for each other's reads. */
static enum status compact_by(struct cuda_backend *cuda, const uint32_t *words,
                              const uint64_t *mask, size_t first_bit, size_t count,
                              uint32_t *counts, uint32_t *copy, void *kept) {
    TRY_CUDA(kernel_count_bits(mask, first_bit, count, counts, cuda->stream));
    TRY_CUDA(kernel_compact(words, mask, first_bit, count, counts, copy, cuda->stream));
    TRY_CUDA(kernel_copy_counted(copy, counts + survivor_chunks(count), count, kept, cuda->stream));
    return ST_OK;
}

enum status cuda_compact(struct backend *backend, const void *words, const uint64_t *mask,
                         size_t first_bit, size_t count, void *kept) {
    void *counts = NULL, *copy = NULL;
    enum status status;
    TRY_OUT(cuda_allocate((survivor_chunks(count) + 1) * sizeof(uint32_t), &counts));
    TRY_OUT(cuda_allocate(count * sizeof(uint32_t), &copy));
    TRY_OUT(compact_by(cuda_of(backend), words, mask, first_bit, count, counts, copy, kept));
out:
    cuda_release(backend, counts);
    cuda_release(backend, copy);
    return status;
}

enum status cuda_hash(struct backend *backend, const void *words, size_t count, uint64_t *hash) {
    void *sum = NULL;
    TRY(cuda_alloc(backend, sizeof(unsigned long long), &sum));
    const cudaError_t error = kernel_hash(words, count, sum, cuda_of(backend)->stream);
    const enum status status = error == cudaSuccess
                                   ? cuda_download(backend, hash, sum, sizeof *hash)
                                   : cuda_failed(error, "kernel_hash");
    cuda_release(backend, sum);
    return status;
}

/* ---- selection ---- */

/* Device memory of a search. */
struct search {
    uint32_t *magnitudes; /* [total] */
    uint32_t *counts;     /* [chunks + 1] */
    struct selection *selection;
    size_t total;
};

static enum status search_allocate(struct search *search) {
    TRY(cuda_allocate(search->total * sizeof *search->magnitudes, (void **)&search->magnitudes));
    TRY(cuda_allocate((survivor_chunks(search->total) + 1) * sizeof *search->counts,
                      (void **)&search->counts));
    return cuda_allocate(sizeof *search->selection, (void **)&search->selection);
}

static enum status find_magnitudes(struct backend *backend, const struct segment *segments,
                                   int count, size_t keep, const struct search *search) {
    const cudaStream_t stream = cuda_of(backend)->stream;
    size_t first = 0;
    TRY_CUDA(kernel_select_begin(search->selection, keep, stream));
    for (int s = 0; s < count; first += segments[s++].count)
        TRY_CUDA(kernel_magnitudes(segments[s].values, segments[s].count, first, search->magnitudes,
                                   search->selection, stream));
    return ST_OK;
}

static enum status check_finite(struct backend *backend, const struct segment *segments,
                                const struct search *search) {
    struct selection found;
    TRY(cuda_download(backend, &found, search->selection, sizeof found));
    size_t index = (size_t)found.not_finite;
    int s = 0;
    if (index >= search->total)
        return ST_OK;
    while (index >= segments[s].count)
        index -= segments[s++].count;
    FAIL(ST_NUMERIC, "selection: segment %d, index %zu: not a finite number", s, index);
}

static enum status mark_largest(struct cuda_backend *cuda, const struct search *search,
                                uint64_t *mask) {
    for (int shift = 24; shift >= 0; shift -= 8)
        TRY_CUDA(kernel_select_digit(search->magnitudes, search->total, shift, search->selection,
                                     cuda->stream));
    TRY_CUDA(kernel_select_mark(search->magnitudes, search->total, search->selection,
                                search->counts, mask, cuda->stream));
    return ST_OK;
}

enum status cuda_select_largest(struct backend *backend, const struct segment *segments, int count,
                                size_t keep, uint64_t *mask) {
    struct search search = {.total = 0};
    enum status status;
    for (int s = 0; s < count; s++)
        search.total += segments[s].count;
    TRY_OUT(search_allocate(&search));
    TRY_OUT(find_magnitudes(backend, segments, count, keep, &search));
    TRY_OUT(check_finite(backend, segments, &search));
    if (keep > search.total)
        TRY_OUT(status_fail(ST_SHAPE, "selection: keep %zu of %zu values", keep, search.total));
    if (keep > 0)
        TRY_OUT(mark_largest(cuda_of(backend), &search, mask));
    else
        TRY_OUT(cuda_clear(backend, mask, bitmask_words(search.total) * sizeof *mask));
out:
    cuda_release(backend, search.magnitudes);
    cuda_release(backend, search.counts);
    cuda_release(backend, search.selection);
    return status;
}
