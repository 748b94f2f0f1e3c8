#include <espalier/optimizer.h>

#include <string.h>

const char *const optimizer_state_names[OPTIMIZER_COUNT][OPTIMIZER_STATES_MAX] = {
    [OPTIMIZER_SGD] = {"velocity"},
    [OPTIMIZER_ADADELTA] = {"mean_square_gradient", "mean_square_update"},
    [OPTIMIZER_ADAM] = {"first_moment", "second_moment"},
};

static bool needs_state(const struct optimizer_settings *settings, int state) {
    bool plain = settings->kind == OPTIMIZER_SGD && settings->momentum == 0.0;
    return !plain && optimizer_state_names[settings->kind][state] != NULL;
}

size_t optimizer_settings_bytes(const struct optimizer_settings *settings, size_t count) {
    size_t states = 0;
    for (int i = 0; i < OPTIMIZER_STATES_MAX; i++)
        states += needs_state(settings, i);
    return states * count * sizeof(float);
}

size_t optimizer_bytes(const struct optimizer *optimizer) {
    return optimizer_settings_bytes(&optimizer->settings->optimizer, optimizer->network->count);
}

enum status optimizer_create(struct network *network, const struct train_settings *settings,
                             struct optimizer *optimizer) {
    memset(optimizer, 0, sizeof *optimizer);
    optimizer->network = network;
    optimizer->settings = settings;
    struct backend *backend = network->backend;
    for (int i = 0; i < OPTIMIZER_STATES_MAX; i++)
        if (needs_state(&settings->optimizer, i))
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

void optimizer_begin(struct optimizer *optimizer) {
    optimizer->step++;
}

static enum status update_range(struct optimizer *optimizer, const struct update_args *args,
                                size_t offset, size_t count) {
    struct network *network = optimizer->network;
    float *states[OPTIMIZER_STATES_MAX];
    for (int i = 0; i < OPTIMIZER_STATES_MAX; i++)
        states[i] = optimizer->states[i] == NULL ? NULL : optimizer->states[i] + offset;
    return network->backend->update(network->backend, args, network->beta + offset,
                                    network->gradient + offset, states[0], states[1], count);
}

/* Parameter by parameter, since they do not all decay. */
static enum status update_with_decay(struct optimizer *optimizer, struct update_args *args,
                                     size_t begin, size_t end) {
    const struct network *network = optimizer->network;
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *p = &network->parameters[i];
        const size_t first = p->offset > begin ? p->offset : begin;
        const size_t last = p->offset + p->stored < end ? p->offset + p->stored : end;
        if (first >= last)
            continue;
        args->l1 = p->is_weight ? (float)optimizer->settings->l1 : 0.0F;
        args->l2 = p->is_weight ? (float)optimizer->settings->l2 : 0.0F;
        TRY(update_range(optimizer, args, first, last - first));
    }
    return ST_OK;
}

enum status optimizer_update(struct optimizer *optimizer, size_t begin, size_t count) {
    const struct optimizer_settings *settings = &optimizer->settings->optimizer;
    struct update_args args = {
        .kind = settings->kind,
        .learning_rate = (float)settings->learning_rate,
        .momentum = (float)settings->momentum,
        .rho = (float)settings->rho,
        .epsilon = (float)settings->epsilon,
        .beta1 = (float)settings->beta1,
        .beta2 = (float)settings->beta2,
        .nesterov = settings->nesterov,
        .step = optimizer->step,
    };
    if (optimizer->settings->l1 > 0 || optimizer->settings->l2 > 0)
        return update_with_decay(optimizer, &args, begin, begin + count);
    return update_range(optimizer, &args, begin, count);
}
