/* The checkpoints of a run directory: which there are, the newest that is whole, those to drop. */
#include "checkpoint_format.h"
#include "file.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The step of a checkpoint's file name, -1 when it is none. */
static int64_t step_of(const char *entry) {
    long long step = -1;
    char name[CHECKPOINT_NAME_MAX];
    if (sscanf(entry, "step-%lld.safetensors", &step) != 1 || step < 0)
        return -1;
    checkpoint_name(step, name);
    return strcmp(name + sizeof CHECKPOINT_FOLDER, entry) == 0 ? step : -1;
}

static int newest_first(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Steps of all checkpoints, the newest first; the caller frees them. */
struct listing {
    int64_t *steps;
    int count, capacity;
};

static enum status add_step(struct listing *list, int64_t step) {
    if (list->count == list->capacity) {
        int capacity = list->capacity == 0 ? 8 : 2 * list->capacity;
        int64_t *steps = realloc(list->steps, (size_t)capacity * sizeof *steps);
        if (steps == NULL)
            FAIL(ST_MEMORY, "out of memory: a list of checkpoints");
        list->steps = steps;
        list->capacity = capacity;
    }
    list->steps[list->count++] = step;
    return ST_OK;
}

static enum status list_checkpoints(const char *folder, struct listing *list) {
    *list = (struct listing){NULL, 0, 0};
    DIR *dir = opendir(folder);
    if (dir == NULL && errno == ENOENT)
        return ST_OK;
    if (dir == NULL)
        FAIL(ST_IO, "cannot read directory %s: %s", folder, strerror(errno));
    enum status status = ST_OK;
    for (struct dirent *entry; status == ST_OK && (entry = readdir(dir)) != NULL;) {
        int64_t step = step_of(entry->d_name);
        if (step >= 0)
            status = add_step(list, step);
    }
    closedir(dir);
    if (list->count > 0)
        qsort(list->steps, (size_t)list->count, sizeof *list->steps, newest_first);
    return status;
}

/* ---- loading ---- */

static enum status slurp(const char *path, FILE *file, void **bytes, size_t *count) {
    struct stat information;
    if (fstat(fileno(file), &information) != 0)
        FAIL(ST_IO, "cannot read %s: %s", path, strerror(errno));
    *count = (size_t)information.st_size;
    *bytes = malloc(*count + 1);
    if (*bytes == NULL)
        FAIL(ST_MEMORY, "%s: out of memory: %zu bytes", path, *count);
    if (fread(*bytes, 1, *count, file) != *count)
        FAIL(ST_IO, "cannot read %s: %s", path,
             ferror(file) ? strerror(errno) : "it became shorter");
    return safetensors_check_seal(path, *bytes, *count);
}

/* The bytes of a checkpoint whose seal is right. */
static enum status load(const char *path, void **bytes, size_t *count) {
    *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        FAIL(ST_IO, "cannot read %s: %s", path, strerror(errno));
    enum status status = slurp(path, file, bytes, count);
    fclose(file);
    if (status != ST_OK) {
        free(*bytes);
        *bytes = NULL;
        *count = 0;
    }
    return status;
}

enum status checkpoint_load_newest(const char *run_dir, struct checkpoint_complaint complaint,
                                   char name[CHECKPOINT_NAME_MAX], void **bytes, size_t *count) {
    char path[FILE_PATH_MAX];
    struct listing list;
    *bytes = NULL;
    *count = 0;
    TRY(path_join(run_dir, CHECKPOINT_FOLDER, path));
    enum status status = list_checkpoints(path, &list);
    for (int i = 0; status == ST_OK && *bytes == NULL && i < list.count; i++) {
        checkpoint_name(list.steps[i], name);
        TRY_OUT(path_join(run_dir, name, path));
        status = load(path, bytes, count);
        if (status == ST_INPUT) { /* one that the disk does not give may yet be whole */
            complaint.call(complaint.context, status_message());
            status = ST_OK;
        }
    }
out:
    free(list.steps);
    return status;
}

static enum status set_aside(const char *run_dir, int64_t step) {
    char path[FILE_PATH_MAX], aside[FILE_PATH_MAX + 16], name[CHECKPOINT_NAME_MAX];
    checkpoint_name(step, name);
    TRY(path_join(run_dir, name, path));
    snprintf(aside, sizeof aside, "%s.damaged", path);
    if (rename(path, aside) != 0)
        FAIL(ST_IO, "cannot rename %s: %s", path, strerror(errno));
    return ST_OK;
}

enum status checkpoint_set_aside(const char *run_dir, int64_t step) {
    char folder[FILE_PATH_MAX];
    struct listing list;
    TRY(path_join(run_dir, CHECKPOINT_FOLDER, folder));
    enum status status = list_checkpoints(folder, &list);
    for (int i = 0; status == ST_OK && i < list.count && list.steps[i] > step; i++)
        status = set_aside(run_dir, list.steps[i]);
    free(list.steps);
    return status;
}

enum status checkpoint_newest(const char *run_dir, char name[CHECKPOINT_NAME_MAX],
                              uint64_t *bytes) {
    char path[FILE_PATH_MAX];
    struct listing list;
    struct stat information;
    name[0] = '\0';
    TRY(path_join(run_dir, CHECKPOINT_FOLDER, path));
    TRY(list_checkpoints(path, &list));
    const int64_t step = list.count > 0 ? list.steps[0] : -1;
    free(list.steps);
    if (step < 0)
        return ST_OK;
    checkpoint_name(step, name);
    TRY(path_join(run_dir, name, path));
    if (stat(path, &information) != 0)
        FAIL(ST_IO, "cannot read %s: %s", path, strerror(errno));
    *bytes = (uint64_t)information.st_size;
    return ST_OK;
}

/* ---- dropping ---- */

static enum status drop(const char *folder, const char *entry) {
    char path[FILE_PATH_MAX];
    TRY(path_join(folder, entry, path));
    if (unlink(path) != 0 && errno != ENOENT)
        FAIL(ST_IO, "cannot remove %s: %s", path, strerror(errno));
    return ST_OK;
}

/* What a writer that was killed left: nothing is being written now. */
static enum status drop_temporaries(const char *folder) {
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return ST_OK;
    enum status status = ST_OK;
    for (struct dirent *entry; status == ST_OK && (entry = readdir(dir)) != NULL;) {
        const char *end = strrchr(entry->d_name, '.');
        if (end != NULL && strcmp(end, ".tmp") == 0)
            status = drop(folder, entry->d_name);
    }
    closedir(dir);
    return status;
}

enum status checkpoint_drop_old(const char *run_dir, int keep, int64_t best_step) {
    char folder[FILE_PATH_MAX], name[CHECKPOINT_NAME_MAX];
    struct listing list;
    TRY(path_join(run_dir, CHECKPOINT_FOLDER, folder));
    enum status status = list_checkpoints(folder, &list);
    for (int i = keep; status == ST_OK && i < list.count; i++) {
        checkpoint_name(list.steps[i], name);
        if (list.steps[i] != best_step)
            status = drop(run_dir, name);
    }
    free(list.steps);
    TRY(status);
    return drop_temporaries(folder);
}
