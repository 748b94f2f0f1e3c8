/* Checkpoints: taking them apart again. */
#include "checkpoint_format.h"
#include "safetensors_format.h"
#include <espalier/arena.h>
#include <espalier/survivors.h>
#include <string.h>

/* ---- parsing ---- */

static const char *path_of(const struct checkpoint *checkpoint) {
    return checkpoint->recipe.path;
}

/* The tensor of that name, which must have this type and so many values. */
static enum status find_tensor(const struct safetensors *file, const char *path, const char *name,
                               enum safetensors_type type, uint64_t count,
                               const struct safetensor **found) {
    const struct safetensor *tensor = safetensors_find(file, name);
    if (tensor == NULL)
        FAIL(ST_INPUT, "%s: tensor %s is missing", path, name);
    if (tensor->type != type || safetensor_count(tensor) != count)
        FAIL(ST_INPUT, "%s: tensor %s: found %llu values of %s, expected %llu of %s", path, name,
             (unsigned long long)safetensor_count(tensor), safetensors_type_names[tensor->type],
             (unsigned long long)count, safetensors_type_names[type]);
    *found = tensor;
    return ST_OK;
}

static enum status read_state(struct checkpoint *checkpoint, const char *path) {
    for (int i = 0; i < checkpoint_scalars_count; i++) {
        const struct checkpoint_scalar *scalar = &checkpoint_scalars[i];
        const struct safetensor *tensor = NULL;
        TRY(find_tensor(&checkpoint->file, path, scalar->name, scalar->type, 1, &tensor));
        memcpy((char *)&checkpoint->state + scalar->offset, tensor->values, scalar->size);
    }
    const struct run_state *state = &checkpoint->state;
    if (state->step < 0 || state->epoch < 1 || state->epoch > INT32_MAX || state->position < 0 ||
        state->position > UINT32_MAX || state->ranks < 1 || state->last_event < 0)
        FAIL(ST_INPUT, "%s: its position in the run is impossible", path);
    return ST_OK;
}

static enum status read_recipe(struct checkpoint *checkpoint, const char *path) {
    const char *format = safetensors_metadata(&checkpoint->file, CHECKPOINT_FORMAT_KEY);
    const char *text = safetensors_metadata(&checkpoint->file, "espalier.recipe");
    const char *name = safetensors_metadata(&checkpoint->file, "espalier.name");
    if (format == NULL || text == NULL || name == NULL)
        FAIL(ST_INPUT, "%s: is no checkpoint of espalier: metadata is missing", path);
    if (strcmp(format, CHECKPOINT_FORMAT) != 0)
        FAIL(ST_INPUT, "%s: is a checkpoint of format %.16s, this program knows %s", path, format,
             CHECKPOINT_FORMAT);
    TRY(recipe_parse(path, text, NULL, 0, &checkpoint->recipe));
    return arena_strdup(checkpoint->recipe.arena, name, &checkpoint->recipe.name);
}

enum status checkpoint_parse(const char *name, const void *bytes, size_t count,
                             struct checkpoint *checkpoint) {
    *checkpoint = (struct checkpoint){.state = {.step = 0}};
    enum status status;
    TRY_OUT(safetensors_parse(name, bytes, count, &checkpoint->file));
    TRY_OUT(read_recipe(checkpoint, name));
    TRY_OUT(read_state(checkpoint, name));
    return ST_OK;
out:
    checkpoint_destroy(checkpoint);
    return status;
}

void checkpoint_destroy(struct checkpoint *checkpoint) {
    safetensors_destroy(&checkpoint->file);
    recipe_destroy(&checkpoint->recipe);
    *checkpoint = (struct checkpoint){.state = {.step = 0}};
}

enum status checkpoint_rank_sums(const struct checkpoint *checkpoint, int rank, int ranks,
                                 struct loss_sums *sums) {
    const uint64_t count = (uint64_t)checkpoint->state.ranks;
    const struct safetensor *losses = NULL, *corrects = NULL;
    *sums = (struct loss_sums){0};
    TRY(find_tensor(&checkpoint->file, path_of(checkpoint), CHECKPOINT_RANK_LOSS, SAFETENSORS_F64,
                    count, &losses));
    TRY(find_tensor(&checkpoint->file, path_of(checkpoint), CHECKPOINT_RANK_CORRECT,
                    SAFETENSORS_I64, count, &corrects));
    const double *loss = losses->values;
    const int64_t *correct = corrects->values;
    for (uint64_t i = 0; i < count; i++)
        if ((uint64_t)ranks == count ? i == (uint64_t)rank : rank == 0) {
            sums->loss += loss[i];
            sums->correct += correct[i];
        }
    return ST_OK;
}

/* ---- restoring ---- */

