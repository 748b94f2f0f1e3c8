#include "file.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <espalier/arena.h>
#include <espalier/run_record.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the text: one parsed object a line ---- */

/* A JSON object and where it stands. */
struct line {
    cJSON *object;
    const char *path;
    int number; /* 0: the whole file */
};

struct lines {
    char path[FILE_PATH_MAX];
    struct line *line;
    int count, room;
};

static void lines_destroy(struct lines *lines) {
    for (int i = 0; i < lines->count; i++)
        cJSON_Delete(lines->line[i].object);
    free(lines->line);
}

static enum status lines_reserve(struct lines *lines) {
    if (lines->count < lines->room)
        return ST_OK;
    int room = lines->room == 0 ? 256 : 2 * lines->room;
    struct line *line = realloc(lines->line, (size_t)room * sizeof *line);
    if (line == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", lines->path);
    lines->line = line;
    lines->room = room;
    return ST_OK;
}

static enum status lines_add(struct lines *lines, const char *text) {
    TRY(lines_reserve(lines));
    cJSON *object = cJSON_ParseWithOpts(text, NULL, true);
    if (!cJSON_IsObject(object)) {
        cJSON_Delete(object);
        FAIL(ST_INPUT, "%s:%d: not a JSON object", lines->path, lines->count + 1);
    }
    lines->line[lines->count] = (struct line){object, lines->path, lines->count + 1};
    lines->count++;
    return ST_OK;
}

static enum status read_lines(FILE *file, struct lines *lines) {
    char *text = NULL;
    size_t size = 0;
    enum status status = ST_OK;
    for (ssize_t length; status == ST_OK && (length = getline(&text, &size, file)) > 0;) {
        if (text[length - 1] != '\n')
            break; /* being written */
        text[length - 1] = '\0';
        status = lines_add(lines, text);
    }
    if (status == ST_OK && ferror(file))
        status = status_fail(ST_IO, "cannot read %s: %s", lines->path, strerror(errno));
    free(text);
    return status;
}

/* ---- members of an object ---- */

/* "path" or "path:line". */
static const char *place(const struct line *line, char text[FILE_PATH_MAX + 16]) {
    if (line->number == 0)
        snprintf(text, FILE_PATH_MAX + 16, "%s", line->path);
    else
        snprintf(text, FILE_PATH_MAX + 16, "%s:%d", line->path, line->number);
    return text;
}

static enum status get_number(const struct line *line, const cJSON *object, const char *key,
                              double *value) {
    char where[FILE_PATH_MAX + 16];
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item) && !cJSON_IsNull(item))
        FAIL(ST_INPUT, "%s: expected a number \"%s\"", place(line, where), key);
    *value = cJSON_IsNull(item) ? (double)NAN : item->valuedouble;
    return ST_OK;
}

static enum status get_text(struct arena *arena, const struct line *line, const cJSON *object,
                            const char *key, const char **value) {
    char where[FILE_PATH_MAX + 16], *copy = NULL;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsString(item))
        FAIL(ST_INPUT, "%s: expected a text \"%s\"", place(line, where), key);
    TRY(arena_strdup(arena, item->valuestring, &copy));
    *value = copy;
    return ST_OK;
}

/* Where the number of a key goes, in bytes from the structure's beginning. */
struct field {
    const char *key;
    size_t offset;
};

static enum status get_numbers(const struct line *line, const struct field *fields, void *record) {
    for (; fields->key != NULL; fields++)
        TRY(get_number(line, line->object, fields->key,
                       (double *)(void *)((char *)record + fields->offset)));
    return ST_OK;
}

