/* What pruning costs: selection alone, on one core, and the whole event on all ranks.
 *
 * usage: [mpirun -n N] pruning [CONNECTIONS]   (default 1,200,000)
 * Prints one JSON object: connections, ranks, threads, "select_seconds" (input -> the median of
 * repetitions) and "event_seconds": for each of the events that take a twentieth of all connections
 * and leave what "survivors" says, the slowest rank's time from the end of an update to the
 * beginning of the next, the smallest of several runs. */
#include <espalier/backend.h>
#include <espalier/bitmask.h>
#include <espalier/progress.h>
#include <espalier/prune.h>
#include <espalier/replica.h>
#include <espalier/rng.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPETITIONS = 15, RUNS = 7, EVENTS = 19, WIDTH = 1000, IMAGES = 8 };

/* ---- selection ---- */

static float noise(size_t i) {
    uint32_t words[4];
    rng_philox(1, (struct rng_counter){.group = (uint32_t)i}, words);
    return rng_uniform(words[0]) - 0.5F;
}

static float sorted(size_t i) {
    return 1e-7F * (float)i;
}

static float equal(size_t i) {
    return i % 2 ? 0.25F : -0.25F;
}

static float denormal(size_t i) {
    return 0x1p-149F * (float)(i * 2654435761U % 4096);
}

static const struct {
    const char *name;
    float (*value)(size_t i);
} inputs[] = {{"noise", noise}, {"sorted", sorted}, {"equal", equal}, {"denormal", denormal}};

enum { INPUTS = sizeof inputs / sizeof inputs[0] };

