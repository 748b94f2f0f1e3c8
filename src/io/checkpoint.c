/* Checkpoints: what is in them, and writing. */
#include "checkpoint_format.h"
#include "file.h"
#include "safetensors_format.h"
#include <errno.h>
#include <espalier/arena.h>
#include <espalier/bitmask.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the format ---- */

#define PLACE(member) offsetof(struct run_state, member), sizeof(((struct run_state *)0)->member)
#define WHOLE(name, member)                                                                        \
    { name, SAFETENSORS_I64, PLACE(member) }
#define REAL(name, member)                                                                         \
    { name, SAFETENSORS_F64, PLACE(member) }

const struct checkpoint_scalar checkpoint_scalars[] = {
    WHOLE("run.step", step),
    WHOLE("run.seed", seed),
    WHOLE("run.images", images),
    WHOLE("run.ranks", ranks),
    WHOLE("run.data_hash", data_hash),
    WHOLE("run.events_bytes", events_bytes),
    REAL("run.seconds_train", seconds_train),
    REAL("run.seconds_total", seconds_total),
    WHOLE("sampler.epoch", epoch),
    WHOLE("sampler.position", position),
    WHOLE("schedule.event", event),
    WHOLE("schedule.last_event", last_event),
    WHOLE("optimizer.step", optimizer_step),
    REAL("tally.epoch_loss", in_epoch.loss),
    WHOLE("tally.epoch_correct", in_epoch.correct),
    WHOLE("tally.epoch_samples", in_epoch.samples),
    REAL("tally.epoch_seconds", seconds_epoch),
    WHOLE("tally.event_samples", since_event),
    REAL("tally.event_seconds", seconds_event),
    WHOLE("best.step", best_step),
    REAL("best.accuracy", best_accuracy),
    WHOLE("epoch.epoch", last_epoch.epoch),
    WHOLE("epoch.step", last_epoch.step),
    REAL("epoch.train_loss", last_epoch.train_loss),
    REAL("epoch.train_accuracy", last_epoch.train_accuracy),
    REAL("epoch.test_loss", last_epoch.test_loss),
    REAL("epoch.test_accuracy", last_epoch.test_accuracy),
    WHOLE("epoch.test_errors", last_epoch.test_errors),
    WHOLE("epoch.has_validation", last_epoch.has_validation),
    REAL("epoch.validation_loss", last_epoch.validation_loss),
    REAL("epoch.validation_accuracy", last_epoch.validation_accuracy),
    WHOLE("epoch.survivors", last_epoch.survivors),
    REAL("epoch.seconds_epoch", last_epoch.seconds_epoch),
    REAL("epoch.images_per_second", last_epoch.images_per_second),
};
const int checkpoint_scalars_count = sizeof checkpoint_scalars / sizeof checkpoint_scalars[0];

void checkpoint_tensor_name(const struct parameter *parameter, const char *what,
                            char name[CHECKPOINT_TENSOR_NAME_MAX]) {
    snprintf(name, CHECKPOINT_TENSOR_NAME_MAX, "%s.%s", parameter->name, what);
}

void checkpoint_name(int64_t step, char name[CHECKPOINT_NAME_MAX]) {
    snprintf(name, CHECKPOINT_NAME_MAX, CHECKPOINT_FOLDER "/step-%08lld.safetensors",
             (long long)step);
}

/* ---- the copy ---- */

/* A copy under construction. */
struct writer {
    const struct network *network;
    struct arena *arena;
    struct checkpoint_copy *copy;
};

static enum status add_tensor(struct writer *w, const char *name, enum safetensors_type type,
                              uint64_t count, const void *values) {
    char *copy;
    TRY(arena_strdup(w->arena, name, &copy));
    w->copy->tensors[w->copy->tensors_count++] = (struct safetensor){
        .name = copy, .type = type, .dimensions = 1, .size = {count}, .values = values};
    return ST_OK;
}