struct reader {
    const struct checkpoint *checkpoint;
    struct network *network;
    const struct checkpoint_states *states;
};

/* Append a weight's bits to the mask of all weights. */
static enum status take_mask(const struct reader *r, const struct parameter *p,
                             struct bitmask *mask, size_t *filled) {
    char name[CHECKPOINT_TENSOR_NAME_MAX];
    const struct safetensor *tensor = NULL;
    checkpoint_tensor_name(p, "survivors", name);
    TRY(find_tensor(&r->checkpoint->file, path_of(r->checkpoint), name, SAFETENSORS_U8,
                    (p->original_count + 7) / 8, &tensor));
    const uint8_t *bytes = tensor->values;
    for (size_t i = 0; i < p->original_count; i++)
        if (bytes[i / 8] >> (i % 8) & 1)
            bitmask_set(mask->words, *filled + i);
    *filled += p->original_count;
    return ST_OK;
}

static struct survivors_scope all_weights(const struct network *network) {
    struct survivors_scope scope = {.count = 0};
    for (int i = 0; i < network->parameters_count; i++)
        if (network->parameters[i].is_weight)
            scope.parameters[scope.count++] = i;
    return scope;
}

static enum status keep_survivors(const struct reader *r) {
    const struct survivors_scope scope = all_weights(r->network);
    struct bitmask mask = {0, NULL};
    size_t filled = 0;
    TRY(bitmask_create(survivors_count(r->network, &scope), &mask));
    enum status status = ST_OK;
    for (int i = 0; status == ST_OK && i < scope.count; i++)
        status = take_mask(r, &r->network->parameters[scope.parameters[i]], &mask, &filled);
    if (status == ST_OK)
        status = survivors_keep(r->network, &scope, &mask, r->states->vectors, r->states->count);
    bitmask_destroy(&mask);
    return status;
}

/* Fill a vector parallel to beta from one tensor a parameter. */
static enum status take_vector(const struct reader *r, float *device, const char *what) {
    for (int i = 0; i < r->network->parameters_count; i++) {
        const struct parameter *p = &r->network->parameters[i];
        const struct safetensor *tensor = NULL;
        char name[CHECKPOINT_TENSOR_NAME_MAX];
        checkpoint_tensor_name(p, what == NULL ? "" : what, name);
        TRY(find_tensor(&r->checkpoint->file, path_of(r->checkpoint), what == NULL ? p->name : name,
                        SAFETENSORS_F32, p->stored, &tensor));
        TRY(r->network->backend->upload(r->network->backend, device + p->offset, tensor->values,
                                        p->stored * sizeof(float)));
    }
    return ST_OK;
}

/* Before anything is pruned: they decide about the layers' forms. */
static enum status take_thresholds(const struct reader *r) {
    const struct safetensor *tensor = NULL;
    const size_t blocks = (size_t)r->network->blocks_count;
    TRY(find_tensor(&r->checkpoint->file, path_of(r->checkpoint), CHECKPOINT_SPARSE_BELOW,
                    SAFETENSORS_F64, blocks, &tensor));
    for (size_t i = 0; i < blocks; i++)
        memcpy(&r->network->blocks[i].sparse_below,
               (const char *)tensor->values + i * sizeof(double), sizeof(double));
    return ST_OK;
}

/* After all plans are as they will be. Those of another kind of device say nothing here. */
static enum status take_choices(const struct reader *r) {
    const struct safetensor *tensor = NULL;
    const size_t count = (size_t)r->network->blocks_count * BLOCK_CHOICES;
    if (safetensors_find(&r->checkpoint->file, CHECKPOINT_CHOICES) == NULL)
        return ST_OK;
    TRY(find_tensor(&r->checkpoint->file, path_of(r->checkpoint), CHECKPOINT_CHOICES,
                    SAFETENSORS_I64, count, &tensor));
    for (size_t i = 0; i < count; i++) {
        int64_t choice;
        memcpy(&choice, (const char *)tensor->values + i * sizeof choice, sizeof choice);
        struct block *block = &r->network->blocks[i / BLOCK_CHOICES];
        block->choices[i % BLOCK_CHOICES] = (uint32_t)choice;
        block->choice = choice < 0 ? CHOICE_NONE : CHOICE_KNOWN;
    }
    return ST_OK;
}

enum status checkpoint_restore(const struct checkpoint *checkpoint, struct network *network,
                               const struct checkpoint_states *states) {
    const struct reader r = {checkpoint, network, states};
    TRY(take_thresholds(&r));
    TRY(keep_survivors(&r));
    TRY(take_choices(&r));
    TRY(take_vector(&r, network->beta, NULL));
    for (int i = 0; i < states->count; i++)
        if (states->vectors[i] != NULL)
            TRY(take_vector(&r, states->vectors[i], states->names[i]));
    return network_materialize(network);
}
