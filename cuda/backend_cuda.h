/* backend_cuda.h - what the files of the CUDA backend share.
 *
 * All work is queued on one stream of the backend; nothing waits for it but alloc, release,
 * download, synchronise, hash and select_largest. What steps use is allocated when a plan is
 * created, or when it first runs with a number of samples; a captured step finds all that in
 * place. */
#ifndef ESPALIER_CUDA_BACKEND_CUDA_H
#define ESPALIER_CUDA_BACKEND_CUDA_H

#include "check.h"
#include "kernels.h"
#include "rates.h"

#include <espalier/backend.h>
#include <espalier/gpu.h>

enum { STEP_KEYS = 8 };

/** What a step of one key has become. */
struct captured_step {
    uint64_t key;
    uint64_t ran;         /* number of the step that ran last */
    uint64_t prepared;    /* of backend.preparations when it ran plainly */
    bool is_current;      /* nothing has been forgotten since it was captured */
    cudaGraphExec_t exec; /* NULL: not captured yet */
};

/** Who computes convolutions: what is measured, or else is the default; or one insists. */
enum conv_wish { CONV_WISH_NONE, CONV_WISH_CUDNN, CONV_WISH_DIRECT };

struct cuda_backend {
    struct backend base; /* first: a struct backend * is one of these */
    struct gpu gpu;
    cudaStream_t stream;
    cublasHandle_t cublas;
    cudnnHandle_t cudnn;
    bool tf32;
    enum conv_wish conv_wish;
    struct device_rates rates;
    void *cublas_workspace;
    struct conv_finding *findings; /* conv_tune.c's */
    void *workspace;               /* of cuDNN's plans, which run one after the other */
    size_t workspace_bytes;
    /* Grows with every plan and with every first run of one: a step that was prepared before that
     * must run once without capture. */
    uint64_t preparations;
    /* steps */
    bool captures;
    bool in_step;
    uint64_t steps;
    struct step_values *values; /* device: of the step under way */
    struct captured_step captured[STEP_KEYS];
};

static inline struct cuda_backend *cuda_of(struct backend *backend) {
    return (struct cuda_backend *)backend;
}

/** Where kernels take the values of a step from, `given` being those of the arguments. */
struct step_source cuda_step_source(const struct cuda_backend *cuda, struct step_values given);

/** Device memory, not zeroed. */
enum status cuda_allocate(size_t bytes, void **memory);

/** Room for the workspace of a plan. */
enum status cuda_reserve_workspace(struct cuda_backend *cuda, size_t bytes);

/* ---- the backend's slots, by file; specified in backend.h ---- */

/* devices.c: of those that kernels can run on, the one of this number */
enum status cuda_describe(int device, struct gpu *gpu);
/** ST_UNAVAILABLE where the runtime finds no code for the current device after all, the `gpu`. */
enum status cuda_check_code(const struct gpu *gpu);

/* memory.c */
enum status cuda_alloc(struct backend *backend, size_t bytes, void **memory);
void cuda_release(struct backend *backend, void *memory);
enum status cuda_host_alloc(struct backend *backend, size_t bytes, void **memory);
void cuda_host_release(struct backend *backend, void *memory);
enum status cuda_upload(struct backend *backend, void *device, const void *host, size_t bytes);
enum status cuda_download(struct backend *backend, void *host, const void *device, size_t bytes);
enum status cuda_clear(struct backend *backend, void *device, size_t bytes);
enum status cuda_copy(struct backend *backend, void *to, const void *from, size_t bytes);
enum status cuda_synchronise(struct backend *backend);

/* steps.c */
enum step_mode cuda_step_mode(struct backend *backend, uint64_t key);
enum status cuda_run_step(struct backend *backend, const struct step_values *values,
                          const struct step_work *work);
void cuda_forget_steps(struct backend *backend);
/** Free what has been captured; of a struct cuda_backend *. */
void cuda_destroy_steps(void *cuda);

/* operations.c */
enum status cuda_gather_batch(struct backend *backend, const uint8_t *images, size_t pixels,
                              const uint32_t *ids, int samples, float *out);
enum status cuda_softmax_cross_entropy(struct backend *backend, const float *logits, int classes,
                                       const uint8_t *labels, const uint32_t *ids, int samples,
                                       float scale, float *dlogits, struct loss_sums *sums);
enum status cuda_gather(struct backend *backend, const float *dense, const uint32_t *indices,
                        size_t count, float *out);
enum status cuda_scatter(struct backend *backend, const float *values, const uint32_t *indices,
                         size_t count, float *dense);
enum status cuda_compact(struct backend *backend, const void *words, const uint64_t *mask,
                         size_t first_bit, size_t count, void *kept);
enum status cuda_hash(struct backend *backend, const void *words, size_t count, uint64_t *hash);
enum status cuda_update(struct backend *backend, const struct update_args *args, float *beta,
                        float *gradient, float *state0, float *state1, size_t count);
enum status cuda_select_largest(struct backend *backend, const struct segment *segments, int count,
                                size_t keep, uint64_t *mask);

/* block.c */
enum status cuda_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                   int max_samples, bool first, struct block_plan **plan);
void cuda_block_plan_destroy(struct block_plan *plan);
void cuda_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                                const char **backward);
enum status cuda_block_plan_join(struct block_plan *before, struct block_plan *after, bool *joined);
void cuda_block_plan_part(struct block_plan *before, struct block_plan *after);
enum status cuda_block_plan_set_survivors(struct block_plan *plan,
                                          const struct block_survivors *survivors);
double cuda_block_plan_sparse_below(const struct block_plan *plan);
enum status cuda_block_plan_choose(struct block_plan *plan, int samples, bool measure,
                                   uint32_t choices[BLOCK_CHOICES]);
enum status cuda_block_plan_load_weights(struct block_plan *plan, const float *weights,
                                         const float *bias);
enum status cuda_block_plan_load_statistics(struct block_plan *plan, float *statistics);
enum status cuda_block_forward(struct block_plan *plan, const struct block_pass *pass,
                               const float *x, float *y);
enum status cuda_block_backward(struct block_plan *plan, const struct block_pass *pass,
                                const float *x, const float *y, float *dy, float *dweights,
                                float *dbias, float *dx, struct poll poll);

#endif
