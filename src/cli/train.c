/* espalier train: a recipe becomes a run directory. */
#include "command.h"

#include <espalier/recipe.h>
#include <espalier/run_dir.h>
#include <espalier/trainer.h>

#include <stdlib.h>
#include <string.h>

struct options {
    const char *recipe, *run_dir;
    const char **overrides; /* [argc] */
    int overrides_count;
    bool quiet;
};

/* The text that option `name` needs: the next argument. */
static enum status option_value(int argc, char **argv, int *i, const char **value) {
    if (*i + 1 >= argc)
        FAIL(ST_USAGE, "train: option '%s' needs a value; usage: %s", argv[*i],
             command_train.usage);
    *value = argv[++*i];
    return ST_OK;
}

static enum status parse_options(int argc, char **argv, struct options *options) {
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (strcmp(argument, "-s") == 0)
            TRY(option_value(argc, argv, &i, &options->overrides[options->overrides_count++]));
        else if (strcmp(argument, "-o") == 0)
            TRY(option_value(argc, argv, &i, &options->run_dir));
        else if (strcmp(argument, "--quiet") == 0)
            options->quiet = true;
        else if (argument[0] == '-')
            FAIL(ST_USAGE, "train: unknown option '%s'; usage: %s", argument, command_train.usage);
        else if (options->recipe != NULL)
            FAIL(ST_USAGE, "train: a second recipe '%s'; usage: %s", argument, command_train.usage);
        else
            options->recipe = argument;
    }
    if (options->recipe == NULL)
        FAIL(ST_USAGE, "train: no recipe; usage: %s", command_train.usage);
    return ST_OK;
}

static enum status load_recipe(int argc, char **argv, struct options *options,
                               struct recipe *recipe) {
    options->overrides = calloc((size_t)argc, sizeof *options->overrides);
    if (options->overrides == NULL)
        FAIL(ST_MEMORY, "out of memory");
    TRY(parse_options(argc, argv, options));
    return recipe_load(options->recipe, options->overrides, options->overrides_count, recipe);
}

/* Ranks must not disagree on the default directory, whose name holds the time. */
static enum status choose_run_dir(struct communicator *communicator, const struct options *options,
                                  const struct recipe *recipe, char *run_dir, size_t size) {
    if (options->run_dir == NULL)
        run_dir_default(recipe, run_dir, size);
    else if ((size_t)snprintf(run_dir, size, "%s", options->run_dir) >= size)
        FAIL(ST_USAGE, "train: the run directory's path is longer than %zu bytes", size - 1);
    return communicator->broadcast(communicator, run_dir, size, 0);
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct options options = {0};
    struct recipe recipe = {0};
    char run_dir[2048] = "";
    enum status status =
        communicator_agree(communicator, load_recipe(argc, argv, &options, &recipe));
    if (status == ST_OK)
        status = choose_run_dir(communicator, &options, &recipe, run_dir, sizeof run_dir);
    if (status == ST_OK)
        status = trainer_run(&recipe, communicator, run_dir, options.quiet);
    if (status == ST_OK && communicator->rank == 0)
        printf("%s\n", run_dir);
    recipe_destroy(&recipe);
    free(options.overrides);
    TRY(status);
    return communicator_agree(communicator, command_flush_output());
}

const struct command command_train = {
    .name = "train",
    .usage = "espalier train RECIPE [-s KEY=VALUE]... [-o RUN_DIR] [--quiet]",
    .summary = "train a recipe's network, pruning it on the way",
    .help =
        "  RECIPE         a libconfig file, for example jobs/recipes/ann_a.cfg\n"
        "  -s KEY=VALUE   set one key, whatever the recipe says; any number of them\n"
        "  -o RUN_DIR     where the results go (default: results/runs/RECIPE-TIME);\n"
        "                 must be empty or not exist\n"
        "  --quiet        no progress on stderr\n"
        "\n"
        "RUN_DIR gets recipe.cfg (resolved, complete), events.jsonl, model.safetensors and\n"
        "summary.json; its path is printed at the end. Runs on one rank, or on N under\n"
        "'mpirun -n N --bind-to none' or srun: the batch is global and is divided among them.\n",
    .run = run,
};
