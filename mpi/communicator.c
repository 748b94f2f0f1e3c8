/* The registry of communicators: the only place that knows which are compiled in; the single rank;
 * and what is written over the operations of any communicator. */
#include "comm_mpi.h"
#include "comm_nccl.h"
#include <stdio.h>
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

#if !ESPALIER_HAVE_NCCL
/* Sums go through the host. */
enum status comm_nccl_join(struct communicator *c, const struct gpu *gpu) {
    (void)c, (void)gpu;
    return ST_OK;
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
        .settle = single_complete,
        .sum_doubles = single_sum_doubles,
        .sum_integers = single_sum_integers,
        .broadcast = single_broadcast,
        .allgather = single_allgather,
        .barrier = single_complete,
        .map = single_map,
        .abort = single_abort,
        .leave_gpu = single_nothing,
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

/* ---- GPUs ---- */

/* As nvidia-smi writes it. */
static void format_uuid(const unsigned char *uuid, char text[64]) {
    int length = snprintf(text, 64, "GPU");
    for (int i = 0; i < GPU_UUID_BYTES; i++)
        length += snprintf(text + length, 64 - (size_t)length, "%s%02x",
                           i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

/* What a rank computes on, and what it was refused. */
struct place {
    bool has_gpu;
    struct gpu gpu;
    char refused[GPU_REFUSED_MAX];
};

/* In brackets; "" where there is nothing to say. */
static void format_refused(const struct place *place, char text[GPU_REFUSED_MAX + 4]) {
    text[0] = '\0';
    if (place->refused[0] != '\0')
        snprintf(text, GPU_REFUSED_MAX + 4, " (%s)", place->refused);
}

/* places [size] */
static enum status check_kinds(const struct communicator *c, const struct place *places) {
    char why[GPU_REFUSED_MAX + 4];
    for (int rank = 1; rank < c->size; rank++) {
        if (places[rank].has_gpu == places[0].has_gpu)
            continue;
        const int with = places[0].has_gpu ? 0 : rank, without = places[0].has_gpu ? rank : 0;
        format_refused(&places[without], why);
        FAIL(ST_INPUT,
             "rank %d has a GPU, rank %d has none%s: give each rank one, or none "
             "(train.backend=cpu)",
             with, without, why);
    }
    return ST_OK;
}

static bool is_same(const struct place *a, const struct place *b) {
    return memcmp(a->gpu.uuid, b->gpu.uuid, GPU_UUID_BYTES) == 0;
}

/* Two ranks that have the same GPU, of several the first; false where there are none. */
static bool find_shared(const struct communicator *c, const struct place *places, int *a, int *b) {
    for (*b = 1; *b < c->size; ++*b)
        for (*a = 0; *a < *b; ++*a)
            if (is_same(&places[*a], &places[*b]))
                return true;
    return false;
}

static enum status check_places(const struct communicator *c, const struct place *places,
                                bool share, bool *shared) {
    char uuid[64], why[GPU_REFUSED_MAX + 4];
    int a, b;
    TRY(check_kinds(c, places));
    *shared = places[0].has_gpu && find_shared(c, places, &a, &b);
    if (!*shared || share)
        return ST_OK;
    format_uuid(places[b].gpu.uuid, uuid);
    format_refused(&places[b], why);
    FAIL(ST_INPUT,
         "ranks %d and %d have the same GPU, %s, %s%s: start one rank a GPU, or let them share it "
         "with --share-gpus",
         a, b, places[b].gpu.name, uuid, why);
}

static enum status exchange_places(struct communicator *c, const struct gpu *gpu,
                                   const char *refused, bool share, bool *shared) {
    struct place mine, *places = calloc((size_t)c->size, sizeof *places);
    memset(&mine, 0, sizeof mine); /* padding too: it is sent */
    mine.has_gpu = gpu != NULL;
    if (gpu != NULL)
        mine.gpu = *gpu;
    snprintf(mine.refused, sizeof mine.refused, "%s", refused);
    enum status status = communicator_agree(
        c, places != NULL ? ST_OK : status_fail(ST_MEMORY, "out of memory: %d ranks", c->size));
    if (status == ST_OK)
        status = c->allgather(c, &mine, places, sizeof mine);
    if (status == ST_OK)
        status = communicator_agree(c, check_places(c, places, share, shared));
    free(places);
    return status;
}

enum status communicator_join_gpu(struct communicator *c, const struct gpu *gpu,
                                  const char *refused, bool share) {
    bool shared = false;
    TRY(exchange_places(c, gpu, refused, share, &shared));
    return gpu == NULL || shared ? ST_OK : comm_nccl_join(c, gpu);
}
