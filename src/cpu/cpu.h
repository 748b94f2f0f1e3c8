/* cpu.h - what the files of the CPU backend share.
 *
 * A block plan is the part that all blocks have (this header's functions: bias, activation,
 * pooling, dropout and their gradients, one sample at a time) and a linear part, one of a table of
 * kinds, each in its own file, that drives it. Everything a plan uses is allocated when it is
 * created, in its arena.
 *
 * Results do not depend on the number of threads: a sample, or a tile of fixed size, is computed
 * by one thread, and what is summed over samples is summed in an order that is fixed. */
#ifndef ESPALIER_CPU_H
#define ESPALIER_CPU_H

#include "blank.h"
#include "kernels.h"

#include <espalier/arena.h>
#include <espalier/backend.h>
#include <omp.h>

/** The CPU backend: backend.h's table, and what all its plans share. */
struct cpu_backend {
    struct backend base; /* first: a struct backend * is one of these */
    const struct kernels *kernels;
    const char *conv; /* the convolution that $ESPALIER_CONV names, NULL: any */
    bool skips_blank; /* as $ESPALIER_BLANK says */
};

static inline const struct kernels *cpu_kernels(const struct backend *backend) {
    return ((const struct cpu_backend *)backend)->kernels;
}

struct block_plan {
    struct block_desc desc;
    int threads, max_samples;
    bool first;
    const char *conv; /* as the backend's */
    bool skips_blank; /* likewise */
    const struct kernels *kernels;
    const struct forward_kind *forward_kind;
    const struct backward_kind *backward_kind;
    void *forward, *backward;         /* the kinds' own, in the arena */
    size_t weights_count;             /* of the form that weights and their gradients come in */
    const struct sparse_form *sparse; /* that form; NULL: dense */
    const float *weights;             /* as loaded: canonical, the caller's */
    const float *bias;                /* as loaded; zeros for BLOCK_PASS */
    uint8_t *state; /* [max_samples][output], from the forward pass for the backward pass */
    float *scratch; /* [threads][scratch_size] */
    size_t scratch_size;
    struct share *shares; /* [threads]: images.c */
    /* Of a plan that is joined to the one before it (block_plan_join): that one; room for dx, or
     * for an input that nobody else needs, [threads][dx_size]. Of one that is joined to the one
     * after it: that, and its last input and output. */
    struct block_plan *before;
    float *dx;
    size_t dx_size;
    bool is_joined;
    const float *x;
    float *y;
    struct blank blank;
    struct arena *arena;           /* of all that the kinds need */
    struct arena *survivors_arena; /* of what changes with the survivors; NULL in dense form */
};

/** What a backward pass reads and writes: the arguments of backend.h's block_backward. */
struct backward_args {
    const float *x, *y;
    float *dy, *dweights, *dbias, *dx;
    struct poll poll;
};

/** One image of a forward pass; `next` is the input of the one that the thread takes after it, to
 * be fetched meanwhile (NULL: unknown). */
struct image_values {
    int sample;
    const float *x, *next;
    float *y;
};

/** A way to compute a block's forward pass. `samples` of a pass is at least 1. */
struct forward_kind {
    const char *name;
    /** Allocate plan->forward; scratch_floats: of scratch that each thread needs. */
    enum status (*create)(struct block_plan *plan, size_t *scratch_floats);
    /** Repack the plan's weights, which have changed; NULL where they are used as they are. */
    void (*load)(struct block_plan *plan);
    void (*run)(struct block_plan *plan, const struct block_pass *pass, const float *x, float *y);
    /** What the ranks must agree on before `run`, also for a pass of 0 samples; or NULL. */
    enum status (*prepare)(struct block_plan *plan, const struct block_pass *pass, const float *x);
    /** One image, by one thread: then run is images_forward; NULL: the whole batch at once. */
    void (*image)(const struct block_plan *plan, const struct block_pass *pass,
                  const struct image_values *image);
    /** Before a pass, what becomes of pixels with the values plan->blank.input: all that `image`
     *  needs to skip them. True where all blank outputs are the same to the bit, and then they are
     *  in plan->blank.output. NULL: nothing is skipped. */
    bool (*blank)(struct block_plan *plan, const struct block_pass *pass);
};

