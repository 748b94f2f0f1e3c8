/* network.h - a network on a backend: blocks, parameters, activations.
 *
 * A network owns its plans, its device memory and its parameters; it borrows the backend, which
 * must outlive it. All replicas hold the same parameters; nothing here is collective.
 *
 * Parameters live in two contiguous device vectors, beta and gradient, in network order, weight
 * before bias: survivors only. A weight that has lost connections also has dense arrays, into
 * which its survivors are scattered after each update and from which their gradients are
 * gathered; while all survive, its part of beta *is* the dense array. In sparse form
 * (backend.h's block_survivors) it has no dense arrays any more: blocks take its survivors. Where a
 * block computes a part of its layer only (reduction.h), the arrays are those of that part. The
 * running statistics of batch normalisation are parameters whose gradient is always 0, so that they
 * are saved, compared and moved with the rest.
 *
 * Under prune.deletion "mask" beta and gradient stay dense, and both are 0 where pruned: each
 * gradient is carried to its survivors' places alone, so that no optimizer moves the others. */
#ifndef ESPALIER_NETWORK_H
#define ESPALIER_NETWORK_H

#include <espalier/arena.h>
#include <espalier/backend.h>
#include <espalier/recipe.h>

enum { PARAMETER_NAME_MAX = RECIPE_NAME_MAX + 16, PARAMETER_DIMENSIONS_MAX = 4 };
enum { NETWORK_PARAMETERS_MAX = 4 * RECIPE_LAYERS_MAX };

/** A layer's weight or bias, or the running means or variances of batch normalisation. */
struct parameter {
    char name[PARAMETER_NAME_MAX]; /* "dense1.weight" */
    int block;                     /* index into network.blocks */
    bool is_weight;                /* of conv or dense: a connection each, which can be pruned */
    int dimensions;
    uint32_t
        size[PARAMETER_DIMENSIONS_MAX]; /* conv [out, in, kh, kw], dense [out, in], others [out] */
    size_t original_count;
    size_t offset, stored; /* its part of beta and gradient: survivors, or all under a mask */
    size_t count;          /* survivors */
    uint32_t *indices;     /* device [count], ascending original indices; NULL while all survive */
    bool sparse;           /* the form in which its block takes it */
    float *dense, *dense_gradient; /* device [room]; NULL while all survive, or where a sparse block
                                      takes all that do; under a mask `dense` is scratch: beta is
                                      the dense array */
    size_t room;
    uint32_t *places; /* device [count]: where survivors are in them; NULL: at their indices */
};

/** What becomes of a channel of a block's output. */
enum channel_fate {
    CHANNEL_KEPT,
    CHANNEL_DELETED, /* nothing reads it */
    CHANNEL_CONSTANT /* nothing leads to it: the next block has its activation in its bias */
};

/** What a block leaves out, in host memory; nothing at first. */
struct reduction {
    uint8_t *fates;   /* [channels of its output]: enum channel_fate */
    uint8_t *skipped; /* [inputs]: 1 where a dense block leaves out an input, if it `gathers` */
    bool gathers;     /* it computes with a copy of the other inputs */
    bool sparse;      /* the form of its weight */
};

/** The inputs of a dense block that gathers. */
struct gathered_inputs {
    size_t count;
    uint32_t *indices; /* device [max_samples][count]: where they are in the batch's input */
    float *x, *dx;     /* device, likewise; dx NULL for the first block */
};

/** Where a block's `choices` are from: nothing is known, a checkpoint, or its plan has them. */
enum choice_state { CHOICE_NONE, CHOICE_KNOWN, CHOICE_TAKEN };

struct block {
    struct block_desc desc;
    char name[RECIPE_NAME_MAX]; /* of its conv or dense layer */
    enum initializer initializer;
    int weight, bias;     /* indices into network.parameters, -1 for BLOCK_PASS */
    int statistics;       /* the running means, whose variances follow; -1 but for BLOCK_NORM */
    double sparse_below;  /* density below which the weight goes into sparse form, ... */
    bool has_sparse_form; /* ... where there is one: a checkpoint may be another backend's */
    size_t planned;       /* survivors that the plan knows of */
    struct block_plan *plan;
    enum choice_state choice;
    uint32_t choices[BLOCK_CHOICES]; /* backend.h: block_plan_choose */
    struct block_desc reduced; /* what it computes: desc without what the reduction leaves out */
    struct reduction reduction;
    uint32_t *kept; /* device [channels of reduced.output]: which of the layer's those are */
    float *kept_bias, *kept_bias_gradient; /* device, likewise; used while some are not kept */
    struct gathered_inputs gathered;
    struct constants *constants; /* of the block before, which this one reads; NULL: none */
    float *output;               /* device [max_samples][output], of `reduced` */
    float *output_gradient;      /* likewise; NULL where the plan is joined to the next one */
};

