/* kernels.h - the device's kernels, as functions of C that queue them on a stream.
 *
 * All pointers are device memory, arrays are as backend.h has them; a count may be 0. Each
 * returns what its launch did. No kernel's result depends on the order of its threads. */
#ifndef ESPALIER_CUDA_KERNELS_H
#define ESPALIER_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <espalier/backend.h>

/** Where a kernel takes the values of the step from: device memory, so that a captured launch does
 *  not hold them; NULL: `given`. */
struct step_source {
    const struct step_values *device;
    struct step_values given;
};

/* ---- pointwise.cu ---- */

/** What the runtime says of a kernel on the current device: whether there is code for it. */
cudaError_t kernel_check_code(void);
cudaError_t kernel_set_step(struct step_values values, struct step_values *step,
                            cudaStream_t stream);
cudaError_t kernel_gather_batch(const uint8_t *images, size_t pixels, const uint32_t *ids,
                                int samples, float *out, cudaStream_t stream);
cudaError_t kernel_softmax(const float *logits, int classes, const uint8_t *labels,
                           const uint32_t *ids, int samples, float scale, float *dlogits,
                           struct loss_sums *sums, cudaStream_t stream);
cudaError_t kernel_gather(const float *dense, const uint32_t *indices, size_t count, float *out,
                          cudaStream_t stream);
cudaError_t kernel_scatter(const float *values, const uint32_t *indices, size_t count, float *dense,
                           cudaStream_t stream);

/* ---- update.cu ---- */

cudaError_t kernel_update(const struct update_args *args, struct step_source source, float *beta,
                          float *gradient, float *state0, float *state1, size_t count,
                          cudaStream_t stream);

/* ---- epilogue.cu: what follows the linear map ---- */

/** z' = factor (z - mean[c]) scale[c] + bias[c], then activation, pooling and dropout. */
struct epilogue {
    int height, width, channels; /* of z */
    int out_height, out_width, pool;
    enum activation activation;
    float factor;              /* of z and of the bias */
    const float *bias;         /* [channels]; NULL: 0 */
    const float *mean, *scale; /* [channels]; NULL: 0 and 1 */
    float dropout;             /* 0: nothing is dropped */
    uint64_t seed;
    uint32_t stream;      /* of dropout's random numbers */
    const uint32_t *ids;  /* [samples] */
    const uint32_t *kept; /* [channels] of layer_channels: the units that they are; NULL: all */
    int layer_channels;
    struct step_source source;
};

/** z [samples][height][width][channels] -> y [samples][out_height][out_width][channels], and the
 *  place of each window's maximum, or DROPPED, in `state`: not where there is neither pooling nor
 *  dropout. Without pooling y may be z. */
cudaError_t kernel_epilogue(const struct epilogue *epilogue, int samples, const float *z, float *y,
                            uint8_t *state, cudaStream_t stream);
/** dy -> dz. Without pooling dz may be dy; NULL: it is what dy says already. `sums` [channels] gets
 *  the sums of dz over samples and pixels; NULL: nobody asks. */
cudaError_t kernel_epilogue_backward(const struct epilogue *epilogue, int samples, const float *y,
                                     const uint8_t *state, const float *dy, float *dz,
                                     double *scratch, float *sums, cudaStream_t stream);
/** Doubles of scratch that it needs for up to so many samples. */
size_t epilogue_scratch(const struct epilogue *epilogue, int samples);

/* ---- columns.cu: sums over the rows of [rows][columns] ---- */

/** Doubles of scratch that the sums of so many rows need. */
size_t column_scratch(size_t rows, int columns);
cudaError_t kernel_column_sums(const float *values, size_t rows, int columns, double *scratch,
                               float *sums, cudaStream_t stream);

/** The same of parts that are sums already: [columns][count]. */
cudaError_t kernel_finish_columns(const double *parts, unsigned count, int columns, float *sums,
                                  cudaStream_t stream);

/** What batch normalisation knows of its channels. sums: [1 + channels] before the ranks have
 *  added theirs: the number of rows, then the sum of each column. */
