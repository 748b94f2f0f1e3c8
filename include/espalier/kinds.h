/* kinds.h - the vocabulary: every kind of thing that a recipe can name.
 *
 * One table each, from which the parser, --help, the dump of a resolved
 * recipe and the backends follow. */
#ifndef ESPALIER_KINDS_H
#define ESPALIER_KINDS_H

#include <stdbool.h>

/*            enumerator             name in recipes */
#define LAYER_KINDS(X)                                                                             \
    X(LAYER_CONV, "conv")                                                                          \
    X(LAYER_DENSE, "dense")                                                                        \
    X(LAYER_MAXPOOL, "maxpool")                                                                    \
    X(LAYER_DROPOUT, "dropout")                                                                    \
    X(LAYER_DROPCONNECT, "dropconnect")                                                            \
    X(LAYER_BATCHNORM, "batchnorm")

#define ACTIVATIONS(X)                                                                             \
    X(ACTIVATION_NONE, "none")                                                                     \
    X(ACTIVATION_RELU, "relu")                                                                     \
    X(ACTIVATION_SIGMOID, "sigmoid")                                                               \
    X(ACTIVATION_TANH, "tanh")

#define INITIALIZERS(X)                                                                            \
    X(INITIALIZER_GLOROT_UNIFORM, "glorot_uniform")                                                \
    X(INITIALIZER_HE_NORMAL, "he_normal")                                                          \
    X(INITIALIZER_HE_UNIFORM, "he_uniform")

#define OPTIMIZERS(X)                                                                              \
    X(OPTIMIZER_SGD, "sgd")                                                                        \
    X(OPTIMIZER_ADADELTA, "adadelta")                                                              \
    X(OPTIMIZER_ADAM, "adam")

#define SCHEDULES(X)                                                                               \
    X(SCHEDULE_NONE, "none")                                                                       \
    X(SCHEDULE_LINEAR, "linear")                                                                   \
    X(SCHEDULE_GEOMETRIC, "geometric")                                                             \
    X(SCHEDULE_FSA, "fsa")                                                                         \
    X(SCHEDULE_FSA_EXPONENTIAL, "fsa_exponential")                                                 \
    X(SCHEDULE_CUBIC, "cubic")                                                                     \
    X(SCHEDULE_ONESHOT, "oneshot")

/* What prune.begin, prune.end and, but for events, prune.every count. */
#define SCHEDULE_UNITS(X)                                                                          \
    X(UNIT_UPDATES, "updates")                                                                     \
    X(UNIT_EVENTS, "events")                                                                       \
    X(UNIT_EPOCHS, "epochs")

/* How a network with dropconnect answers, when nothing is dropped. */
#define INFERENCES(X)                                                                              \
    X(INFERENCE_MEAN, "mean")                                                                      \
    X(INFERENCE_SAMPLE, "sample")

#define SCOPES(X)                                                                                  \
    X(SCOPE_LAYER, "layer")                                                                        \
    X(SCOPE_GLOBAL, "global")

/* Sharing out among the layers of scope `layer`. */
#define DISTRIBUTIONS(X)                                                                           \
    X(DISTRIBUTION_UNIFORM, "uniform")                                                             \
    X(DISTRIBUTION_ERK, "erk")

#define DELETIONS(X)                                                                               \
    X(DELETION_DELETE, "delete")                                                                   \
    X(DELETION_MASK, "mask")

/* What computes; auto: the accelerator where there is one. */
#define BACKENDS(X)                                                                                \
    X(BACKEND_AUTO, "auto")                                                                        \
    X(BACKEND_CPU, "cpu")                                                                          \
    X(BACKEND_CUDA, "cuda")

#define KIND_ENUMERATOR(enumerator, name) enumerator,
enum layer_kind { LAYER_KINDS(KIND_ENUMERATOR) LAYER_KIND_COUNT };
enum activation { ACTIVATIONS(KIND_ENUMERATOR) ACTIVATION_COUNT };
enum initializer { INITIALIZERS(KIND_ENUMERATOR) INITIALIZER_COUNT };
enum optimizer_kind { OPTIMIZERS(KIND_ENUMERATOR) OPTIMIZER_COUNT };
enum schedule_kind { SCHEDULES(KIND_ENUMERATOR) SCHEDULE_COUNT };
enum schedule_unit { SCHEDULE_UNITS(KIND_ENUMERATOR) SCHEDULE_UNIT_COUNT };
enum inference { INFERENCES(KIND_ENUMERATOR) INFERENCE_COUNT };
enum prune_scope { SCOPES(KIND_ENUMERATOR) SCOPE_COUNT };
enum distribution { DISTRIBUTIONS(KIND_ENUMERATOR) DISTRIBUTION_COUNT };
enum deletion { DELETIONS(KIND_ENUMERATOR) DELETION_COUNT };
enum backend_choice { BACKENDS(KIND_ENUMERATOR) BACKEND_CHOICE_COUNT };
#undef KIND_ENUMERATOR

/* Names by enumerator, NULL-terminated. */
extern const char *const layer_kind_names[];
extern const char *const activation_names[];
extern const char *const initializer_names[];
extern const char *const optimizer_names[];
extern const char *const schedule_names[];
extern const char *const schedule_unit_names[];
extern const char *const inference_names[];
extern const char *const prune_scope_names[];
extern const char *const distribution_names[];
extern const char *const deletion_names[];
extern const char *const backend_choice_names[];

/** By enumerator: whether the schedule goes to prune.keep and ends there; it needs one, then. */
extern const bool schedule_goes_to_keep[];

/** The index of `name` in a NULL-terminated table, -1 when it is not there. */
int kind_find(const char *const *names, const char *name);

#endif
