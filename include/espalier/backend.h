/* backend.h - what a device must be able to do.
 *
 * A backend is a table of operations over its device's memory. Convolution, dense products,
 * pooling, activation and dropout exist only inside blocks: a block is planned once and executed
 * many times, so that a backend can fuse it. This table is the specification; tests hold every
 * backend against the reference backend in tests/reference.
 *
 * Pointers called device pointers may be dereferenced by the backend alone, unless its memory is
 * the host's. No slot is optional.
 * Every backend is deterministic: the same calls with the same threads give the same bits.
 * Work may be queued; `synchronise` and `download` wait for it. Nothing here is collective. */
#ifndef ESPALIER_BACKEND_H
#define ESPALIER_BACKEND_H

#include <espalier/gpu.h>
#include <espalier/kinds.h>
#include <espalier/shape.h>
#include <espalier/status.h>
#include <espalier/threads.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The linear map at the head of a block. */
enum block_kind {
    BLOCK_CONV,  /* z[y, x, k] = b_k + sum_{c, i, j} w[k, c, i, j] * x[y*s+i-p, x*s+j-p, c] */
    BLOCK_DENSE, /* z[k] = b_k + sum_j w[k, j] * x[j], x flattened in (h, w, c) */
    BLOCK_PASS,  /* z = x: pooling or dropout that follows no linear map; no weights */
    BLOCK_NORM   /* z[p, k] = b_k + w_k (x[p, k] - mean_k) / sqrt(variance_k + norm_epsilon):
                  * batch normalisation of each channel over all samples of all ranks and all
                  * pixels p while training, by the running statistics otherwise (Ioffe & Szegedy
                  * 2015, Alg. 1 and 2; variance_k is the mean squared deviation) */
};

/** What a block computes: linear map, activation, max-pooling, dropout, in this order.
 *
 *    a[y, x, k] = activation(z[y, x, k])
 *    m[y, x, k] = max over the pool x pool window of a; windows that do not fit are cut off.
 *                 The gradient goes to the first maximum in row-major order of the window.
 *    out        = m * keep / (1 - dropout) while training, m otherwise; keep is 0 where
 *                 u < dropout, u = rng_uniform of word unit%4 of the draw (group unit/4, sample =
 *                 data-set index, time = update, stream (RNG_DROPOUT, layer)), unit = index into
 *                 `output`, row-major; of a block that is a part of a layer, the index into that
 *                 layer's output: pixel * layer_channels + kept[channel].
 *
 *  With dropconnect > 0, a dense block in training is (Wan et al. 2013, Alg. 1), for each sample,
 *    z[k] = m_k b_k + sum_j m_kj w[k, j] x[j], each m 0 where u < dropconnect, else 1:
 *                 u = rng_uniform of word unit%4 of the draw (group unit/4, sample = data-set
 * index, time = update, stream (RNG_DROPCONNECT, layer)), unit = index of the weight in canonical
 * order, or number of weights + k for the bias. Otherwise, with p = 1 - dropconnect: mu_k = p (b_k
 * + sum_j w[k, j] x[j]), dropconnect_draws = 0:  a = activation(mu) else (Alg. 2)           a =
 * mean over draws d of activation(mu_k + sigma_k g_kd), with sigma_k^2 = p (1 - p) (b_k^2 + sum_j
 * w[k, j]^2 x[j]^2) and g standard normal: of unit = k * draws + d, words of the draw (group
 * unit/4, sample, time = 0, stream (RNG_DROPCONNECT_DRAWS, layer)), in pairs (v, w): v' = 1 -
 * rng_uniform(v), r = sqrt(-2 ln v'), r cos(2 pi rng_uniform(w)) for the first of the pair, r sin
 *                 for the second (Box & Muller 1958).
 *
 *  Weights: conv [filters][channels][kernel][kernel], dense [units][inputs], norm [channels]; bias
 *  [filters], [units] or [channels]; row-major. Activations: [n][height][width][channels]. */