struct norm_channels {
    int channels;
    float epsilon, momentum;
    double *moments;               /* [1 + channels]: rows, sums over them */
    double *squares;               /* [channels]: of the deviations from the mean */
    double *gradients;             /* [2][channels]: sums of dz, of dz xhat */
    float *mean, *scale, *inverse; /* scale: w inverse; inverse: 1 / sqrt(variance + epsilon) */
};

cudaError_t kernel_norm_moments(const struct norm_channels *norm, const float *x, size_t rows,
                                double *scratch, cudaStream_t stream);
cudaError_t kernel_norm_squares(const struct norm_channels *norm, const float *x, size_t rows,
                                double *scratch, cudaStream_t stream);
/** Mean, scale and inverse of the batch, which moves `running` [2][channels]; or of `running`. */
cudaError_t kernel_norm_of_batch(const struct norm_channels *norm, const float *weights,
                                 float *running, cudaStream_t stream);
cudaError_t kernel_norm_of_running(const struct norm_channels *norm, const float *weights,
                                   const float *running, cudaStream_t stream);
/** norm->gradients, and their roundings to dweights and dbias. */
cudaError_t kernel_norm_gradients(const struct norm_channels *norm, const float *x, const float *dz,
                                  size_t rows, double *scratch, float *dweights, float *dbias,
                                  cudaStream_t stream);
/** dx of dz; `of_batch`: mean and variance depend on x too. dx may be dz. */
cudaError_t kernel_norm_input(const struct norm_channels *norm, bool of_batch, const float *x,
                              const float *dz, size_t rows, float *dx, cudaStream_t stream);

/* ---- layout.cu: weights [outer][inner][taps] <-> [outer][taps][inner] ---- */

cudaError_t kernel_swap_inner(const float *from, int outer, int inner, int taps, float *to,
                              cudaStream_t stream);

/* ---- small_product.cu: dense layers of few units ---- */

struct small_product {
    int inputs, units;
    const float *bias; /* [units]; NULL: 0 */
    enum activation activation;
};

/** y [samples][units] = activation(w x + bias), of weights [units][inputs]. */
cudaError_t kernel_small_forward(const struct small_product *product, int samples, const float *x,
                                 const float *weights, float *y, cudaStream_t stream);
cudaError_t kernel_small_weights(const struct small_product *product, int samples, const float *x,
                                 const float *dz, float *dweights, cudaStream_t stream);
cudaError_t kernel_small_inputs(const struct small_product *product, int samples,
                                const float *weights, const float *dz, float *dx,
                                cudaStream_t stream);

/* ---- conv_direct.cu ---- */

/** A convolution of [samples][height][width][channels] to
 * [samples][out_height][out_width][filters], and what follows it. The gradient of an input is one
 * too, of the output's gradient. */
struct convolution {
    int height, width, channels;
    int out_height, out_width, filters;
    int kernel, stride, padding;
    const float *bias; /* [filters]; NULL: 0 */
    enum activation activation;
};

/** Whether a block's shared memory has room for it, and ints for its pixels. */
bool convolution_fits(const struct convolution *convolution, int samples);
/** Floats of its weights in the order that the kernel reads. */
size_t convolution_weights(const struct convolution *convolution);
/** Weights [filters][channels][taps] in that order: for the pass forward, and with the taps
 * reversed for its input's gradient; NULL: not for that. */
cudaError_t kernel_convolution_weights(const float *weights, int filters, int channels, int taps,
                                       float *forward, float *backward, cudaStream_t stream);
cudaError_t kernel_convolution(const struct convolution *convolution, int samples, const float *x,
                               const float *weights, float *y, cudaStream_t stream);
/** Whether the kernel can do all that the epilogue says; and with it: `y` and `state` as
 *  kernel_epilogue's, in place of what the convolution itself computes. */
bool convolution_finishes(const struct convolution *convolution, const struct epilogue *epilogue);
cudaError_t kernel_convolution_block(const struct convolution *convolution,
                                     const struct epilogue *epilogue, int samples, const float *x,
                                     const float *weights, float *y, uint8_t *state,
                                     cudaStream_t stream);

/* ---- conv_filter.cu: gradients of a convolution's weights ---- */

