/* Selection by sorting everything. */
#include "select_reference.h"

#include <espalier/bitmask.h>
#include <math.h>
#include <stdlib.h>

struct candidate {
    float magnitude;
    size_t index; /* in the concatenated segments */
};

static int compare_candidates(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    if (a->magnitude != b->magnitude)
        return a->magnitude > b->magnitude ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static enum status list_candidates(const struct segment *segments, int count,
                                   struct candidate *list) {
    size_t total = 0;
    for (int s = 0; s < count; s++)
        for (size_t i = 0; i < segments[s].count; i++, total++) {
            if (!isfinite(segments[s].values[i]))
                FAIL(ST_NUMERIC, "reference: segment %d, index %zu: not a finite number", s, i);
            list[total] = (struct candidate){fabsf(segments[s].values[i]), total};
        }
    return ST_OK;
}

enum status reference_select(struct backend *b, const struct segment *segments, int count,
                             size_t keep, uint64_t *mask) {
    (void)b;
    size_t total = 0;
    for (int s = 0; s < count; s++)
        total += segments[s].count;
    if (keep > total)
        FAIL(ST_SHAPE, "reference: %zu to keep of %zu", keep, total);
    struct candidate *list = malloc((total + 1) * sizeof *list);
    if (list == NULL)
        FAIL(ST_MEMORY, "reference: out of memory");
    enum status status = list_candidates(segments, count, list);
    if (status == ST_OK) {
        qsort(list, total, sizeof *list, compare_candidates);
        for (size_t i = 0; i < bitmask_words(total); i++)
            mask[i] = 0;
        for (size_t i = 0; i < keep; i++)
            bitmask_set(mask, list[i].index);
    }
    free(list);
    return status;
}