/* A whole number of 1, 4 or 8 bytes, little-endian, none of them negative but those of 8. */
static enum status add_scalar(struct writer *w, const struct checkpoint_scalar *scalar,
                              const struct run_state *state) {
    int64_t *value; /* or the bits of a double */
    TRY(ARENA_ARRAY(w->arena, 1, &value));
    memcpy(value, (const char *)state + scalar->offset, scalar->size);
    TRY(add_tensor(w, scalar->name, scalar->type, 1, value));
    w->copy->tensors[w->copy->tensors_count - 1].dimensions = 0;
    return ST_OK;
}

static enum status add_state(struct writer *w, const struct run_state *state,
                             const struct loss_sums *rank_sums) {
    size_t ranks = (size_t)state->ranks;
    double *loss;
    int64_t *correct;
    TRY(ARENA_ARRAY(w->arena, ranks, &loss));
    TRY(ARENA_ARRAY(w->arena, ranks, &correct));
    for (size_t i = 0; i < ranks; i++) {
        loss[i] = rank_sums[i].loss;
        correct[i] = rank_sums[i].correct;
    }
    for (int i = 0; i < checkpoint_scalars_count; i++)
        TRY(add_scalar(w, &checkpoint_scalars[i], state));
    TRY(add_tensor(w, CHECKPOINT_RANK_LOSS, SAFETENSORS_F64, ranks, loss));
    return add_tensor(w, CHECKPOINT_RANK_CORRECT, SAFETENSORS_I64, ranks, correct);
}

/* What was measured when the run began decides about the layers' forms to its end. */
static enum status add_thresholds(struct writer *w) {
    const size_t blocks = (size_t)w->network->blocks_count;
    double *below;
    TRY(ARENA_ARRAY(w->arena, blocks, &below));
    for (size_t i = 0; i < blocks; i++)
        below[i] = w->network->blocks[i].sparse_below;
    return add_tensor(w, CHECKPOINT_SPARSE_BELOW, SAFETENSORS_F64, blocks, below);
}

/* Likewise, how the passes go: a run repeats to the bit only so. Those that a backend has no use
 * for are kept for the next one. */
static enum status add_choices(struct writer *w) {
    const size_t blocks = (size_t)w->network->blocks_count;
    int64_t *choices;
    bool any = false;
    TRY(ARENA_ARRAY(w->arena, blocks * BLOCK_CHOICES, &choices));
    for (size_t i = 0; i < blocks * BLOCK_CHOICES; i++) {
        const struct block *block = &w->network->blocks[i / BLOCK_CHOICES];
        const bool known = block->choice != CHOICE_NONE;
        choices[i] = known ? (int64_t)block->choices[i % BLOCK_CHOICES] : -1;
        any = any || known;
    }
    if (!any)
        return ST_OK;
    return add_tensor(w, CHECKPOINT_CHOICES, SAFETENSORS_I64, blocks * BLOCK_CHOICES, choices);
}

/* A vector parallel to beta, one tensor a parameter; `what` is NULL for beta itself. */
static enum status add_vector(struct writer *w, const float *device, const char *what) {
    const struct network *network = w->network;
    float *values;
    TRY(ARENA_ARRAY(w->arena, network->count, &values));
    TRY(network->backend->download(network->backend, values, device,
                                   network->count * sizeof *values));
    for (int i = 0; i < network->parameters_count; i++) {
        const struct parameter *p = &network->parameters[i];
        char name[CHECKPOINT_TENSOR_NAME_MAX];
        checkpoint_tensor_name(p, what == NULL ? "" : what, name);
        TRY(add_tensor(w, what == NULL ? p->name : name, SAFETENSORS_F32, p->stored,
                       values + p->offset));
    }
    return ST_OK;
}

