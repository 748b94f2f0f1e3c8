#include "selection.h"
#include <math.h>
#include <stdlib.h>

/* The layers of a scope as they compete for places. */
struct competition {
    const struct pruner *pruner;
    const struct survivors_scope *scope;
    int64_t update;
    struct segment segments[RECIPE_LAYERS_MAX]; /* what select_largest sees of each layer */
    size_t first[RECIPE_LAYERS_MAX];            /* bit of the mask at which the layer begins */
    bool settled[RECIPE_LAYERS_MAX];            /* has its least and competes no more */
    const size_t *least;
    struct bitmask *mask;
};

/* ---- weights that are no numbers ---- */

/* The name and original index of the first weight that is no number. `values` holds what beta
 * stores of the parameter, `indices` the original index of each; NULL: its place. */
static enum status name_invalid(const struct pruner *pruner, int64_t update,
                                const struct parameter *p, const float *values,
                                const uint32_t *indices) {
    for (size_t j = 0; j < p->stored; j++)
        if (!isfinite(values[j]))
            FAIL(ST_NUMERIC, "update %lld: layer %s: weight %zu is %s", (long long)update,
                 pruner->network->blocks[p->block].name, indices != NULL ? (size_t)indices[j] : j,
                 isnan(values[j]) ? "nan" : "infinite");
    return ST_OK;
}

/* ST_NUMERIC if the parameter holds what is no number; any failure says so itself. */
static enum status search_parameter(const struct pruner *pruner, int64_t update,
                                    const struct parameter *p) {
    struct backend *backend = pruner->network->backend;
    enum status status = ST_OK;
    bool indexed = p->stored < p->original_count;
    float *values = malloc((p->stored + 1) * sizeof *values);
    uint32_t *indices = indexed ? malloc((p->stored + 1) * sizeof *indices) : NULL;
    if (values == NULL || (indexed && indices == NULL))
        TRY_OUT(status_fail(ST_MEMORY, "out of memory: a copy of %s", p->name));
    TRY_OUT(backend->download(backend, values, pruner->network->beta + p->offset,
                              p->stored * sizeof *values));
    if (indexed)
        TRY_OUT(backend->download(backend, indices, p->indices, p->stored * sizeof *indices));
    TRY_OUT(name_invalid(pruner, update, p, values, indices));
out:
    free(values);
    free(indices);
    return status;
}

/* The backend knows segments; say layer and original index instead. */
static enum status explain_numeric(const struct competition *c) {
    for (int i = 0; i < c->scope->count; i++)
        TRY(search_parameter(c->pruner, c->update,
                             &c->pruner->network->parameters[c->scope->parameters[i]]));
    return ST_NUMERIC;
}

/* ---- what the layers compete with ---- */

enum { CHUNK = 4096 };

static enum status euclidean_norm(struct backend *backend, const float *values, size_t count,
                                  double *norm) {
    float chunk[CHUNK];
    double sum = 0;
    for (size_t done = 0; done < count; done += CHUNK) {
        size_t part = count - done < CHUNK ? count - done : CHUNK;
        TRY(backend->download(backend, chunk, values + done, part * sizeof *chunk));
        for (size_t j = 0; j < part; j++)
            sum += (double)chunk[j] * (double)chunk[j];
    }
    *norm = sqrt(sum);
    return ST_OK;
}

/* By way of the host, a chunk at a time: no second vector, and the same bits on every backend. */
static enum status normalise(struct backend *backend, float *values, size_t count) {
    float chunk[CHUNK];
    double norm = 0;
    TRY(euclidean_norm(backend, values, count, &norm));
    if (norm == 0)
        return ST_OK;
    for (size_t done = 0; done < count; done += CHUNK) {
        size_t part = count - done < CHUNK ? count - done : CHUNK;
        TRY(backend->download(backend, chunk, values + done, part * sizeof *chunk));
        for (size_t j = 0; j < part; j++)
            chunk[j] = (float)((double)chunk[j] / norm);
        TRY(backend->upload(backend, values + done, chunk, part * sizeof *chunk));
    }
    return ST_OK;
}

/* Beta itself where it holds survivors alone, else copies. */
static enum status enter_layers(struct competition *c) {
    const struct pruner *pruner = c->pruner;
    struct network *network = pruner->network;
    size_t at = 0;
    for (int i = 0; i < c->scope->count; i++) {
        int parameter = c->scope->parameters[i];
        const struct parameter *p = &network->parameters[parameter];
        c->segments[i] = (struct segment){network->beta + p->offset, p->count};
        c->first[i] = at;
        if (pruner->device_values != NULL) {
            float *values = pruner->device_values + at;
            TRY(survivors_values(network, parameter, values));
            if (pruner->settings->normalise)
                TRY(normalise(network->backend, values, p->count));
            c->segments[i].values = values;
        }
        at += p->count;
    }
    return ST_OK;
}

/* ---- the competition ---- */

static enum status select_part(const struct competition *c, const struct segment *segments,
                               int count, size_t keep, struct bitmask *part) {
    const struct pruner *pruner = c->pruner;
    struct backend *backend = pruner->network->backend;
    enum status status =
        backend->select_largest(backend, segments, count, keep, pruner->device_mask);
    if (status == ST_NUMERIC)
        return explain_numeric(c);
    TRY(status);
    return backend->download(backend, part->words, pruner->device_mask,
                             bitmask_words(part->count) * sizeof *part->words);
}

/* Let some layers compete for `keep` places; their bits of the mask are overwritten. */
static enum status compete(struct competition *c, const int *layers, int count, size_t keep) {
    struct segment segments[RECIPE_LAYERS_MAX];
    size_t total = 0, at = 0;
    for (int i = 0; i < count; i++) {
        segments[i] = c->segments[layers[i]];
        total += segments[i].count;
    }
    struct bitmask part;
    TRY(bitmask_create(total, &part));
    enum status status = select_part(c, segments, count, keep, &part);
    for (int i = 0; i < count && status == ST_OK; i++) {
        bitmask_copy(part.words, at, c->mask->words, c->first[layers[i]], segments[i].count);
        at += segments[i].count;
    }
    bitmask_destroy(&part);
    return status;
}

/* Give each of the layers that has come out short its least; *any says whether there was one. */
static enum status settle(struct competition *c, const int *layers, int count, bool *any) {
    *any = false;
    for (int i = 0; i < count; i++) {
        int layer = layers[i];
        size_t won = bitmask_count_range(c->mask->words, c->first[layer], c->segments[layer].count);
        if (won >= c->least[layer])
            continue;
        TRY(compete(c, &layer, 1, c->least[layer]));
        c->settled[layer] = *any = true;
    }
    return ST_OK;
}

/* Who comes out short would do so for fewer places too: settling is final, and the rest competes
 * again for what is left. */
static enum status run_rounds(struct competition *c, size_t keep) {
    for (bool again = true; again;) {
        int layers[RECIPE_LAYERS_MAX], count = 0;
        size_t places = keep;
        for (int i = 0; i < c->scope->count; i++)
            if (c->settled[i])
                places -= c->least[i];
            else
                layers[count++] = i;
        TRY(compete(c, layers, count, places));
        TRY(settle(c, layers, count, &again));
    }
    return ST_OK;
}

enum status selection_run(const struct pruner *pruner, int64_t update,
                          const struct survivors_scope *scope, const size_t *least, size_t keep,
                          struct bitmask *mask) {
    struct competition competition = {
        .pruner = pruner, .scope = scope, .update = update, .least = least, .mask = mask};
    TRY(enter_layers(&competition));
    return run_rounds(&competition, keep);
}
