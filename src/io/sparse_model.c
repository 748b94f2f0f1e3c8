#include <espalier/arena.h>
#include <espalier/sparse_model.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char NOTE[] =
    "a weight with zeros is three tensors: NAME.values stand at the row-major "
    "places NAME.indices of an array of zeros of shape NAME.shape";

enum { PARTS = 3 };

/* Tensors on their way into a file; the arena owns what they point to. */
struct writer {
    struct arena *arena;
    struct safetensor *tensors;
    int count;
};

static bool is_weight(const struct safetensor *tensor) {
    static const char ending[] = ".weight";
    const size_t length = strlen(tensor->name), size = sizeof ending - 1;
    return length > size && strcmp(tensor->name + length - size, ending) == 0;
}

static uint64_t count_survivors(const struct safetensor *tensor) {
    const float *values = tensor->values;
    uint64_t survivors = 0;
    for (uint64_t i = 0; i < safetensor_count(tensor); i++)
        survivors += values[i] != 0;
    return survivors;
}

static enum status add(struct writer *w, const char *name, const char *part,
                       enum safetensors_type type, uint64_t count, const void *values) {
    const size_t size = strlen(name) + strlen(part) + 2;
    char *full;
    TRY(ARENA_ARRAY(w->arena, size, &full));
    snprintf(full, size, "%s.%s", name, part);
    w->tensors[w->count++] = (struct safetensor){
        .name = full, .type = type, .dimensions = 1, .size = {count}, .values = values};
    return ST_OK;
}

static enum status add_sparse(struct writer *w, const struct safetensor *weight,
                              uint64_t survivors) {
    const float *dense = weight->values;
    int32_t *indices;
    int64_t *shape;
    float *values;
    TRY(ARENA_ARRAY(w->arena, survivors, &indices));
    TRY(ARENA_ARRAY(w->arena, survivors, &values));
    TRY(ARENA_ARRAY(w->arena, (size_t)weight->dimensions, &shape));
    for (uint64_t i = 0, j = 0; j < survivors; i++)
        if (dense[i] != 0) {
            indices[j] = (int32_t)i;
            values[j++] = dense[i];
        }
    for (int i = 0; i < weight->dimensions; i++)
        shape[i] = (int64_t)weight->size[i];
    TRY(add(w, weight->name, "indices", SAFETENSORS_I32, survivors, indices));
    TRY(add(w, weight->name, "values", SAFETENSORS_F32, survivors, values));
    return add(w, weight->name, "shape", SAFETENSORS_I64, (uint64_t)weight->dimensions, shape);
}

static enum status add_all(struct writer *w, const struct safetensors *file) {
    TRY(ARENA_ARRAY(w->arena, PARTS * (size_t)file->tensors_count, &w->tensors));
    for (int i = 0; i < file->tensors_count; i++) {
        const struct safetensor *tensor = &file->tensors[i];
        const uint64_t count = safetensor_count(tensor), survivors = count_survivors(tensor);
        if (is_weight(tensor) && survivors < count && count <= INT32_MAX)
            TRY(add_sparse(w, tensor, survivors));
        else
            w->tensors[w->count++] = *tensor;
    }
    return ST_OK;
}

enum status sparse_model_write(const char *path, const struct model *model) {
    const struct safetensors *file = &model->file;
    struct writer w = {.arena = NULL};
    struct safetensors_entry *metadata;
    const size_t entries = (size_t)file->metadata_count;
    enum status status;
    TRY_OUT(arena_create(&w.arena));
    TRY_OUT(add_all(&w, file));
    TRY_OUT(ARENA_ARRAY(w.arena, entries + 1, &metadata));
    for (size_t i = 0; i < entries; i++)
        metadata[i] = file->metadata[i];
    metadata[entries] = (struct safetensors_entry){"espalier.sparse", NOTE};
    status = safetensors_write(path, w.tensors, w.count, metadata, (int)entries + 1);
out:
    arena_destroy(w.arena);
    return status;
}
