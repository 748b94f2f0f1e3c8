/* Ranks that share the work of updates, on as many as the program is started with. */
#include "mpi_check.h"
#include <espalier/sharing.h>
#include <stdint.h>

static struct communicator *const c = &mpi_check_ranks;

enum { COUNT = 10007 };

/* Whole numbers, so that sums are exact. */
static float gradient_element(int rank, int step, size_t i) {
    return (float)((i * 7 + (size_t)rank * 1013 + (size_t)step * 31) % 65521);
}

static float sum_of_elements(int step, size_t i) {
    float sum = 0;
    for (int rank = 0; rank < c->size; rank++)
        sum += gradient_element(rank, step, i);
    return sum;
}

static void shares_cover_the_vector(const struct sharing *s) {
    static const size_t counts[] = {0, 1, 15, 16, 17, 100, COUNT};
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        size_t next = 0;
        for (int rank = 0; rank < c->size; rank++) {
            const struct share share = sharing_share(s, counts[k], rank);
            CHECK(share.begin == next || share.count == 0);
            CHECK(share.begin % 16 == 0);
            next += share.count;
        }
        CHECK(next == counts[k]);
    }
}

/* beta += sum of the gradients, the work divided, for the first `count` values. */
static void update(struct sharing *s, size_t count, int step) {
    for (size_t i = 0; i < count; i++)
        s->gradient[i] = gradient_element(c->rank, step, i);
    sharing_meet(s);
    const struct share own = sharing_share(s, count, c->rank);
    sharing_sum(s, own);
    for (size_t i = own.begin; i < own.begin + own.count; i++)
        s->beta[i] += s->gradient[i];
    sharing_meet(s);
    sharing_fetch(s, count);
}

/* Every rank checks every step, at its own speed. */
static void updates_are_the_sums(struct sharing *s, size_t count, int steps) {
    double *expected = calloc(COUNT, sizeof *expected);
    CHECK(expected != NULL);
    for (size_t i = 0; i < count; i++)
        expected[i] = (double)s->beta[i];
    for (int step = 0; step < steps; step++) {
        update(s, count, step);
        for (size_t i = 0; i < count; i++) {
            expected[i] += (double)sum_of_elements(step, i);
            CHECK((double)s->beta[i] == expected[i]);
        }
    }
    free(expected);
}

/* What follows the shortened vector is nobody's business. */
static void shorter_vectors_leave_the_rest(struct sharing *s) {
    const float last = s->beta[COUNT - 1];
    updates_are_the_sums(s, COUNT - 1000, 2);
    updates_are_the_sums(s, 3, 2);
    CHECK(s->beta[COUNT - 1] == last);
}

static void states_are_completed(const struct sharing *s) {
    float *state = calloc(COUNT, sizeof *state);
    CHECK(state != NULL);
    const struct share own = sharing_share(s, COUNT, c->rank);
    for (size_t i = own.begin; i < own.begin + own.count; i++)
        state[i] = (float)i + 1;
    CHECK_OK(sharing_complete(s, state, COUNT));
    for (size_t i = 0; i < COUNT; i++)
        CHECK(state[i] == (float)i + 1);
    free(state);
}

/* Large values that cancel, and small ones that floats would lose beside them. */
static double exact_element(int rank, size_t i) {
    const double large = (double)(1 << 20) * (rank % 2 == 0 ? 1 : -1);
    return (c->size % 2 == 0 || rank > 0 ? large : 0) + (double)(i % 999 + 1) * 0x1p-20;
}

static void exact_sums_are_rounded_once(void) {
    struct sharing s;
    CHECK_OK(sharing_create(c, COUNT, true, &s));
    for (size_t i = 0; i < COUNT; i++)
        s.exact[i] = exact_element(c->rank, i);
    sharing_meet(&s);
    const struct share own = sharing_share(&s, COUNT, c->rank);
    sharing_sum_exact(&s, own);
    for (size_t i = own.begin; i < own.begin + own.count; i++)
        CHECK(s.gradient[i] == (float)(c->size * (double)(i % 999 + 1) * 0x1p-20));
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(s.exact[i] == exact_element(c->rank, i));
        CHECK(s.beta[i] == 0);
    }
    sharing_meet(&s);
    sharing_destroy(&s);
}

static void two_can_be_open(void) {
    struct sharing one, two;
    CHECK_OK(sharing_create(c, 40, true, &one));
    CHECK_OK(sharing_create(c, 50, false, &two));
    CHECK(one.maps != NULL && two.maps != NULL && one.maps[0] != two.maps[0]);
    for (int i = 0; i < 50; i++)
        CHECK(two.beta[i] == 0 && two.gradient[i] == 0);
    sharing_destroy(&one);
    update(&two, 50, 1);
    CHECK(two.beta[49] == sum_of_elements(1, 49));
    sharing_destroy(&two);
}

/* One rank that does not want to is enough. */
static void nothing_is_shared_when_a_rank_refuses(void) {
    struct sharing s;
    if (c->rank == c->size - 1)
        setenv("ESPALIER_SHARED_MEMORY", "0", 1);
    CHECK_OK(sharing_create(c, COUNT, false, &s));
    unsetenv("ESPALIER_SHARED_MEMORY");
    CHECK(s.maps == NULL && s.beta == NULL && s.exact == NULL);
    sharing_destroy(&s);
}

static void share_and_check(void) {
    struct sharing s;
    CHECK_OK(sharing_create(c, COUNT, false, &s));
    CHECK(s.maps != NULL);
    shares_cover_the_vector(&s);
    updates_are_the_sums(&s, COUNT, 6);
    shorter_vectors_leave_the_rest(&s);
    states_are_completed(&s);
    sharing_destroy(&s);
    exact_sums_are_rounded_once();
    two_can_be_open();
}

int main(int argc, char **argv) {
    unsetenv("ESPALIER_SHARED_MEMORY");
    CHECK_OK(communicator_create(&argc, &argv, c));
    nothing_is_shared_when_a_rank_refuses();
    if (c->size > 1)
        share_and_check();
    c->destroy(c);
    return 0;
}
