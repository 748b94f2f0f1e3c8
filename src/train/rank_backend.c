#include <espalier/rank_backend.h>
#include <espalier/threads.h>

/* The ranks of a node take its devices in turn. Where the launcher shows each rank one of its own,
 * that is the only one it sees. */
static enum status choose_device(const char *name, const struct communicator *communicator,
                                 int *device) {
    int count;
    TRY(backend_devices(name, &count));
    *device = communicator->local_rank % count;
    return ST_OK;
}

/* Sums that do not depend on the ranks are made on the CPU alone. */
static enum backend_choice choice_of(const struct recipe *recipe) {
    const bool automatic = recipe->train.backend == BACKEND_AUTO;
    return automatic && recipe->train.reproducible ? BACKEND_CPU : recipe->train.backend;
}

enum status rank_backend_create(const struct recipe *recipe,
                                const struct communicator *communicator, struct backend **backend) {
    struct backend_options options = {
        .threads = threads_default(recipe->train.threads, communicator->cores),
        .tf32 = recipe->train.tf32};
    const char *name = backend_chosen(choice_of(recipe));
    TRY(choose_device(name, communicator, &options.device));
    TRY(backend_create(name, &options, backend));
    if ((*backend)->host_memory) /* NCCL's threads keep to the cores of the one that makes them */
        backend_cpu_bind(options.threads, &communicator->place);
    return ST_OK;
}
