/* A checkpoint from anywhere: its seal, its state, and the network that it restores. Those that are
 * tried have no seal, or none could be changed; a real one is checked before the rest. */
#include "mutate_safetensors.h"

#include <backend_reference.h>
#include <espalier/checkpoint.h>

enum { VALUES_MAX = 1 << 16, RANKS = 2 };

static const struct shape input = {3, 3, 1};

/* Small enough to be built for each of the inputs: a run's network comes from the user's recipe. */
static bool is_small(const struct recipe *recipe) {
    struct block blocks[RECIPE_LAYERS_MAX];
    struct parameter parameters[NETWORK_PARAMETERS_MAX];
    size_t values = 0;
    int blocks_count, count;
    if (network_describe(recipe, input, blocks, &blocks_count) != ST_OK ||
        network_describe_parameters(recipe, input, parameters, &count) != ST_OK)
        return false;
    for (int i = 0; i < blocks_count; i++)
        values += shape_size(blocks[i].desc.linear);
    for (int i = 0; i < count; i++)
        values += parameters[i].original_count;
    return values <= VALUES_MAX;
}

/* Survivors' values are the file's. */
static void check_values(const struct checkpoint *checkpoint, const struct network *network) {
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *p = &network->parameters[i];
        const struct safetensor *tensor = safetensors_find(&checkpoint->file, p->name);
        REQUIRE(tensor != NULL && safetensor_count(tensor) == p->count);
        REQUIRE(p->count == 0 ||
                memcmp(network->beta + p->offset, tensor->values, p->count * sizeof(float)) == 0);
    }
}

static enum status restore(const struct checkpoint *checkpoint, struct backend *backend) {
    static const char *const names[] = {"mean_square_gradient"};
    struct network *network;
    float *vector = NULL;
    TRY(network_create(&checkpoint->recipe, input, 1, backend, &network));
    REQUIRE(backend->alloc(backend, network->count * sizeof *vector, (void **)&vector) == ST_OK);
    const struct checkpoint_states states = {1, &vector, names};
    enum status status = checkpoint_restore(checkpoint, network, &states);
    if (status == ST_OK)
        check_values(checkpoint, network);
    backend->release(backend, vector);
    network_destroy(network);
    return status;
}

static enum status read_all(const uint8_t *data, size_t size, struct checkpoint *checkpoint) {
    struct loss_sums sums;
    struct backend *backend;
    TRY(checkpoint_parse("fuzz", data, size, checkpoint));
    TRY(checkpoint_rank_sums(checkpoint, 1, RANKS, &sums));
    if (!is_small(&checkpoint->recipe))
        return ST_OK;
    REQUIRE(backend_reference_create(&backend) == ST_OK);
    enum status status = restore(checkpoint, backend);
    backend->destroy(backend);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct checkpoint checkpoint;
    memset(&checkpoint, 0, sizeof checkpoint);
    if (safetensors_check_seal("fuzz", data, size) != ST_OK)
        fuzz_check_refusal(ST_INPUT);
    enum status status = read_all(data, size, &checkpoint);
    if (status != ST_OK)
        fuzz_check_refusal(status);
    checkpoint_destroy(&checkpoint);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return mutate_safetensors(data, size, max_size, seed);
}
