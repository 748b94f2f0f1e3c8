/* sparse.h - the survivors of a layer's weights as a sparse matrix, and back.
 *
 * A layer multiplies its survivors by what it sees: an entry of row `output` meets a stretch of
 * memory, the samples of one input or the pixels of one channel. In the backward pass the same
 * entries, by inputs, meet the outputs' gradients. Structure changes with the survivors alone;
 * values are those that were loaded. Memory is the arena's. */
#ifndef ESPALIER_CPU_SPARSE_H
#define ESPALIER_CPU_SPARSE_H

#include "cpu.h"

/** How a layer's canonical weights [outputs][columns] lie in memory, in floats. */
struct sparse_layout {
    int outputs, columns, inputs;
    const int32_t *seen;     /* [columns]: what a weight multiplies */
    const int32_t *input;    /* [columns]: the input, or a part of it, that it is about */
    const int32_t *reversed; /* [columns]: what it multiplies in an output's gradient */
    int32_t output_step;     /* from the gradient of one output to that of the next */
};

/** Entries by outputs, in canonical order, cut into blocks of columns; and by inputs. */
struct sparse_matrix {
    size_t count;
    int outputs, inputs, blocks, block_columns;
    uint32_t *start;       /* [blocks + 1][outputs]: where a row's entries of a block begin */
    int32_t *offsets;      /* [count] */
    uint32_t *input_start; /* [inputs + 1] */
    int32_t *input_offsets;
    uint32_t *order;     /* [count]: which entry by outputs one by inputs is */
    float *input_values; /* [count] */
};

/** The matrix of the survivors, in blocks of `block_columns` columns. Entries by inputs are left
 *  out where they are not `wanted`. */
enum status sparse_matrix_create(struct arena *arena, const struct sparse_layout *layout,
                                 const struct block_survivors *survivors, int block_columns,
                                 bool wanted, struct sparse_matrix *matrix);

/** Rows first .. first + count - 1 in blocks block .. end - 1, with the values as loaded. */
struct survivor_rows sparse_rows(const struct sparse_matrix *matrix, const float *values, int first,
                                 int count, int block, int end);

/** Inputs first .. first + count - 1. */
struct survivor_rows sparse_input_rows(const struct sparse_matrix *matrix, int first, int count);

/** Bring new values into the order of the inputs. Called by one thread, or by all of a team; a
 *  barrier must follow then. */
void sparse_order_values(const struct sparse_matrix *matrix, const float *values);

#endif
