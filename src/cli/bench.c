/* espalier bench: what an update costs, phase by phase. */
#include "bench.h"
#include "options.h"

#include <cjson/cJSON.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { WARM_UP = 20, STEPS = 100 };                     /* updates */
enum { EVALUATION_WARM_UP = 2, EVALUATION_STEPS = 10 }; /* passes over the test set */

/* One step on this rank; a step is an update, or an evaluation of the test set. */
struct sample {
    double seconds;
    struct replica_seconds phases;
};

/* What is told of a rank, or of all together; of doubles alone, to be exchanged as one array. */
struct figures {
    double step_seconds;
    struct replica_seconds phases;
    double peak_rss_bytes;
};

struct bench {
    int steps;      /* to measure; 0: the default */
    double density; /* 0: unpruned */
    bool plans, json, evaluates, share_gpus;

    struct recipe recipe;
    struct communicator *communicator;
    struct dataset images; /* for training, or the test set */
    struct replica replica;
    struct pruner pruner;
    struct evaluator evaluator;
    struct sample *samples; /* [steps] */
};

/* ---- preparation ---- */

static enum status read_options(struct bench *b, int argc, char **argv) {
    const struct option options[] = {{"--steps", .count = &b->steps},
                                     {"--density", .fraction = &b->density},
                                     {"--plans", .flag = &b->plans},
                                     {"--json", .flag = &b->json},
                                     {"--evaluate", .flag = &b->evaluates},
                                     {"--share-gpus", .flag = &b->share_gpus},
                                     {.name = NULL}};
    TRY(options_load_recipe(&command_bench, argc, argv, options, &b->recipe));
    if (b->plans && (b->json || b->evaluates))
        FAIL(ST_USAGE, "bench: --plans goes with neither --json nor --evaluate");
    if (b->density > 0 && b->recipe.prune.layers_count == 0)
        FAIL(ST_USAGE, "bench: --density: %s names no layers to prune; -s prune.layers=[...] does",
             b->recipe.path);
    if (b->steps == 0)
        b->steps = b->evaluates ? EVALUATION_STEPS : STEPS;
    return ST_OK;
}

/* The images that `espalier train` would take. */
static enum status load_images(struct bench *b) {
    const struct data_settings *data = &b->recipe.data;
    if (b->evaluates)
        return dataset_load(data->dir, DATASET_TEST, data->test_limit, &b->images);
    struct dataset held;
    TRY(dataset_load(data->dir, DATASET_TRAIN, data->train_limit, &b->images));
    return data->validation > 0 ? dataset_hold_out(&b->images, data->validation, &held) : ST_OK;
}

static enum status prepare_rank(struct bench *b, int argc, char **argv) {
    TRY(read_options(b, argc, argv));
    TRY(load_images(b));
    TRY(replica_create(&b->recipe, b->communicator, &b->images, &b->replica));
    TRY(evaluator_create(b->replica.network, b->communicator, &b->evaluator));
    const struct run_length unknown = {0, 0}; /* nothing is pruned on schedule */
    TRY(pruner_create(b->replica.network, &b->recipe.prune, unknown, b->communicator, &b->pruner));
    b->samples = calloc((size_t)b->steps, sizeof *b->samples);
    if (b->samples == NULL)
        FAIL(ST_MEMORY, "out of memory: the times of %d steps", b->steps);
    return ST_OK;
}

static enum status prune(struct bench *b) {
    TRY(replica_measure_break_even(&b->replica, &b->pruner, b->density));
    return pruner_prune_to(&b->pruner, b->density, 0, b->replica.optimizer.states,
                           OPTIMIZER_STATES_MAX);
}

static enum status prepare(struct bench *b, int argc, char **argv) {
    TRY_TOGETHER(b->communicator, prepare_rank(b, argc, argv));
    TRY(replica_join(&b->replica, b->share_gpus));
    if (b->density > 0)
        TRY(prune(b));
    bool measured;
    return replica_choose(&b->replica, &measured);
}

