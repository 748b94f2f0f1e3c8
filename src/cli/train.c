/* espalier train: a recipe becomes a run directory. */
#include "options.h"

#include <espalier/run_dir.h>
#include <espalier/trainer.h>

/* Ranks must not disagree on the default directory, whose name holds the time. */
static enum status choose_run_dir(struct communicator *communicator, const char *wanted,
                                  const struct recipe *recipe, char *run_dir, size_t size) {
    if (wanted == NULL)
        run_dir_default(recipe, run_dir, size);
    else if ((size_t)snprintf(run_dir, size, "%s", wanted) >= size)
        FAIL(ST_USAGE, "train: the run directory's path is longer than %zu bytes", size - 1);
    return communicator->broadcast(communicator, run_dir, size, 0);
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct recipe recipe = {0};
    const char *wanted_dir = NULL;
    bool quiet = false;
    char run_dir[2048] = "";
    const struct option options[] = {
        {"-o", .text = &wanted_dir}, {"--quiet", .flag = &quiet}, {.name = NULL}};
    enum status status = communicator_agree(
        communicator, options_load_recipe(&command_train, argc, argv, options, &recipe));
    if (status == ST_OK)
        status = choose_run_dir(communicator, wanted_dir, &recipe, run_dir, sizeof run_dir);
    if (status == ST_OK)
        status = trainer_run(&recipe, communicator, run_dir, quiet);
    if (status == ST_OK && communicator->rank == 0)
        printf("%s\n", run_dir);
    recipe_destroy(&recipe);
    TRY(status);
    return communicator_agree(communicator, command_flush_output());
}

const struct command command_train = {
    .name = "train",
    .usage = "espalier train RECIPE [-s KEY=VALUE]... [-o RUN_DIR] [--quiet]",
    .summary = "train a recipe's network, pruning it on the way",
    .help =
        "  RECIPE         a libconfig file, for example jobs/recipes/ann_a.cfg\n"
        "  -s KEY=VALUE   set one key, whatever the recipe says; any number of them. Lists are\n"
        "                 written [a,b], layers' keys network.NAME.KEY=VALUE\n"
        "  -o RUN_DIR     where the results go (default: results/runs/RECIPE-TIME);\n"
        "                 must be empty or not exist\n"
        "  --quiet        no progress on stderr\n"
        "\n"
        "RUN_DIR gets recipe.cfg (resolved, complete), events.jsonl, model.safetensors and\n"
        "summary.json; its path is printed at the end. Runs on one rank, or on N under\n"
        "'mpirun -n N --bind-to none' or srun: the batch is global and is divided among them.\n",
    .run = run,
};
