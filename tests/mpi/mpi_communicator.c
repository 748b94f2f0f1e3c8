/* The communicator under mpirun, on as many ranks as it is started with. */
#include "mpi_check.h"
#include <stdint.h>

static struct communicator *const c = &mpi_check_ranks;

/* Element i of rank r: whole numbers below 2^24 at any sum of 16 ranks, so sums are exact. */
static float element(int rank, size_t i) {
    return (float)((i * 7 + (size_t)rank * 1013) % 65521);
}

static float sum_of_elements(size_t i) {
    float sum = 0;
    for (int rank = 0; rank < c->size; rank++)
        sum += element(rank, i);
    return sum;
}

static void check_sum(const float *buffer, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++)
        CHECK(buffer[i] == sum_of_elements(first + i));
}

static float *filled(size_t count) {
    float *buffer = malloc((count + 1) * sizeof *buffer);
    CHECK(buffer != NULL);
    for (size_t i = 0; i < count; i++)
        buffer[i] = element(c->rank, i);
    return buffer;
}

static void allreduce_sums_any_length(void) {
    static const size_t counts[] = {0, 1, 2, 3, 4, 5, 63, 1000, 16385, 600810};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        float *buffer = filled(counts[k]);
        CHECK_OK(c->allreduce_start(c, buffer, counts[k]));
        CHECK_OK(c->allreduce_wait(c));
        check_sum(buffer, 0, counts[k]);
        free(buffer);
    }
}

/* As a backward pass does: the last part first, polled in between, agreements while under way. */
static void many_sums_are_under_way(void) {
    enum { PARTS = 40, LENGTH = 3001 };
    for (int step = 0; step < 3; step++) {
        float *buffer = filled((size_t)PARTS * LENGTH);
        for (int part = PARTS - 1; part >= 0; part--) {
            CHECK_OK(c->allreduce_start(c, buffer + (size_t)part * LENGTH, part % 5 ? LENGTH : 0));
            c->poll(c);
        }
        CHECK_OK(communicator_agree(c, ST_OK));
        CHECK_OK(c->allreduce_wait(c));
        for (size_t part = 0; part < PARTS; part++)
            if (part % 5)
                check_sum(buffer + part * LENGTH, part * LENGTH, LENGTH);
        free(buffer);
    }
    CHECK_OK(c->allreduce_wait(c)); /* nothing is under way: legal */
    c->poll(c);
}

/* Polling alone carries the sums to their end, with no other call of the library. */
static void polling_makes_progress(void) {
    enum { LENGTH = 200000 };
    float *buffer = filled(LENGTH);
    CHECK_OK(c->allreduce_start(c, buffer, LENGTH));
    while (buffer[0] != sum_of_elements(0))
        c->poll(c);
    CHECK_OK(c->allreduce_wait(c));
    check_sum(buffer, 0, LENGTH);
    free(buffer);
}

/* A float between -1 and 1 with all bits of its fraction in use (a multiplicative generator). */
static float noisy(uint64_t *x) {
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int64_t)*x * 0x1p-63);
}

/* Whatever order the library adds in, all ranks must hold the same bits: replicas live by it. */
static void sums_are_bit_identical_on_all_ranks(void) {
    static const size_t counts[] = {1, 2, 3, 7, 100, 1280, 5000, 65536, 589824};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        size_t bytes = counts[k] * sizeof(float);
        float *buffer = malloc(bytes), *first = malloc(bytes);
        double values[33];
        uint64_t x = (uint64_t)c->rank * 77 + k;
        CHECK(buffer != NULL && first != NULL);
        for (size_t i = 0; i < counts[k]; i++)
            buffer[i] = noisy(&x);
        for (size_t i = 0; i < 33; i++)
            values[i] = (double)noisy(&x) / 3;
        CHECK_OK(c->allreduce_start(c, buffer, counts[k]));
        CHECK_OK(c->allreduce_wait(c));
        CHECK_OK(c->sum_doubles(c, values, 33));
        double first_values[33];
        memcpy(first, buffer, bytes);
        memcpy(first_values, values, sizeof values);
        CHECK_OK(c->broadcast(c, first, bytes, 0));
        CHECK_OK(c->broadcast(c, first_values, sizeof values, 0));
        CHECK(memcmp(first, buffer, bytes) == 0);
        CHECK(memcmp(first_values, values, sizeof values) == 0);
        free(buffer);
        free(first);
    }
}

