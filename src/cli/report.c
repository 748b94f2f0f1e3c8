/* espalier report: the directories of runs become one page. */
#include "command.h"

#include <errno.h>
#include <espalier/report.h>
#include <espalier/run_dir.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char **dirs; /* [dirs_count] */
    int dirs_count;
    const char *output;
};

static enum status add_directory(struct arguments *arguments, const char *dir) {
    for (int i = 0; i < arguments->dirs_count; i++)
        if (strcmp(arguments->dirs[i], dir) == 0)
            FAIL(ST_USAGE, "report: run directory '%s' is given twice", dir);
    arguments->dirs[arguments->dirs_count++] = dir;
    return ST_OK;
}

static enum status read_argument(struct arguments *arguments, int argc, char **argv, int *i) {
    const char *usage = command_report.usage, *word = argv[*i];
    if (strcmp(word, "-o") == 0) {
        if (*i + 1 == argc || argv[*i + 1][0] == '\0')
            FAIL(ST_USAGE, "report: option '-o' needs a file's name; usage: %s", usage);
        if (arguments->output != NULL)
            FAIL(ST_USAGE, "report: a second option '-o'; usage: %s", usage);
        arguments->output = argv[++*i];
        return ST_OK;
    }
    if (word[0] == '-')
        FAIL(ST_USAGE, "report: unknown option '%s'; usage: %s", word, usage);
    return add_directory(arguments, word);
}

static enum status read_arguments(int argc, char **argv, struct arguments *arguments) {
    for (int i = 1; i < argc; i++)
        TRY(read_argument(arguments, argc, argv, &i));
    if (arguments->dirs_count == 0)
        FAIL(ST_USAGE, "report: no run directory; usage: %s", command_report.usage);
    if (arguments->output == NULL)
        FAIL(ST_USAGE, "report: no option '-o FILE.html'; usage: %s", command_report.usage);
    return ST_OK;
}

/* In memory first: what stands under the name changes only once the page is whole. */
static enum status write_page(const char *path, const struct run_record *runs, int count) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *file = open_memstream(&text, &bytes);
    if (file == NULL)
        FAIL(ST_MEMORY, "%s: %s", path, strerror(errno));
    enum status status = report_write(file, runs, count);
    bool incomplete = ferror(file);
    incomplete = fclose(file) != 0 || incomplete;
    if (status == ST_OK && incomplete)
        status = status_fail(ST_MEMORY, "%s: out of memory", path);
    if (status == ST_OK)
        status = file_write_whole(path, text, bytes);
    free(text);
    return status;
}

static enum status report_runs(const struct arguments *arguments, struct run_record *runs) {
    for (int i = 0; i < arguments->dirs_count; i++)
        TRY(run_record_read(arguments->dirs[i], &runs[i]));
    TRY(write_page(arguments->output, runs, arguments->dirs_count));
    printf("%s\n", arguments->output);
    return command_flush_output();
}

static enum status report(int argc, char **argv) {
    struct run_record *runs = calloc((size_t)argc, sizeof *runs);
    struct arguments arguments = {.dirs = calloc((size_t)argc, sizeof *arguments.dirs)};
    enum status status = runs == NULL || arguments.dirs == NULL
                             ? status_fail(ST_MEMORY, "out of memory")
                             : read_arguments(argc, argv, &arguments);
    if (status == ST_OK)
        status = report_runs(&arguments, runs);
    for (int i = 0; i < argc && runs != NULL; i++)
        run_record_destroy(&runs[i]);
    free(runs);
    free(arguments.dirs);
    return status;
}

/* One reader and writer for all: the others wait in the agreement. */
static enum status run(struct communicator *communicator, int argc, char **argv) {
    return communicator_agree(communicator, communicator->rank == 0 ? report(argc, argv) : ST_OK);
}

const struct command command_report = {
    .name = "report",
    .usage = "espalier report RUN_DIR... -o FILE.html",
    .summary = "put runs on one page: accuracy, survivors and step time as plots, a table",
    .help =
        "  RUN_DIR       directories of runs; they need not have finished\n"
        "  -o FILE.html  the page, which needs no network: plots are inline SVG\n"
        "\n"
        "The page shows accuracy at each epoch, survivors of each layer and the time of an\n"
        "update over the updates, and a table of the runs. What stood in FILE.html is replaced\n"
        "as a whole.\n",
    .run = run,
};