static void release(struct bench *b) {
    free(b->samples);
    pruner_destroy(&b->pruner);
    evaluator_destroy(&b->evaluator);
    replica_destroy(&b->replica);
    dataset_destroy(&b->images);
    recipe_destroy(&b->recipe);
}

/* ---- measurement ---- */

/* Whole batches alone, epoch after epoch, so that all updates are of the same number of images. */
static enum status next_window(struct bench *b, struct slice *window) {
    uint32_t count = b->images.count, batch = (uint32_t)b->recipe.train.batch;
    uint32_t whole = count < batch ? 1 : count / batch;
    uint32_t done = (uint32_t)(b->replica.step % whole);
    *window = dataset_batch(count, batch, done);
    return done == 0 ? replica_shuffle(&b->replica, (int)(b->replica.step / whole) + 1) : ST_OK;
}

static enum status time_update(struct bench *b, struct sample *sample) {
    struct slice window;
    TRY(next_window(b, &window));
    memset(&b->replica.seconds, 0, sizeof b->replica.seconds);
    double begin = monotonic_seconds();
    TRY(replica_update(&b->replica, window));
    sample->seconds = monotonic_seconds() - begin;
    sample->phases = b->replica.seconds;
    return ST_OK;
}

static enum status time_evaluation(struct bench *b, struct sample *sample) {
    struct evaluation result;
    double begin = monotonic_seconds();
    TRY(evaluator_run(&b->evaluator, &b->replica.data, &b->images, NULL, &result));
    sample->seconds = monotonic_seconds() - begin;
    return ST_OK;
}

static enum status wait_for_device(struct bench *b) {
    TRY(b->communicator->settle(b->communicator));
    return b->replica.backend->synchronise(b->replica.backend);
}

/* Updates that a device has queued are waited for together: each has the mean. */
static enum status measure_queue(struct bench *b) {
    TRY(wait_for_device(b));
    const double begin = monotonic_seconds();
    for (int i = 0; i < b->steps; i++)
        TRY(time_update(b, &b->samples[i]));
    TRY(wait_for_device(b));
    const double mean = (monotonic_seconds() - begin) / b->steps;
    for (int i = 0; i < b->steps; i++)
        b->samples[i].seconds = mean;
    return ST_OK;
}

static enum status measure(struct bench *b) {
    enum status (*time_step)(struct bench *, struct sample *) =
        b->evaluates ? time_evaluation : time_update;
    int warm_up = b->evaluates ? EVALUATION_WARM_UP : WARM_UP;
    struct sample unused;
    for (int i = 0; i < warm_up; i++)
        TRY(time_step(b, &unused));
    TRY(b->communicator->barrier(b->communicator));
    if (!b->evaluates && !b->replica.backend->host_memory)
        return measure_queue(b);
    for (int i = 0; i < b->steps; i++)
        TRY(time_step(b, &b->samples[i]));
    return ST_OK;
}

/* ---- figures ---- */

