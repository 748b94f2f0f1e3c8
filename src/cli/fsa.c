/* espalier fsa: feature selection with annealing on synthetic data. */
#include "command.h"

#include <errno.h>
#include <espalier/fsa.h>
#include <espalier/nearest.h>
#include <espalier/number.h>
#include <espalier/progress.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    struct fsa_settings settings;
    bool json;
};

/* An option that takes a number, and where that goes: the pointer that is not NULL. */
struct number_option {
    const char *name;
    double low, high; /* bounds; a real may be both */
    int *count;
    double *real;
};

enum { NUMBERS_MAX = 16 };

static void list_numbers(struct fsa_settings *s, struct number_option options[NUMBERS_MAX]) {
    const struct number_option list[] = {
        {"--samples", 2, 1e7, &s->samples, NULL},
        {"--variables", 10, 1e6, &s->variables, NULL},
        {"--keep", 1, 1e5, &s->keep, NULL},
        {"--correlation", 0, 0.999999, NULL, &s->correlation},
        {"--noise", 0, 1, NULL, &s->noise},
        {"--rate", 1e-12, 1e12, NULL, &s->rate},
        {"--growth", 0, 4, NULL, &s->growth},
        {"--mu", 0, 1e9, NULL, &s->mu},
        {"--iterations", 2, 1e7, &s->iterations, NULL},
        {"--runs", 1, 1e6, &s->runs, NULL},
        {"--threads", 1, 4096, &s->threads, NULL},
        {NULL, 0, 0, NULL, NULL},
    };
    memcpy(options, list, sizeof list);
}

static enum status read_number(const struct number_option *option, const char *word) {
    char *end;
    double value = strtod(word, &end);
    bool whole = option->count == NULL || value == (double)(long long)value;
    if (end == word || *end != '\0' || !(value >= option->low && value <= option->high) || !whole)
        FAIL(ST_USAGE, "fsa: %s '%s': expected a %s from %.10g to %.10g", option->name, word,
             option->count != NULL ? "whole number" : "number", option->low, option->high);
    if (option->count != NULL)
        *option->count = (int)value;
    else
        *option->real = value;
    return ST_OK;
}

static enum status read_seed(const char *word, uint64_t *seed) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || word[0] == '-')
        FAIL(ST_USAGE, "fsa: --seed '%s': expected a whole number from 0 to %llu", word,
             ULLONG_MAX);
    *seed = value;
    return ST_OK;
}

static enum status read_loss(const char *word, enum fsa_loss *loss) {
    for (int i = 0; i < FSA_LOSS_COUNT; i++)
        if (strcmp(word, fsa_loss_names[i]) == 0) {
            *loss = (enum fsa_loss)i;
            return ST_OK;
        }
    const char *nearest = name_nearest(fsa_loss_names, FSA_LOSS_COUNT, word);
    FAIL(ST_USAGE, "fsa: --loss '%s': expected logistic, lorenz, huber_svm or squared%s%s", word,
         nearest != NULL ? "; nearest: " : "", nearest != NULL ? nearest : "");
}

static enum status read_value(struct arguments *arguments, const char *name, const char *word) {
    struct number_option options[NUMBERS_MAX];
    list_numbers(&arguments->settings, options);
    if (strcmp(name, "--loss") == 0)
        return read_loss(word, &arguments->settings.loss);
    if (strcmp(name, "--seed") == 0)
        return read_seed(word, &arguments->settings.seed);
    for (const struct number_option *option = options; option->name != NULL; option++)
        if (strcmp(name, option->name) == 0)
            return read_number(option, word);
    FAIL(ST_USAGE, "fsa: unknown option '%s'; usage: %s", name, command_fsa.usage);
}

/* Of options that are fine one by one. */
static enum status check(const struct fsa_settings *s) {
    if (s->variables < 10 * s->keep)
        FAIL(ST_USAGE, "fsa: --variables %d: expected at least %d, ten times --keep", s->variables,
             10 * s->keep);
    if (s->iterations % 2 != 0)
        FAIL(ST_USAGE, "fsa: --iterations %d: expected an even number", s->iterations);
    return ST_OK;
}

static enum status read_arguments(int argc, char **argv, struct arguments *arguments) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            arguments->json = true;
            continue;
        }
        if (argv[i][0] != '-')
            FAIL(ST_USAGE, "fsa: unexpected '%s'; usage: %s", argv[i], command_fsa.usage);
        if (i + 1 == argc)
            FAIL(ST_USAGE, "fsa: option '%s' needs a value; usage: %s", argv[i], command_fsa.usage);
        TRY(read_value(arguments, argv[i], argv[i + 1]));
        i++;
    }
    return check(&arguments->settings);
}

