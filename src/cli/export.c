/* espalier export: a model in another form. */
#include "command.h"

#include <espalier/nearest.h>
#include <espalier/sparse_model.h>
#include <string.h>

struct arguments {
    const char *model, *format, *file;
};

typedef enum status writer(const char *path, const struct model *model);

static const struct {
    const char *name;
    writer *write;
} formats[] = {{"safetensors", sparse_model_write}};

enum { FORMATS = sizeof formats / sizeof formats[0] };

static enum status find_format(const char *name, writer **write) {
    const char *names[FORMATS];
    char known[128];
    for (int i = 0; i < FORMATS; i++) {
        names[i] = formats[i].name;
        *write = formats[i].write;
        if (strcmp(name, formats[i].name) == 0)
            return ST_OK;
    }
    names_join(names, FORMATS, " or ", known, sizeof known);
    FAIL(ST_USAGE, "export: --to '%s': expected %s", name, known);
}

/* Two words beside the option, the model first. */
static enum status read_word(const char *word, struct arguments *arguments) {
    if (word[0] == '-')
        FAIL(ST_USAGE, "export: unknown option '%s'; usage: %s", word, command_export.usage);
    if (arguments->file != NULL)
        FAIL(ST_USAGE, "export: a third argument '%s'; usage: %s", word, command_export.usage);
    *(arguments->model == NULL ? &arguments->model : &arguments->file) = word;
    return ST_OK;
}

static enum status read_arguments(int argc, char **argv, struct arguments *arguments) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--to") != 0) {
            TRY(read_word(argv[i], arguments));
            continue;
        }
        if (i + 1 == argc || arguments->format != NULL)
            FAIL(ST_USAGE, "export: option '--to' needs one format; usage: %s",
                 command_export.usage);
        arguments->format = argv[++i];
    }
    if (arguments->format == NULL || arguments->file == NULL)
        FAIL(ST_USAGE, "export: expected a model, --to and a file; usage: %s",
             command_export.usage);
    return ST_OK;
}

static enum status export_model(int argc, char **argv) {
    struct arguments arguments = {.model = NULL};
    struct model model = {0};
    writer *write = NULL;
    TRY(read_arguments(argc, argv, &arguments));
    TRY(find_format(arguments.format, &write));
    TRY(model_read(arguments.model, &model));
    enum status status = write(arguments.file, &model);
    model_destroy(&model);
    return status;
}

/* One writer for all: the others wait in the agreement. */
static enum status run(struct communicator *communicator, int argc, char **argv) {
    return communicator_agree(communicator,
                              communicator->rank == 0 ? export_model(argc, argv) : ST_OK);
}

const struct command command_export = {
    .name = "export",
    .usage = "espalier export MODEL --to safetensors FILE",
    .summary = "write a model's survivors alone: indices and values",
    .help =
        "MODEL is a run directory or its model.safetensors; FILE is written whole or not at all.\n"
        "In FILE, a weight NAME.weight that has lost connections is three tensors:\n"
        "  NAME.weight.indices  I32  row-major places of its survivors, ascending\n"
        "  NAME.weight.values   F32  their values\n"
        "  NAME.weight.shape    I64  of the dense weight\n"
        "so that dense = zeros(shape); dense.flat[indices] = values. Other tensors and the\n"
        "metadata are those of model.safetensors.\n",
    .run = run,
};
