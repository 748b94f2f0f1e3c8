#include "file.h"
#include <cjson/cJSON.h>
#include <espalier/events.h>
#include <espalier/number.h>
#include <espalier/progress.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A JSON object under construction; a member that found no memory is reported at the end. */
struct object {
    cJSON *json;
    bool complete;
};

static struct object object_create(void) {
    cJSON *json = cJSON_CreateObject();
    return (struct object){json, json != NULL};
}

static void put(struct object *object, const char *key, cJSON *item) {
    if (item != NULL && cJSON_AddItemToObject(object->json, key, item))
        return;
    cJSON_Delete(item);
    object->complete = false;
}

static void put_text(struct object *object, const char *key, const char *text) {
    put(object, key, cJSON_CreateString(text));
}

/* The shortest text that reads back as the same double: cJSON's own printing stops at one that is
 * only close. JSON has no NaN and no infinity: null. */
static void put_real(struct object *object, const char *key, double value) {
    char text[REAL_TEXT_MAX];
    real_text(value, text);
    put(object, key, isfinite(value) ? cJSON_CreateRaw(text) : cJSON_CreateNull());
}

static void put_signed(struct object *object, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    put(object, key, cJSON_CreateRaw(text));
}

static void put_unsigned(struct object *object, const char *key, uint64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    put(object, key, cJSON_CreateRaw(text));
}

/* ---- the log ---- */

static struct object event_begin(const struct event_log *log, const char *event) {
    struct object object = object_create();
    put_text(&object, "event", event);
    put_real(&object, "seconds", monotonic_seconds() - log->start_seconds);
    return object;
}

/* Ends the object. */
static enum status event_write(struct event_log *log, struct object *object) {
    char *line = object->complete ? cJSON_PrintUnformatted(object->json) : NULL;
    cJSON_Delete(object->json);
    if (line == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", log->path);
    size_t length = strlen(line);
    line[length] = '\n'; /* in place of its end: the line goes out in one piece */
    enum status status = event_log_append(log, line, length + 1);
    cJSON_free(line);
    return status;
}

/* ---- the events ---- */

static void put_now(struct object *object) {
    char text[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL)
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    put_text(object, "time", text);
}

static void put_input(struct object *object, struct shape input) {
    const int sizes[] = {input.height, input.width, input.channels};
    put(object, "input", cJSON_CreateIntArray(sizes, 3));
}

static void put_settings(struct object *object, const struct recipe *recipe) {
    put_text(object, "recipe", recipe->name);
    put_unsigned(object, "seed", recipe->train.seed);
    put_signed(object, "epochs", recipe->train.epochs);
    put_signed(object, "batch", recipe->train.batch);
    put_text(object, "optimizer", optimizer_names[recipe->train.optimizer.kind]);
    put_real(object, "learning_rate", recipe->train.optimizer.learning_rate);
    put_text(object, "schedule", schedule_names[recipe->prune.schedule]);
}

/* Rank 0's; nothing where it computes on its host. */
static void put_gpu(struct object *object, const struct gpu *gpu) {
    char capability[32];
    if (gpu == NULL)
        return;
    snprintf(capability, sizeof capability, "%d.%d", gpu->major, gpu->minor);
    put_text(object, "device", gpu->name);
    put_text(object, "compute_capability", capability);
    put_unsigned(object, "device_memory_bytes", gpu->memory_bytes);
}

enum status event_start(struct event_log *log, const struct recipe *recipe,
                        const struct network *network, int ranks, uint32_t train_images,
                        uint32_t test_images) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "start");
    put_now(&object);
    put_text(&object, "version", ESPALIER_VERSION);
    put_settings(&object, recipe);
    put_input(&object, network->input);
    put_signed(&object, "classes", network->classes);
    put_unsigned(&object, "connections", network_connections(network));
    put_unsigned(&object, "parameters", network->original_count);
    put_text(&object, "backend", network->backend->name);
    put_gpu(&object, network->backend->gpu);
    put_signed(&object, "threads", network->backend->threads);
    put_signed(&object, "ranks", ranks);
    put_unsigned(&object, "train_images", train_images);
    put_unsigned(&object, "test_images", test_images);
    return event_write(log, &object);
}

enum status event_step(struct event_log *log, const struct step_event *event) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "step");
    put_signed(&object, "step", event->step);
    put_signed(&object, "epoch", event->epoch);
    put_real(&object, "loss", event->loss);
    put_real(&object, "accuracy", event->accuracy);
    put_real(&object, "images_per_second", event->images_per_second);
    put_unsigned(&object, "allreduce_bytes", event->allreduce_bytes);
    put_unsigned(&object, "optimizer_bytes", event->optimizer_bytes);
    return event_write(log, &object);
}

static void put_layers(struct object *object, const struct network *network) {
    cJSON *layers = cJSON_AddArrayToObject(object->json, "layers");
    object->complete = object->complete && layers != NULL;
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *parameter = &network->parameters[i];
        if (!parameter->is_weight)
            continue;
        struct object layer = object_create();
        put_text(&layer, "name", network->blocks[parameter->block].name);
        put_unsigned(&layer, "connections", parameter->original_count);
        put_unsigned(&layer, "survivors", parameter->count);
        object->complete = object->complete && layer.complete;
        if (!cJSON_AddItemToArray(layers, layer.json)) {
            cJSON_Delete(layer.json);
            object->complete = false;
        }
    }
}

