/* Whatever the optimizer, schedule, scope and number of ranks: what is pruned stays 0, and deleting
 * and masking keep the same connections; on one and two ranks with the same bits in all weights,
 * where both compute in dense form and with whole layers. */
#include "mpi_check.h"
#include <espalier/prune.h>
#include <espalier/replica.h>
#include <espalier/rng.h>

static struct communicator *const c = &mpi_check_ranks;

enum { IMAGES = 40, SIDE = 8, STEPS = 20, BATCH = 10, WEIGHTS_MAX = 1024, LAYERS = 3 };

/* One side of the comparison. */
struct side {
    struct recipe recipe;
    struct replica replica;
    struct pruner pruner;
    bool alive[LAYERS][WEIGHTS_MAX];
    bool reduced; /* it has computed with less than whole layers */
};

static uint8_t images[IMAGES * SIDE * SIDE], labels[IMAGES];

static struct dataset make_images(void) {
    uint32_t words[4];
    for (uint32_t i = 0; i < sizeof images; i++) {
        rng_philox(5, (struct rng_counter){.group = i}, words);
        images[i] = (uint8_t)words[0];
    }
    for (uint32_t i = 0; i < IMAGES; i++)
        labels[i] = (uint8_t)(i % 4);
    return (struct dataset){{SIDE, SIDE, 1}, IMAGES, 4, images, labels};
}

/* In dense form throughout: then masked and deleted weights have the same bits. */
static void side_create(struct side *side, const char *settings, const char *deletion,
                        const struct dataset *train) {
    char text[1024];
    memset(side, 0, sizeof *side);
    memset(side->alive, true, sizeof side->alive);
    snprintf(text, sizeof text,
             "network = ( { type = \"conv\"; filters = 4; kernel = 3; activation = \"relu\"; },"
             " { type = \"maxpool\"; size = 2; }, { type = \"dense\"; units = 12; activation ="
             " \"tanh\"; }, { type = \"dense\"; units = 4; } );\n"
             "prune = { layers = [\"conv1\", \"dense1\", \"dense2\"]; every = 2; rate = 0.05;"
             " keep = 0.2; mu = 3.0; sparse_below = 0.0; deletion = \"%s\"; %s",
             deletion, settings);
    CHECK_OK(recipe_parse("r.cfg", text, NULL, 0, &side->recipe));
    side->recipe.train.batch = BATCH;
    side->recipe.train.threads = 1;
    CHECK_OK(replica_create(&side->recipe, c, train, &side->replica));
    const struct run_length run = {STEPS, IMAGES / BATCH};
    CHECK_OK(replica_join(&side->replica, false));
    CHECK_OK(pruner_create(side->replica.network, &side->recipe.prune, run, c, &side->pruner));
}

static void side_destroy(struct side *side) {
    pruner_destroy(&side->pruner);
    replica_destroy(&side->replica);
    recipe_destroy(&side->recipe);
}

static void step(struct side *side, int update) {
    bool pruned;
    uint32_t in_epoch = (uint32_t)(update - 1) % (IMAGES / BATCH);
    if (in_epoch == 0)
        CHECK_OK(replica_shuffle(&side->replica, 1 + (update - 1) / (IMAGES / BATCH)));
    CHECK_OK(replica_update(&side->replica, dataset_batch(IMAGES, BATCH, in_epoch)));
    CHECK_OK(replica_complete(&side->replica));
    CHECK_OK(pruner_step(&side->pruner, update, side->replica.optimizer.states,
                         OPTIMIZER_STATES_MAX, &pruned));
}

/* The network's weights, and that none came back. */
static void observe(struct side *side, int layer, float *values) {
    static const char *const names[LAYERS] = {"conv1.weight", "dense1.weight", "dense2.weight"};
    const struct network *network = side->replica.network;
    int parameter = network_find_parameter(network, names[layer]);
    const struct parameter *p = &network->parameters[parameter];
    uint32_t indices[WEIGHTS_MAX];
    bool now[WEIGHTS_MAX] = {false};
    CHECK(p->original_count <= WEIGHTS_MAX);
    CHECK_OK(network_get_parameter(network, parameter, values));
    if (p->indices == NULL)
        return;
    CHECK_OK(network->backend->download(network->backend, indices, p->indices,
                                        p->count * sizeof *indices));
    for (size_t j = 0; j < p->count; j++)
        now[indices[j]] = true;
    for (size_t i = 0; i < p->original_count; i++) {
        CHECK(!now[i] || side->alive[layer][i]);
        CHECK(now[i] || (values[i] == 0 && p->dense != NULL));
        side->alive[layer][i] = now[i];
    }
}