struct block_desc {
    enum block_kind kind;
    struct shape input;          /* of one sample */
    struct shape linear;         /* z: after the linear map */
    struct shape output;         /* after pooling */
    int kernel, stride, padding; /* conv; zero padding */
    enum activation activation;
    int pool;              /* window and stride, 1: none, at most 15 */
    float dropout;         /* fraction dropped, 0: none */
    float dropconnect;     /* dense: fraction of the connections dropped, 0: none */
    int dropconnect_draws; /* of each unit in evaluation, 0: the mean */
    float norm_epsilon, norm_momentum;
    uint32_t layer; /* index of the block in its network: part of dropout's counter */
    /** Device [channels of output], ascending: which of the layer's channels these are; NULL: all.
     *  Valid as long as the plan; what it points to changes between passes only. */
    const uint32_t *kept;
    int layer_channels; /* where `kept` is given */
};

/** Number of weights (0 for BLOCK_PASS) and biases of a block. */
size_t block_weights(const struct block_desc *desc);
size_t block_biases(const struct block_desc *desc);

/** ST_SHAPE, naming what, when a block's shapes do not fit each other: for block_plan_create. */
enum status block_check(const struct block_desc *desc, int max_samples);

/** Adds up over the ranks what a block needs of all of them; `add` may be NULL: there is one. */
struct rank_sum {
    /** values (device, [count]) become their sums over the ranks. Collective. */
    enum status (*add)(void *context, double *values, size_t count);
    void *context;
};

/** One pass over a batch. The backward pass must be given the same as its forward pass. */
struct block_pass {
    int samples;   /* of this rank; 0 is legal */
    bool training; /* dropout is on */
    uint64_t seed;
    uint32_t update;            /* counts from 0 over the whole run */
    const uint32_t *sample_ids; /* device [samples]: data-set indices */
    struct rank_sum ranks;      /* training, BLOCK_NORM: then the pass is collective */
};

/** Called now and then from inside a long operation by the thread that entered it (the
 *  communicator makes progress only when polled); `call` may be NULL. */
struct poll {
    void (*call)(void *context);
    void *context;
};

/** Which of a block's weights are left, and the form in which they are handed over.
 *
 *  Dense form: arrays of all weights; where one is not left, its value is zero and its gradient is
 *  of no interest. Sparse form: arrays [count] of those that are left, in their order. */
struct block_survivors {
    const uint32_t *indices; /* device [count]: canonical indices, ascending; NULL: all are left */
    size_t count;
    bool sparse;
};

enum { BLOCK_CHOICES = 4 };

struct block_plan; /* a backend's own: algorithm, packed weights, workspace */

/** What softmax_cross_entropy adds up over calls, in device memory, to be downloaded. */
struct loss_sums {
    double loss;     /* sum over samples of -ln p(label) */
    int64_t correct; /* samples whose largest logit (the first of equals) is the label's */
};

/** A run of values for select_largest. */
struct segment {
    const float *values; /* device [count] */
    size_t count;
};

/** One call of `update`. */
struct update_args {
    enum optimizer_kind kind;
    float learning_rate, momentum, rho, epsilon, beta1, beta2;
    float l1, l2; /* of the loss: l1 sum |w| + l2 / 2 sum w^2 */
    bool nesterov;
    uint64_t step; /* 1 for the first update: Adam's bias correction */
};

/** What differs between two steps of training that queue the same calls. */
struct step_values {
    uint32_t update;         /* block_pass.update */
    float learning_rate;     /* update_args.learning_rate */
    uint64_t optimizer_step; /* update_args.step */
};

/** How a step is performed: what an earlier step of its key queued is queued again; its calls are
 *  made and recorded; they are made. Each can stand for those before it. */
enum step_mode { STEP_REPLAYED, STEP_RECORDED, STEP_PLAIN };

