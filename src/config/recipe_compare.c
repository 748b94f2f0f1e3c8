/* How two resolved recipes differ. */
#include "writing.h"
#include <stdlib.h>
#include <string.h>

/* The differences so far, as one line. */
struct list {
    FILE *file;
    int count;
};

static void add(struct list *list, const char *prefix, const char *layer, const struct key *key,
                const void *now, const void *then) {
    fprintf(list->file, "%s%s%s%s%s is ", list->count == 0 ? "" : ", ", prefix, layer,
            *layer == '\0' ? "" : ".", key->name);
    key_write(key, now, list->file);
    fputs(" now, ", list->file);
    key_write(key, then, list->file);
    fputs(" then", list->file);
    list->count++;
}

/* Compared as they are written: then what is equal reads back equal. */
static enum status compare(struct list *list, const char *prefix, const char *layer,
                           const struct key *key, const void *now, const void *then) {
    const void *settings[2] = {now, then};
    char *texts[2] = {NULL, NULL};
    size_t size;
    for (int i = 0; i < 2; i++) {
        FILE *file = open_memstream(&texts[i], &size);
        if (file != NULL) {
            key_write(key, settings[i], file);
            fclose(file);
        }
    }
    bool complete = texts[0] != NULL && texts[1] != NULL;
    if (complete && strcmp(texts[0], texts[1]) != 0)
        add(list, prefix, layer, key, now, then);
    free(texts[0]);
    free(texts[1]);
    if (!complete)
        FAIL(ST_MEMORY, "out of memory");
    return ST_OK;
}

static enum status compare_layer(struct list *list, const struct layer_settings *now,
                                 const struct layer_settings *then) {
    for (int i = 0; i < layer_keys_count; i++)
        if (i < LAYER_HEAD_KEYS || key_is_for(&layer_keys[i], (int)now->type))
            TRY(compare(list, "network.", now->name, &layer_keys[i], now, then));
    return ST_OK;
}

static enum status compare_all(struct list *list, const struct recipe *now,
                               const struct recipe *then) {
    if (now->layers_count != then->layers_count) {
        fprintf(list->file, "network has %d layers now, %d then", now->layers_count,
                then->layers_count);
        list->count++;
    }
    for (int i = 0; i < now->layers_count && i < then->layers_count; i++)
        TRY(compare_layer(list, &now->layers[i], &then->layers[i]));
    for (int i = 0; i < recipe_keys_count; i++)
        if (!recipe_keys[i].harmless && key_is_for(&recipe_keys[i], (int)now->train.optimizer.kind))
            TRY(compare(list, "", "", &recipe_keys[i], now, then));
    return ST_OK;
}

enum status recipe_differences(const struct recipe *now, const struct recipe *then, char **text) {
    struct list list = {.count = 0};
    size_t size;
    *text = NULL;
    list.file = open_memstream(text, &size);
    if (list.file == NULL)
        FAIL(ST_MEMORY, "out of memory");
    enum status status = compare_all(&list, now, then);
    if (fclose(list.file) == 0 && status == ST_OK)
        return ST_OK;
    free(*text);
    *text = NULL;
    FAIL(ST_MEMORY, "out of memory");
}