int bench_compare_seconds(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Phases in the order in which they run; names are those of --json. */
static const struct {
    const char *name;
    size_t offset;
} phases[] = {
    {"gather", offsetof(struct replica_seconds, gather)},
    {"forward", offsetof(struct replica_seconds, forward)},
    {"loss", offsetof(struct replica_seconds, loss)},
    {"backward", offsetof(struct replica_seconds, backward)},
    {"wait", offsetof(struct replica_seconds, wait)},
    {"update", offsetof(struct replica_seconds, update)},
    {"load", offsetof(struct replica_seconds, load)},
};

enum { PHASES = sizeof phases / sizeof phases[0] };

static double *phase_of(struct replica_seconds *seconds, int phase) {
    return (double *)((char *)seconds + phases[phase].offset);
}

/* The median step; phases averaged over the half of the steps around it, so that they add up to
 * about that step and what happens in some steps alone (a wait) still counts. */
static struct figures summarize_rank(struct bench *b) {
    struct figures mine = {0};
    int from = b->steps / 4, to = b->steps - from;
    qsort(b->samples, (size_t)b->steps, sizeof *b->samples, bench_compare_seconds);
    mine.step_seconds =
        (b->samples[(b->steps - 1) / 2].seconds + b->samples[b->steps / 2].seconds) / 2;
    for (int phase = 0; phase < PHASES; phase++)
        for (int i = from; i < to; i++)
            *phase_of(&mine.phases, phase) += *phase_of(&b->samples[i].phases, phase) / (to - from);
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        mine.peak_rss_bytes = 1024.0 * (double)usage.ru_maxrss; /* Linux counts in KiB */
    return mine;
}

/* Means over the ranks, which are in step with each other; the peak is the largest. */
static void combine(const struct figures *each, int ranks, struct figures *all) {
    *all = (struct figures){0};
    for (int r = 0; r < ranks; r++) {
        struct replica_seconds seconds = each[r].phases;
        all->step_seconds += each[r].step_seconds / ranks;
        for (int phase = 0; phase < PHASES; phase++)
            *phase_of(&all->phases, phase) += *phase_of(&seconds, phase) / ranks;
        if (each[r].peak_rss_bytes > all->peak_rss_bytes)
            all->peak_rss_bytes = each[r].peak_rss_bytes;
    }
}

static enum status summarize(struct bench *b, struct figures *all) {
    struct communicator *communicator = b->communicator;
    struct figures mine = summarize_rank(b);
    struct figures *each = calloc((size_t)communicator->size, sizeof *each);
    enum status status = communicator_agree(
        communicator, each != NULL ? ST_OK
                                   : status_fail(ST_MEMORY, "out of memory: figures of %d ranks",
                                                 communicator->size));
    if (status == ST_OK)
        status = communicator->allgather(communicator, &mine, each, sizeof mine);
    if (status == ST_OK)
        combine(each, communicator->size, all);
    free(each);
    return status;
}

/* ---- output ---- */

static uint32_t images_per_step(const struct bench *b) {
    if (b->evaluates)
        return b->images.count;
    return dataset_batch(b->images.count, (uint32_t)b->recipe.train.batch, 0).count;
}

static double density_left(const struct bench *b) {
    const struct network *network = b->replica.network;
    return (double)network_survivors(network) / (double)network_connections(network);
}

static size_t allreduce_bytes(const struct bench *b) {
    return b->replica.network->count * sizeof(float);
}

static bool add(cJSON *object, const char *key, double value) {
    return cJSON_AddNumberToObject(object, key, value) != NULL;
}

/* What only updates have. */
static bool add_update(cJSON *object, const struct bench *b, struct figures *figures) {
    cJSON *seconds = cJSON_AddObjectToObject(object, "phases");
    bool complete = seconds != NULL;
    for (int i = 0; i < PHASES; i++)
        complete = complete && add(seconds, phases[i].name, *phase_of(&figures->phases, i));
    return complete && add(object, "allreduce_bytes_per_step", (double)allreduce_bytes(b)) &&
           add(object, "communication_wait_seconds", figures->phases.wait);
}

static bool add_all(cJSON *object, const struct bench *b, struct figures *figures) {
    return object != NULL &&
           add(object, "images_per_second", images_per_step(b) / figures->step_seconds) &&
           add(object, "step_seconds", figures->step_seconds) &&
           (b->evaluates || add_update(object, b, figures)) &&
           add(object, "peak_rss_bytes", figures->peak_rss_bytes) &&
           add(object, "ranks", b->communicator->size) &&
           add(object, "threads", b->replica.backend->threads) &&
           cJSON_AddStringToObject(object, "backend", b->replica.backend->name) != NULL &&
           add(object, "density", density_left(b));
}

static enum status print_json(const struct bench *b, struct figures *figures) {
    cJSON *object = cJSON_CreateObject();
    char *text = add_all(object, b, figures) ? cJSON_Print(object) : NULL;
    if (text != NULL)
        printf("%s\n", text);
    cJSON_Delete(object);
    cJSON_free(text);
    return text != NULL ? ST_OK : status_fail(ST_MEMORY, "out of memory: the result as JSON");
}

static void print_phases(const struct bench *b, struct figures *figures) {
    putchar('\n');
    for (int i = 0; i < PHASES; i++) {
        double seconds = *phase_of(&figures->phases, i);
        printf("%-12s %9.3f ms %7.1f %%\n", phases[i].name, 1e3 * seconds,
               100 * seconds / figures->step_seconds);
    }
    printf("\nall-reduced  %zu bytes per update\n", allreduce_bytes(b));
}

static void print_text(const struct bench *b, struct figures *figures) {
    int ranks = b->communicator->size, threads = b->replica.backend->threads;
    printf("%s: %.0f images/s, %.3f ms per %s of %u images (median of %d)\n", b->recipe.name,
           images_per_step(b) / figures->step_seconds, 1e3 * figures->step_seconds,
           b->evaluates ? "evaluation" : "update", (unsigned)images_per_step(b), b->steps);
    printf("%d rank%s of %d thread%s on %s, density %.4f, peak memory %.1f MB\n", ranks,
           ranks == 1 ? "" : "s", threads, threads == 1 ? "" : "s", b->replica.backend->name,
           density_left(b), 1e-6 * figures->peak_rss_bytes);
    if (!b->evaluates)
        print_phases(b, figures);
}

static enum status print_figures(const struct bench *b, struct figures *figures) {
    if (b->communicator->rank != 0)
        return ST_OK;
    if (b->json)
        return print_json(b, figures);
    print_text(b, figures);
    return ST_OK;
}

static enum status run_all(struct bench *b, int argc, char **argv) {
    struct figures figures;
    TRY(prepare(b, argc, argv));
    TRY(measure(b));
    TRY(summarize(b, &figures));
    TRY_TOGETHER(b->communicator, print_figures(b, &figures));
    if (b->plans)
        TRY_TOGETHER(b->communicator, bench_print_plans(&b->replica, figures.step_seconds));
    TRY_TOGETHER(b->communicator, command_flush_output());
    return ST_OK;
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct bench bench = {.communicator = communicator};
    enum status status = run_all(&bench, argc, argv);
    release(&bench);
    return status;
}

const struct command command_bench = {
    .name = "bench",
    .usage = "espalier bench RECIPE [-s KEY=VALUE]... [--steps N] [--density D] "
             "[--plans | --evaluate] [--json] [--share-gpus]",
    .summary = "measure a recipe: images/s, time per phase, bytes all-reduced",
    .help =
        "  RECIPE         a libconfig file, for example jobs/recipes/ann_d.cfg\n"
        "  -s KEY=VALUE   set one key, whatever the recipe says; any number of them\n"
        "  --steps N      measure N updates (default: 100) after 20 that are not measured;\n"
        "                 with --evaluate N passes over the test set (default: 10) after 2\n"
        "  --density D    first prune prune.layers to the part D of their connections, the\n"
        "                 largest ones of each layer or of all (prune.scope)\n"
        "  --plans        also print the algorithm that each block of layers got, and what it\n"
        "                 costs\n"
        "  --evaluate     measure the evaluation of the test set in place of updates\n"
        "  --json         print one JSON object\n"
        "  --share-gpus   several ranks may have one GPU (as for train)\n"
        "\n"
        "Updates are those of training, on the recipe's images in whole batches; nothing is\n"
        "written. A step's time is the median; phases are averaged over the half of the steps\n"
        "around it, and over the ranks. 'wait' is the time in which nothing was left to do but to\n"
        "wait for other ranks; density is the part of the network's connections that is left;\n"
        "peak memory is that of the rank which had most. On a GPU, whose work is queued, a step's\n"
        "time is the mean, and phases are the host's time to queue it. Run it on N ranks under\n"
        "'mpirun -n N --bind-to none'.\n",
    .run = run,
};