static enum status fill_mask(const struct writer *w, const struct parameter *p, uint64_t *words) {
    for (size_t i = 0; p->indices == NULL && i < p->count; i++)
        bitmask_set(words, i);
    if (p->indices == NULL)
        return ST_OK;
    struct backend *backend = w->network->backend;
    uint32_t *indices = malloc((p->count + 1) * sizeof *indices);
    if (indices == NULL)
        FAIL(ST_MEMORY, "out of memory: the indices of %s", p->name);
    enum status status =
        backend->download(backend, indices, p->indices, p->count * sizeof *indices);
    for (size_t i = 0; status == ST_OK && i < p->count; i++)
        bitmask_set(words, indices[i]);
    free(indices);
    return status;
}

/* Bits of words and of bytes have the same order: both count from the low end. */
static enum status add_masks(struct writer *w) {
    for (int i = 0; i < w->network->parameters_count; i++) {
        const struct parameter *p = &w->network->parameters[i];
        if (!p->is_weight)
            continue;
        char name[CHECKPOINT_TENSOR_NAME_MAX];
        uint64_t *words;
        TRY(ARENA_ARRAY(w->arena, bitmask_words(p->original_count), &words));
        TRY(fill_mask(w, p, words));
        checkpoint_tensor_name(p, "survivors", name);
        TRY(add_tensor(w, name, SAFETENSORS_U8, (p->original_count + 7) / 8, words));
    }
    return ST_OK;
}

/* The widest types first, so that every tensor is aligned. */
static enum status fill(struct writer *w, const struct checkpoint_states *states,
                        const struct run_state *state, const struct loss_sums *rank_sums) {
    size_t most = (size_t)checkpoint_scalars_count + 4 +
                  (size_t)w->network->parameters_count * (size_t)(2 + states->count);
    TRY(ARENA_ARRAY(w->arena, most, &w->copy->tensors));
    TRY(add_state(w, state, rank_sums));
    TRY(add_thresholds(w));
    TRY(add_choices(w));
    TRY(add_vector(w, w->network->beta, NULL));
    for (int i = 0; i < states->count; i++)
        if (states->vectors[i] != NULL)
            TRY(add_vector(w, states->vectors[i], states->names[i]));
    return add_masks(w);
}

enum status checkpoint_take(const struct recipe *recipe, const struct network *network,
                            const struct checkpoint_states *states, const struct run_state *state,
                            const struct loss_sums *rank_sums, struct checkpoint_copy *copy) {
    *copy = (struct checkpoint_copy){.state = *state};
    TRY(arena_create(&copy->arena));
    struct writer w = {network, copy->arena, copy};
    TRY(recipe_text(recipe, &copy->recipe_text));
    TRY(arena_strdup(copy->arena, recipe->name, &copy->recipe_name));
    return fill(&w, states, state, rank_sums);
}

void checkpoint_copy_destroy(struct checkpoint_copy *copy) {
    arena_destroy(copy->arena);
    free(copy->recipe_text);
    *copy = (struct checkpoint_copy){.arena = NULL};
}

/* ---- writing ---- */

static enum status make_folder(const char *run_dir) {
    char folder[FILE_PATH_MAX];
    TRY(path_join(run_dir, CHECKPOINT_FOLDER, folder));
    if (mkdir(folder, 0777) == 0)
        return flush_directory_of(folder);
    if (errno != EEXIST)
        FAIL(ST_IO, "cannot make directory %s: %s", folder, strerror(errno));
    return ST_OK;
}

enum status checkpoint_write(const char *run_dir, const struct checkpoint_copy *copy,
                             uint64_t *bytes) {
    char name[CHECKPOINT_NAME_MAX], path[FILE_PATH_MAX];
    const struct safetensors_entry metadata[] = {{CHECKPOINT_FORMAT_KEY, CHECKPOINT_FORMAT},
                                                 {"espalier.version", ESPALIER_VERSION},
                                                 {"espalier.name", copy->recipe_name},
                                                 {"espalier.recipe", copy->recipe_text}};
    checkpoint_name(copy->state.step, name);
    TRY(path_join(run_dir, name, path));
    TRY(make_folder(run_dir));
    return safetensors_write_sealed(path, copy->tensors, copy->tensors_count, metadata,
                                    sizeof metadata / sizeof metadata[0], bytes);
}