#define FIELD(type, member)                                                                        \
    { #member, offsetof(struct type, member) }
#define NO_FIELD                                                                                   \
    { NULL, 0 }

static const struct field start_fields[] = {
    FIELD(run_start, epochs),  FIELD(run_start, batch),       FIELD(run_start, ranks),
    FIELD(run_start, threads), FIELD(run_start, connections), NO_FIELD};
static const struct field epoch_fields[] = {
    FIELD(run_epoch, epoch),          FIELD(run_epoch, step),
    FIELD(run_epoch, train_accuracy), FIELD(run_epoch, test_accuracy),
    FIELD(run_epoch, test_errors),    FIELD(run_epoch, survivors),
    FIELD(run_epoch, seconds_epoch),  NO_FIELD};
static const struct field step_fields[] = {FIELD(run_step, step),
                                           FIELD(run_step, images_per_second), NO_FIELD};
static const struct field prune_fields[] = {FIELD(run_prune, step), NO_FIELD};
static const struct field result_fields[] = {FIELD(run_result, test_accuracy),
                                             FIELD(run_result, train_accuracy),
                                             FIELD(run_result, test_errors),
                                             FIELD(run_result, epochs),
                                             FIELD(run_result, steps),
                                             FIELD(run_result, survivors),
                                             FIELD(run_result, seconds_train),
                                             FIELD(run_result, images_per_second),
                                             NO_FIELD};

/* ---- events ---- */

/* A resumed run repeats updates: what earlier lives did after update `step` never happened. */
static void forget_after(struct run_record *r, double step) {
    while (r->epochs_count > 0 && r->epochs[r->epochs_count - 1].step > step)
        r->epochs_count--;
    while (r->steps_count > 0 && r->steps[r->steps_count - 1].step > step)
        r->steps_count--;
    while (r->prunes_count > 0 && r->prunes[r->prunes_count - 1].step > step)
        r->prunes_count--;
}

/* The slot for an event of update `step`: a new one, or that of the same update. */
#define SLOT(array, count, step_)                                                                  \
    ((array) + ((count) > 0 && (array)[(count)-1].step == (step_) ? (count)-1 : (count)++))

static enum status read_start(struct run_record *r, const struct line *line) {
    TRY(get_numbers(line, start_fields, &r->start));
    TRY(get_text(r->arena, line, line->object, "recipe", &r->start.recipe));
    TRY(get_text(r->arena, line, line->object, "backend", &r->start.backend));
    TRY(get_text(r->arena, line, line->object, "schedule", &r->start.schedule));
    return get_text(r->arena, line, line->object, "time", &r->start.time);
}

static enum status read_epoch(struct run_record *r, const struct line *line) {
    struct run_epoch epoch;
    TRY(get_numbers(line, epoch_fields, &epoch));
    forget_after(r, epoch.step);
    *SLOT(r->epochs, r->epochs_count, epoch.step) = epoch;
    return ST_OK;
}

static enum status read_step(struct run_record *r, const struct line *line) {
    struct run_step step;
    TRY(get_numbers(line, step_fields, &step));
    forget_after(r, step.step);
    *SLOT(r->steps, r->steps_count, step.step) = step;
    return ST_OK;
}

/* The first pruning event names the layers. */
static enum status read_layers(struct run_record *r, const struct line *line, const cJSON *layers) {
    int count = 0;
    TRY(ARENA_ARRAY(r->arena, (size_t)cJSON_GetArraySize(layers), &r->layers));
    const cJSON *layer;
    cJSON_ArrayForEach(layer, layers) {
        TRY(get_text(r->arena, line, layer, "name", &r->layers[count].name));
        TRY(get_number(line, layer, "connections", &r->layers[count].connections));
        count++;
    }
    r->layers_count = count;
    return ST_OK;
}

static enum status read_prune(struct run_record *r, const struct line *line) {
    char where[FILE_PATH_MAX + 16];
    struct run_prune prune;
    double *survivors = NULL;
    TRY(get_numbers(line, prune_fields, &prune));
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(line->object, "layers"), *layer;
    if (!cJSON_IsArray(layers) || layers->child == NULL)
        FAIL(ST_INPUT, "%s: expected a list \"layers\"", place(line, where));
    if (r->layers_count == 0)
        TRY(read_layers(r, line, layers));
    if (cJSON_GetArraySize(layers) != r->layers_count)
        FAIL(ST_INPUT, "%s: %d layers, the event before had %d", place(line, where),
             cJSON_GetArraySize(layers), r->layers_count);
    TRY(ARENA_ARRAY(r->arena, (size_t)r->layers_count, &survivors));
    prune.survivors = survivors;
    cJSON_ArrayForEach(layer, layers) TRY(get_number(line, layer, "survivors", survivors++));
    forget_after(r, prune.step);
    *SLOT(r->prunes, r->prunes_count, prune.step) = prune;
    return ST_OK;
}

static const struct {
    const char *event;
    enum status (*read)(struct run_record *, const struct line *);
} readers[] = {
    {"start", read_start}, {"epoch", read_epoch}, {"step", read_step}, {"prune", read_prune}};

static enum status read_event(struct run_record *r, const struct line *line) {
    char where[FILE_PATH_MAX + 16];
    const cJSON *event = cJSON_GetObjectItemCaseSensitive(line->object, "event");
    if (!cJSON_IsString(event))
        FAIL(ST_INPUT, "%s: expected a text \"event\"", place(line, where));
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (strcmp(event->valuestring, readers[i].event) == 0)
            return readers[i].read(r, line);
    return ST_OK;
}

static enum status read_events(struct run_record *r, const struct lines *lines) {
    size_t most = (size_t)lines->count; /* of each kind */
    TRY(ARENA_ARRAY(r->arena, most, &r->epochs));
    TRY(ARENA_ARRAY(r->arena, most, &r->steps));
    TRY(ARENA_ARRAY(r->arena, most, &r->prunes));
    for (int i = 0; i < lines->count; i++)
        TRY(read_event(r, &lines->line[i]));
    if (r->start.recipe == NULL)
        FAIL(ST_INPUT, "%s: has no event \"start\"", lines->path);
    return ST_OK;
}

/* ---- the directory ---- */

static enum status read_events_file(const char *dir, struct run_record *r) {
    struct lines lines = {.count = 0};
    TRY(path_join(dir, "events.jsonl", lines.path));
    FILE *file = fopen(lines.path, "r");
    if (file == NULL && errno == ENOENT)
        FAIL(ST_INPUT, "%s is not a run directory: it has no events.jsonl", dir);
    if (file == NULL)
        FAIL(ST_INPUT, "cannot open %s: %s", lines.path, strerror(errno));
    enum status status = read_lines(file, &lines);
    fclose(file);
    if (status == ST_OK)
        status = read_events(r, &lines);
    lines_destroy(&lines);
    return status;
}

static enum status parse_summary(FILE *file, const char *path, struct run_record *r) {
    char text[65536];
    size_t count = fread(text, 1, sizeof text - 1, file);
    text[count] = '\0';
    struct line whole = {cJSON_ParseWithOpts(text, NULL, true), path, 0};
    enum status status = cJSON_IsObject(whole.object)
                             ? get_numbers(&whole, result_fields, &r->result)
                             : status_fail(ST_INPUT, "%s: not a JSON object", path);
    cJSON_Delete(whole.object);
    r->finished = status == ST_OK;
    return status;
}

/* A run that did not finish has none. */
static enum status read_summary(const char *dir, struct run_record *r) {
    char path[FILE_PATH_MAX];
    TRY(path_join(dir, "summary.json", path));
    FILE *file = fopen(path, "r");
    if (file == NULL && errno == ENOENT)
        return ST_OK;
    if (file == NULL)
        FAIL(ST_INPUT, "cannot open %s: %s", path, strerror(errno));
    enum status status = parse_summary(file, path, r);
    fclose(file);
    return status;
}

static enum status check_directory(const char *dir) {
    struct stat information;
    if (stat(dir, &information) != 0)
        FAIL(ST_INPUT, "%s: %s", dir, strerror(errno));
    if (!S_ISDIR(information.st_mode))
        FAIL(ST_INPUT, "%s is not a directory: expected the directory of a run", dir);
    return ST_OK;
}

enum status run_record_read(const char *dir, struct run_record *record) {
    *record = (struct run_record){.dir = NULL};
    char *copy = NULL;
    TRY(check_directory(dir));
    TRY(arena_create(&record->arena));
    TRY(arena_strdup(record->arena, dir, &copy));
    record->dir = copy;
    TRY(read_events_file(dir, record));
    return read_summary(dir, record);
}

void run_record_destroy(struct run_record *record) {
    arena_destroy(record->arena);
    *record = (struct run_record){.dir = NULL};
}

double run_record_last_step(const struct run_record *r) {
    double last = 0;
    if (r->epochs_count > 0)
        last = fmax(last, r->epochs[r->epochs_count - 1].step);
    if (r->steps_count > 0)
        last = fmax(last, r->steps[r->steps_count - 1].step);
    if (r->prunes_count > 0)
        last = fmax(last, r->prunes[r->prunes_count - 1].step);
    return last;
}
