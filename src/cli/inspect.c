/* espalier inspect: what a model's file holds. */
#include "command.h"

#include <espalier/checkpoint.h>
#include <espalier/model.h>
#include <espalier/optimizer.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

enum { PATH_SIZE = 4096, SHAPE_SIZE = 192, NAME_WIDTH_MIN = 6, SHAPE_WIDTH_MIN = 5 };

/* Sums over the lines of the table. */
struct totals {
    uint64_t connections, survivors, biases, bytes;
};

static uint64_t count_survivors(const struct safetensor *tensor) {
    uint64_t values = safetensor_count(tensor), survivors = 0;
    const float *value = tensor->values;
    for (uint64_t i = 0; i < values; i++)
        survivors += value[i] != 0;
    return survivors;
}

/* Biases are never pruned, so they are no connections. */
static bool is_bias(const struct safetensor *tensor) {
    const char *dot = strrchr(tensor->name, '.');
    return strcmp(dot == NULL ? tensor->name : dot + 1, "bias") == 0;
}

/* "32x1x3x3"; a scalar has no sizes: "-". */
static const char *format_shape(const struct safetensor *tensor, char text[SHAPE_SIZE]) {
    size_t length = 0;
    snprintf(text, SHAPE_SIZE, "-");
    for (int i = 0; i < tensor->dimensions; i++)
        length += (size_t)snprintf(text + length, SHAPE_SIZE - length, "%s%" PRIu64,
                                   i == 0 ? "" : "x", tensor->size[i]);
    return text;
}

/* Metadata is free text: it stays on its line and does not steer the terminal. */
static void print_line(const char *label, const char *text) {
    printf("%-8s ", label);
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
    putchar('\n');
}

static void print_counts(uint64_t connections, uint64_t survivors, uint64_t bytes) {
    double density = connections == 0 ? 0 : 100.0 * (double)survivors / (double)connections;
    printf("  %12" PRIu64 "  %12" PRIu64 "  %8.2f %%  %12" PRIu64 "\n", connections, survivors,
           density, bytes);
}

static void print_tensor(const struct safetensor *tensor, int name_width, int shape_width,
                         struct totals *totals) {
    char shape[SHAPE_SIZE];
    uint64_t values = safetensor_count(tensor), bytes = values * sizeof(float);
    printf("%-*s  %-*s", name_width, tensor->name, shape_width, format_shape(tensor, shape));
    totals->bytes += bytes;
    if (is_bias(tensor)) {
        totals->biases += values;
        printf("  %12s  %12s  %10s  %12" PRIu64 "\n", "bias", "", "", bytes);
        return;
    }
    uint64_t survivors = count_survivors(tensor);
    totals->connections += values;
    totals->survivors += survivors;
    print_counts(values, survivors, bytes);
}

static int wider(int width, const char *text) {
    return (int)strlen(text) > width ? (int)strlen(text) : width;
}

static struct totals print_table(const struct safetensors *file) {
    int name_width = NAME_WIDTH_MIN, shape_width = SHAPE_WIDTH_MIN;
    char shape[SHAPE_SIZE];
    for (int i = 0; i < file->tensors_count; i++) {
        name_width = wider(name_width, file->tensors[i].name);
        shape_width = wider(shape_width, format_shape(&file->tensors[i], shape));
    }
    struct totals totals = {0};
    printf("%-*s  %-*s  %12s  %12s  %10s  %12s\n", name_width, "tensor", shape_width, "shape",
           "connections", "survivors", "density", "bytes");
    for (int i = 0; i < file->tensors_count; i++)
        print_tensor(&file->tensors[i], name_width, shape_width, &totals);
    printf("%-*s  %-*s", name_width, "total", shape_width, "");
    print_counts(totals.connections, totals.survivors, totals.bytes);
    printf("\n%" PRIu64 " biases beside the connections; bytes are those of the dense tensors\n",
           totals.biases);
    printf("survivors: %" PRIu64 " bytes of values\n", totals.survivors * sizeof(float));
    return totals;
}

/* What one update would carry and keep, were the model trained on. ST_INPUT and a message that
 * nobody needs where the file is no model of ours: then there is nothing to say. */
static void print_training_bytes(const char *path, const struct totals *totals) {
    struct model model;
    if (model_read(path, &model) != ST_OK)
        return;
    const bool masked = model.recipe.prune.deletion == DELETION_MASK;
    const uint64_t stored = totals->biases + (masked ? totals->connections : totals->survivors);
    const struct optimizer_settings *settings = &model.recipe.train.optimizer;
    printf("trained on: %" PRIu64 " bytes all-reduced per update, %zu bytes of optimizer state "
           "(%s)\n",
           stored * sizeof(float), optimizer_settings_bytes(settings, stored),
           optimizer_names[settings->kind]);
    model_destroy(&model);
}

/* What a run to be gone on with takes on disk. */
static enum status print_checkpoint_bytes(const char *run_dir) {
    char name[CHECKPOINT_NAME_MAX];
    uint64_t bytes;
    TRY(checkpoint_newest(run_dir, name, &bytes));
    if (name[0] != '\0')
        printf("%s: %" PRIu64 " bytes\n", name, bytes);
    return ST_OK;
}

static void print_heading(const char *path, const struct safetensors *file) {
    static const char *const lines[][2] = {
        {"recipe", "espalier.name"}, {"input", "espalier.input"}, {"version", "espalier.version"}};
    print_line("file", path);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        const char *text = safetensors_metadata(file, lines[i][1]);
        if (text != NULL)
            print_line(lines[i][0], text);
    }
    putchar('\n');
}

static enum status inspect(const char *model) {
    char path[PATH_SIZE];
    struct safetensors file = {0};
    enum status status;
    TRY(model_path(model, path, sizeof path));
    TRY_OUT(safetensors_read(path, &file));
    TRY_OUT(model_check_types(path, &file));
    print_heading(path, &file);
    const struct totals totals = print_table(&file);
    print_training_bytes(path, &totals);
    if (strcmp(path, model) != 0) /* MODEL is a run's directory */
        TRY_OUT(print_checkpoint_bytes(model));
    status = command_flush_output();
out:
    safetensors_destroy(&file);
    return status;
}

/* One reader for all: the others wait in the agreement. */
static enum status run(struct communicator *communicator, int argc, char **argv) {
    const char *model = NULL;
    TRY_TOGETHER(communicator, command_one_argument(&command_inspect, argc, argv, &model));
    TRY_TOGETHER(communicator, communicator->rank == 0 ? inspect(model) : ST_OK);
    return ST_OK;
}

const struct command command_inspect = {
    .name = "inspect",
    .usage = "espalier inspect MODEL",
    .summary = "show a model's layers: shape, connections, survivors, density, bytes",
    .help =
        "MODEL is a run directory or any .safetensors file of F32 tensors. Survivors are the\n"
        "values that are not zero; biases are never pruned and do not count as connections. Of a\n"
        "run's directory the bytes of the newest checkpoint are told too.\n",
    .run = run,
};
