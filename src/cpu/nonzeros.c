#include "nonzeros.h"

enum { PAIRS = NONZERO_ROWS / 2, ENTRIES = PAIRS * NONZERO_COLUMNS }; /* of a group; of a list */

static int smaller(int a, int b) {
    return a < b ? a : b;
}

enum status nonzeros_create(struct arena *arena, int max_rows, int max_columns,
                            struct nonzeros *n) {
    n->max_blocks = nonzeros_blocks(max_columns);
    const size_t lists = (size_t)nonzeros_groups(max_rows) * (size_t)n->max_blocks;
    TRY(ARENA_ARRAY(arena, 2 * lists * ENTRIES, &n->values));
    TRY(ARENA_ARRAY(arena, lists * ENTRIES, &n->indices));
    return ARENA_ARRAY(arena, lists * (PAIRS + 1), &n->start);
}

static size_t list_of(const struct nonzeros *n, int group, int block) {
    return (size_t)group * (size_t)n->max_blocks + (size_t)block;
}

static int rows_in_group(const struct nonzeros *n, int group) {
    return smaller(NONZERO_ROWS, n->rows - group * NONZERO_ROWS);
}

static int columns_in_block(const struct nonzeros *n, int block) {
    return smaller(NONZERO_COLUMNS, n->columns - block * NONZERO_COLUMNS);
}

/* The rows of a group in the columns of a block: rows[rows_in_group][stride]. */
static void collect_block(struct nonzeros *n, const struct product_kernels *kernels, int group,
                          int block, const float *rows, size_t stride) {
    const size_t list = list_of(n, group, block);
    float *values = n->values + 2 * list * ENTRIES;
    uint32_t *indices = n->indices + list * ENTRIES, *start = n->start + list * (PAIRS + 1);
    const int count = rows_in_group(n, group), columns = columns_in_block(n, block);
    uint32_t end = 0;
    *start = end;
    for (int r = 0; r < count; r += 2, rows += 2 * stride) {
        const float *pair[2] = {rows, r + 1 < count ? rows + stride : rows};
        float *pair_values[2] = {values + end, values + ENTRIES + end};
        end += (uint32_t)kernels->collect(pair, columns, pair_values, indices + end);
        *++start = end;
    }
}

void nonzeros_collect(struct nonzeros *n, const struct product_kernels *kernels, int group,
                      const float *matrix) {
    const size_t columns = (size_t)n->columns;
    const float *rows = matrix + (size_t)group * NONZERO_ROWS * columns;
    for (int block = 0; block < nonzeros_blocks(n->columns); block++)
        collect_block(n, kernels, group, block, rows + block * NONZERO_COLUMNS, columns);
}

void nonzeros_collect_transposed(struct nonzeros *n, const struct product_kernels *kernels,
                                 int group, const float *transpose) {
    float rows[NONZERO_ROWS * NONZERO_COLUMNS];
    for (int block = 0; block < nonzeros_blocks(n->columns); block++) {
        const size_t first = (size_t)block * NONZERO_COLUMNS;
        kernels->transpose(columns_in_block(n, block), rows_in_group(n, group),
                           transpose + first * (size_t)n->rows + (size_t)group * NONZERO_ROWS,
                           (size_t)n->rows, rows, NONZERO_COLUMNS);
        collect_block(n, kernels, group, block, rows, NONZERO_COLUMNS);
    }
}

struct nonzero_rows nonzeros_rows(const struct nonzeros *n, int group, int block) {
    const size_t list = list_of(n, group, block);
    const float *values = n->values + 2 * list * ENTRIES;
    return (struct nonzero_rows){
        .count = rows_in_group(n, group),
        .values = {values, values + ENTRIES},
        .indices = n->indices + list * ENTRIES,
        .start = n->start + list * (PAIRS + 1),
    };
}

double nonzeros_density(const struct nonzeros *n) {
    double count = 0;
    for (int group = 0; group < nonzeros_groups(n->rows); group++)
        for (int block = 0; block < nonzeros_blocks(n->columns); block++) {
            const struct nonzero_rows list = nonzeros_rows(n, group, block);
            count += list.start[(list.count + 1) / 2];
        }
    return count / ((double)((n->rows + 1) / 2) * (double)n->columns);
}