/** A step of training: calls that only queue work. */
struct step_work {
    uint64_t key; /* steps of one key make the same calls, but for the step_values */
    enum status (*call)(void *context);
    void *context;
    enum step_mode mode; /* not before step_mode() of the key */
};

struct backend {
    const char *name;
    int threads;           /* that it computes with */
    bool host_memory;      /* device memory is the host's, any of which it may be given */
    const struct gpu *gpu; /* the accelerator; NULL: it computes on the host */
    /** Of the accelerators that its rank sees, one that it could not have, and why; "": any */
    char refused[GPU_REFUSED_MAX];

    /* ---- memory ---- */
    /** Zeroed device memory of `bytes` (0 is legal), 64-byte aligned; `release` frees it. */
    enum status (*alloc)(struct backend *, size_t bytes, void **memory);
    void (*release)(struct backend *, void *memory); /* NULL is legal */
    /** Zeroed memory of the host that copies to and from the device reach fastest; likewise. */
    enum status (*host_alloc)(struct backend *, size_t bytes, void **memory);
    void (*host_release)(struct backend *, void *memory); /* NULL is legal */
    enum status (*upload)(struct backend *, void *device, const void *host, size_t bytes);
    enum status (*download)(struct backend *, void *host, const void *device, size_t bytes);
    enum status (*clear)(struct backend *, void *device, size_t bytes); /* to zero */
    enum status (*copy)(struct backend *, void *to, const void *from, size_t bytes);
    enum status (*synchronise)(struct backend *);

    /* ---- steps ---- */
    /** The first mode in which the next step of a key can be performed. Ranks whose sums are part
     * of their steps must agree on one: what goes into a graph is a matter of all ranks to NCCL. */
    enum step_mode (*step_mode)(struct backend *, uint64_t key);
    /** Perform a step, or replay what an earlier one of its key queued. Where call() sets an
     *  argument that `values` has, it sets it to that; a backend takes it from `values`, which it
     *  copies. Nothing in call() may wait, download, upload, allocate or release. Between steps of
     *  a key, what the plans have been told (survivors, pointers) must not change:
     *  `forget_steps`. A step that fails leaves the results undefined. */
    enum status (*run_step)(struct backend *, const struct step_values *values,
                            const struct step_work *work);
    /** From now on every key is a new one. */
    void (*forget_steps)(struct backend *);

    /* ---- data ---- */
    /** out[i][p] = images[ids[i]][p] / 255, as float: one rounding of the quotient.
     *  images [.][pixels] bytes, ids [samples], out [samples][pixels], all device. */
    enum status (*gather_batch)(struct backend *, const uint8_t *images, size_t pixels,
                                const uint32_t *ids, int samples, float *out);

