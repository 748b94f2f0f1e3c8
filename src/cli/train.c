/* espalier train: a recipe becomes a run directory. */
#include "options.h"

#include <espalier/run_dir.h>
#include <espalier/trainer.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUN_DIR_MAX = 2048 };

struct arguments {
    struct recipe recipe;
    const char *run_dir; /* NULL: the default */
    bool resume, quiet, share_gpus;
};

/* A requeued job runs the same command line again. */
static bool restarted_by_slurm(void) {
    const char *count = getenv("SLURM_RESTART_COUNT");
    return count != NULL && strtol(count, NULL, 10) > 0;
}

static enum status read_arguments(int argc, char **argv, struct arguments *arguments) {
    const struct option options[] = {{"-o", .text = &arguments->run_dir},
                                     {"--resume", .flag = &arguments->resume},
                                     {"--quiet", .flag = &arguments->quiet},
                                     {"--share-gpus", .flag = &arguments->share_gpus},
                                     {.name = NULL}};
    TRY(options_load_recipe(&command_train, argc, argv, options, &arguments->recipe));
    if (arguments->run_dir == NULL && arguments->resume)
        FAIL(ST_USAGE, "train: --resume needs -o RUN_DIR: the run to go on with");
    if (arguments->run_dir == NULL)
        return ST_OK;
    arguments->resume = arguments->resume || restarted_by_slurm();
    if (arguments->run_dir[0] == '\0')
        FAIL(ST_USAGE, "train: option '-o' needs a directory's name");
    if (strlen(arguments->run_dir) >= RUN_DIR_MAX)
        FAIL(ST_USAGE, "train: option '-o': found a path of %zu bytes, expected at most %d",
             strlen(arguments->run_dir), RUN_DIR_MAX - 1);
    return ST_OK;
}

/* Ranks must not disagree on the default directory, whose name holds the time. */
static enum status choose_run_dir(struct communicator *communicator,
                                  const struct arguments *arguments, char run_dir[RUN_DIR_MAX]) {
    if (arguments->run_dir == NULL)
        run_dir_default(&arguments->recipe, run_dir, RUN_DIR_MAX);
    else
        snprintf(run_dir, RUN_DIR_MAX, "%s", arguments->run_dir);
    return communicator->broadcast(communicator, run_dir, RUN_DIR_MAX, 0);
}

static void print_hang(const struct watchdog_report *report, int rank) {
    char missing[32] = "another rank";
    if (report->missing >= 0)
        snprintf(missing, sizeof missing, "rank %d", report->missing);
    if (report->waits)
        fprintf(stderr,
                "espalier: rank %d has waited %.0f s for %s, which must have stopped "
                "(train.hang_seconds)\n",
                rank, report->seconds, missing);
    else
        fprintf(stderr,
                "espalier: rank %d hangs: nothing has moved for %.0f s (train.hang_seconds)\n",
                rank, report->seconds);
}

/* The main thread will not come back to say it. */
static void end_hanging(void *context, const struct watchdog_report *report) {
    struct communicator *communicator = context;
    print_hang(report, communicator->rank);
    communicator->abort(communicator, 1);
    _exit(1);
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct arguments arguments = {.run_dir = NULL};
    char run_dir[RUN_DIR_MAX] = "";
    enum status status = communicator_agree(communicator, read_arguments(argc, argv, &arguments));
    if (status == ST_OK)
        status = choose_run_dir(communicator, &arguments, run_dir);
    const struct trainer_options options = {.run_dir = run_dir,
                                            .resume = arguments.resume,
                                            .quiet = arguments.quiet,
                                            .share_gpus = arguments.share_gpus,
                                            .alarm = {end_hanging, communicator}};
    if (status == ST_OK)
        status = trainer_run(&arguments.recipe, communicator, &options);
    if (status == ST_OK && communicator->rank == 0)
        printf("%s\n", run_dir);
    recipe_destroy(&arguments.recipe);
    TRY(status);
    return communicator_agree(communicator, command_flush_output());
}

const struct command command_train = {
    .name = "train",
    .usage = "espalier train RECIPE [-s KEY=VALUE]... [-o RUN_DIR] [--resume] [--quiet] "
             "[--share-gpus]",
    .summary = "train a recipe's network, pruning it on the way",
    .help =
        "  RECIPE         a libconfig file, for example jobs/recipes/ann_a.cfg\n"
        "  -s KEY=VALUE   set one key, whatever the recipe says; any number of them. Lists are\n"
        "                 written [a,b], layers' keys network.NAME.KEY=VALUE\n"
        "  -o RUN_DIR     where the results go (default: results/runs/RECIPE-TIME);\n"
        "                 must be empty or not exist\n"
        "  --resume       go on with the run in RUN_DIR from its newest checkpoint, as if it had\n"
        "                 never stopped; start it where there is none, leave it alone where it is\n"
        "                 finished. The recipe must be the same but for epochs, logging, threads,\n"
        "                 checkpoint.* and data.dir; more epochs do not change the schedule's "
        "plan.\n"
        "                 Implied by SLURM_RESTART_COUNT above 0\n"
        "  --quiet        no progress on stderr\n"
        "  --share-gpus   ranks of a node may have the same GPU, for trying things out: their\n"
        "                 gradients then go through the host, and updates are not replayed\n"
        "\n"
        "RUN_DIR gets recipe.cfg (resolved, complete), events.jsonl, checkpoints/,\n"
        "model.safetensors and summary.json; its path is printed at the end. SIGTERM, SIGINT and\n"
        "SIGUSR1, to any rank, stop the run after a checkpoint, with exit code 75; a second "
        "SIGINT\n"
        "stops it at once. Runs on one rank, or on N under\n"
        "'mpirun -n N --bind-to none' or srun: the batch is global and is divided among them.\n",
    .run = run,
};
