#include <espalier/kinds.h>
#include <stddef.h>
#include <string.h>

#define KIND_NAME(enumerator, name) name,
const char *const layer_kind_names[] = {LAYER_KINDS(KIND_NAME) NULL};
const char *const activation_names[] = {ACTIVATIONS(KIND_NAME) NULL};
const char *const initializer_names[] = {INITIALIZERS(KIND_NAME) NULL};
const char *const optimizer_names[] = {OPTIMIZERS(KIND_NAME) NULL};
const char *const schedule_names[] = {SCHEDULES(KIND_NAME) NULL};
const char *const schedule_unit_names[] = {SCHEDULE_UNITS(KIND_NAME) NULL};
const char *const inference_names[] = {INFERENCES(KIND_NAME) NULL};
const char *const prune_scope_names[] = {SCOPES(KIND_NAME) NULL};
const char *const distribution_names[] = {DISTRIBUTIONS(KIND_NAME) NULL};
const char *const deletion_names[] = {DELETIONS(KIND_NAME) NULL};
const char *const backend_choice_names[] = {BACKENDS(KIND_NAME) NULL};

const bool schedule_goes_to_keep[SCHEDULE_COUNT] = {
    [SCHEDULE_FSA] = true,
    [SCHEDULE_FSA_EXPONENTIAL] = true,
    [SCHEDULE_CUBIC] = true,
    [SCHEDULE_ONESHOT] = true,
};

int kind_find(const char *const *names, const char *name) {
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}