static void blocking_sums_are_exact(void) {
    int64_t integers[3] = {c->rank, (int64_t)1 << 40, -(int64_t)c->rank};
    double doubles[2] = {0.5 * c->rank, 1};
    int triangle = c->size * (c->size - 1) / 2;
    CHECK_OK(c->sum_integers(c, integers, 3));
    CHECK_OK(c->sum_doubles(c, doubles, 2));
    CHECK(integers[0] == triangle && integers[2] == -triangle);
    CHECK(integers[1] == (int64_t)c->size << 40);
    CHECK(doubles[0] == 0.5 * triangle && doubles[1] == c->size);
    CHECK_OK(c->sum_integers(c, NULL, 0));
    CHECK_OK(c->sum_doubles(c, NULL, 0));
}

static void broadcast_reaches_all(void) {
    for (int root = 0; root < c->size; root++) {
        unsigned char bytes[1003];
        memset(bytes, c->rank == root ? 100 + root : 0, sizeof bytes);
        CHECK_OK(c->broadcast(c, bytes, sizeof bytes, root));
        for (size_t i = 0; i < sizeof bytes; i++)
            CHECK(bytes[i] == 100 + root);
    }
    CHECK_OK(c->broadcast(c, NULL, 0, 0));
}

static void allgather_is_in_rank_order(void) {
    uint32_t mine[2] = {(uint32_t)c->rank, 1000u - (uint32_t)c->rank};
    uint32_t *all = calloc(2 * (size_t)c->size, sizeof *all);
    CHECK(all != NULL);
    CHECK_OK(c->allgather(c, mine, all, sizeof mine));
    for (int rank = 0; rank < c->size; rank++)
        CHECK(all[2 * rank] == (uint32_t)rank && all[2 * rank + 1] == 1000u - (uint32_t)rank);
    CHECK_OK(c->allgather(c, mine, all, 0));
    free(all);
}

/* mpirun starts all ranks on one machine here. */
static void all_ranks_share_this_node(void) {
    CHECK(strcmp(c->name, "mpi") == 0);
    CHECK(c->local_rank == c->rank && c->local_size == c->size);
    CHECK(c->failed_rank == -1 && communicator_reports(c));
}

/* Bit r of `failing`: rank r fails, with a status and a message of its own. */
static void check_agreement(unsigned failing) {
    char message[64] = "", others[64] = "";
    enum status mine = ST_OK;
    int lowest = 0;
    while (!(failing >> lowest & 1))
        lowest++;
    if (failing >> c->rank & 1) {
        snprintf(message, sizeof message, "rank %d lost its way", c->rank);
        mine = status_fail((enum status)(ST_USAGE + c->rank), "%s", message);
    }
    snprintf(others, sizeof others, "rank %d failed", lowest);
    CHECK(communicator_agree(c, mine) == (enum status)(ST_USAGE + lowest));
    CHECK(c->failed_rank == lowest);
    CHECK(communicator_reports(c) == (c->rank == lowest));
    CHECK(strcmp(status_message(), mine != ST_OK ? message : others) == 0);
    c->failed_rank = -1;
}

static void ranks_agree_whoever_fails(void) {
    CHECK_OK(communicator_agree(c, ST_OK));
    CHECK(c->failed_rank == -1);
    for (unsigned failing = 1; failing < 1u << c->size; failing++)
        check_agreement(failing);
    CHECK_OK(communicator_agree(c, ST_OK));
}

