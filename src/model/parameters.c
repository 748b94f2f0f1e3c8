/* The parameters as a host sees them: dense, in canonical order, zeros where pruned. */
#include <espalier/digest.h>
#include <espalier/network.h>

#include <stdlib.h>
#include <string.h>

/* Host copies of a pruned parameter's original indices and of its survivors' values. */
struct survivor_copies {
    uint32_t *indices;
    float *values;
};

static void free_copies(struct survivor_copies *copies) {
    free(copies->indices);
    free(copies->values);
}

static enum status download_indices(const struct network *network, const struct parameter *p,
                                    struct survivor_copies *copies) {
    copies->indices = malloc(p->count * sizeof *copies->indices + 1);
    copies->values = malloc(p->count * sizeof *copies->values + 1);
    if (copies->indices == NULL || copies->values == NULL)
        FAIL(ST_MEMORY, "out of memory: the survivors of %s", p->name);
    return network->backend->download(network->backend, copies->indices, p->indices,
                                      p->count * sizeof *copies->indices);
}

/* Beta holds it dense: nothing is pruned, or it is masked. */
static bool is_stored_dense(const struct parameter *p) {
    return p->stored == p->original_count;
}

static enum status get_survivors(const struct network *network, const struct parameter *p,
                                 struct survivor_copies *copies, float *values) {
    TRY(download_indices(network, p, copies));
    TRY(network->backend->download(network->backend, copies->values, network->beta + p->offset,
                                   p->count * sizeof *values));
    memset(values, 0, p->original_count * sizeof *values);
    for (size_t j = 0; j < p->count; j++)
        values[copies->indices[j]] = copies->values[j];
    return ST_OK;
}

enum status network_get_parameter(const struct network *network, int parameter, float *values) {
    const struct parameter *p = &network->parameters[parameter];
    if (is_stored_dense(p))
        return network->backend->download(network->backend, values, network->beta + p->offset,
                                          p->stored * sizeof *values);
    struct survivor_copies copies = {NULL, NULL};
    enum status status = get_survivors(network, p, &copies, values);
    free_copies(&copies);
    return status;
}

/* Under a mask by way of the scratch to the survivors' places. */
static enum status set_survivors(struct network *network, const struct parameter *p,
                                 struct survivor_copies *copies, const float *values) {
    struct backend *backend = network->backend;
    float *stored = network->beta + p->offset, *to = network->masked ? p->dense : stored;
    TRY(download_indices(network, p, copies));
    for (size_t j = 0; j < p->count; j++)
        copies->values[j] = values[copies->indices[j]];
    TRY(backend->upload(backend, to, copies->values, p->count * sizeof *values));
    return network->masked ? backend->scatter(backend, to, p->indices, p->count, stored) : ST_OK;
}

enum status network_set_parameter(struct network *network, int parameter, const float *values) {
    const struct parameter *p = &network->parameters[parameter];
    if (p->indices == NULL)
        return network->backend->upload(network->backend, network->beta + p->offset, values,
                                        p->count * sizeof *values);
    struct survivor_copies copies = {NULL, NULL};
    enum status status = set_survivors(network, p, &copies, values);
    free_copies(&copies);
    return status;
}

enum status network_get_indices(const struct network *network, const struct parameter *p,
                                struct arena *arena, const uint32_t **indices) {
    struct backend *backend = network->backend;
    uint32_t *copy;
    *indices = p->indices;
    if (p->indices == NULL || backend->host_memory)
        return ST_OK;
    TRY(ARENA_ARRAY(arena, p->count, &copy));
    *indices = copy;
    return backend->download(backend, copy, p->indices, p->count * sizeof *copy);
}

int network_find_parameter(const struct network *network, const char *name) {
    for (int i = 0; i < network->parameters_count; i++)
        if (strcmp(network->parameters[i].name, name) == 0)
            return i;
    return -1;
}

size_t network_connections(const struct network *network) {
    size_t sum = 0;
    for (int i = 0; i < network->parameters_count; i++)
        if (network->parameters[i].is_weight)
            sum += network->parameters[i].original_count;
    return sum;
}

size_t network_survivors(const struct network *network) {
    size_t sum = 0;
    for (int i = 0; i < network->parameters_count; i++)
        if (network->parameters[i].is_weight)
            sum += network->parameters[i].count;
    return sum;
}

static enum status digest_parameter(const struct network *network, int parameter,
                                    struct digest *digest) {
    size_t bytes = network->parameters[parameter].original_count * sizeof(float);
    float *values = malloc(bytes);
    if (values == NULL)
        FAIL(ST_MEMORY, "out of memory: a copy of %s", network->parameters[parameter].name);
    enum status status = network_get_parameter(network, parameter, values);
    if (status == ST_OK)
        status = digest_add(digest, values, bytes);
    free(values);
    return status;
}

enum status network_digest(const struct network *network, char *text) {
    struct digest *digest = NULL;
    TRY(digest_create(&digest));
    for (int i = 0; i < network->parameters_count; i++) {
        enum status status = digest_parameter(network, i, digest);
        if (status != ST_OK) {
            digest_destroy(digest);
            return status;
        }
    }
    return digest_finish(digest, text);
}