    /* ---- blocks ---- */
    /** Plan a block for passes of at most `max_samples`. `first`: no input gradient is ever
     *  asked for. ST_SHAPE when the shapes do not fit each other. */
    enum status (*block_plan_create)(struct backend *, const struct block_desc *, int max_samples,
                                     bool first, struct block_plan **plan);
    void (*block_plan_destroy)(struct block_plan *); /* NULL is legal */
    /** Names of the algorithms that the plan chose, for people to read; the plan's own. */
    void (*block_plan_algorithms)(const struct block_plan *, const char **forward,
                                  const char **backward);
    /** Offer to compute the passes of two neighbours together: the output of `before` is the input
     *  of `after` and nobody else's. Called between passes.
     *  Where *joined comes back false, nothing has changed. Where it is true, what passes between
     *  the two may stay inside the backend. Forward: the output of `before` is there when that of
     *  `after` is, which follows with the same pass; in evaluation it need not be there at all, and
     *  no backward pass may follow. Backward: block_backward of `after` is given no dx (NULL), and
     *  that of `before` follows it, with the same pass and no dy (NULL). x and y of `before` must
     *  stay valid from its forward pass on until the last of these. Only the sums of their costs
     *  mean anything; results are as without. */
    enum status (*block_plan_join)(struct block_plan *before, struct block_plan *after,
                                   bool *joined);
    /** Undo a join, between passes, and those after it in a row: `after` must not be joined to the
     *  next when it runs again. */
    void (*block_plan_part)(struct block_plan *before, struct block_plan *after);
    /** Say which weights are left from now on; at first all are, in dense form. load_weights must
     *  follow. A plan that is joined must be parted before its form changes. A plan may copy the
     * indices: they need not stay valid. After a failure the plan can only be destroyed. */
    enum status (*block_plan_set_survivors)(struct block_plan *,
                                            const struct block_survivors *survivors);
    /** The density below which the plan's sparse form should be faster than its dense form, from a
     *  fixed table or from what the device says of itself; 0 where it has no sparse form. */
    double (*block_plan_sparse_below)(const struct block_plan *);
    /** Which of several equally exact ways a plan's passes go, as numbers that the kind of device
     *  knows how to read; 0: by its own table. measure: try them in passes of `samples` and tell
     *  which were fastest; the plan goes on as it did. Else take them over, but for those that
     *  there are not here. Between steps. */
    enum status (*block_plan_choose)(struct block_plan *, int samples, bool measure,
                                     uint32_t choices[BLOCK_CHOICES]);
    /** Take over weights (in the plan's form) and bias, both device; called once after each change.
     *  They stay valid and unchanged until the next call, so a plan may keep the pointers. */
    enum status (*block_plan_load_weights)(struct block_plan *, const float *weights,
                                           const float *bias);
    /** Where a BLOCK_NORM has its running statistics: device [2][channels], means and variances,
     *  valid until the next call. A forward pass in training moves them by
     *    s = momentum s + (1 - momentum) (the batch's; the variance unbiased: n / (n - 1))
     *  unless the batch has a single value a channel; one in evaluation reads them. Other blocks
     *  have none, and take no notice. */
    enum status (*block_plan_load_statistics)(struct block_plan *, float *statistics);
    /** x [samples][input] -> y [samples][output]. Keeps what the backward pass needs. */
    enum status (*block_forward)(struct block_plan *, const struct block_pass *, const float *x,
                                 float *y);
    /** The gradient of the loss with respect to weights, bias and input, given x, y of the
     *  forward pass and dy [samples][output]. `dweights` (in the plan's form) and `dbias` are
     *  overwritten with sums over the samples (zeros when there are none); `dx` [samples][input] is
     * overwritten, unless the plan is of a first block or joined to the one before (then it is
     * NULL). `dy` may be destroyed. */
    enum status (*block_backward)(struct block_plan *, const struct block_pass *, const float *x,
                                  const float *y, float *dy, float *dweights, float *dbias,
                                  float *dx, struct poll poll);

    /* ---- loss ---- */
    /** p = softmax(logits[i]), computed with the maximum subtracted;
     *  dlogits[i][k] = scale * (p_k - [k = label]), label = labels[ids[i]]; dlogits may be NULL.
     *  Adds to *sums. logits [samples][classes]; all pointers device; dlogits may be logits. */
    enum status (*softmax_cross_entropy)(struct backend *, const float *logits, int classes,
                                         const uint8_t *labels, const uint32_t *ids, int samples,
                                         float scale, float *dlogits, struct loss_sums *sums);

    /* ---- survivors ---- */
    /** out[j] = dense[indices[j]], j < count. */
    enum status (*gather)(struct backend *, const float *dense, const uint32_t *indices,
                          size_t count, float *out);
    /** dense[indices[j]] = values[j]; the rest of dense is left alone. No index comes twice. */
    enum status (*scatter)(struct backend *, const float *values, const uint32_t *indices,
                           size_t count, float *dense);
    /** Keep the 32-bit words words[i] whose bit first_bit + i of mask (device) is set, in order,
     *  at the front of `kept` (device, may be `words`: in place). */
    enum status (*compact)(struct backend *, const void *words, const uint64_t *mask,
                           size_t first_bit, size_t count, void *kept);
    /** hash_words (digest.h) of device words. */
    enum status (*hash)(struct backend *, const void *words, size_t count, uint64_t *hash);

