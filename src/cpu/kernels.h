/* kernels.h - the loops that are compiled once for each instruction set.
 *
 * Every file in kernels/ is compiled for each set that the compiler's target has, with the set's
 * vector header (vector_*.h) and options, and defines one table of functions. A kernel works on one
 * image, or on a range, in the calling thread; teams, tiles and order are the callers' matter.
 * Memory may be unaligned unless said otherwise. */
#ifndef ESPALIER_CPU_KERNELS_H
#define ESPALIER_CPU_KERNELS_H

#include <espalier/backend.h>
#include <espalier/rng.h>

/** The vectors of one update. */
struct update_vectors {
    float *restrict beta;
    float *restrict gradient;
    float *restrict state0, *restrict state1;
};

/** Updates of elements 0..count-1, by backend.h's formulas: the same bits for an element wherever
 *  in a vector it lies, so that survivors and shares can be renumbered and cut anywhere. */
struct update_kernels {
    void (*update)(const struct update_args *args, struct update_vectors vectors, size_t count);
};

/** Words of random numbers that a kernel may draw beyond those asked for. */
enum { PHILOX_DRAWS_MOST = 64 };

/** Products over the connections that a sample keeps: bit i % 32 of bits[i / 32] is connection i's;
 *  the bits behind the last are of any value. */
struct connect_kernels {
    /** The bits of connections 0 .. count - 1, which are the units first, first + 1, .. of
     *  counter's draws (counter.group is overwritten). words [count + 4 + PHILOX_DRAWS_MOST]. */
    void (*draw)(uint64_t seed, struct rng_counter counter, uint32_t first, float rate,
                 size_t count, uint32_t *words, uint32_t *bits);
    /** sum of w[i] x[i] over the connections that are kept. */
    float (*dot)(size_t count, const uint32_t *bits, const float *w, const float *x);
    /** out[i] += factor * x[i] for the connections that are kept. */
    void (*add)(size_t count, const uint32_t *bits, float factor, const float *x, float *out);
    /** sum of w[i] x[i] and of their squares. */
    void (*moments)(size_t count, const float *w, const float *x, float *sum, float *squares);
};

/** Batch normalisation of some pixels: x, z, dz, dx [pixels][channels], the rest [channels]. */
struct norm_kernels {
    /** Adds the sums of x and of x^2. */
    void (*add_moments)(size_t pixels, size_t channels, const float *x, double *sums,
                        double *squares);
    /** z = (x - mean) scale. */
    void (*normalise)(size_t pixels, size_t channels, const float *mean, const float *scale,
                      const float *x, float *z);
    /** Adds the sums of dz and of dz (x - mean). */
    void (*add_gradients)(size_t pixels, size_t channels, const float *mean, const float *x,
                          const float *dz, double *sums, double *products);
    /** dx = scale (dz - shift - (x - mean) slope); dx may be dz. */
    void (*input_gradient)(size_t pixels, size_t channels, const float *mean, const float *scale,
                           const float *shift, const float *slope, const float *x, const float *dz,
                           float *dx);
};

/** The state of an output whose unit is dropped; else its maximum's place in the window. */
enum { STATE_DROPPED = 255 };

/** What follows the linear map of a block, for one sample. The backward passes take the slope from
 *  the output, so that nothing else need be kept; `keep` is the fraction that dropout keeps, whose
 *  inverse scaled the output. */
struct epilogue_kernels {
    /** a = activation(z + bias), both [pixels][channels]; a may be z. */
    void (*activate)(enum activation activation, size_t pixels, size_t channels, const float *bias,
                     const float *z, float *a);
    /** dz from dy and y, all [count]; dz may be dy. */
    void (*activate_backward)(enum activation activation, size_t count, float keep, const float *y,
                              const float *dy, float *dz);
    /** a [linear] -> y and state [output]: the windows' maxima and their places. */
    void (*pool)(const struct block_desc *desc, const float *a, float *y, uint8_t *state);
    /** dy [output] -> dz [linear], through dropout, pooling and activation. */
    void (*pool_backward)(const struct block_desc *desc, float keep, const uint8_t *state,
                          const float *y, const float *dy, float *dz);
    /** Dropout of y and state [output]; counter.group is that of the layer's first unit. */
    void (*drop)(uint64_t seed, struct rng_counter counter, const struct block_desc *desc, float *y,
                 uint8_t *state);
    /** dz [units] = 0 where the unit is dropped. */
    void (*drop_backward)(size_t units, const uint8_t *state, float *dz);
};

