/* Ranks over MPI. */
#include "comm_mpi.h"
#include <espalier/watchdog.h>
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

struct comm_mpi {
    MPI_Comm sums;   /* the non-blocking sums: apart, so that ranks that stopped at different
                        places of a step still meet in an agreement */
    MPI_Comm others; /* everything else */
    MPI_Request *requests;
    int first, count, capacity; /* requests first .. count - 1 are under way, oldest first */
    int poll_code;              /* what a request failed with inside poll */
    MPI_Win *windows;           /* of mapped memory */
    int windows_count;
    bool finalises;
};

enum { COUNT_MAX = INT_MAX }; /* of one MPI call */

static enum status check(int code, const char *function) {
    if (code == MPI_SUCCESS)
        return ST_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    FAIL(ST_COMMUNICATION, "%s: %s", function, text);
}

/* The end of what watchdog_waits(true) began: a call that all ranks must make. */
static enum status waited(enum status status) {
    watchdog_waits(false);
    return status;
}

static int part_of(size_t count) {
    return count > COUNT_MAX ? COUNT_MAX : (int)count;
}

/* ---- sums under way ---- */

static enum status reserve_request(struct comm_mpi *s) {
    if (s->count < s->capacity)
        return ST_OK;
    int capacity = s->capacity == 0 ? 16 : 2 * s->capacity;
    MPI_Request *requests = realloc(s->requests, (size_t)capacity * sizeof(MPI_Request));
    if (requests == NULL)
        FAIL(ST_MEMORY, "out of memory: %d requests", capacity);
    s->requests = requests;
    s->capacity = capacity;
    return ST_OK;
}

static enum status start(struct comm_mpi *s, char *buffer, size_t count, MPI_Datatype type,
                         size_t type_bytes) {
    while (count > 0) {
        int part = part_of(count);
        TRY(reserve_request(s));
        TRY(check(MPI_Iallreduce(MPI_IN_PLACE, buffer, part, type, MPI_SUM, s->sums,
                                 &s->requests[s->count]),
                  "MPI_Iallreduce"));
        s->count++;
        buffer += (size_t)part * type_bytes;
        count -= (size_t)part;
    }
    return ST_OK;
}

static enum status mpi_allreduce_start(struct communicator *c, float *buffer, size_t count) {
    return start(c->state, (char *)buffer, count, MPI_FLOAT, sizeof *buffer);
}

static enum status mpi_allreduce_start_doubles(struct communicator *c, double *buffer,
                                               size_t count) {
    return start(c->state, (char *)buffer, count, MPI_DOUBLE, sizeof *buffer);
}

/* Testing the oldest moves all of them forward: the library's progress is one engine. */
static void mpi_poll(struct communicator *c) {
    struct comm_mpi *s = c->state;
    int done = 1;
    while (done && s->first < s->count && s->poll_code == MPI_SUCCESS) {
        s->poll_code = MPI_Test(&s->requests[s->first], &done, MPI_STATUS_IGNORE);
        s->first += done && s->poll_code == MPI_SUCCESS;
    }
}

static enum status mpi_settle(struct communicator *c) {
    (void)c;
    return ST_OK;
}

static void mpi_leave_gpu(struct communicator *c) {
    (void)c;
}

static enum status wait_all(struct comm_mpi *s) {
    TRY(check(s->poll_code, "MPI_Test"));
    for (; s->first < s->count; s->first++)
        TRY(check(MPI_Wait(&s->requests[s->first], MPI_STATUS_IGNORE), "MPI_Wait"));
    s->first = s->count = 0;
    return ST_OK;
}

static enum status mpi_allreduce_wait(struct communicator *c) {
    watchdog_waits(true);
    return waited(wait_all(c->state));
}

/* ---- blocking operations ---- */

static enum status sum(struct comm_mpi *s, char *values, size_t count, MPI_Datatype type,
                       size_t type_bytes) {
    while (count > 0) {
        int part = part_of(count);
        TRY(check(MPI_Allreduce(MPI_IN_PLACE, values, part, type, MPI_SUM, s->others),
                  "MPI_Allreduce"));
        values += (size_t)part * type_bytes;
        count -= (size_t)part;
    }
    return ST_OK;
}

static enum status mpi_sum_doubles(struct communicator *c, double *values, size_t count) {
    watchdog_waits(true);
    return waited(sum(c->state, (char *)values, count, MPI_DOUBLE, sizeof *values));
}

