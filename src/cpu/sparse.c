/* The survivors of a layer's weights as a sparse matrix. */
#include "sparse.h"

#include <string.h>

static enum status allocate(struct arena *arena, bool wanted, struct sparse_matrix *m) {
    const size_t count = m->count, by_inputs = wanted ? count : 0;
    TRY(ARENA_ARRAY(arena, (size_t)(m->blocks + 1) * (size_t)m->outputs, &m->start));
    TRY(ARENA_ARRAY(arena, count, &m->offsets));
    TRY(ARENA_ARRAY(arena, (size_t)m->inputs + 1, &m->input_start));
    TRY(ARENA_ARRAY(arena, by_inputs, &m->input_offsets));
    TRY(ARENA_ARRAY(arena, by_inputs, &m->order));
    return ARENA_ARRAY(arena, by_inputs, &m->input_values);
}

/* Indices ascend: rows one after the other, and in each the blocks. */
static void fill_outputs(const struct sparse_layout *l, const struct block_survivors *survivors,
                         struct sparse_matrix *m) {
    const uint32_t *indices = survivors->indices, last = (uint32_t)m->blocks - 1;
    const uint32_t columns = (uint32_t)l->columns, wide = (uint32_t)m->block_columns;
    size_t e = 0;
    for (uint32_t r = 0; r < (uint32_t)m->outputs; r++) {
        const size_t first = (size_t)r * columns;
        uint32_t *start = m->start + r;
        for (uint32_t block = 0; block <= last; block++, start += m->outputs) {
            const size_t end = first + (block < last ? (block + 1) * wide : columns);
            *start = (uint32_t)e;
            for (; e < m->count && indices[e] < end; e++)
                m->offsets[e] = l->seen[indices[e] - first];
        }
        *start = (uint32_t)e;
    }
}

/* A counting sort; those of one input stay in canonical order. */
static void fill_inputs(const struct sparse_layout *l, const struct block_survivors *survivors,
                        struct sparse_matrix *m) {
    const uint32_t *indices = survivors->indices, columns = (uint32_t)l->columns;
    uint32_t *next = m->input_start + 1; /* becomes where the next input begins */
    for (size_t e = 0; e < m->count; e++)
        next[l->input[indices[e] % columns]]++;
    for (uint32_t c = 0, sum = 0; c < (uint32_t)l->inputs; c++) {
        const uint32_t size = next[c];
        next[c] = sum;
        sum += size;
    }
    for (uint32_t e = 0; e < m->count; e++) {
        const uint32_t row = indices[e] / columns, column = indices[e] % columns;
        const uint32_t at = next[l->input[column]]++;
        m->order[at] = e;
        m->input_offsets[at] = (int32_t)row * l->output_step + l->reversed[column];
    }
}

enum status sparse_matrix_create(struct arena *arena, const struct sparse_layout *layout,
                                 const struct block_survivors *survivors, int block_columns,
                                 bool wanted, struct sparse_matrix *matrix) {
    *matrix =
        (struct sparse_matrix){.count = survivors->count,
                               .outputs = layout->outputs,
                               .inputs = layout->inputs,
                               .blocks = (layout->columns + block_columns - 1) / block_columns,
                               .block_columns = block_columns};
    TRY(allocate(arena, wanted, matrix));
    fill_outputs(layout, survivors, matrix);
    if (wanted)
        fill_inputs(layout, survivors, matrix);
    return ST_OK;
}

struct survivor_rows sparse_rows(const struct sparse_matrix *matrix, const float *values, int first,
                                 int count, int block, int end) {
    const size_t rows = (size_t)matrix->outputs;
    return (struct survivor_rows){.count = count,
                                  .begin = matrix->start + (size_t)block * rows + first,
                                  .end = matrix->start + (size_t)end * rows + first,
                                  .offsets = matrix->offsets,
                                  .values = values};
}

struct survivor_rows sparse_input_rows(const struct sparse_matrix *matrix, int first, int count) {
    return (struct survivor_rows){.count = count,
                                  .begin = matrix->input_start + first,
                                  .end = matrix->input_start + first + 1,
                                  .offsets = matrix->input_offsets,
                                  .values = matrix->input_values};
}

void sparse_order_values(const struct sparse_matrix *matrix, const float *values) {
    const size_t count = matrix->input_start[matrix->inputs];
#pragma omp for schedule(static) nowait
    for (size_t e = 0; e < count; e++)
        matrix->input_values[e] = values[matrix->order[e]];
}
