/* The run directory, and where a run goes on from. */
#include "trainer_internal.h"

#include <espalier/digest.h>
#include <espalier/run_dir.h>
#include <stdlib.h>
#include <string.h>

/* How long a resumed run waits for the one before it to let go of the directory. */
static const double lock_seconds = 10;

static int64_t data_hash(const struct trainer *t) {
    const size_t images = (size_t)t->train.count * shape_size(t->train.shape);
    return (int64_t)(hash_words(t->train.images, images / sizeof(uint32_t)) +
                     31 * hash_words(t->train.labels, t->train.count / sizeof(uint32_t)));
}

/* ---- reading ---- */

static void complain(void *context, const char *message) {
    struct trainer *t = context;
    progress_warn(&t->progress, message);
}

/* A checkpoint on its way from rank 0 to all. */
struct parcel {
    char name[CHECKPOINT_NAME_MAX];
    void *bytes; /* NULL: there is none */
    uint64_t count;
};

static enum status pack(struct trainer *t, struct parcel *parcel) {
    const struct checkpoint_complaint complaint = {complain, t};
    size_t count = 0;
    if (t->communicator->rank != 0 || !t->options->resume)
        return ST_OK;
    TRY(checkpoint_load_newest(t->options->run_dir, complaint, parcel->name, &parcel->bytes,
                               &count));
    parcel->count = count;
    return ST_OK;
}

static enum status make_room(const struct trainer *t, struct parcel *parcel) {
    if (t->communicator->rank != 0 && parcel->count > 0)
        parcel->bytes = malloc(parcel->count);
    if (parcel->count > 0 && parcel->bytes == NULL)
        FAIL(ST_MEMORY, "out of memory: a checkpoint of %llu bytes",
             (unsigned long long)parcel->count);
    return ST_OK;
}

/* The ranks need no common file system: rank 0 reads. */
static enum status deliver(struct trainer *t, struct parcel *parcel) {
    struct communicator *communicator = t->communicator;
    TRY_TOGETHER(communicator, pack(t, parcel));
    TRY(communicator->broadcast(communicator, parcel->name, sizeof parcel->name, 0));
    TRY(communicator->broadcast(communicator, &parcel->count, sizeof parcel->count, 0));
    TRY_TOGETHER(communicator, make_room(t, parcel));
    return communicator->broadcast(communicator, parcel->bytes, parcel->count, 0);
}

static enum status check_recipe(const struct trainer *t, const char *name) {
    char *differences;
    TRY(recipe_differences(&t->recipe, &t->resumed.recipe, &differences));
    enum status status = ST_OK;
    if (differences[0] != '\0')
        status = status_fail(ST_INPUT, "cannot resume %s: %s was written under another recipe: %s",
                             t->options->run_dir, name, differences);
    free(differences);
    TRY(status);
    if (t->resumed.state.data_hash != t->data_hash)
        FAIL(ST_INPUT,
             "cannot resume %s: %s was written while training on other images than %s has",
             t->options->run_dir, name, t->recipe.data.dir);
    return ST_OK;
}

/* Bring the replica to where the checkpoint was. */
static enum status restore(struct trainer *t) {
    const struct checkpoint_states states = trainer_states(t);
    struct backend *backend = t->replica.backend;
    struct loss_sums sums;
    TRY(checkpoint_restore(&t->resumed, t->replica.network, &states));
    TRY(checkpoint_rank_sums(&t->resumed, t->communicator->rank, t->communicator->size, &sums));
    TRY(backend->upload(backend, t->replica.sums, &sums, sizeof sums));
    t->state = t->resumed.state;
    t->replica.step = t->state.step;
    t->pruner.schedule.events = t->state.last_event; /* more epochs do not plan it anew */
    t->replica.optimizer.step = (uint64_t)t->state.optimizer_step;
    t->recipe.name = t->resumed.recipe.name;
    t->own_samples = t->state.since_event / t->communicator->size;
    return ST_OK;
}

static enum status unpack(struct trainer *t, const struct parcel *parcel) {
    TRY(checkpoint_parse(parcel->name, parcel->bytes, parcel->count, &t->resumed));
    TRY(check_recipe(t, parcel->name));
    return restore(t);
}

/* ---- the run directory ---- */

static enum status open_directory(struct trainer *t) {
    t->data_hash = data_hash(t);
    if (t->communicator->rank != 0)
        return ST_OK;
    TRY(run_dir_create(t->options->run_dir, t->options->resume));
    return event_log_open(t->options->run_dir, t->options->resume ? lock_seconds : 0, &t->log);
}

static void start_clocks(struct trainer *t) {
    const double now = monotonic_seconds();
    t->start_seconds -= t->state.seconds_total;
    t->epoch_seconds = now - t->state.seconds_epoch;
    t->event_seconds = now - t->state.seconds_event;
    t->checkpoint_seconds = now;
    t->log.start_seconds -= t->state.seconds_total;
}

static enum status write_start(struct trainer *t, const char *file) {
    if (t->communicator->rank != 0)
        return ST_OK;
    TRY(run_dir_claim(t->options->run_dir, &t->recipe, t->options->resume));
    TRY(run_dir_reopen(t->options->run_dir));
    TRY(event_log_cut(&t->log, t->state.events_bytes));
    if (t->options->resume)
        TRY(checkpoint_set_aside(t->options->run_dir, t->state.step));
    if (t->state.step > 0) {
        /* The run before may have ended between writing one and dropping one. */
        TRY(checkpoint_drop_old(t->options->run_dir, t->recipe.checkpoint.keep,
                                t->state.best_step));
        return event_resume(&t->log, t->state.step, file, t->communicator->size);
    }
    return event_start(&t->log, &t->recipe, t->replica.network, t->communicator->size,
                       t->train.count, t->test.count);
}

/* Rank 0 knows; a run without a checkpoint that has its results is over too. */
static enum status find_finished(struct trainer *t, bool loaded, bool *finished) {
    int64_t over = t->communicator->rank == 0 && t->options->resume &&
                   run_dir_is_finished(t->options->run_dir) &&
                   (!loaded || (t->state.position == 0 && t->state.step >= t->last_step));
    TRY(t->communicator->sum_integers(t->communicator, &over, 1));
    *finished = over > 0;
    if (*finished)
        progress_line(&t->progress, "%s: the run is finished", t->options->run_dir);
    return ST_OK;
}

static enum status begin(struct trainer *t, struct parcel *parcel, bool *finished) {
    TRY(deliver(t, parcel));
    if (parcel->bytes != NULL)
        TRY_TOGETHER(t->communicator, unpack(t, parcel));
    TRY(find_finished(t, parcel->bytes != NULL, finished));
    if (*finished)
        return ST_OK;
    start_clocks(t);
    if (t->state.step > 0)
        progress_line(&t->progress, "going on from %s", parcel->name);
    return communicator_agree(t->communicator, write_start(t, parcel->name));
}

enum status trainer_open(struct trainer *t, bool *finished) {
    struct parcel parcel = {.bytes = NULL};
    t->state.epoch = 1;
    TRY_TOGETHER(t->communicator, open_directory(t));
    enum status status = begin(t, &parcel, finished);
    free(parcel.bytes);
    return status;
}
