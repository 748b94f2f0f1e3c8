#include <espalier/rank_backend.h>
#include <espalier/threads.h>

/* Sums that do not depend on the ranks are made on the CPU alone. */
static enum backend_choice choice_of(const struct recipe *recipe) {
    const bool automatic = recipe->train.backend == BACKEND_AUTO;
    return automatic && recipe->train.reproducible ? BACKEND_CPU : recipe->train.backend;
}

enum status rank_backend_create(const struct recipe *recipe,
                                const struct communicator *communicator, struct backend **backend) {
    const struct backend_options options = {
        .threads = threads_default(recipe->train.threads, communicator->cores),
        .tf32 = recipe->train.tf32};
    TRY(backend_create(backend_chosen(choice_of(recipe)), &options, backend));
    backend_cpu_bind(options.threads, &communicator->place);
    return ST_OK;
}
