/* sparse.h - layers in sparse form on a device: the lists of dense ones, and what they should cost.
 *
 * The lists are made on the host when the survivors change, and uploaded. What they and the
 * dense form cost is a model of paper: nothing of it has been measured. */
#ifndef ESPALIER_CUDA_SPARSE_H
#define ESPALIER_CUDA_SPARSE_H

#include "plan.h"

#include <espalier/arena.h>

static inline int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

/* ---- sparse_lists.c ---- */

/** Device memory that grows where it has to. */
struct room {
    void *memory;
    size_t bytes;
};
enum status room_reserve(struct cuda_backend *cuda, struct room *room, size_t bytes);
enum status room_put(struct cuda_backend *cuda, struct room *room, const void *host, size_t bytes);

/** next [keys + 1], counts at the places after their own, become where each key begins. */
void sparse_add_up(uint32_t *next, size_t keys);

/** Host arrays, of an arena. */
struct sparse_lists {
    uint32_t *begin;
    uint16_t *column;
    uint32_t *order; /* NULL: by outputs */
};

/** Entries by outputs, or by inputs, whose values are then those of `order`, in chunks of
 *  `width` columns. indices [count], ascending, of weights [units][inputs]. */
enum status sparse_list_outputs(struct arena *arena, const uint32_t *indices, size_t count,
                                int units, int inputs, int width, struct sparse_lists *lists);
enum status sparse_list_inputs(struct arena *arena, const uint32_t *indices, size_t count,
                               int units, int inputs, int width, struct sparse_lists *lists);

/** Entries by tiles, cut into pieces; those of a tile in their order. */
struct sparse_tiles {
    struct sparse_piece *pieces;
    int pieces_count;
    uint32_t *places, *order; /* [count] */
};
enum status sparse_list_tiles(struct arena *arena, const uint32_t *indices, size_t count, int units,
                              int inputs, struct sparse_tiles *tiles);

/* ---- sparse_model.c ---- */

/** Seconds from one replayed kernel to the next. */
extern const double sparse_launch_seconds;

/** Bytes of the second cache that a multiprocessor gets a cycle. */
double sparse_cache_bytes(const struct device_rates *rates);

/** A kernel of so many blocks, each of `own` cycles and as many waits for a tile after its first.
 */
double sparse_blocks_seconds(const struct device_rates *rates, double blocks, double tiles,
                             double own);

/** Adding up as many values in so many parts; nothing for one. */
double sparse_add_parts_seconds(const struct device_rates *rates, int parts, double count);

/** The density at which sparse form takes as long as `dense`, at most 0.5; 0: at none. */
typedef double sparse_at(const struct device_rates *rates, const void *layer, double density);
double sparse_meets(const struct device_rates *rates, sparse_at *sparse, const void *layer,
                    double dense);

/** A dense layer of which a part is left, and a pass over it. */
struct sparse_layer {
    int inputs, units, samples;
    bool first;
    double density;
};

struct sparse_product {
    int rows, columns, samples;
    double entries;  /* of the matrix */
    bool is_ordered; /* values are looked up by another index */
};

/** Chunks that columns are cut into where a block takes so many samples, and their width. */
int sparse_chunks(int columns, int block_samples);
int sparse_width(int columns, int block_samples);

/** The grid for a number of samples a block. */
struct sparse_grid sparse_grid_of(const struct device_rates *rates,
                                  const struct sparse_product *product, int block_samples);

/** The number of samples a block that should be fastest. */
int sparse_block_samples(const struct device_rates *rates, const struct sparse_product *product);

/** Into how many parts the samples are cut for a gradient of `count` entries in so many pieces. */
int sparse_parts(const struct device_rates *rates, size_t pieces, size_t count, int samples);

/** What forward and backward products of a layer should take, in each form. */
double dense_seconds(const struct device_rates *rates, const struct sparse_layer *layer);
double sparse_seconds(const struct device_rates *rates, const struct sparse_layer *layer);

/** The density below which sparse form should be faster, at most 0.5; 0: at none. Of
 *  layer->density no notice is taken. */
double sparse_break_even(const struct device_rates *rates, const struct sparse_layer *layer);

#endif
