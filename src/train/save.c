/* The state of a run on its way into a checkpoint: copied between two updates, and written by a
 * thread of its own while the run goes on. */
#include "trainer_internal.h"

#include <stdlib.h>

struct checkpoint_states trainer_states(const struct trainer *t) {
    return (struct checkpoint_states){
        .count = OPTIMIZER_STATES_MAX,
        .vectors = t->replica.optimizer.states,
        .names = optimizer_state_names[t->recipe.train.optimizer.kind],
    };
}

/* What other parts of the run know themselves, and the times. */
static enum status complete_state(const struct trainer *t, struct run_state *state) {
    const double now = monotonic_seconds();
    *state = t->state;
    state->step = t->replica.step;
    state->last_event = t->pruner.schedule.events;
    state->optimizer_step = (int64_t)t->replica.optimizer.step;
    state->seed = (int64_t)t->recipe.train.seed;
    state->ranks = t->communicator->size;
    state->data_hash = t->data_hash;
    state->seconds_total = now - t->start_seconds;
    state->seconds_epoch = state->position > 0 ? now - t->epoch_seconds : 0;
    state->seconds_event = state->since_event > 0 ? now - t->event_seconds : 0;
    return event_log_length(&t->log, &state->events_bytes);
}

/* On the thread; it reads of the run what stays as it is. The events that the checkpoint counts are
 * on the disk before it is, and nothing is dropped before that. */
static enum status write_copy(void *context) {
    struct trainer *t = context;
    struct save *save = &t->save;
    TRY(event_log_flush(&t->log));
    TRY(checkpoint_write(t->options->run_dir, &save->copy, &save->bytes));
    return checkpoint_drop_old(t->options->run_dir, t->recipe.checkpoint.keep,
                               save->copy.state.best_step);
}

enum status trainer_finish_save(struct trainer *t) {
    const double begin = monotonic_seconds();
    struct save *save = &t->save;
    char file[CHECKPOINT_NAME_MAX];
    if (!job_is_begun(&save->job))
        return ST_OK;
    struct checkpoint_event event = {.step = save->copy.state.step, .file = file};
    enum status status = job_finish(&save->job);
    checkpoint_copy_destroy(&save->copy);
    TRY(status);
    checkpoint_name(event.step, file);
    event.bytes = save->bytes;
    event.seconds_event = save->seconds + monotonic_seconds() - begin;
    return event_checkpoint(&t->log, &event);
}

/* Rank 0's part of a checkpoint that began at `begin`. */
static enum status begin_save(struct trainer *t, const struct loss_sums *rank_sums, double begin) {
    const double before = monotonic_seconds();
    const struct checkpoint_states states = trainer_states(t);
    struct run_state state;
    TRY(trainer_finish_save(t));
    begin += monotonic_seconds() - before; /* those were the last one's */
    TRY(complete_state(t, &state));
    enum status status =
        checkpoint_take(&t->recipe, t->replica.network, &states, &state, rank_sums, &t->save.copy);
    if (status != ST_OK) {
        checkpoint_copy_destroy(&t->save.copy);
        return status;
    }
    job_start(&t->save.job, write_copy, t);
    t->save.seconds = monotonic_seconds() - begin;
    return ST_OK;
}

/* Every rank's sums since the last step event, [ranks] on every rank. */
static enum status gather_sums(struct trainer *t, struct loss_sums *all) {
    struct backend *backend = t->replica.backend;
    struct loss_sums mine;
    TRY_TOGETHER(t->communicator,
                 all == NULL ? status_fail(ST_MEMORY, "out of memory: sums of %d ranks",
                                           t->communicator->size)
                             : backend->download(backend, &mine, t->replica.sums, sizeof mine));
    return t->communicator->allgather(t->communicator, &mine, all, sizeof mine);
}

enum status trainer_checkpoint(struct trainer *t) {
    const double begin = monotonic_seconds();
    TRY(trainer_write_reports(t)); /* the log is as long as the checkpoint says */
    TRY(t->communicator->settle(t->communicator));
    struct loss_sums *all = malloc((size_t)t->communicator->size * sizeof *all);
    enum status status = gather_sums(t, all);
    if (status == ST_OK)
        status = replica_complete(&t->replica);
    if (status == ST_OK)
        status = pruner_compare_replicas(&t->pruner, t->replica.step); /* rank 0 speaks for all */
    if (status == ST_OK)
        status = communicator_agree(t->communicator,
                                    t->communicator->rank == 0 ? begin_save(t, all, begin) : ST_OK);
    free(all);
    t->checkpoint_seconds = monotonic_seconds();
    return status;
}

bool trainer_has_saved(const struct trainer *t) {
    return job_is_over(&t->save.job);
}

enum status trainer_finish_checkpoint(struct trainer *t) {
    return communicator_agree(t->communicator, trainer_finish_save(t));
}
