/* command.h - the commands of the program, one file each. */
#ifndef ESPALIER_CLI_COMMAND_H
#define ESPALIER_CLI_COMMAND_H

#include <espalier/communicator.h>
#include <espalier/status.h>
#include <stdio.h>

struct command {
    const char *name;    /* "train" */
    const char *usage;   /* "espalier train RECIPE [-s KEY=VALUE]... [-o RUN_DIR] [--quiet]" */
    const char *summary; /* one line for the list of commands */
    const char *help;    /* what --help prints below the usage */
    /* Runs with argv[0] = the command's name; --help has been dealt with. All ranks enter.
     * Results go to stdout from rank 0 alone. Whatever one rank alone can find is agreed on
     * (TRY_TOGETHER) before it is returned. */
    enum status (*run)(struct communicator *communicator, int argc, char **argv);
};

extern const struct command command_train, command_evaluate, command_inspect, command_export,
    command_data, command_bench, command_report, command_fsa;

/** All commands, NULL-terminated, in the order in which --help lists them. */
extern const struct command *const commands[];

/** The one argument that a command takes besides options, into *value: ST_USAGE when there is
 *  none, a second one, or any option (message with the command's usage). */
enum status command_one_argument(const struct command *command, int argc, char **argv,
                                 const char **value);

/** Flush stdout and report what could not be written (a full disk, a closed pipe): ST_IO. */
enum status command_flush_output(void);

#endif