/** One image of a backward pass; dx is NULL for a first block. */
struct image_gradient {
    const struct block_pass *pass;
    int sample;
    const float *x, *y;
    float *dy, *dx;
};

/** Images whose gradients of weights and bias are added up one after the other by one thread; the
 *  sums of these grains are then added in their order, whatever thread formed them. */
enum { GRAIN_IMAGES = 4, CACHE_LINE_FLOATS = 16 };

/** A backward pass that takes one image after the other. */
struct images_kind {
    /** Set a grain's sums to zero. */
    void (*begin)(const struct block_plan *plan, int grain);
    /** One image: writes dx, destroys dy, adds to the sums of its grain. */
    void (*backward)(const struct block_plan *plan, const struct image_gradient *image);
    /** Add up the sums of the first `grains` grains, in their order, to a part of dweights and
     *  dbias; there are parts(plan) of them, for the team to share. */
    void (*reduce)(const struct block_plan *plan, int grains, size_t part,
                   const struct backward_args *args);
    size_t (*parts)(const struct block_plan *plan);
};

/** A way to compute a block's backward pass, likewise; it can follow any forward kind. */
struct backward_kind {
    const char *name;
    enum status (*create)(struct block_plan *plan, size_t *scratch_floats);
    void (*load)(struct block_plan *plan);
    void (*run)(struct block_plan *plan, const struct block_pass *pass,
                const struct backward_args *args);
    enum status (*prepare)(struct block_plan *plan, const struct block_pass *pass,
                           const struct backward_args *args);
    const struct images_kind
        *images; /* then run is images_backward; NULL: the whole batch at once */
};

/** What the passes by images need of a plan, in its arena. */
enum status images_create(struct block_plan *plan);

/** The run of forward kinds that go by images: each image from the first of the joined plans on. */
void images_forward(struct block_plan *plan, const struct block_pass *pass, const float *x,
                    float *y);

/** The run of backward kinds that go by images: the plan's own images, then those of the plans
 *  before it that are joined to it, image by image; the sums of the plan itself are handed over. */
void images_backward(struct block_plan *plan, const struct block_pass *pass,
                     const struct backward_args *args);

/** Grains of the largest pass. */
size_t images_grains(const struct block_plan *plan);

/** Join two plans, where both passes of both go by images. */
enum status images_join(struct block_plan *before, struct block_plan *after, bool *joined);

extern const struct forward_kind forward_direct, forward_winograd, forward_dense,
    forward_dropconnect, forward_norm, forward_pass;
extern const struct backward_kind backward_direct, backward_dense, backward_dropconnect,
    backward_norm, backward_pass, backward_sparse;

/** How a kind of blocks computes in sparse form. */
struct sparse_form {
    struct forward_kind forward;
    struct backward_kind backward;
    bool (*fits)(const struct block_desc *desc); /* its offsets are 32 bits */
    /** Other weights are left. What is made of them comes from plan->survivors_arena, empty. */
    enum status (*set_survivors)(struct block_plan *plan, const struct block_survivors *survivors);
    double below; /* the density below which it is faster than dense form, as a rule */
};

extern const struct sparse_form sparse_form_dense, sparse_form_conv;

/** Which convolutions a kind computes, where it does not compute all; and of those, which it
 *  computes faster than the others. */
bool backward_sparse_applies(const struct block_desc *desc);
bool dropconnect_applies(const struct block_desc *desc);
bool forward_winograd_applies(const struct block_desc *desc);
bool forward_winograd_pays(const struct block_desc *desc);

/** block_plan_load_statistics of a BLOCK_NORM. */
void norm_load_statistics(struct block_plan *plan, float *statistics);

/** The name of a convolution's kind that $ESPALIER_CONV asks for, NULL when it is not set;
 *  ST_USAGE when no kind has that name. */
enum status choose_conv_name(const char **conv);

/** The kind that computes a block: the best; or for a convolution the one named `conv`, and where
 *  that does not apply the one that always does. */
const struct forward_kind *choose_forward(const struct block_desc *desc, const char *conv);
const struct backward_kind *choose_backward(const struct block_desc *desc, const char *conv);

