#include <espalier/optimizer.h>

#include <string.h>

/* State vectors of each kind of optimizer. */
static const int states_of[OPTIMIZER_COUNT] = {
    [OPTIMIZER_SGD] = 1,      /* velocity */
    [OPTIMIZER_ADADELTA] = 2, /* mean squares of gradient and update */
    [OPTIMIZER_ADAM] = 2,     /* first and second moment */
};

static int states_needed(const struct optimizer_settings *settings) {
    bool plain = settings->kind == OPTIMIZER_SGD && settings->momentum == 0.0;
    return plain ? 0 : states_of[settings->kind];
}

enum status optimizer_create(struct network *network, const struct optimizer_settings *settings,
                             struct optimizer *optimizer) {
    memset(optimizer, 0, sizeof *optimizer);
    optimizer->network = network;
    optimizer->settings = settings;
    struct backend *backend = network->backend;
    for (int i = 0; i < states_needed(settings); i++)
        TRY(backend->alloc(backend, network->count * sizeof(float),
                           (void **)&optimizer->states[i]));
    return ST_OK;
}

void optimizer_destroy(struct optimizer *optimizer) {
    for (int i = 0; i < OPTIMIZER_STATES_MAX; i++)
        if (optimizer->states[i] != NULL)
            optimizer->network->backend->release(optimizer->network->backend, optimizer->states[i]);
    memset(optimizer, 0, sizeof *optimizer);
}

enum status optimizer_step(struct optimizer *optimizer) {
    struct network *network = optimizer->network;
    const struct optimizer_settings *settings = optimizer->settings;
    const struct update_args args = {
        .kind = settings->kind,
        .learning_rate = (float)settings->learning_rate,
        .momentum = (float)settings->momentum,
        .rho = (float)settings->rho,
        .epsilon = (float)settings->epsilon,
        .beta1 = (float)settings->beta1,
        .beta2 = (float)settings->beta2,
        .nesterov = settings->nesterov,
        .step = ++optimizer->step,
    };
    TRY(network->backend->update(network->backend, &args, network->beta, network->gradient,
                                 optimizer->states[0], optimizer->states[1], network->count));
    return network_materialize(network);
}
