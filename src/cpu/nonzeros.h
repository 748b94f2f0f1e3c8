/* nonzeros.h - a matrix without its zeros, for products that skip them.
 *
 * Two rows are listed together, without the columns in which both are zero, by groups of rows and
 * blocks of columns: threads collect the groups, and what a block's columns meet, a panel of as
 * many rows, stays in the first cache. Memory is the arena's. */
#ifndef ESPALIER_CPU_NONZEROS_H
#define ESPALIER_CPU_NONZEROS_H

#include "kernels.h"

#include <espalier/arena.h>

enum { NONZERO_ROWS = 16, NONZERO_COLUMNS = 144 }; /* of a group, of a block */

struct nonzeros {
    int rows, columns; /* of the matrix that is listed */
    int max_blocks;    /* of columns */
    float *values;     /* [groups][max_blocks][2][NONZERO_ROWS / 2 * NONZERO_COLUMNS] */
    uint32_t *indices; /* [groups][max_blocks][NONZERO_ROWS / 2 * NONZERO_COLUMNS] */
    uint32_t *start;   /* [groups][max_blocks][NONZERO_ROWS / 2 + 1] */
};

enum status nonzeros_create(struct arena *arena, int max_rows, int max_columns, struct nonzeros *n);

/** The matrix that is to be listed, group by group, has `rows` and `columns`. */
static inline void nonzeros_resize(struct nonzeros *n, int rows, int columns) {
    n->rows = rows;
    n->columns = columns;
}

static inline int nonzeros_groups(int rows) {
    return (rows + NONZERO_ROWS - 1) / NONZERO_ROWS;
}

static inline int nonzeros_blocks(int columns) {
    return (columns + NONZERO_COLUMNS - 1) / NONZERO_COLUMNS;
}

/** List a group of rows of matrix[rows][columns]. */
void nonzeros_collect(struct nonzeros *n, const struct product_kernels *kernels, int group,
                      const float *matrix);

/** The same, given the matrix's transpose [columns][rows]. */
void nonzeros_collect_transposed(struct nonzeros *n, const struct product_kernels *kernels,
                                 int group, const float *transpose);

/** The lists of a block of a group. */
struct nonzero_rows nonzeros_rows(const struct nonzeros *n, int group, int block);

/** The fraction of values that are listed, when all groups have been collected. */
double nonzeros_density(const struct nonzeros *n);

#endif
