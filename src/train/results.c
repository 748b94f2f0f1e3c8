/* What a run came to, written by rank 0. */
#include "trainer_internal.h"

#include <espalier/digest.h>
#include <espalier/model.h>
#include <stdio.h>

static struct run_summary summarize(const struct trainer *t, const char *digest) {
    const struct epoch_event *last = &t->state.last_epoch;
    return (struct run_summary){.recipe = t->recipe.name,
                                .test_accuracy = last->test_accuracy,
                                .test_loss = last->test_loss,
                                .train_accuracy = last->train_accuracy,
                                .train_loss = last->train_loss,
                                .test_errors = last->test_errors,
                                .has_validation = last->has_validation,
                                .validation_accuracy = last->validation_accuracy,
                                .epochs = last->epoch,
                                .steps = t->replica.step,
                                .seconds_train = t->state.seconds_train,
                                .seconds_total = monotonic_seconds() - t->start_seconds,
                                .images_per_second =
                                    (double)t->state.images / t->state.seconds_train,
                                .connections = network_connections(t->replica.network),
                                .survivors = network_survivors(t->replica.network),
                                .parameters = t->replica.network->original_count,
                                .parameters_left = t->replica.network->count,
                                .ranks = t->communicator->size,
                                .threads = t->replica.backend->threads,
                                .backend = t->replica.backend->name,
                                .communicator = t->communicator->name,
                                .seed = t->recipe.train.seed,
                                .weights_sha256 = digest};
}

enum status trainer_write_results(struct trainer *t) {
    if (t->communicator->rank != 0)
        return ST_OK;
    char digest[DIGEST_TEXT_SIZE], path[4096];
    TRY(network_digest(t->replica.network, digest));
    const struct run_summary summary = summarize(t, digest);
    snprintf(path, sizeof path, "%s/model.safetensors", t->options->run_dir);
    TRY(model_write(path, t->replica.network, &t->recipe));
    TRY(trainer_finish_save(t)); /* the last one, written meanwhile */
    TRY(event_end(&t->log, &summary));
    TRY(event_log_flush(&t->log)); /* what the summary tells of is over */
    TRY(event_log_close(&t->log));
    return summary_write(t->options->run_dir, &summary);
}