/** A convolution of one image. A pixel of the output sees, in each of `rows` rows of the kernel,
 *  `taps` values next to each other in the image: the kernel's width times the input's channels. */
struct direct_layer {
    int height, width, channels; /* of the output */
    int rows, taps;              /* of the kernel */
    int stride;
    size_t pixel_step;         /* floats of the image from one pixel of the output to the next */
    size_t kernel_step;        /* floats of the image from one of its rows to the next */
    int top, bottom, dilation; /* rows top, top + dilation, .. < bottom of the image are not zero */
};

/** Direct convolutions; the image holds all that the kernel sees: no padding. */
struct direct_kernels {
    /** z[height][width][channels] = max(floor, bias + weights * x); a NaN stays one.
     *
     *  Weights and bias come in blocks of two vectors of channels, [blocks][rows][taps][2 lanes]
     *  and [blocks][2 lanes]; where the last block has no channel for its second vector, its
     *  weights have none either: [rows][taps][lanes]. */
    void (*forward)(const struct direct_layer *layer, const float *x, const float *weights,
                    const float *bias, float floor, float *z);
    /** Adds to dweights[rows][taps][padded] and dbias[padded], the channels padded to whole
     *  vectors, what dz[height][width][channels] makes of it. Reads up to two vectors beyond the
     *  end of dz; what it finds there goes to the padding. */
    void (*backward)(const struct direct_layer *layer, const float *x, const float *dz,
                     float *dweights, float *dbias);
    /** dz = dy where y > 0, else 0. */
    void (*relu_backward)(size_t count, const float *y, const float *dy, float *dz);
    /** sums[channels] += the sum of z[pixels][channels] over the pixels. */
    void (*sum_pixels)(size_t pixels, size_t channels, const float *z, float *sums);
};

/** Tiles of a convolution of 3 x 3 at stride 1: each is 4 x 4 pixels of the output, and sees 6 x 6
 *  of the image. They are numbered in row-major order; those that reach beyond the output or see
 *  beyond the image are cut off there. */
struct winograd_tiles {
    const int *numbers; /* [count], ascending */
    int count;
};

/** Pixels of a tile's side; points of its transforms. */
enum { WINOGRAD_TILE = 4, WINOGRAD_POINTS = 36 };

struct winograd_layer {
    int height, width, channels; /* of the image */
    int padding;
    int columns; /* tiles in a row of the output */
};

/** Where the tiles' outputs go. */
struct winograd_output {
    int pool;                    /* 2: maxima of windows of 2 x 2 and their places; 1: all pixels */
    int height, width, channels; /* of y; what does not fit is cut off */
    int columns;                 /* tiles in a row */
    int row;                     /* of tiles, that y begins with */
    const float *bias;
    float floor; /* y = max(floor, bias + ..); a NaN stays one */
    float *y;
    uint8_t *state; /* as y; places in the windows */
};

/** Memory that will be used next, to be fetched while products are computed. */
struct winograd_ahead {
    const char *memory;
    size_t bytes;
};

enum { WINOGRAD_AHEAD = 3 };

/** Winograd's convolution F(4x4, 3x3), a block of tiles of one image at a time. Filters come in
 *  pairs of vectors; where the last pair has no channel for its second, `vectors` is 1. */
struct winograd_kernels {
    /** One vector of filters: taps [channels][9][lanes] -> weights [points][channels][width]. */
    void (*weights)(int channels, int width, const float *taps, float *weights);
    /** x -> seen [vectors of channels][tiles][points][lanes]. */
    void (*input)(const struct winograd_layer *layer, struct winograd_tiles tiles, const float *x,
                  float *seen);
    /** sums [points][tiles][vectors][lanes] = seen * weights [points][channels][vectors][lanes]. */
    void (*multiply)(int channels, int vectors, int tiles, const float *seen, const float *weights,
                     const struct winograd_ahead ahead[WINOGRAD_AHEAD], float *sums);
    /** The sums of the filters from `channel` on -> y, state. */
    void (*output)(const struct winograd_output *output, struct winograd_tiles tiles, int channel,
                   int vectors, const float *sums);
};