    /* ---- optimizer: state0, state1 are device [count] or NULL where the kind has fewer ---- */
    /** One update of beta[count] by gradient[count]; with w the value and g the gradient, to which
     *  l1 sign(w) + l2 w is added first (in place, where either is not 0):
     *  sgd       v = momentum v + g;  w -= lr (nesterov ? g + momentum v : v); v is state0, which
     *            is NULL and not used at momentum 0
     *  adadelta  a = rho a + (1-rho) g^2;  u = g sqrt(d + eps) / sqrt(a + eps);
     *            w -= lr u;  d = rho d + (1-rho) u^2   (Zeiler 2012, Alg. 1; a, d: state0, 1)
     *  adam      m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
     *            w -= lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps), t = step
     *            (Kingma & Ba 2015, Alg. 1; m, v: state0, 1) */
    enum status (*update)(struct backend *, const struct update_args *, float *beta,
                          float *gradient, float *state0, float *state1, size_t count);

    /* ---- selection ---- */
    /** Exactly the `keep` largest |value| of the concatenated segments get their bit set in mask
     *  (device [bitmask_words(total)], overwritten); of equal magnitudes the lower index wins.
     *  +0 and -0 are equal. ST_NUMERIC, naming segment and index, for a NaN or an infinity;
     *  ST_SHAPE when keep exceeds the total. */
    enum status (*select_largest)(struct backend *, const struct segment *segments, int count,
                                  size_t keep, uint64_t *mask);

    void (*destroy)(struct backend *); /* frees the backend itself */
};

/** The CPU backend with `threads` OpenMP threads (at least 1). */
enum status backend_cpu_create(int threads, struct backend **backend);

/** Start the program anew, once, so that the OpenMP library's threads do not spin for longer than
 *  other programs on the machine can bear: what it reads from the environment, it reads while it is
 *  loaded. To be called first thing in main. Leaves alone what the user has set (GOMP_SPINCOUNT,
 *  OMP_WAIT_POLICY, or where threads run); returns when there is nothing to change. */
void backend_cpu_prepare_process(char **argv);

/** Bind the threads that a backend computes with, called by the one that calls it, to a core each,
 *  when they are as many as the cores of `place`. Threads that sleep and wake otherwise gather on
 *  one core. Fewer threads are left alone (another program's would be bound to the same cores), and
 *  all are where the user has said where they go (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY). */
void backend_cpu_bind(int threads, const struct cores *place);

/** What a backend is made with. */
struct backend_options {
    int threads; /* of the host, at least 1 */
    int device;  /* an accelerator's index among those that it could run on */
    bool tf32;   /* an accelerator may round the factors of products to 10 bits */
};

/** The devices that a process sees. */
struct devices_found {
    int usable;
    char refused[GPU_REFUSED_MAX]; /* the first that a backend cannot run on, and why; "": none */
};

/** The CUDA backend, and the devices that it could run on. ST_UNAVAILABLE says why there are none:
 *  no driver, one that is too old, no device, one that there is no code for; of the last, *found
 *  says it too. */
enum status backend_cuda_create(const struct backend_options *options, struct backend **backend);
enum status backend_cuda_devices(struct devices_found *found);

/** Names of the backends that are compiled in, NULL-terminated. */
extern const char *const backend_names[];

/** Create a backend by name. ST_USAGE names the ones there are, ST_UNAVAILABLE says what the
 * machine or the build lacks. */
enum status backend_create(const char *name, const struct backend_options *options,
                           struct backend **backend);

/** The devices that a backend of this name could run on; failures as above. */
enum status backend_devices(const char *name, struct devices_found *found);

/** The backend that a recipe's choice stands for: auto is an accelerator where it has a device,
 * else the CPU. */
const char *backend_chosen(enum backend_choice choice);

#endif