enum status event_prune(struct event_log *log, const struct prune_event *event,
                        const struct network *network) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "prune");
    const size_t survivors = network_survivors(network);
    put_signed(&object, "step", event->step);
    put_real(&object, "seconds_event", event->seconds_event);
    put_unsigned(&object, "connections", network_connections(network));
    put_unsigned(&object, "survivors", survivors);
    put_unsigned(&object, "survivor_bytes", survivors * sizeof(float));
    put_unsigned(&object, "allreduce_bytes", event->allreduce_bytes);
    put_unsigned(&object, "optimizer_bytes", event->optimizer_bytes);
    put_layers(&object, network);
    return event_write(log, &object);
}

static void put_engines(struct object *object, const struct network *network) {
    for (int i = 0; i < network->blocks_count; i++) {
        const struct block *block = &network->blocks[i];
        const char *forward, *backward;
        char key[RECIPE_NAME_MAX + 16];
        if (block->desc.kind != BLOCK_CONV)
            continue;
        network->backend->block_plan_algorithms(block->plan, &forward, &backward);
        snprintf(key, sizeof key, "%s.forward", block->name);
        put_text(object, key, forward);
        snprintf(key, sizeof key, "%s.backward", block->name);
        put_text(object, key, backward);
    }
}

enum status event_engines(struct event_log *log, int64_t step, const struct network *network) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "engines");
    put_signed(&object, "step", step);
    put_engines(&object, network);
    return event_write(log, &object);
}

enum status event_epoch(struct event_log *log, const struct epoch_event *event) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "epoch");
    put_signed(&object, "epoch", event->epoch);
    put_signed(&object, "step", event->step);
    put_real(&object, "train_loss", event->train_loss);
    put_real(&object, "train_accuracy", event->train_accuracy);
    put_real(&object, "test_loss", event->test_loss);
    put_real(&object, "test_accuracy", event->test_accuracy);
    put_signed(&object, "test_errors", event->test_errors);
    if (event->has_validation) {
        put_real(&object, "validation_loss", event->validation_loss);
        put_real(&object, "validation_accuracy", event->validation_accuracy);
    }
    put_unsigned(&object, "survivors", event->survivors);
    put_real(&object, "seconds_epoch", event->seconds_epoch);
    put_real(&object, "images_per_second", event->images_per_second);
    return event_write(log, &object);
}

enum status event_checkpoint(struct event_log *log, const struct checkpoint_event *event) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "checkpoint");
    put_signed(&object, "step", event->step);
    put_text(&object, "file", event->file);
    put_unsigned(&object, "bytes", event->bytes);
    put_real(&object, "seconds_event", event->seconds_event);
    return event_write(log, &object);
}

enum status event_resume(struct event_log *log, int64_t step, const char *file, int ranks) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "resume");
    put_now(&object);
    put_text(&object, "version", ESPALIER_VERSION);
    put_signed(&object, "step", step);
    put_text(&object, "file", file);
    put_signed(&object, "ranks", ranks);
    return event_write(log, &object);
}

/* ---- the summary ---- */

static void put_results(struct object *object, const struct run_summary *summary) {
    put_real(object, "test_accuracy", summary->test_accuracy);
    put_signed(object, "test_errors", summary->test_errors);
    put_real(object, "test_loss", summary->test_loss);
    put_real(object, "train_accuracy", summary->train_accuracy);
    put_real(object, "train_loss", summary->train_loss);
    if (summary->has_validation)
        put_real(object, "validation_accuracy", summary->validation_accuracy);
    put_unsigned(object, "connections", summary->connections);
    put_unsigned(object, "survivors", summary->survivors);
    put_unsigned(object, "parameters", summary->parameters);
    put_unsigned(object, "parameters_left", summary->parameters_left);
    put_text(object, "weights_sha256", summary->weights_sha256);
}

static void put_circumstances(struct object *object, const struct run_summary *summary) {
    put_signed(object, "epochs", summary->epochs);
    put_signed(object, "steps", summary->steps);
    put_real(object, "seconds_train", summary->seconds_train);
    put_real(object, "seconds_total", summary->seconds_total);
    put_real(object, "images_per_second", summary->images_per_second);
    put_signed(object, "ranks", summary->ranks);
    put_signed(object, "threads", summary->threads);
    put_text(object, "backend", summary->backend);
    put_text(object, "communicator", summary->communicator);
    put_unsigned(object, "seed", summary->seed);
    put_text(object, "version", ESPALIER_VERSION);
}

static void put_summary(struct object *object, const struct run_summary *summary) {
    put_text(object, "recipe", summary->recipe);
    put_results(object, summary);
    put_circumstances(object, summary);
}

enum status event_end(struct event_log *log, const struct run_summary *summary) {
    if (!log->is_open)
        return ST_OK;
    struct object object = event_begin(log, "end");
    put_summary(&object, summary);
    return event_write(log, &object);
}

static enum status write_text(const char *path, const char *text) {
    struct whole_file whole;
    TRY(whole_file_begin(path, &whole));
    TRY(whole_file_add(&whole, text, strlen(text)));
    TRY(whole_file_add(&whole, "\n", 1));
    return whole_file_finish(&whole);
}

enum status summary_write(const char *run_dir, const struct run_summary *summary) {
    char path[FILE_PATH_MAX];
    TRY(path_join(run_dir, "summary.json", path));
    struct object object = object_create();
    put_summary(&object, summary);
    char *text = object.complete ? cJSON_Print(object.json) : NULL;
    cJSON_Delete(object.json);
    if (text == NULL)
        FAIL(ST_MEMORY, "%s: out of memory", path);
    enum status status = write_text(path, text);
    cJSON_free(text);
    return status;
}