struct network {
    struct backend *backend;
    struct shape input;
    int classes;     /* units of the last block */
    int max_samples; /* of a pass */
    bool masked;     /* prune.deletion is "mask" */
    int blocks_count;
    struct block *blocks;
    int parameters_count;
    struct parameter *parameters;
    float *beta, *gradient; /* device [count] */
    bool vectors_are_lent;  /* beta and gradient are not the network's own */
    size_t count;           /* of the values in beta: survivors and biases, or all under a mask */
    size_t original_count;  /* what count was at first */
};

/** Join a recipe's layers into blocks and infer all shapes: the network without its device.
 *
 *  blocks [RECIPE_LAYERS_MAX] is filled, *count is their number. ST_SHAPE names layer (its
 *  number and type), the input shape it met and what it needs: a kernel larger than its image, a
 *  pool larger than its image, a last layer that is not dense, an activation on the last layer
 *  (its units are logits). */
enum status network_describe(const struct recipe *recipe, struct shape input,
                             struct block blocks[RECIPE_LAYERS_MAX], int *count);

/** The parameters that such a network has, in order: names, shapes, counts and offsets, so that a
 *  file can be held against them before a network is allocated. Errors as network_describe. */
enum status network_describe_parameters(const struct recipe *recipe, struct shape input,
                                        struct parameter parameters[NETWORK_PARAMETERS_MAX],
                                        int *count);

/** Build the recipe's network for images of shape `input` and passes of at most `max_samples`.
 *  Parameters are zero. network_destroy frees it. */
enum status network_create(const struct recipe *recipe, struct shape input, int max_samples,
                           struct backend *backend, struct network **network);

void network_destroy(struct network *network);

/** Move beta and gradient to device memory of the caller's, [original_count] each, which must
 *  outlive the network. */
enum status network_move_vectors(struct network *network, float *beta, float *gradient);

/** Draw the initial weights by each layer's initialiser; biases are 0 (initializer.h). */
enum status network_initialize(struct network *network, uint64_t seed);

/** Compute the backward passes of a block and of the next one apart from now on, with those that
 *  were joined after them; -1 is legal. */
enum status network_part(struct network *network, int index);

/** Compute neighbours' backward passes together, wherever the backend can (backend.h's
 *  block_plan_join). */
enum status network_join(struct network *network);

/** Carry beta to where the blocks read it: scatter, then load the plans' weights. To be called
 *  after every change of beta. */
enum status network_materialize(struct network *network);

/** What a block's plan takes for an x, and as dx, in passes over x (device [samples][input]); dx is
 *  NULL for the first block and where backward passes are joined. */
const float *network_block_input(const struct network *network, int index, const float *x);
float *network_block_input_gradient(const struct network *network, int index);

/** Forward through all blocks. x device [samples][input]; *logits is the last block's output. */
enum status network_forward(struct network *network, const struct block_pass *pass, const float *x,
                            float **logits);

/** Told during network_backward, last block first, as soon as a part of the gradient vector is
 *  complete: gradient[offset .. offset + count - 1]. */
struct gradient_sink {
    enum status (*ready)(void *context, size_t offset, size_t count);
    struct poll poll;
    void *context;
};

/** Where the loss must put the gradient of the logits: device [max_samples][classes]. */
float *network_logits_gradient(struct network *network);

/** Backward through all blocks from network_logits_gradient, for the same pass and x as the
 *  forward pass before it; fills network.gradient. */
enum status network_backward(struct network *network, const struct block_pass *pass, const float *x,
                             const struct gradient_sink *sink);

/** Copy a parameter between host memory [original_count], zeros where pruned, and beta. Setting
 *  leaves out what is pruned; network_materialize must follow. */
enum status network_get_parameter(const struct network *network, int parameter, float *values);
enum status network_set_parameter(struct network *network, int parameter, const float *values);

/** A parameter's indices in host memory, NULL while all survive: a copy in the arena, or the
 *  parameter's own where they lie on the host. */
enum status network_get_indices(const struct network *network, const struct parameter *parameter,
                                struct arena *arena, const uint32_t **indices);

/** The parameter of that name, -1 when there is none. */
int network_find_parameter(const struct network *network, const char *name);

/** Connections (original weights, without biases) and those that survive. */
size_t network_connections(const struct network *network);
size_t network_survivors(const struct network *network);

/** SHA-256 over all parameters' dense F32 bytes (little-endian, zeros where pruned), in order. */
enum status network_digest(const struct network *network, char *text);

#endif
