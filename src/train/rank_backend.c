#include <espalier/rank_backend.h>
#include <espalier/threads.h>
#include <string.h>

/* The ranks of a node take its devices in turn. Where the launcher shows each rank one of its own,
 * that is the only one it sees. */
static enum status choose_device(const char *name, const struct communicator *communicator,
                                 int *device) {
    struct devices_found found;
    TRY(backend_devices(name, &found));
    *device = communicator->local_rank % found.usable;
    return ST_OK;
}

/* Sums that do not depend on the ranks are made on the CPU alone. */
static enum backend_choice choice_of(const struct recipe *recipe) {
    const bool automatic = recipe->train.backend == BACKEND_AUTO;
    return automatic && recipe->train.reproducible ? BACKEND_CPU : recipe->train.backend;
}

static void note_refused(enum backend_choice choice, struct backend *backend) {
    struct devices_found found = {.usable = 0};
    if (choice != BACKEND_CPU)
        (void)backend_devices(backend_choice_names[BACKEND_CUDA], &found);
    memcpy(backend->refused, found.refused, sizeof backend->refused);
}

enum status rank_backend_create(const struct recipe *recipe,
                                const struct communicator *communicator, struct backend **backend) {
    struct backend_options options = {
        .threads = threads_default(recipe->train.threads, communicator->cores),
        .tf32 = recipe->train.tf32};
    const enum backend_choice choice = choice_of(recipe);
    const char *name = backend_chosen(choice);
    TRY(choose_device(name, communicator, &options.device));
    TRY(backend_create(name, &options, backend));
    note_refused(choice, *backend);
    if ((*backend)->host_memory) /* NCCL's threads keep to the cores of the one that makes them */
        backend_cpu_bind(options.threads, &communicator->place);
    return ST_OK;
}