/** Whether a block's shared memory has room for rows of it. */
bool convolution_gradient_fits(const struct convolution *convolution);
/** Floats of scratch for so many samples, or fewer. */
size_t convolution_gradient_scratch(const struct convolution *convolution, int samples);
/** dweights [filters][channels][taps] of x and the output's gradient dz. samples: not 0. */
cudaError_t kernel_convolution_gradient(const struct convolution *convolution, int samples,
                                        const float *x, const float *dz, float *scratch,
                                        float *dweights, cudaStream_t stream);

/* ---- dropconnect.cu ---- */

struct connect {
    int inputs, units;
    float dropped; /* fraction */
    int draws;     /* in evaluation */
    uint64_t seed;
    uint32_t stream, draws_stream; /* of random numbers */
    const uint32_t *ids;
    struct step_source source;
    enum activation activation;
};

/** 32-bit words of one sample's mask: a bit for each weight, then for each bias. */
size_t connect_words(int inputs, int units);
cudaError_t kernel_connect_masks(const struct connect *connect, int samples, uint32_t *masks,
                                 cudaStream_t stream);
cudaError_t kernel_connect_forward(const struct connect *connect, int samples,
                                   const uint32_t *masks, const float *weights, const float *bias,
                                   const float *x, float *z, cudaStream_t stream);
/** Any of dweights (with dbias) and dx may be NULL. */
cudaError_t kernel_connect_backward(const struct connect *connect, int samples,
                                    const uint32_t *masks, const float *weights, const float *x,
                                    const float *dz, float *dweights, float *dbias, float *dx,
                                    cudaStream_t stream);
/** Activations [samples][units] in evaluation, the mean over the draws. */
cudaError_t kernel_connect_sample(const struct connect *connect, int samples, const float *weights,
                                  const float *bias, const float *x, float *y, cudaStream_t stream);

/* ---- sparse.cu: the survivors of a dense layer's weights ---- */

/** A block sees SPARSE_FLOATS inputs: of 8, 16 or 32 samples each. For gradients it takes up to
 *  SPARSE_PIECE entries out of SPARSE_TILE_ROWS x SPARSE_TILE_COLUMNS weights. */
enum { SPARSE_FLOATS = 8192, SPARSE_PIECE = 256, SPARSE_TILE_COLUMNS = 256, SPARSE_TILE_ROWS = 64 };

/** A sparse matrix [rows][columns], each row's entries cut into chunks of `width` columns. */
struct sparse_rows {
    int rows, columns, chunks, width; /* width: at most SPARSE_FLOATS / samples of a block */
    const uint32_t *begin;            /* [chunks + 1][rows]: a row's first entry of a chunk */
    const uint16_t *column;           /* [entries], within the chunk */
    const uint32_t *order;            /* [entries]: the value of each; NULL: in their order */
};

/** How many samples a block takes, and into how many blocks samples and rows are cut. */
struct sparse_grid {
    int samples, tiles, parts;
};

/** z[chunk][sample][row] = sum over the row's entries in the chunk of value * x[sample][column].
 *  samples: not 0. */
cudaError_t kernel_sparse_combine(const struct sparse_rows *matrix, struct sparse_grid grid,
                                  const float *values, const float *x, int samples, float *z,
                                  cudaStream_t stream);

/** Entries of one tile of the weights, which begins at (row, column). */
struct sparse_piece {
    uint32_t row, column, begin, count;
};

struct sparse_pieces {
    int rows, columns, pieces_count;
    size_t count;                      /* entries of all pieces */
    const struct sparse_piece *pieces; /* [pieces_count] */
    const uint32_t *places;            /* [count]: row << 16 | column, within the tile */
    const uint32_t *order;             /* [count]: the entry's index among the survivors */
};

/** sums[part][order] = sum over the part's samples of dz[sample][row] * x[sample][column]. */
cudaError_t kernel_sparse_correlate(const struct sparse_pieces *matrix, int parts, const float *x,
                                    const float *dz, int samples, float *sums, cudaStream_t stream);
/** sums[i] = sum over the parts of parts[part][i], from the first to the last. */
cudaError_t kernel_add_parts(const float *parts, int parts_count, size_t count, float *sums,
                             cudaStream_t stream);

/* ---- sparse_conv.cu: the survivors of a convolution's weights ---- */

/** A block keeps up to CONV_FLOATS of a band of an image, of at most CONV_CELLS pixels, and
 * computes the output at up to CONV_PLACES places, one of each thread's. */
