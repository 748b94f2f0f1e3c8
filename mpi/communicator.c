/* The registry of communicators: the only place that knows which are compiled in; the single rank;
 * and agreement, which is written over the operations of any communicator. */
#include "comm_mpi.h"
#include <stdlib.h>
#include <string.h>

#if ESPALIER_HAVE_MPI
enum { HAVE_MPI = 1 };
#else
enum { HAVE_MPI = 0 };

enum status communicator_mpi(struct communicator *c) {
    (void)c;
    FAIL(ST_UNAVAILABLE, "MPI is not compiled in; configure with -DESPALIER_MPI=ON");
}

enum status comm_mpi_start(int *argc, char ***argv, struct communicator *c) {
    (void)argc, (void)argv;
    return communicator_mpi(c);
}
#endif

static enum status single_allreduce_start(struct communicator *c, float *buffer, size_t count) {
    (void)c, (void)buffer, (void)count;
    return ST_OK;
}

static enum status single_allreduce_start_doubles(struct communicator *c, double *buffer,
                                                  size_t count) {
    (void)c, (void)buffer, (void)count;
    return ST_OK;
}

static enum status single_complete(struct communicator *c) {
    (void)c;
    return ST_OK;
}

static void single_nothing(struct communicator *c) {
    (void)c;
}

static enum status single_sum_doubles(struct communicator *c, double *values, size_t count) {
    (void)c, (void)values, (void)count;
    return ST_OK;
}

static enum status single_sum_integers(struct communicator *c, int64_t *values, size_t count) {
    (void)c, (void)values, (void)count;
    return ST_OK;
}

static enum status single_broadcast(struct communicator *c, void *bytes, size_t count, int root) {
    (void)c, (void)bytes, (void)count, (void)root;
    return ST_OK;
}

static enum status single_allgather(struct communicator *c, const void *mine, void *all,
                                    size_t count) {
    (void)c;
    if (count > 0)
        memcpy(all, mine, count);
    return ST_OK;
}

static enum status single_map(struct communicator *c, size_t bytes, void **maps) {
    (void)c, (void)bytes;
    maps[0] = NULL;
    return ST_OK;
}

static void single_abort(struct communicator *c, int code) {
    (void)c, (void)code;
}

enum status communicator_single(struct communicator *c) {
    *c = (struct communicator){
        .name = "single",
        .rank = 0,
        .size = 1,
        .local_rank = 0,
        .local_size = 1,
        .failed_rank = -1,
        .allreduce_start = single_allreduce_start,
        .allreduce_start_doubles = single_allreduce_start_doubles,
        .allreduce_wait = single_complete,
        .poll = single_nothing,
        .sum_doubles = single_sum_doubles,
        .sum_integers = single_sum_integers,
        .broadcast = single_broadcast,
        .allgather = single_allgather,
        .barrier = single_complete,
        .map = single_map,
        .abort = single_abort,
        .destroy = single_nothing,
    };
    cores_allowed(&c->place);
    c->cores = cores_share(&c->place, 1, 0);
    return ST_OK;
}

/* The value of a variable that holds a whole number, -1 where it does not. */
static long environment_number(const char *name) {
    const char *text = getenv(name);
    if (text == NULL || *text == '\0')
        return -1;
    char *end;
    long number = strtol(text, &end, 10);
    return *end == '\0' && number >= 0 ? number : -1;
}

/* How many ranks, at least, the launcher started; 0 without a launcher. A batch script without
 * srun sees Slurm's variables too, so those count only beside what a process manager for MPI sets
 * in the ranks themselves. */
static long launcher_ranks(void) {
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    static const char *const ranks[] = {"PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (environment_number(sizes[i]) > 0)
            return environment_number(sizes[i]);
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        long rank = environment_number(ranks[i]),
             tasks = environment_number("SLURM_STEP_NUM_TASKS");
        if (rank >= 0)
            return tasks > rank ? tasks : rank + 1;
    }
    return 0;
}

/* A library built for another launcher comes up as many worlds of one rank each, which would all
 * write to the same run. */
static enum status check_world(struct communicator *c, long ranks) {
    int size = c->size;
    if (size >= ranks)
        return ST_OK;
    c->destroy(c);
    communicator_single(c);
    FAIL(ST_UNAVAILABLE,
         "the launcher started %ld ranks, but MPI connects %d of them; use this MPI's own mpirun, "
         "or srun --mpi=pmix",
         ranks, size);
}

enum status communicator_create(int *argc, char ***argv, struct communicator *c) {
    long ranks = launcher_ranks();
    TRY(communicator_single(c));
    if (ranks == 0 || (ranks == 1 && !HAVE_MPI))
        return ST_OK;
    if (!HAVE_MPI)
        FAIL(ST_UNAVAILABLE,
             "the launcher started %ld ranks, but MPI is not compiled in; configure with "
             "-DESPALIER_MPI=ON",
             ranks);
    TRY(comm_mpi_start(argc, argv, c));
    return check_world(c, ranks);
}

/* One small sum while all is well; who failed, and how, is worth `size` broadcasts. */
enum status communicator_agree(struct communicator *c, enum status mine) {
    int64_t failures = mine != ST_OK;
    TRY(c->sum_integers(c, &failures, 1));
    if (failures == 0)
        return ST_OK;
    enum status agreed = ST_OK;
    int rank = -1;
    while (agreed == ST_OK) {
        rank++;
        agreed = mine;
        TRY(c->broadcast(c, &agreed, sizeof agreed, rank));
    }
    c->failed_rank = rank;
    if (mine == ST_OK)
        return status_fail(agreed, "rank %d failed", rank);
    return agreed;
}

bool communicator_reports(const struct communicator *c) {
    return c->failed_rank == -1 || c->failed_rank == c->rank;
}
