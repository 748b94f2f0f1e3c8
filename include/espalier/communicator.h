/* communicator.h - ranks that train together.
 *
 * A communicator is a table of operations: `single` (one rank, no library) or `mpi`. What they are
 * given is host memory, but for the all-reduces of one with device_memory. Functions marked
 * Collective must be called by all ranks in the same order. Only the thread that created it may
 * call it (MPI_THREAD_FUNNELED). */
#ifndef ESPALIER_COMMUNICATOR_H
#define ESPALIER_COMMUNICATOR_H

#include <espalier/gpu.h>
#include <espalier/status.h>
#include <espalier/threads.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct communicator {
    const char *name; /* "single", "mpi", "nccl" */
    int rank, size;
    int local_rank, local_size; /* among the ranks of this node */
    int cores;                  /* this rank's share of the node's cores, at least 1 */
    struct cores place;         /* the cores that it can have for itself; may be none */
    int failed_rank; /* the rank whose failure all ranks agreed on, -1 while there is none */

    bool device_memory; /* all-reduces are of device memory, and queued: see communicator_join_gpu
                         */
    double patience_seconds; /* that `settle` has, 0: without end */

    /** Begin summing buffer[count] over the ranks, in place; it must not be touched before
     *  allreduce_wait. Any number may be under way. Collective. */
    enum status (*allreduce_start)(struct communicator *, float *buffer, size_t count);
    /** The same for doubles. */
    enum status (*allreduce_start_doubles)(struct communicator *, double *buffer, size_t count);
    /** Finish every all-reduce that was started. Collective. */
    enum status (*allreduce_wait)(struct communicator *);
    /** Let what is under way make progress; cheap, never blocks. Not collective. */
    void (*poll)(struct communicator *);
    /** With device_memory: wait until the device has done what was queued. To be called before the
     *  host waits for the device by other means, which would wait for ever where a rank is gone:
     *  ST_COMMUNICATION when the library has met an error, or when nothing has come in
     *  patience_seconds; then the sums under way are given up. Else nothing. Not collective. */
    enum status (*settle)(struct communicator *);

    /** Sums in place, blocking. Collective. */
    enum status (*sum_doubles)(struct communicator *, double *values, size_t count);
    enum status (*sum_integers)(struct communicator *, int64_t *values, size_t count);
    /** Copy rank `root`'s bytes to all. Collective. */
    enum status (*broadcast)(struct communicator *, void *bytes, size_t count, int root);
    /** Rank r's `count` bytes land at all[r * count] on every rank. Collective. */
    enum status (*allgather)(struct communicator *, const void *mine, void *all, size_t count);
    enum status (*barrier)(struct communicator *);
    /** Memory that all ranks can read and write: maps[r] is `bytes` of rank r's, zeroed, which live
     *  as long as the communicator. All are NULL for one rank, where the ranks are on several
     *  nodes or memory cannot be mapped, and when $ESPALIER_SHARED_MEMORY is 0. Collective. */
    enum status (*map)(struct communicator *, size_t bytes, void **maps);

    /** End all ranks at once with exit code `code`. Not collective; does not return (except in
     *  `single`, where there is nobody else to end). */
    void (*abort)(struct communicator *, int code);
    /** Undo communicator_join_gpu; nothing where it changed nothing. */
    void (*leave_gpu)(struct communicator *);
    void (*destroy)(struct communicator *);
    void *state;
};

/** The only rank of a program without a launcher. */
enum status communicator_single(struct communicator *c);

/** All ranks of MPI_COMM_WORLD (duplicated), MPI already initialised. Collective.
 *  ST_UNAVAILABLE when MPI is not compiled in. */
enum status communicator_mpi(struct communicator *c);

/** Bring up what the launcher asks for: `mpi` under mpirun or srun (told by
 *  the environment they set), else `single`. Initialises MPI, MPI_THREAD_FUNNELED; `destroy`
 *  finalises it. Collective. */
enum status communicator_create(int *argc, char ***argv, struct communicator *c);

/** Sum in the memory of the ranks' devices from now on, by NCCL where that is compiled in: *c
 *  becomes a communicator with device_memory. allreduce_start then follows what was queued on
 *  gpu->stream before, and what is queued after allreduce_wait follows the sums; no host waits.
 *  To be undone by `leave_gpu` before the stream is gone.
 *
 *  Each rank needs a device of its own, which its UUID tells: ST_INPUT names two ranks that have
 *  the same one, unless `share`; then, and where NCCL is not compiled in, nothing changes, and sums
 *  go through the host. `gpu` NULL: the rank computes on its host, and nothing changes; ST_INPUT
 *  when some ranks do and others not. Its messages say what was `refused` (backend.h) of the first
 *  rank that they name without a device, or with another rank's. Collective. */
enum status communicator_join_gpu(struct communicator *c, const struct gpu *gpu,
                                  const char *refused, bool share);

/** Agree on success: ST_OK everywhere if every rank passes ST_OK, else the lowest failing
 *  rank's status everywhere, and `failed_rank` is set. The message stays with the rank(s)
 *  that failed: status_message() on the others names the failing rank. Collective. */
enum status communicator_agree(struct communicator *c, enum status mine);

/** True on the one rank that has the message to print after a failure: the lowest rank that
 *  failed, or any rank that failed alone. */
bool communicator_reports(const struct communicator *c);

/** TRY for what one rank alone can find: agree first, then return the failure everywhere. */
#define TRY_TOGETHER(communicator, expr) TRY(communicator_agree((communicator), (expr)))

#endif
