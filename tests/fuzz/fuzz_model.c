/* A model from anywhere: its metadata, the recipe in it, and the network that it claims to be. */
#include "mutate_safetensors.h"

#include <backend_reference.h>
#include <espalier/model.h>

/* The network's parameters are the file's tensors. */
static void check_parameters(const struct model *model, const struct network *network) {
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *parameter = &network->parameters[i];
        const struct safetensor *tensor = safetensors_find(&model->file, parameter->name);
        size_t bytes = parameter->original_count * sizeof(float);
        float *values = malloc(bytes);
        REQUIRE(tensor != NULL && values != NULL);
        REQUIRE(network_get_parameter(network, i, values) == ST_OK);
        REQUIRE(memcmp(values, tensor->values, bytes) == 0);
        free(values);
    }
}

static enum status build(const struct model *model, struct backend *backend) {
    struct network *network;
    TRY(network_create(&model->recipe, model->input, 1, backend, &network));
    enum status status = model_load(model, network);
    if (status == ST_OK)
        check_parameters(model, network);
    network_destroy(network);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct model model;
    struct backend *backend;
    REQUIRE(backend_reference_create(&backend) == ST_OK);
    enum status status = model_read(fuzz_file(data, size), &model);
    if (status == ST_OK)
        status = build(&model, backend);
    if (status != ST_OK)
        fuzz_check_refusal(status);
    model_destroy(&model);
    backend->destroy(backend);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return mutate_safetensors(data, size, max_size, seed);
}
