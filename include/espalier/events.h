/* events.h - what a run says of itself: events.jsonl and summary.json.
 *
 * Keys are snake_case, times in seconds, accuracies fractions in [0, 1]. Only rank 0 writes; the
 * others hold a closed log and every call on it does nothing. */
#ifndef ESPALIER_EVENTS_H
#define ESPALIER_EVENTS_H

#include <espalier/network.h>
#include <espalier/recipe.h>
#include <espalier/status.h>
#include <stdbool.h>

/** An events.jsonl that is being appended to; owns its file, and by a lock on it the run directory:
 *  two runs never write to one. The lock goes with the process, however that ends. */
struct event_log {
    bool is_open;
    int descriptor;
    char path[4096];
    double start_seconds; /* monotonic; "seconds" of an event counts from here */
};

/** Open RUN_DIR/events.jsonl for appending, and lock it. ST_USAGE when another run still holds the
 *  lock after `wait_seconds`. */
enum status event_log_open(const char *run_dir, double wait_seconds, struct event_log *log);
/** Close; reports what could not be written. Legal on a closed log. */
enum status event_log_close(struct event_log *log);

/** Append a line with its newline, as one write. */
enum status event_log_append(struct event_log *log, const char *line, size_t length);
/** *bytes is the file's length, 0 for a closed log. */
enum status event_log_length(const struct event_log *log, int64_t *bytes);
/** Flush to disk what was appended before. Any thread may, while another appends. */
enum status event_log_flush(const struct event_log *log);
/** Drop what lies behind the first `bytes`. ST_INPUT when there are fewer. */
enum status event_log_cut(struct event_log *log, int64_t bytes);

/** One object a line, flushed as a line; ST_IO names the file and the reason (a full disk). All
 *  have "event" and "seconds". On a GPU a start event has rank 0's: "device" (its name),
 * "compute_capability" and "device_memory_bytes". */
enum status event_start(struct event_log *log, const struct recipe *recipe,
                        const struct network *network, int ranks, uint32_t train_images,
                        uint32_t test_images);

/** Means over the updates since the last such event. */
struct step_event {
    int64_t step; /* updates done */
    int epoch;    /* 1 is the first */
    double loss, accuracy, images_per_second;
    size_t allreduce_bytes, optimizer_bytes; /* of one step; of the optimizer's state */
};
enum status event_step(struct event_log *log, const struct step_event *event);

/** After pruning: survivors of each weight in the network, and in all, as counts and as bytes. */
struct prune_event {
    int64_t step;
    size_t allreduce_bytes, optimizer_bytes; /* from now on */
    double seconds_event;
};
enum status event_prune(struct event_log *log, const struct prune_event *event,
                        const struct network *network);

/** After the ways of the network's passes were measured: each block's, by name. */
enum status event_engines(struct event_log *log, int64_t step, const struct network *network);

struct epoch_event {
    int epoch;
    int64_t step;
    double train_loss, train_accuracy; /* running means over the epoch */
    double test_loss, test_accuracy;
    int64_t test_errors;
    bool has_validation;
    double validation_loss, validation_accuracy;
    size_t survivors;
    double seconds_epoch; /* training alone */
    double images_per_second;
};
enum status event_epoch(struct event_log *log, const struct epoch_event *event);

/** After a checkpoint was written. */
struct checkpoint_event {
    int64_t step;
    const char *file; /* "checkpoints/step-00000469.safetensors" */
    uint64_t bytes;
    double seconds_event; /* that the run waited */
};
enum status event_checkpoint(struct event_log *log, const struct checkpoint_event *event);

/** When a run goes on from a checkpoint: the events behind it have been cut off. */
enum status event_resume(struct event_log *log, int64_t step, const char *file, int ranks);

/** What the run came to. */
struct run_summary {
    const char *recipe;
    double test_accuracy, test_loss, train_accuracy, train_loss;
    int64_t test_errors;
    bool has_validation;
    double validation_accuracy;
    int epochs;
    int64_t steps;
    double seconds_train; /* updates and pruning, without evaluation */
    double seconds_total;
    double images_per_second;
    size_t connections, survivors, parameters, parameters_left;
    int ranks, threads;
    const char *backend, *communicator;
    uint64_t seed;
    const char *weights_sha256;
};
enum status event_end(struct event_log *log, const struct run_summary *summary);

/** Write RUN_DIR/summary.json (to a temporary name, then renamed). */
enum status summary_write(const char *run_dir, const struct run_summary *summary);

#endif
