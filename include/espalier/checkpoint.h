/* checkpoint.h - a run in a file, from which it goes on as if nothing had happened.
 *
 * A sealed safetensors file (safetensors.h), RUN_DIR/checkpoints/step-NNNNNNNN.safetensors:
 *
 *  NAME                 F32 [survivors]  values of each parameter "dense1.weight", survivors only
 *                                        (all, 0 where pruned, under prune.deletion "mask")
 *  NAME.STATE           F32 [survivors]  optimizer state, "dense1.weight.mean_square_gradient"
 *  NAME.survivors       U8 [bytes]       of each weight: bit i % 8 of byte i / 8 is set where
 *                                        connection i (row-major) survives
 *  run.*, epoch.*, ...  I64 or F64 []    struct run_state, by name
 *  deletion.sparse_below  F64 [blocks]   densities below which layers go into sparse form
 *  backend.choices      I64 [blocks * 4]  where they were measured: how passes go (backend.h), -1
 *                                         where not
 *  tally.rank_loss      F64 [ranks]      sums since the last step event
 *  tally.rank_correct   I64 [ranks]
 *  sha256               U8 [32]          of all bytes before it
 *
 * and as metadata "espalier.checkpoint" (the format's version), "espalier.version",
 * "espalier.name" and "espalier.recipe" (resolved). Nothing here is collective. */
#ifndef ESPALIER_CHECKPOINT_H
#define ESPALIER_CHECKPOINT_H

#include <espalier/backend.h>
#include <espalier/events.h>
#include <espalier/network.h>
#include <espalier/safetensors.h>

enum { CHECKPOINT_NAME_MAX = 64 };

/** What has been seen over some updates, on all ranks. */
struct tally {
    double loss; /* sum over samples */
    int64_t correct, samples;
};

/** What a run is beside recipe, parameters and optimizer state. */
struct run_state {
    int64_t step;           /* updates done */
    int64_t epoch;          /* under way, or the next one; 1 is the first */
    int64_t position;       /* images of the epoch's permutation that were trained on */
    int64_t event;          /* of the schedule: the last one due until update `step` */
    int64_t last_event;     /* of the schedule, as it was planned when the run began */
    int64_t optimizer_step; /* the optimizer's own count of updates */
    int64_t seed;
    int64_t images;       /* trained on in all */
    int64_t ranks;        /* that trained */
    int64_t data_hash;    /* of the training images and labels */
    int64_t events_bytes; /* of events.jsonl */
    struct tally in_epoch;
    int64_t since_event; /* samples since the last step event */
    double seconds_train, seconds_epoch, seconds_event, seconds_total;
    int64_t best_step; /* checkpoint of the best validation accuracy, 0: none */
    double best_accuracy;
    struct epoch_event last_epoch; /* the last one reported; its epoch is 0 when there is none */
};

/** The vectors parallel to beta that an optimizer keeps, and what they are called. */
struct checkpoint_states {
    int count;
    float *const *vectors; /* device; NULL where not used */
    const char *const *names;
};

/** A run as it was, in memory of its own: what the run does next leaves it alone. */
struct checkpoint_copy {
    struct arena *arena;
    struct safetensor *tensors;
    int tensors_count;
    struct run_state state;
    char *recipe_text, *recipe_name;
};

/** Copy what a checkpoint of state->step holds. checkpoint_copy_destroy frees it (legal on a zeroed
 *  one, and after failure).
 *
 *  rank_sums [state->ranks] */
enum status checkpoint_take(const struct recipe *recipe, const struct network *network,
                            const struct checkpoint_states *states, const struct run_state *state,
                            const struct loss_sums *rank_sums, struct checkpoint_copy *copy);
void checkpoint_copy_destroy(struct checkpoint_copy *copy);

/** Write the copy into `run_dir`, flushed to disk, whole or not at all. *bytes is the file's
 *  length. */
enum status checkpoint_write(const char *run_dir, const struct checkpoint_copy *copy,
                             uint64_t *bytes);

/** The file name of a step's checkpoint: "checkpoints/step-00000469.safetensors". */
void checkpoint_name(int64_t step, char name[CHECKPOINT_NAME_MAX]);

/** Told of a checkpoint that cannot be used: the message says which and why. */
struct checkpoint_complaint {
    void (*call)(void *context, const char *message);
    void *context;
};

/** Load the newest checkpoint of a run directory whose seal is right.
 *
 *  Those that are damaged are complained of, and the one before is tried; one that cannot be read
 * is ST_IO, since it may be whole. Nothing is changed. *bytes is NULL when there is none left; else
 * the caller frees it. */
enum status checkpoint_load_newest(const char *run_dir, struct checkpoint_complaint complaint,
                                   char name[CHECKPOINT_NAME_MAX], void **bytes, size_t *count);

/** Rename the checkpoints after `step` to NAME.damaged: a run that goes on from `step` found them
 *  damaged, and whoever wants to know what happened to them can still look. */
enum status checkpoint_set_aside(const char *run_dir, int64_t step);

/** The newest checkpoint of a run directory and the file's length, unread; the name is "" when
 * there is none. */
enum status checkpoint_newest(const char *run_dir, char name[CHECKPOINT_NAME_MAX], uint64_t *bytes);

/** Remove all checkpoints but the `keep` newest and that of `best_step`, and what writers that were
 *  killed have left behind. */
enum status checkpoint_drop_old(const char *run_dir, int keep, int64_t best_step);

/** A checkpoint that was read. */
struct checkpoint {
    struct safetensors file;
    struct recipe recipe; /* the one it was written under */
    struct run_state state;
};

/** Take a checkpoint's bytes apart. ST_INPUT, naming `name`, when it is of another format version
 * or lacks something. checkpoint_destroy frees it (legal on a zeroed one). */
enum status checkpoint_parse(const char *name, const void *bytes, size_t count,
                             struct checkpoint *checkpoint);
void checkpoint_destroy(struct checkpoint *checkpoint);

/** Bring a new network of the checkpoint's recipe, and the optimizer's vectors, to the checkpoint's
 *  survivors and values. ST_INPUT names a tensor that is missing or does not fit. */
enum status checkpoint_restore(const struct checkpoint *checkpoint, struct network *network,
                               const struct checkpoint_states *states);

/** What rank `rank` of `ranks` had summed since the last step event. On another number of ranks
 * than wrote the checkpoint, rank 0 gets all of it. */
enum status checkpoint_rank_sums(const struct checkpoint *checkpoint, int rank, int ranks,
                                 struct loss_sums *sums);

#endif
