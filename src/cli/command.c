#include "command.h"

#include <errno.h>
#include <string.h>

const struct command *const commands[] = {&command_train,  &command_evaluate, &command_inspect,
                                          &command_export, &command_data,     &command_bench,
                                          &command_report, &command_fsa,      NULL};

enum status command_one_argument(const struct command *command, int argc, char **argv,
                                 const char **value) {
    if (argc == 2 && argv[1][0] != '-') {
        *value = argv[1];
        return ST_OK;
    }
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-')
            FAIL(ST_USAGE, "%s: unknown option '%s'; usage: %s", command->name, argv[i],
                 command->usage);
    FAIL(ST_USAGE, "%s: %d arguments, expected 1; usage: %s", command->name, argc - 1,
         command->usage);
}

enum status command_flush_output(void) {
    if (fflush(stdout) != 0 || ferror(stdout))
        FAIL(ST_IO, "standard output: cannot write: %s", strerror(errno));
    return ST_OK;
}