/** A block's sparse form, NULL where it has none. */
const struct sparse_form *choose_sparse_form(const struct block_desc *desc);

/** The scratch of the calling thread of a team. */
static inline float *plan_scratch(const struct block_plan *plan) {
    return plan->scratch + (size_t)omp_get_thread_num() * plan->scratch_size;
}

/** True when a pass drops units. */
static inline bool plan_drops(const struct block_plan *plan, const struct block_pass *pass) {
    return pass->training && plan->desc.dropout > 0.0F;
}

/** Let the communicator make progress, when the calling thread is the one that entered. */
static inline void poll_from_team(struct poll poll) {
    if (poll.call != NULL && omp_get_thread_num() == 0)
        poll.call(poll.context);
}

/** Bias, activation, pooling and dropout of one sample: z [linear], destroyed, -> y [output].
 *  Without pooling, y may be z. */
void epilogue_forward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *z, float *y);

/** Dropout of one sample's y [output] and its state, where the pass drops anything. */
void epilogue_dropout(const struct block_plan *plan, const struct block_pass *pass, int sample,
                      float *y);

/** The gradient of one sample with respect to the z that each window's maximum comes from, by its
 *  place in the state: dy [output] -> g [output], 0 where the unit is dropped; g may be dy. */
void epilogue_gradient(const struct block_plan *plan, const struct block_pass *pass, int sample,
                       const float *y, const float *dy, float *g);

/** The gradient with respect to z of one sample: dy [output] -> dz [linear], with y [output] from
 *  the forward pass. Without pooling, dz may be dy. */
void epilogue_backward(const struct block_plan *plan, const struct block_pass *pass, int sample,
                       const float *y, const float *dy, float *dz);

/* ---- the backend's slots, by file; specified in backend.h ---- */

/* block.c */
enum status cpu_block_plan_create(struct backend *backend, const struct block_desc *desc,
                                  int max_samples, bool first, struct block_plan **plan);
void cpu_block_plan_destroy(struct block_plan *plan);
void cpu_block_plan_algorithms(const struct block_plan *plan, const char **forward,
                               const char **backward);
enum status cpu_block_plan_join(struct block_plan *before, struct block_plan *after, bool *joined);
void cpu_block_plan_part(struct block_plan *before, struct block_plan *after);
enum status cpu_block_plan_set_survivors(struct block_plan *plan,
                                         const struct block_survivors *survivors);
double cpu_block_plan_sparse_below(const struct block_plan *plan);
enum status cpu_block_plan_load_weights(struct block_plan *plan, const float *weights,
                                        const float *bias);
enum status cpu_block_plan_load_statistics(struct block_plan *plan, float *statistics);
enum status cpu_block_forward(struct block_plan *plan, const struct block_pass *pass,
                              const float *x, float *y);
enum status cpu_block_backward(struct block_plan *plan, const struct block_pass *pass,
                               const float *x, const float *y, float *dy, float *dweights,
                               float *dbias, float *dx, struct poll poll);

/* pointwise.c */
enum status cpu_gather_batch(struct backend *backend, const uint8_t *images, size_t pixels,
                             const uint32_t *ids, int samples, float *out);
enum status cpu_softmax_cross_entropy(struct backend *backend, const float *logits, int classes,
                                      const uint8_t *labels, const uint32_t *ids, int samples,
                                      float scale, float *dlogits, struct loss_sums *sums);
enum status cpu_gather(struct backend *backend, const float *dense, const uint32_t *indices,
                       size_t count, float *out);
enum status cpu_scatter(struct backend *backend, const float *values, const uint32_t *indices,
                        size_t count, float *dense);
enum status cpu_compact(struct backend *backend, const void *words, const uint64_t *mask,
                        size_t first_bit, size_t count, void *kept);
enum status cpu_hash(struct backend *backend, const void *words, size_t count, uint64_t *hash);

/* update.c */
enum status cpu_update(struct backend *backend, const struct update_args *args, float *beta,
                       float *gradient, float *state0, float *state1, size_t count);

/* select.c */
enum status cpu_select_largest(struct backend *backend, const struct segment *segments, int count,
                               size_t keep, uint64_t *mask);

#endif
