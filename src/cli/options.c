#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What has been read so far. */
struct reading {
    const struct command *command;
    const struct option *options;
    const char *recipe;
    const char **overrides; /* [argc] */
    int overrides_count;
};

/* The word that option argv[*i] needs: the next argument. */
static enum status next_word(const struct command *command, int argc, char **argv, int *i,
                             const char **word) {
    if (*i + 1 >= argc)
        FAIL(ST_USAGE, "%s: option '%s' needs a value; usage: %s", command->name, argv[*i],
             command->usage);
    *word = argv[++*i];
    return ST_OK;
}

static enum status read_count(const struct command *command, const struct option *option,
                              const char *word) {
    char *end;
    errno = 0;
    long value = strtol(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || value < 1 || value > OPTION_COUNT_MAX)
        FAIL(ST_USAGE, "%s: %s '%s': expected a whole number from 1 to %d", command->name,
             option->name, word, OPTION_COUNT_MAX);
    *option->count = (int)value;
    return ST_OK;
}

static enum status read_fraction(const struct command *command, const struct option *option,
                                 const char *word) {
    char *end;
    double value = strtod(word, &end);
    if (end == word || *end != '\0' || !(value > 0 && value <= 1))
        FAIL(ST_USAGE, "%s: %s '%s': expected a number above 0 and at most 1", command->name,
             option->name, word);
    *option->fraction = value;
    return ST_OK;
}

static enum status read_option(const struct reading *reading, const struct option *option, int argc,
                               char **argv, int *i) {
    const char *word = NULL;
    if (option->flag != NULL) {
        *option->flag = true;
        return ST_OK;
    }
    if (option->text != NULL && *option->text != NULL)
        FAIL(ST_USAGE, "%s: a second option '%s'; usage: %s", reading->command->name, option->name,
             reading->command->usage);
    TRY(next_word(reading->command, argc, argv, i, &word));
    if (option->count != NULL)
        return read_count(reading->command, option, word);
    if (option->fraction != NULL)
        return read_fraction(reading->command, option, word);
    *option->text = word;
    return ST_OK;
}

static const struct option *find_option(const struct option *options, const char *name) {
    for (; options->name != NULL; options++)
        if (strcmp(options->name, name) == 0)
            return options;
    return NULL;
}

static enum status read_argument(struct reading *reading, int argc, char **argv, int *i) {
    const struct command *command = reading->command;
    const char *argument = argv[*i];
    const struct option *option = find_option(reading->options, argument);
    if (option != NULL)
        return read_option(reading, option, argc, argv, i);
    if (strcmp(argument, "-s") == 0)
        return next_word(command, argc, argv, i, &reading->overrides[reading->overrides_count++]);
    if (argument[0] == '-')
        FAIL(ST_USAGE, "%s: unknown option '%s'; usage: %s", command->name, argument,
             command->usage);
    if (reading->recipe != NULL)
        FAIL(ST_USAGE, "%s: a second recipe '%s'; usage: %s", command->name, argument,
             command->usage);
    reading->recipe = argument;
    return ST_OK;
}

static enum status read_all(struct reading *reading, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        TRY(read_argument(reading, argc, argv, &i));
    if (reading->recipe == NULL)
        FAIL(ST_USAGE, "%s: no recipe; usage: %s", reading->command->name, reading->command->usage);
    return ST_OK;
}

enum status options_load_recipe(const struct command *command, int argc, char **argv,
                                const struct option *options, struct recipe *recipe) {
    struct reading reading = {.command = command,
                              .options = options,
                              .overrides = calloc((size_t)argc, sizeof *reading.overrides)};
    if (reading.overrides == NULL)
        FAIL(ST_MEMORY, "out of memory");
    enum status status = read_all(&reading, argc, argv);
    if (status == ST_OK)
        status = recipe_load(reading.recipe, reading.overrides, reading.overrides_count, recipe);
    free(reading.overrides);
    return status;
}
