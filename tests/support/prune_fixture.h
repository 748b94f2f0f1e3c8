/* prune_fixture.h - a network under a pruner on one rank, and what a model of it keeps beside it:
 * all weights, those of the layers that can be pruned one after the other, and which are alive. */
#ifndef ESPALIER_TESTS_PRUNE_FIXTURE_H
#define ESPALIER_TESTS_PRUNE_FIXTURE_H

#include "check.h"
#include <espalier/prune.h>

enum { FIXTURE_WEIGHTS_MAX = 2100 };

struct fixture {
    struct backend *backend;
    struct network *network;
    struct communicator communicator;
    struct prune_settings settings;
    struct pruner pruner;
    float *state; /* of an optimizer */
    float weights[FIXTURE_WEIGHTS_MAX];
    bool alive[FIXTURE_WEIGHTS_MAX];
    uint64_t noise; /* of tiny_noise */
};

/** Begin with `network` on `backend`, both taken, and all weights alive; the settings' layers must
 *  last. */
static inline void fixture_create(struct fixture *f, struct backend *backend,
                                  struct network *network, const struct prune_settings *settings) {
    *f = (struct fixture){
        .backend = backend, .network = network, .settings = *settings, .noise = 11};
    f->network->masked = settings->deletion == DELETION_MASK;
    assert_ok(communicator_single(&f->communicator));
    assert_ok(backend->alloc(backend, network->count * sizeof(float), (void **)&f->state));
    assert_ok(pruner_create(network, &f->settings, (struct run_length){0, 0}, &f->communicator,
                            &f->pruner));
    memset(f->alive, true, sizeof f->alive);
}

static inline void fixture_destroy(struct fixture *f) {
    pruner_destroy(&f->pruner);
    f->backend->release(f->backend, f->state);
    network_destroy(f->network);
    f->backend->destroy(f->backend);
}

#endif
