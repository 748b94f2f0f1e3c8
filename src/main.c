/* The program: MPI's lifetime, dispatch of commands, the only exit. */
#include "cli/command.h"

#include <espalier/backend.h>
#include <espalier/nearest.h>
#include <espalier/recipe.h>
#include <espalier/schedule.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void print_help(void) {
    printf("espalier trains neural networks and prunes them while they train.\n\n");
    for (int i = 0; commands[i] != NULL; i++)
        printf("  %-9s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n  espalier COMMAND --help    what a command takes\n"
           "  espalier --version\n\n"
           "Exit codes: 0 done, 1 a failure during the run, 2 bad usage, recipe or input,\n"
           "75 stopped on request after a checkpoint.\n");
}

static void print_command_help(const struct command *command) {
    printf("usage: %s\n\n%s", command->usage, command->help);
    if (command == &command_train) {
        putchar('\n');
        recipe_write_keys(stdout);
        putchar('\n');
        schedule_write_table(stdout);
    }
}

static const struct command *find_command(const char *name) {
    for (int i = 0; commands[i] != NULL; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

/* Behind a command: "help" may be a file's name there. */
static bool wants_help(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static enum status unknown_command(const char *word) {
    const char *names[16];
    int count = 0;
    for (; commands[count] != NULL; count++)
        names[count] = commands[count]->name;
    const char *nearest = name_nearest(names, count, word);
    if (nearest != NULL)
        FAIL(ST_USAGE, "unknown command '%s'; nearest: '%s'; 'espalier --help' lists what there is",
             word, nearest);
    FAIL(ST_USAGE, "unknown command '%s'; 'espalier --help' lists what there is", word);
}

/* What is no command: --help and --version. */
static enum status print_about(const char *word) {
    if (is_help(word))
        print_help();
    else if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0)
        printf("espalier %s\n", ESPALIER_VERSION);
    else
        return unknown_command(word);
    return command_flush_output();
}

static enum status dispatch(struct communicator *communicator, int argc, char **argv) {
    if (argc < 2)
        return communicator_agree(
            communicator,
            status_fail(ST_USAGE, "no command; 'espalier --help' lists what there is"));
    const struct command *command = find_command(argv[1]);
    if (command != NULL && !wants_help(argc - 1, argv + 1))
        return command->run(communicator, argc - 1, argv + 1);
    enum status status = ST_OK;
    if (communicator->rank == 0 && command != NULL) {
        print_command_help(command);
        status = command_flush_output();
    } else if (communicator->rank == 0)
        status = print_about(argv[1]);
    return communicator_agree(communicator, status);
}

int main(int argc, char **argv) {
    backend_cpu_prepare_process(argv);
    signal(SIGXFSZ, SIG_IGN); /* a limit on files' sizes is then an error with a message */
    struct communicator communicator;
    enum status status = communicator_create(&argc, &argv, &communicator);
    if (status != ST_OK) {
        fprintf(stderr, "espalier: %s\n", status_message());
        return status_exit_code(status);
    }
    status = dispatch(&communicator, argc, argv);
    if (status != ST_OK && communicator_reports(&communicator))
        fprintf(stderr, "espalier: %s\n", status_message());
    if (status != ST_OK && communicator.failed_rank < 0)
        communicator.abort(&communicator, status_exit_code(status));
    communicator.destroy(&communicator);
    return status_exit_code(status);
}
