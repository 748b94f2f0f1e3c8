/* options.h - the command line of a command that takes a recipe: RECIPE [-s KEY=VALUE]... and
 * options of its own. */
#ifndef ESPALIER_CLI_OPTIONS_H
#define ESPALIER_CLI_OPTIONS_H

#include "command.h"

#include <espalier/recipe.h>
#include <stdbool.h>

/** An option of one command, and where what it says goes: the one pointer that is not NULL. All but
 *  a flag take the next argument. */
struct option {
    const char *name; /* "--steps"; NULL ends a table */
    bool *flag;
    const char **text; /* NULL until it is read; given once at most */
    int *count;        /* 1 to OPTION_COUNT_MAX */
    double *fraction;  /* above 0, at most 1 */
};

enum { OPTION_COUNT_MAX = 1000000 };

/** Read the command line and load the recipe that it names. ST_USAGE (message with the command's
 *  usage) for what is not in the table, a second recipe or none, and a value that is missing or no
 *  such number; else as recipe_load. Places of options that are not given stay as they are. */
enum status options_load_recipe(const struct command *command, int argc, char **argv,
                                const struct option *options, struct recipe *recipe);

#endif