enum { CONV_FLOATS = 8448, CONV_SLACK = 64, CONV_CELLS = 1024, CONV_PLACES = 256 };

/** What convolutions and their gradients are cut into. Pixel (y, x) of what is read lies at
 *  (dilation y + padding, dilation x + padding) of a plane of zeros, `across` wide, and pixel (y,
 * x) of what is written is a sum over the plane from (step y, step x) on. */
struct conv_window {
    int height, width, channels; /* of what is read: [samples][height][width][channels] */
    int padding, dilation, across, step;
    int out_height, out_width,
        rows;          /* of what is written: [samples][out_height][out_width][rows] */
    int band, bands;   /* rows of the plane from which a block computes; blocks that cover them */
    int places;        /* from the first to the last place of a band */
    int chunk, chunks; /* channels that a block reads; blocks that cover them */
    int pitch;         /* cells of a channel in a block's memory, odd */
};

/** Survivors by row, and within it by chunk; where each looks up the first place's. */
struct conv_list {
    size_t count;
    const uint32_t *begin; /* [chunks + 1][rows]: a row's first entry of a chunk */
    const uint16_t *place; /* [count] */
    const uint32_t *order; /* [count]: the value of each; NULL: in their order */
};

/** Into how many blocks the bands of all images, and the rows, are cut for a gradient. */
struct conv_parts {
    int bands, rows;
};

/** z[chunk] = what the chunk's channels contribute. samples: not 0. */
cudaError_t kernel_conv_combine(const struct conv_window *window, const struct conv_list *list,
                                int parts, const float *values, const float *x, int samples,
                                float *z, cudaStream_t stream);
/** sums[part] = the entries' sums over the part's bands of dz at each place times x there. No part
 *  may be without bands; the list is not ordered. samples: not 0. */
cudaError_t kernel_conv_correlate(const struct conv_window *window, const struct conv_list *list,
                                  struct conv_parts parts, const float *x, const float *dz,
                                  int samples, float *sums, cudaStream_t stream);

/* ---- survivors.cu ---- */

/** Elements of one block of the counts below. */
enum { SURVIVOR_CHUNK = 1024 };

static inline size_t survivor_chunks(size_t count) {
    return (count + SURVIVOR_CHUNK - 1) / SURVIVOR_CHUNK;
}

/** counts [chunks + 1] becomes, for each chunk, how many set bits come before it, then all. */
cudaError_t kernel_count_bits(const uint64_t *mask, size_t first_bit, size_t count,
                              uint32_t *counts, cudaStream_t stream);
cudaError_t kernel_compact(const uint32_t *words, const uint64_t *mask, size_t first_bit,
                           size_t count, const uint32_t *counts, uint32_t *kept,
                           cudaStream_t stream);
/** The first *count words. */
cudaError_t kernel_copy_counted(const uint32_t *words, const uint32_t *count, size_t most,
                                uint32_t *to, cudaStream_t stream);
/** Adds to *hash. */
cudaError_t kernel_hash(const uint32_t *words, size_t count, unsigned long long *hash,
                        cudaStream_t stream);

/** A search for the `keep` largest magnitudes, by eight bits of them at a time. */
struct selection {
    unsigned long long not_finite; /* the lowest index of a NaN or an infinity, else all ones */
    unsigned long long wanted;     /* of those that begin like the threshold */
    uint32_t threshold;
    uint32_t bins[256];
};

cudaError_t kernel_select_begin(struct selection *selection, size_t keep, cudaStream_t stream);
/** Magnitudes, as integers of the same order, of one segment. */
cudaError_t kernel_magnitudes(const float *values, size_t count, size_t first, uint32_t *magnitudes,
                              struct selection *selection, cudaStream_t stream);
/** Finds the digit at bit `shift` of the threshold. */
cudaError_t kernel_select_digit(const uint32_t *magnitudes, size_t count, int shift,
                                struct selection *selection, cudaStream_t stream);
/** Sets the bits of what is above the threshold and of the first `wanted` that are equal. */
cudaError_t kernel_select_mark(const uint32_t *magnitudes, size_t count,
                               const struct selection *selection, uint32_t *counts, uint64_t *mask,
                               cudaStream_t stream);

#endif