static enum status mpi_sum_integers(struct communicator *c, int64_t *values, size_t count) {
    watchdog_waits(true);
    return waited(sum(c->state, (char *)values, count, MPI_INT64_T, sizeof *values));
}

static enum status broadcast(struct comm_mpi *s, void *bytes, size_t count, int root) {
    for (char *at = bytes; count > 0;) {
        int part = part_of(count);
        TRY(check(MPI_Bcast(at, part, MPI_BYTE, root, s->others), "MPI_Bcast"));
        at += part;
        count -= (size_t)part;
    }
    return ST_OK;
}

static enum status mpi_broadcast(struct communicator *c, void *bytes, size_t count, int root) {
    watchdog_waits(true);
    return waited(broadcast(c->state, bytes, count, root));
}

/* One message a rank cannot be longer than COUNT_MAX; longer ones go rank by rank. */
static enum status allgather(struct communicator *c, const void *mine, void *all, size_t count) {
    struct comm_mpi *s = c->state;
    if (count == 0)
        return ST_OK;
    if (count <= COUNT_MAX)
        return check(
            MPI_Allgather(mine, (int)count, MPI_BYTE, all, (int)count, MPI_BYTE, s->others),
            "MPI_Allgather");
    memcpy((char *)all + (size_t)c->rank * count, mine, count);
    for (int rank = 0; rank < c->size; rank++)
        TRY(broadcast(s, (char *)all + (size_t)rank * count, count, rank));
    return ST_OK;
}

static enum status mpi_allgather(struct communicator *c, const void *mine, void *all,
                                 size_t count) {
    watchdog_waits(true);
    return waited(allgather(c, mine, all, count));
}

static enum status mpi_barrier(struct communicator *c) {
    struct comm_mpi *s = c->state;
    watchdog_waits(true);
    return waited(check(MPI_Barrier(s->others), "MPI_Barrier"));
}

/* ---- mapped memory ---- */

/* All ranks must want it, and find themselves on one node; failures are told as "no". */
static enum status all_can(struct communicator *c, bool can, bool *all) {
    int64_t cannot = !can;
    TRY(mpi_sum_integers(c, &cannot, 1));
    *all = cannot == 0;
    return ST_OK;
}

static bool may_map(const struct communicator *c) {
    const char *wanted = getenv("ESPALIER_SHARED_MEMORY");
    return c->size > 1 && c->local_size == c->size && (wanted == NULL || strcmp(wanted, "0") != 0);
}

/* Each rank's memory on pages of its own. */
static bool open_window(struct comm_mpi *s, size_t bytes, void **mine, MPI_Win *window) {
    MPI_Info info;
    if (MPI_Info_create(&info) != MPI_SUCCESS)
        return false;
    MPI_Info_set(info, "alloc_shared_noncontig", "true");
    int code = MPI_Win_allocate_shared((MPI_Aint)bytes, 1, info, s->others, (void *)mine, window);
    MPI_Info_free(&info);
    return code == MPI_SUCCESS;
}

static bool find_maps(struct communicator *c, MPI_Win window, void **maps) {
    bool found = MPI_Win_lock_all(MPI_MODE_NOCHECK, window) == MPI_SUCCESS;
    for (int rank = 0; found && rank < c->size; rank++) {
        MPI_Aint bytes;
        int unit;
        found =
            MPI_Win_shared_query(window, rank, &bytes, &unit, (void *)&maps[rank]) == MPI_SUCCESS;
    }
    return found;
}

static enum status keep_window(struct comm_mpi *s, MPI_Win window) {
    MPI_Win *windows = realloc(s->windows, ((size_t)s->windows_count + 1) * sizeof(MPI_Win));
    if (windows == NULL)
        FAIL(ST_MEMORY, "out of memory");
    s->windows = windows;
    s->windows[s->windows_count++] = window;
    return ST_OK;
}

static enum status mpi_map(struct communicator *c, size_t bytes, void **maps) {
    struct comm_mpi *s = c->state;
    bool all;
    memset(maps, 0, (size_t)c->size * sizeof *maps);
    TRY(all_can(c, may_map(c), &all));
    if (!all)
        return ST_OK;
    void *mine = NULL;
    MPI_Win window = MPI_WIN_NULL;
    TRY(all_can(c, open_window(s, bytes, &mine, &window), &all));
    if (!all)
        return ST_OK; /* a window that some have and others not cannot be freed */
    TRY_TOGETHER(c, keep_window(s, window));
    memset(mine, 0, bytes);
    TRY(all_can(c, find_maps(c, window, maps), &all)); /* and all memory is zeroed */
    if (!all)
        memset(maps, 0, (size_t)c->size * sizeof *maps);
    return ST_OK;
}