/** The gradients of a band of windows that are not zero, a list for each filter: values, and where
 *  the first float that the gradient's pixel sees is, from the slab's begin. */
struct sparse_lists {
    float *values;     /* [filters][capacity]: room for a whole band and a vector more */
    uint32_t *offsets; /* likewise */
    int32_t *counts;   /* [filters] */
    int filters, capacity;
};

/** A band of the pooled output. Offsets are in floats of a slab. */
struct sparse_windows {
    int count;
    uint32_t first;          /* offset of the first window */
    const uint32_t *corners; /* [count]: of each window, from the first */
    const uint32_t *places;  /* [256]: of each place of a maximum in its window */
    const float *ahead;      /* memory that will be read next, to be fetched meanwhile */
    size_t ahead_floats;
};

/** Some channels of one image with its padding, [height + 2 padding][width + 2 padding][pixel]:
 *  either whole vectors of channels, zeros behind the last channel, or all channels of an image
 * that has fewer than a vector (then a vector's floats follow the last pixel, of any value).
 *
 *  What an output pixel sees of it in one row of the kernel is contiguous, so a filter's taps are
 *  [kernel][vectors][lanes], the channels of each pixel in turn; what fills up the last vector
 *  belongs to no tap, its weights are zero and its gradient means nothing. */
struct sparse_slab {
    int height, width, channels; /* of the input */
    int kernel, padding;
    int pixel;   /* floats of a pixel */
    int vectors; /* of a kernel's row */
    size_t row;  /* floats of a row, with its padding */
};

/** Convolution backward at the gradients that are not zero. x and dx point to the slab's first
 *  channel at the image's first pixel; `channels` of them are the slab's. */
struct sparse_kernels {
    /** Fills the lists from g and state, both [count][filters], in the order of the windows, and
     *  adds g to bias [filters]. g is zero where the unit is dropped; -0 is zero, a NaN is not. */
    void (*list_windows)(const struct sparse_windows *windows, const float *g, const uint8_t *state,
                         const struct sparse_lists *lists, float *bias);
    void (*fill_slab)(const struct sparse_slab *shape, int channels, const float *x, float *slab);
    /** gradient [filters][taps] += what the lists make of the slab of x. */
    void (*weight_gradient)(const struct sparse_slab *shape, const struct sparse_lists *lists,
                            const float *slab, float *gradient);
    /** The slab of dx += what the lists make of weights [filters][taps]; a pixel is whole vectors.
     */
    void (*input_gradient)(const struct sparse_slab *shape, const struct sparse_lists *lists,
                           const float *weights, float *slab);
    void (*drain_slab)(const struct sparse_slab *shape, int channels, const float *slab, float *dx);
};

/** Rows of a matrix: values[r * row_step + k * column_step], k < columns. */
struct matrix_rows {
    int count, columns;
    const float *values;
    size_t row_step, column_step;
};

/** Rows of a matrix, two by two, without the columns in which both are zero: those of rows 2p and
 *  2p + 1 are the entries start[p] .. start[p + 1] - 1. What an entry meets is loaded once for
 * both. If the number of rows is odd, the last is paired with itself. */
struct nonzero_rows {
    int count;
    const float *values[2];
    const uint32_t *indices, *start; /* the entries' columns; start [pairs + 1] */
};

/** Products of matrices: out = left * panel, or `add`: out += that. A panel is a matrix of `panel`
 *  columns in memory, of which the first `width` count; a row of it belongs to each column of the
 *  left factor. Rows of `out` are `stride` floats apart. */
struct product_kernels {
    int panel; /* floats */
    void (*multiply)(const struct matrix_rows *left, const float *panel, int width, bool add,
                     float *out, size_t stride);
    /** Skips what the zeros would meet. */
    void (*multiply_nonzero)(const struct nonzero_rows *left, const float *panel, int width,
                             bool add, float *out, size_t stride);
    size_t (*count_nonzero)(const float *values, size_t count);
    /** The columns in which one of two rows[columns] is not zero, and the values there, to the
     * front of indices[columns] and of values[columns]; returns how many. */
    int (*collect)(const float *rows[2], int columns, float *values[2], uint32_t *indices);
    /** Rows of `width` floats, `stride` apart, to a panel. */
    void (*copy)(int rows, int width, const float *from, size_t stride, float *panel);
    /** to[j][i] = from[i][j], i < rows, j < columns. */
    void (*transpose)(int rows, int columns, const float *from, size_t from_stride, float *to,
                      size_t to_stride);
};