/* Under a mask: not only is the weight 0, there is nothing that could move it. */
static void check_zeros(const struct side *side) {
    const struct network *network = side->replica.network;
    for (int i = -2; i < OPTIMIZER_STATES_MAX; i++) {
        float values[WEIGHTS_MAX];
        const float *vector = i == -2   ? network->beta
                              : i == -1 ? network->gradient
                                        : side->replica.optimizer.states[i];
        for (int l = 0, p = 0; vector != NULL && l < LAYERS; l++, p += 2) {
            const struct parameter *parameter = &network->parameters[p];
            CHECK_OK(network->backend->download(network->backend, values,
                                                vector + parameter->offset,
                                                parameter->original_count * sizeof *values));
            for (size_t j = 0; j < parameter->original_count; j++)
                CHECK(side->alive[l][j] || values[j] == 0);
        }
    }
}

static bool is_reduced(const struct network *network) {
    for (int i = 0; i < network->blocks_count; i++)
        if (block_weights(&network->blocks[i].reduced) < block_weights(&network->blocks[i].desc))
            return true;
    return false;
}

/* With less than whole layers sums are grouped otherwise. */
static void compare(struct side *deleted, struct side *masked) {
    deleted->reduced = deleted->reduced || is_reduced(deleted->replica.network);
    CHECK(!is_reduced(masked->replica.network));
    for (int layer = 0; layer < LAYERS; layer++) {
        static float one[WEIGHTS_MAX], other[WEIGHTS_MAX];
        observe(deleted, layer, one);
        observe(masked, layer, other);
        if (deleted->reduced)
            continue;
        CHECK(memcmp(deleted->alive[layer], masked->alive[layer], WEIGHTS_MAX) == 0);
        if (c->size <= 2) /* more ranks may sum longer vectors in another order */
            CHECK(memcmp(one, other, sizeof one) == 0);
    }
    check_zeros(masked);
    CHECK(masked->replica.network->count == masked->replica.network->original_count);
    CHECK_OK(pruner_compare_replicas(&deleted->pruner, 0));
    CHECK_OK(pruner_compare_replicas(&masked->pruner, 0));
}

/* Returns whether it has computed with less than whole layers. */
static bool train(const char *optimizer, const char *schedule, const char *scope,
                  const struct dataset *images_of) {
    char settings[512];
    struct side deleted, masked;
    snprintf(settings, sizeof settings, "schedule = \"%s\"; %s };\ntrain = { %s };\n", schedule,
             scope, optimizer);
    side_create(&deleted, settings, "delete", images_of);
    side_create(&masked, settings, "mask", images_of);
    for (int update = 1; update <= STEPS; update++) {
        step(&deleted, update);
        step(&masked, update);
        compare(&deleted, &masked);
    }
    size_t left = network_survivors(deleted.replica.network);
    CHECK(left == network_survivors(masked.replica.network));
    CHECK(left < network_connections(deleted.replica.network));
    CHECK(deleted.replica.network->count ==
          deleted.replica.network->original_count -
              (network_connections(deleted.replica.network) - left));
    side_destroy(&deleted);
    side_destroy(&masked);
    return deleted.reduced;
}

int main(int argc, char **argv) {
    static const char *const optimizers[] = {
        "optimizer = \"sgd\"; learning_rate = 0.1;",
        "optimizer = \"sgd\"; learning_rate = 0.1; momentum = 0.9;",
        "optimizer = \"sgd\"; learning_rate = 0.1; momentum = 0.9; nesterov = true;",
        "optimizer = \"adadelta\";",
        "optimizer = \"adam\"; learning_rate = 0.01;",
        "optimizer = \"adadelta\"; l1 = 0.001; l2 = 0.01;",
        "optimizer = \"sgd\"; learning_rate = 0.1; momentum = 0.9; l1 = 0.001; l2 = 0.01;",
    };
    static const char *const scopes[] = {
        "scope = \"layer\";",
        "scope = \"layer\"; distribution = \"erk\"; min_keep = 3;",
        "scope = \"global\"; min_keep = 0.1;",
        "scope = \"global\"; normalise = true;",
    };
    CHECK_OK(communicator_create(&argc, &argv, c));
    const struct dataset dataset = make_images();
    int runs = 0, reduced = 0;
    /* All combinations on one rank; of several, which wait for each other, a sixth: every optimizer
     * with every scope. */
    for (int o = 0; o < 7; o++)
        for (int s = SCHEDULE_NONE + 1; s < SCHEDULE_COUNT; s++)
            for (int k = 0; k < 4; k++)
                if (c->size == 1 || (o + s + k) % 6 == c->size % 6) {
                    reduced += train(optimizers[o], schedule_names[s], scopes[k], &dataset);
                    runs++;
                }
    CHECK(reduced > 0 && reduced < runs);
    CHECK_OK(c->barrier(c));
    c->destroy(c);
    return 0;
}