/* ---- life ---- */

static void mpi_abort(struct communicator *c, int code) {
    (void)c;
    MPI_Abort(MPI_COMM_WORLD, code);
}

static void free_windows(struct comm_mpi *s) {
    for (int i = 0; i < s->windows_count; i++) {
        MPI_Win_unlock_all(s->windows[i]);
        MPI_Win_free(&s->windows[i]);
    }
}

static void free_communicator(MPI_Comm *comm) {
    if (*comm != MPI_COMM_NULL)
        MPI_Comm_free(comm);
}

/* After a failure sums may still be under way on some ranks only, so nothing is waited for here:
 * freeing leaves the library to drop them. */
static void mpi_destroy(struct communicator *c) {
    struct comm_mpi *s = c->state;
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) {
        free_windows(s);
        free_communicator(&s->sums);
        free_communicator(&s->others);
        if (s->finalises)
            MPI_Finalize();
    }
    free(s->windows);
    free(s->requests);
    free(s);
    c->state = NULL;
}

static enum status duplicate(MPI_Comm *comm) {
    TRY(check(MPI_Comm_dup(MPI_COMM_WORLD, comm), "MPI_Comm_dup"));
    return check(MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

/* Place and share of the cores among the ranks of a node. */
static enum status find_cores(struct communicator *c, MPI_Comm node) {
    TRY(check(MPI_Comm_rank(node, &c->local_rank), "MPI_Comm_rank"));
    TRY(check(MPI_Comm_size(node, &c->local_size), "MPI_Comm_size"));
    struct cores *sets = calloc((size_t)c->local_size, sizeof *sets);
    if (sets == NULL)
        FAIL(ST_MEMORY, "out of memory");
    cores_allowed(&sets[c->local_rank]);
    enum status status =
        check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, sets, CORES_BYTES, MPI_BYTE, node),
              "MPI_Allgather");
    c->cores = cores_share(sets, c->local_size, c->local_rank);
    cores_place(sets, c->local_size, c->local_rank, &c->place);
    free(sets);
    return status;
}

static enum status find_place(struct communicator *c, MPI_Comm comm) {
    MPI_Comm node = MPI_COMM_NULL;
    TRY(check(MPI_Comm_rank(comm, &c->rank), "MPI_Comm_rank"));
    TRY(check(MPI_Comm_size(comm, &c->size), "MPI_Comm_size"));
    TRY(check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &node),
              "MPI_Comm_split_type"));
    enum status status = find_cores(c, node);
    free_communicator(&node);
    return status;
}

static const struct communicator operations = {
    .name = "mpi",
    .failed_rank = -1,
    .allreduce_start = mpi_allreduce_start,
    .allreduce_start_doubles = mpi_allreduce_start_doubles,
    .allreduce_wait = mpi_allreduce_wait,
    .poll = mpi_poll,
    .settle = mpi_settle,
    .sum_doubles = mpi_sum_doubles,
    .sum_integers = mpi_sum_integers,
    .broadcast = mpi_broadcast,
    .allgather = mpi_allgather,
    .barrier = mpi_barrier,
    .map = mpi_map,
    .abort = mpi_abort,
    .leave_gpu = mpi_leave_gpu,
    .destroy = mpi_destroy,
};

enum status communicator_mpi(struct communicator *c) {
    struct communicator made = operations;
    struct comm_mpi *s = calloc(1, sizeof *s);
    if (s == NULL)
        FAIL(ST_MEMORY, "out of memory");
    s->sums = s->others = MPI_COMM_NULL;
    s->poll_code = MPI_SUCCESS;
    made.state = s;
    enum status status = duplicate(&s->sums);
    if (status == ST_OK)
        status = duplicate(&s->others);
    if (status == ST_OK)
        status = find_place(&made, s->others);
    if (status == ST_OK)
        *c = made;
    else
        mpi_destroy(&made);
    return status;
}

enum status comm_mpi_start(int *argc, char ***argv, struct communicator *c) {
    int provided = MPI_THREAD_SINGLE;
    TRY(check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED)
        FAIL(ST_UNAVAILABLE, "this MPI library does not allow threads beside its caller");
    TRY(check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
              "MPI_Comm_set_errhandler"));
    TRY(communicator_mpi(c));
    ((struct comm_mpi *)c->state)->finalises = true;
    return ST_OK;
}