/** Rows of a sparse matrix: row r has the entries begin[r] .. end[r] - 1. An entry meets the memory
 *  that begins `offsets[e]` floats into the other factor. */
struct survivor_rows {
    int count;
    const uint32_t *begin, *end; /* [count] */
    const int32_t *offsets;
    const float *values;
};

/** Two factors, each in `pieces` pieces of `vectors` vectors; steps in floats. */
struct survivor_factors {
    const float *left, *right;
    size_t row_step;              /* from one row of the left factor to the next */
    size_t left_step, right_step; /* from one piece to the next */
    int pieces, vectors;
};

/** Products with a sparse matrix, whose entries each meet a stretch of memory. */
struct survivor_kernels {
    int most_vectors; /* of a stretch that combine takes */
    /** out[r * stride + t] = sum over the entries of row r of value * in[offset + t], or `add`:
     *  plus that; t < vectors * lanes. */
    void (*combine)(const struct survivor_rows *rows, const float *in, int vectors, bool add,
                    float *out, size_t stride);
    /** out[e] = sum over pieces and t of left[r * row_step + t] * right[offset + t], or `add`: plus
     *  that, for each entry e of the rows. */
    void (*correlate)(const struct survivor_rows *rows, const struct survivor_factors *factors,
                      bool add, float *out);
};

/** One image, one sample. */
struct pointwise_kernels {
    /** values[p] = bytes[p] / 255. */
    void (*pixels)(size_t count, const uint8_t *bytes, float *values);
    /** backend.h's softmax_cross_entropy of one sample: true when the answer is right. A label that
     *  is no class has probability 0: an infinite loss, a gradient without the label's term. */
    bool (*softmax)(const float *logits, int classes, int label, float scale, float *gradient,
                    double *loss);
};

enum { SELECT_BINS = 2048 }; /* digits of 11 bits */

/** Passes of the selection by magnitude. The key of a value is its 31 bits behind the sign. */
struct select_kernels {
    uint32_t (*largest_key)(const float *values, size_t count);
    /** Adds to one of the four tables for each value: its key's 11 bits from `shift` on. */
    void (*count_digits)(const float *values, size_t count, int shift,
                         uint32_t bins[4][SELECT_BINS]);
    /** Values of low <= |value| < high, in order, to collected, which may be `values`, else has
     *  room for a vector more than there are; returns how many. */
    size_t (*collect)(const float *values, size_t count, float low, float high, float *collected);
    /** Bit i of above, equal: |values[i]| is above, is the threshold. count <= 64. */
    void (*compare)(const float *values, int count, float threshold, uint64_t *above,
                    uint64_t *equal);
    /** The values [64] whose bit is set to the front of kept [64], which may be `values` or lie
     *  before it; returns how many. What follows them in kept is overwritten. */
    size_t (*compact)(const float *values, uint64_t bits, float *kept);
};

/** All kernels of one instruction set. */
struct kernels {
    const char *isa;
    int lanes; /* floats in a vector */
    const struct update_kernels *update;
    const struct connect_kernels *connect;
    const struct norm_kernels *norm;
    const struct epilogue_kernels *epilogue;
    const struct direct_kernels *direct;
    const struct winograd_kernels *winograd;
    const struct sparse_kernels *sparse;
    const struct product_kernels *product;
    const struct survivor_kernels *survivors;
    const struct pointwise_kernels *pointwise;
    const struct select_kernels *select;
};

/** The best set that this machine has, or the one that $ESPALIER_ISA names: ST_USAGE when there is
 *  no such set in this build, ST_UNAVAILABLE when the machine lacks it. */
enum status kernels_choose(const struct kernels **kernels);

/** Names of the sets that this machine has, best first, NULL-terminated. */
const char *const *kernels_available(void);

#endif
