/* What it saves to delete channels and units from the shapes: the training step of the poster's
 * network, of whose second convolution and first dense layer a part is gone, deleted against
 * masked.
 *
 * usage: shapes [THREADS]   (default 2)
 * Prints one JSON object: threads, and for each case the part that is "gone", whether it is
 * "constant" (nothing leads there, but it is read) or has no connections on either side, and the
 * median of the steps, "masked_seconds" and "deleted_seconds", both in dense form, taken in turn.
 */
#include <espalier/bitmask.h>
#include <espalier/deletion.h>
#include <espalier/progress.h>
#include <espalier/replica.h>
#include <espalier/rng.h>
#include <espalier/survivors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES = 512, SIDE = 28, BATCH = 128, WARM_UP = 10, STEPS = 60, SIDES = 2 };

/* Of eight channels or units, so many are gone. */
struct shapes_case {
    int gone;
    bool constant;
};

static const struct shapes_case cases[] = {
    {0, false}, {2, false}, {4, false}, {6, false}, {4, true}};

enum { CASES = sizeof cases / sizeof cases[0] };

struct side {
    struct recipe recipe;
    struct replica replica;
    double seconds[STEPS];
};

static int by_size(const void *a, const void *b) {
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Noise on a dark ground: two pixels of three are 0. */
static enum status make_images(struct dataset *images) {
    *images = (struct dataset){{SIDE, SIDE, 1}, IMAGES, 10, NULL, NULL};
    images->images = calloc(IMAGES, SIDE * SIDE);
    images->labels = calloc(IMAGES, 1);
    if (images->images == NULL || images->labels == NULL)
        FAIL(ST_MEMORY, "out of memory: %d images", IMAGES);
    for (uint32_t i = 0; i < IMAGES * SIDE * SIDE; i++) {
        uint32_t words[4];
        rng_philox(1, (struct rng_counter){.group = i}, words);
        images->images[i] = words[0] % 3 == 0 ? (uint8_t)words[1] : 0;
    }
    for (uint32_t i = 0; i < IMAGES; i++)
        images->labels[i] = (uint8_t)(i % 10);
    return ST_OK;
}

/* Whether a weight of conv2, dense1 or dense2 is left: its output and its input channel are. */
static bool is_left(const struct shapes_case *c, const struct parameter *p, size_t index) {
    const bool is_conv = p->dimensions == 4, is_last = p->size[0] == 10;
    const size_t columns = p->original_count / p->size[0], out = index / columns;
    const size_t in = index % columns % (is_last ? 128 : 32);
    const bool reads_gone = !is_conv && !c->constant && in % 8 < (size_t)c->gone;
    return !reads_gone && (is_last || out % 8 >= (size_t)c->gone);
}

static enum status prune(struct network *network, const struct shapes_case *c) {
    const struct survivors_scope scope = {3, {2, 4, 6}};
    struct bitmask mask;
    size_t bit = 0;
    TRY(bitmask_create(survivors_count(network, &scope), &mask));
    for (int i = 0; i < scope.count; i++) {
        const struct parameter *p = &network->parameters[scope.parameters[i]];
        for (size_t j = 0; j < p->original_count; j++, bit++)
            if (is_left(c, p, j))
                bitmask_set(mask.words, bit);
    }
    enum status status = survivors_keep(network, &scope, &mask, NULL, 0);
    bitmask_destroy(&mask);
    return status;
}

static enum status create(struct side *side, struct communicator *communicator, int threads,
                          const char *deletion, const struct dataset *images,
                          const struct shapes_case *c) {
    char text[1024];
    snprintf(text, sizeof text,
             "network = ( { type = \"conv\"; filters = 32; kernel = 3; activation = \"relu\"; },"
             " { type = \"conv\"; filters = 32; kernel = 3; activation = \"relu\"; },"
             " { type = \"maxpool\"; size = 2; },"
             " { type = \"dense\"; units = 128; activation = \"relu\"; },"
             " { type = \"dense\"; units = 10; } );"
             "train = { batch = %d; threads = %d; learning_rate = 0.01; optimizer = \"sgd\"; };"
             "prune = { deletion = \"%s\"; };",
             BATCH, threads, deletion);
    TRY(recipe_parse("shapes", text, NULL, 0, &side->recipe));
    TRY(replica_create(&side->recipe, communicator, images, &side->replica));
    TRY(replica_shuffle(&side->replica, 1));
    if (!side->replica.network->masked)
        deletion_set_threshold(side->replica.network, 0);
    return prune(side->replica.network, c);
}

static enum status take_step(struct side *side, int step) {
    const double begin = monotonic_seconds();
    TRY(replica_update(&side->replica, dataset_batch(IMAGES, BATCH, (uint32_t)step % 4)));
    if (step >= WARM_UP)
        side->seconds[step - WARM_UP] = monotonic_seconds() - begin;
    return ST_OK;
}

static enum status take_steps(struct side *sides) {
    for (int step = 0; step < WARM_UP + STEPS; step++)
        for (int i = 0; i < SIDES; i++)
            TRY(take_step(&sides[i], step));
    for (int i = 0; i < SIDES; i++)
        qsort(sides[i].seconds, STEPS, sizeof *sides[i].seconds, by_size);
    return ST_OK;
}

static enum status measure(struct communicator *communicator, int threads,
                           const struct dataset *images, const struct shapes_case *c) {
    static const char *const deletions[SIDES] = {"mask", "delete"};
    struct side sides[SIDES] = {0};
    enum status status = ST_OK;
    for (int i = 0; i < SIDES; i++)
        TRY_OUT(create(&sides[i], communicator, threads, deletions[i], images, c));
    TRY_OUT(take_steps(sides));
    printf("{\"gone\": %.3f, \"constant\": %s, \"masked_seconds\": %.6f, "
           "\"deleted_seconds\": %.6f}",
           c->gone / 8.0, c->constant ? "true" : "false", sides[0].seconds[STEPS / 2],
           sides[1].seconds[STEPS / 2]);
out:
    for (int i = 0; i < SIDES; i++) {
        replica_destroy(&sides[i].replica);
        recipe_destroy(&sides[i].recipe);
    }
    return status;
}

static enum status measure_all(struct communicator *communicator, int threads) {
    struct dataset images;
    enum status status = make_images(&images);
    printf("{\"threads\": %d, \"cases\": [", threads);
    for (int i = 0; status == ST_OK && i < CASES; i++) {
        fputs(i > 0 ? ",\n" : "\n", stdout);
        status = measure(communicator, threads, &images, &cases[i]);
    }
    puts("]}");
    free(images.images);
    free(images.labels);
    return status;
}

int main(int argc, char **argv) {
    struct communicator communicator;
    const long threads = argc > 1 ? strtol(argv[1], NULL, 10) : 2;
    backend_cpu_prepare_process(argv);
    if (argc > 2 || threads < 1 || threads > 1024) {
        fputs("usage: shapes [THREADS]\n", stderr);
        return 2;
    }
    if (communicator_single(&communicator) != ST_OK ||
        measure_all(&communicator, (int)threads) != ST_OK) {
        fprintf(stderr, "shapes: %s\n", status_message());
        return 1;
    }
    return 0;
}