static int by_size(const void *a, const void *b) {
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static enum status time_select(struct backend *backend, const float *values, size_t count,
                               uint64_t *mask, double *median) {
    double seconds[REPETITIONS];
    const struct segment segment = {values, count};
    for (int i = 0; i < REPETITIONS; i++) {
        double begin = monotonic_seconds();
        TRY(backend->select_largest(backend, &segment, 1, count / 2, mask));
        TRY(backend->synchronise(backend));
        seconds[i] = monotonic_seconds() - begin;
    }
    qsort(seconds, REPETITIONS, sizeof *seconds, by_size);
    *median = seconds[REPETITIONS / 2];
    return ST_OK;
}

static enum status measure_select(struct backend *backend, size_t count, double medians[INPUTS]) {
    enum status status = ST_OK;
    float *host = malloc(count * sizeof *host), *values = NULL;
    uint64_t *mask = NULL;
    if (host == NULL)
        FAIL(ST_MEMORY, "out of memory: %zu values", count);
    TRY_OUT(backend->alloc(backend, count * sizeof *host, (void **)&values));
    TRY_OUT(backend->alloc(backend, bitmask_words(count) * sizeof *mask, (void **)&mask));
    for (int k = 0; k < INPUTS; k++) {
        for (size_t i = 0; i < count; i++)
            host[i] = inputs[k].value(i);
        TRY_OUT(backend->upload(backend, values, host, count * sizeof *host));
        TRY_OUT(time_select(backend, values, count, mask, &medians[k]));
    }
out:
    backend->release(backend, values);
    backend->release(backend, mask);
    free(host);
    return status;
}

/* ---- the event ---- */

/* CONNECTIONS / 1000 inputs, one dense layer of 1000 units that is pruned, ten classes. */
static enum status create(struct communicator *c, size_t connections, struct recipe *recipe,
                          struct dataset *images, struct replica *replica) {
    TRY(recipe_parse("pruning",
                     "network = ( { type = \"dense\"; units = 1000; activation = \"relu\"; },"
                     " { type = \"dense\"; units = 10; } );"
                     "train = { batch = 8; };"
                     "prune = { layers = [\"dense1\"]; schedule = \"linear\"; rate = 0.05;"
                     " every = 1; };",
                     NULL, 0, recipe));
    int pixels = (int)(connections / WIDTH);
    *images = (struct dataset){{1, pixels, 1}, IMAGES, 10, NULL, NULL};
    images->images = calloc(IMAGES, (size_t)pixels);
    images->labels = calloc(IMAGES, 1);
    if (images->images == NULL || images->labels == NULL)
        FAIL(ST_MEMORY, "out of memory: %d images", IMAGES);
    return replica_create(recipe, c, images, replica);
}

/* An update before each event, as in training: it leaves the caches as it finds them. */
static enum status time_events(struct replica *replica, struct pruner *pruner,
                               double seconds[EVENTS], double survivors[EVENTS]) {
    struct communicator *c = replica->communicator;
    for (int e = 0; e < EVENTS; e++) {
        bool pruned;
        TRY(replica_update(replica, (struct slice){0, IMAGES}));
        TRY(c->barrier(c));
        double begin = monotonic_seconds();
        TRY(replica_complete(replica));
        TRY(pruner_step(pruner, e + 1, replica->optimizer.states, OPTIMIZER_STATES_MAX, &pruned));
        double spent = monotonic_seconds() - begin;
        seconds[e] = spent < seconds[e] ? spent : seconds[e];
        survivors[e] = (double)pruner->network->parameters[0].count;
    }
    return ST_OK;
}

static enum status run_events(struct communicator *c, size_t connections, double seconds[EVENTS],
                              double survivors[EVENTS]) {
    struct recipe recipe = {.path = NULL};
    struct dataset images = {.count = 0};
    struct replica replica = {.recipe = NULL};
    struct pruner pruner = {.network = NULL};
    enum status status = ST_OK;
    TRY_OUT(create(c, connections, &recipe, &images, &replica));
    TRY_OUT(replica_join(&replica, false));
    TRY_OUT(replica_shuffle(&replica, 1));
    TRY_OUT(pruner_create(replica.network, &recipe.prune, (struct run_length){0, 0}, c, &pruner));
    TRY_OUT(time_events(&replica, &pruner, seconds, survivors));
out:
    pruner_destroy(&pruner);
    replica_destroy(&replica);
    recipe_destroy(&recipe);
    free(images.images);
    free(images.labels);
    return status;
}

/* ---- output ---- */

static void print_list(const char *name, const double *values, const char *format) {
    printf(", \"%s\": [", name);
    for (int i = 0; i < EVENTS; i++) {
        fputs(i > 0 ? ", " : "", stdout);
        printf(strcmp(format, "count") == 0 ? "%.0f" : "%.6f", values[i]);
    }
    putchar(']');
}

static enum status print_all(struct communicator *c, size_t connections, int threads,
                             const double *selects, const double *events, const double *survivors) {
    double *all = calloc((size_t)c->size * EVENTS, sizeof *all), slowest[EVENTS] = {0};
    if (all == NULL)
        FAIL(ST_MEMORY, "out of memory: times of %d ranks", c->size);
    enum status status = c->allgather(c, events, all, EVENTS * sizeof *events);
    for (int i = 0; i < c->size * EVENTS; i++)
        slowest[i % EVENTS] = fmax(slowest[i % EVENTS], all[i]);
    free(all);
    if (status != ST_OK || c->rank != 0)
        return status;
    printf("{\"connections\": %zu, \"ranks\": %d, \"threads\": %d, \"select_seconds\": {",
           connections, c->size, threads);
    for (int k = 0; k < INPUTS; k++)
        printf("%s\"%s\": %.6f", k > 0 ? ", " : "", inputs[k].name, selects[k]);
    putchar('}');
    print_list("survivors", survivors, "count");
    print_list("event_seconds", slowest, "seconds");
    puts("}");
    return ST_OK;
}

static enum status measure(struct communicator *c, size_t connections) {
    double selects[INPUTS] = {0}, events[EVENTS], survivors[EVENTS];
    struct backend *one_core = NULL;
    for (int e = 0; e < EVENTS; e++)
        events[e] = INFINITY;
    TRY(backend_create(backend_names[0], &(struct backend_options){.threads = 1}, &one_core));
    if (c->rank == 0)
        TRY(measure_select(one_core, connections, selects));
    one_core->destroy(one_core);
    TRY(c->barrier(c));
    for (int i = 0; i < RUNS; i++)
        TRY(run_events(c, connections, events, survivors));
    int threads = c->cores / c->size;
    return print_all(c, connections, threads > 0 ? threads : 1, selects, events, survivors);
}

int main(int argc, char **argv) {
    struct communicator c;
    char *end = NULL;
    if (communicator_create(&argc, &argv, &c) != ST_OK) {
        fprintf(stderr, "pruning: %s\n", status_message());
        return 1;
    }
    long connections = argc > 1 ? strtol(argv[1], &end, 10) : 1200000;
    if (argc > 2 || (end != NULL && *end != '\0') || connections < WIDTH) {
        fprintf(stderr, "usage: pruning [CONNECTIONS, at least %d]\n", WIDTH);
        c.abort(&c, 2);
        return 2;
    }
    enum status status = measure(&c, (size_t)connections);
    if (status != ST_OK) {
        fprintf(stderr, "pruning: %s\n", status_message());
        c.abort(&c, 1);
        return 1;
    }
    c.destroy(&c);
    return 0;
}
