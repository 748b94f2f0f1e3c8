/* optimizer.h - the optimizer's state, parallel to the network's beta. */
#ifndef ESPALIER_OPTIMIZER_H
#define ESPALIER_OPTIMIZER_H

#include <espalier/network.h>

enum { OPTIMIZER_STATES_MAX = 2 };

/** State of one optimizer; owns its device vectors, borrows network and settings. */
struct optimizer {
    struct network *network;
    const struct train_settings *settings;
    float *states[OPTIMIZER_STATES_MAX]; /* device, parallel to beta; NULL where not used */
    uint64_t step;                       /* updates done */
};

/** What the states of each kind of optimizer are called; NULL where it has fewer. */
extern const char *const optimizer_state_names[OPTIMIZER_COUNT][OPTIMIZER_STATES_MAX];

/** Zero state for the recipe's optimizer. */
enum status optimizer_create(struct network *network, const struct train_settings *settings,
                             struct optimizer *optimizer);
void optimizer_destroy(struct optimizer *optimizer); /* legal on a zeroed optimizer */

/** Bytes of all states: of the values parallel to beta, 0 for an optimizer without state. */
size_t optimizer_bytes(const struct optimizer *optimizer);

/** The same for an optimizer of these settings beside `count` values. */
size_t optimizer_settings_bytes(const struct optimizer_settings *settings, size_t count);

/** Begin an update: those parts of beta that optimizer_update takes belong to one step. */
void optimizer_begin(struct optimizer *optimizer);

/** Update beta[begin .. begin + count - 1] by the gradient there, which is the mean over the global
 *  batch, the same on all ranks. When all of beta is updated network_materialize is due. Decay
 *  (train.l1, train.l2) is that of connections: biases and batch normalisation have none. Not
 *  collective. */
enum status optimizer_update(struct optimizer *optimizer, size_t begin, size_t count);

#endif