/* A node of so many GPUs, dealt out to the ranks in turn. */
static struct gpu gpu_of(int rank, int gpus) {
    struct gpu gpu = {.index = rank % gpus, .name = "Test GPU"};
    memset(gpu.uuid, 0xA0 + rank % gpus, sizeof gpu.uuid);
    return gpu;
}

static void one_gpu_for_two_ranks_is_refused(void) {
    for (int gpus = 1; gpus < c->size; gpus++) {
        const struct gpu gpu = gpu_of(c->rank, gpus);
        char uuid[64], ranks[64];
        CHECK(communicator_join_gpu(c, &gpu, "", false) == ST_INPUT);
        CHECK(c->failed_rank == 0);
        snprintf(ranks, sizeof ranks, "ranks 0 and %d have the same GPU, Test GPU", gpus);
        snprintf(uuid, sizeof uuid, ", GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0: start");
        CHECK_MESSAGE(ranks);
        CHECK_MESSAGE(uuid);
        CHECK_MESSAGE("--share-gpus");
        c->failed_rank = -1;
    }
}

static void shared_gpus_leave_the_sums_to_the_host(void) {
    for (int gpus = 1; gpus < c->size; gpus++) {
        const struct gpu gpu = gpu_of(c->rank, gpus);
        CHECK_OK(communicator_join_gpu(c, &gpu, "", true));
        CHECK(!c->device_memory);
        c->leave_gpu(c);
    }
    allreduce_sums_any_length();
}

static void a_rank_without_a_gpu_is_named(void) {
    const struct gpu gpu = gpu_of(c->rank, c->size);
    for (int without = 0; without < c->size && c->size > 1; without++) {
        char text[80];
        const bool has = c->rank != without;
        const char *refused = has ? "" : "Old GPU is old";
        CHECK(communicator_join_gpu(c, has ? &gpu : NULL, refused, false) == ST_INPUT);
        snprintf(text, sizeof text, "rank %d has a GPU, rank %d has none (Old GPU is old): give",
                 without == 0, without);
        CHECK(c->failed_rank == 0);
        CHECK_MESSAGE(text);
        c->failed_rank = -1;
    }
}

static void a_host_joins_nothing(void) {
    CHECK_OK(communicator_join_gpu(c, NULL, "", false));
    CHECK(!c->device_memory);
    CHECK_OK(c->settle(c));
    c->leave_gpu(c);
}

/* One rank stopped before its second sum; all meet in the agreement, and destroy must return. */
static void agreement_reaches_ranks_inside_a_step(float *buffer, size_t count) {
    bool stops = c->size > 1 && c->rank == c->size - 1;
    CHECK_OK(c->allreduce_start(c, buffer, count / 2));
    if (!stops)
        CHECK_OK(c->allreduce_start(c, buffer + count / 2, count / 2));
    enum status mine = stops ? status_fail(ST_IO, "stopped") : ST_OK;
    CHECK(communicator_agree(c, mine) == (c->size > 1 ? ST_IO : ST_OK));
}

int main(int argc, char **argv) {
    CHECK_OK(communicator_create(&argc, &argv, c));
    all_ranks_share_this_node();
    allreduce_sums_any_length();
    many_sums_are_under_way();
    polling_makes_progress();
    sums_are_bit_identical_on_all_ranks();
    blocking_sums_are_exact();
    broadcast_reaches_all();
    allgather_is_in_rank_order();
    ranks_agree_whoever_fails();
    one_gpu_for_two_ranks_is_refused();
    shared_gpus_leave_the_sums_to_the_host();
    a_rank_without_a_gpu_is_named();
    a_host_joins_nothing();
    CHECK_OK(c->barrier(c));
    float *buffer = filled(200000);
    agreement_reaches_ranks_inside_a_step(buffer, 200000);
    c->destroy(c);
    free(buffer);
    return 0;
}