static void print_table(const struct fsa_settings *s, const struct fsa_result *result,
                        double seconds) {
    printf("%d samples of %d variables, %d of them true, %g %% of the labels random\n", s->samples,
           s->variables, s->keep, 100 * s->noise);
    printf("loss %s, rate %g, growth %g, mu %g, %d iterations\n\n", fsa_loss_names[s->loss],
           s->rate, s->growth, s->mu, s->iterations);
    printf("all true variables found (DR)  %6.1f %% of %d runs\n", 100 * result->all_found,
           s->runs);
    printf("true variables found (PCD)     %6.1f %%\n", 100 * result->found);
    printf("area under the ROC curve       %8.4f\n", result->auc);
    printf("seconds                        %6.1f\n", seconds);
}

/* JSON has no NaN, which the AUC is where a test set has one class only: null. */
static void print_real(const char *key, double value, const char *end) {
    char text[REAL_TEXT_MAX];
    real_text(value, text);
    printf("\"%s\": %s%s", key, isfinite(value) ? text : "null", end);
}

static void print_json(const struct fsa_settings *s, const struct fsa_result *result,
                       double seconds) {
    printf("{\"loss\": \"%s\", \"samples\": %d, \"variables\": %d, \"keep\": %d, ",
           fsa_loss_names[s->loss], s->samples, s->variables, s->keep);
    print_real("correlation", s->correlation, ", ");
    print_real("noise", s->noise, ", ");
    print_real("rate", s->rate, ", ");
    print_real("growth", s->growth, ", ");
    print_real("mu", s->mu, ", ");
    printf("\"iterations\": %d, \"runs\": %d, \"seed\": %llu, ", s->iterations, s->runs,
           (unsigned long long)s->seed);
    print_real("detection_rate", result->all_found, ", ");
    print_real("detected", result->found, ", ");
    print_real("auc", result->auc, ", ");
    print_real("seconds", seconds, "}\n");
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct arguments arguments = {.settings = {.samples = 1000,
                                               .variables = 1000,
                                               .keep = 10,
                                               .correlation = 0.9,
                                               .loss = FSA_LOGISTIC,
                                               .rate = 5,
                                               .mu = 300,
                                               .iterations = 500,
                                               .runs = 100,
                                               .seed = 1}};
    struct fsa_result result;
    double begin = monotonic_seconds();
    TRY_TOGETHER(communicator, read_arguments(argc, argv, &arguments));
    TRY(fsa_simulate(&arguments.settings, communicator, &result));
    if (communicator->rank == 0)
        (arguments.json ? print_json : print_table)(&arguments.settings, &result,
                                                    monotonic_seconds() - begin);
    return communicator_agree(communicator, command_flush_output());
}

const struct command command_fsa = {
    .name = "fsa",
    .usage = "espalier fsa [--loss LOSS] [--samples N] [--keep K] [--noise PART] [--rate ETA] ...",
    .summary = "select features of linear models with annealing, on synthetic data",
    .help =
        "Algorithm 1 of Barbu et al. 2017 (arXiv 1310.2880) and its simulation: x ~ N(0, S) with\n"
        "S_ij = correlation^|i - j|; y is the sign of the sum of variables 10, 20, ..., 10 K.\n"
        "\n"
        "  --loss LOSS        logistic (default), lorenz, huber_svm or squared\n"
        "  --samples N        of the training set, and of the test set (default 1000)\n"
        "  --variables M      at least 10 K (default 1000)\n"
        "  --keep K           true variables, and how many the model keeps (default 10)\n"
        "  --correlation R    of neighbours (default 0.9)\n"
        "  --noise PART       of the labels are a fair coin's (default 0)\n"
        "  --rate ETA         learning rate, of the mean loss (default 5)\n"
        "  --growth G         the rate is ETA (M / m)^G while m variables are left (default 0:\n"
        "                     constant, as in the paper)\n"
        "  --mu MU            how fast the schedule removes at first (default 300)\n"
        "  --iterations T     even; K is reached after half of them (default 500)\n"
        "  --runs R           independent ones, shared out over ranks and threads (default 100)\n"
        "  --seed S           (default 1); ranks and threads change no bit of the result\n"
        "  --threads T        of each rank (default: its share of the cores)\n"
        "  --json             one object: detection_rate (DR), detected (PCD), auc, seconds, and\n"
        "                     the settings\n"
        "\n"
        "Prints how often all true variables were kept (DR), how many were (PCD), and the area\n"
        "under the ROC curve on the test sets, in means over the runs.\n",
    .run = run,
};
