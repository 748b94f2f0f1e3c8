/* Networks that compute without the channels and inputs that have no connections left, against
 * masked ones that compute with whole layers, and against the reference. */
#include "pruned_network.h"

#include <math.h>

/* ---- what is left ---- */

static double draw(const struct place *p) {
    uint32_t words[4];
    const struct rng_counter counter = {(uint32_t)p->out, (uint32_t)p->in, (uint32_t)p->layer, 3};
    rng_philox(11, counter, words);
    return (double)rng_uniform(words[0]);
}

#define DENSITY(name, density)                                                                     \
    static bool name(const struct place *p) {                                                      \
        return draw(p) < (density);                                                                \
    }
DENSITY(left_1, 1)
DENSITY(left_0_5, 0.5)
DENSITY(left_0_2, 0.2)
DENSITY(left_0_1, 0.1)
DENSITY(left_0_05, 0.05)
DENSITY(left_0_01, 0.01)
DENSITY(left_0_001, 0.001)

static bool nothing_left(const struct place *p) {
    (void)p;
    return false;
}

/* Units that nothing leads to, all layers through. */
static bool rows_gone(const struct place *p) {
    return p->out % 3 != 1;
}

/* Inputs that nothing reads: channels, or where there is only one, pixels. */
static bool columns_gone(const struct place *p) {
    return p->first ? p->in % 3 != 0 : p->channel % 2 != 0;
}

/* Of four channels one has no inputs, one no outputs, one neither. */
static bool channels_gone(const struct place *p) {
    return p->out % 4 != 0 && p->out % 4 != 2 && (p->first || p->channel % 4 != 1) &&
           (p->first || p->channel % 4 != 2);
}

/* Inputs of single pixels of kept channels; few of what is left. */
static bool pixels_gone(const struct place *p) {
    return p->in % 5 < 2 && p->out % 3 != 0;
}

static bool few_rows_and_columns(const struct place *p) {
    return draw(p) < 0.3 && (p->last || p->out % 5 != 1) && (p->first || p->channel % 3 != 2);
}

static is_left *const patterns[] = {
    left_1,       left_0_5,  left_0_2,     left_0_1,      left_0_05,   left_0_01,
    left_0_001,   rows_gone, columns_gone, channels_gone, pixels_gone, few_rows_and_columns,
    nothing_left,
};

enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

/* ---- networks ---- */

/* What a network has computed, in the original numbers; of what is left only. */
struct results {
    float training[SAMPLES * CLASSES], evaluation[SAMPLES * CLASSES], gradient[MOST_VALUES];
    bool left[MOST_VALUES];
};

/* ---- passes ---- */

static enum status ignore_ready(void *context, size_t offset, size_t count) {
    (void)context, (void)offset, (void)count;
    return ST_OK;
}

static void read_gradient(const struct side *s, struct results *r) {
    static uint32_t indices[MOST_VALUES];
    static float gradient[MOST_VALUES];
    size_t first = 0;
    const struct network *network = s->network;
    memset(r->left, 0, sizeof r->left);
    memset(r->gradient, 0, sizeof r->gradient);
    for (int p = 0; p < network->parameters_count; p++) {
        const struct parameter *parameter = &network->parameters[p];
        const bool dense = parameter->stored != parameter->count || parameter->indices == NULL;
        indices_of(s, p, indices);
        assert_ok(s->backend->download(s->backend, gradient, network->gradient + parameter->offset,
                                       parameter->stored * sizeof *gradient));
        for (size_t e = 0; e < parameter->count; e++) {
            r->gradient[first + indices[e]] = gradient[dense ? indices[e] : e];
            r->left[first + indices[e]] = true;
        }
        first += parameter->original_count;
    }
}

static void read_logits(const struct side *s, const struct block_pass *pass, const float *x,
                        float *logits) {
    float *device;
    assert_ok(network_forward(s->network, pass, x, &device));
    assert_ok(s->backend->download(s->backend, logits, device, SAMPLES * CLASSES * sizeof *logits));
}

static void run(const struct side *s, value_of *value, struct results *r) {
    static const uint32_t ids[SAMPLES] = {7, 0, 901, 3, 12};
    struct block_pass pass = {.samples = SAMPLES, .seed = 5, .update = 9, .sample_ids = ids};
    const struct gradient_sink sink = {.ready = ignore_ready};
    float x[SAMPLES * PIXELS], dlogits[SAMPLES * CLASSES];
    for (uint32_t i = 0; i < SAMPLES * PIXELS; i++) {
        uint32_t words[4];
        rng_philox(31, (struct rng_counter){.group = i}, words);
        x[i] = value(words[0], false);
        if (i < SAMPLES * CLASSES)
            dlogits[i] = value(words[1], true);
    }
    read_logits(s, &pass, x, r->evaluation);
    pass.training = true;
    read_logits(s, &pass, x, r->training);
    assert_ok(s->backend->upload(s->backend, network_logits_gradient(s->network), dlogits,
                                 sizeof dlogits));
    assert_ok(network_backward(s->network, &pass, x, &sink));
    read_gradient(s, r);
}

static void expect_equal(const float *got, const float *expected, size_t count) {
    for (size_t i = 0; i < count; i++)
        assert_true(got[i] == expected[i]);
}

static void expect_equal_results(const struct results *got, const struct results *expected) {
    expect_equal(got->evaluation, expected->evaluation, SAMPLES * CLASSES);
    expect_equal(got->training, expected->training, SAMPLES * CLASSES);
    assert_memory_equal(got->left, expected->left, sizeof got->left);
    for (size_t i = 0; i < MOST_VALUES; i++)
        assert_true(!got->left[i] || got->gradient[i] == expected->gradient[i]);
}

static void compute(struct backend *backend, const char *layers, bool masked, double sparse_below,
                    is_left *left, value_of *value, struct results *r) {
    struct side s;
    side_create(&s, backend, layers, masked, sparse_below);
    set_values(&s, value);
    run(&s, value, r); /* whole: what is left of that in memory does not matter */
    keep(&s, left, left);
    run(&s, value, r);
    side_destroy(&s);
}

/* ---- exact ---- */

/* Of size 1, but for biases: sums are exact. */
static float small_integer(uint32_t word, bool is_weight) {
    return is_weight ? (float)(word % 2) * 2 - 1 : (float)(word % 7) - 3;
}

/* Integers below 2^24: any order of sums gives the same bits. */
static void hold_exact(struct backend *cpu, struct backend *reference, const char *layers,
                       is_left *left) {
    static struct results expected, got;
    compute(reference, layers, true, 0, left, small_integer, &expected);
    for (int i = 0; i < SAMPLES * CLASSES; i++)
        assert_true(expected.training[i] == (float)(int)expected.training[i] &&
                    expected.training[i] < 0x1p24F && expected.training[i] > -0x1p24F);
    compute(cpu, layers, true, 0, left, small_integer, &got);
    expect_equal_results(&got, &expected);
    for (int sparse = 0; sparse <= 1; sparse++) {
        compute(cpu, layers, false, sparse, left, small_integer, &got);
        expect_equal_results(&got, &expected);
    }
    compute(reference, layers, false, 0.5, left, small_integer, &got);
    expect_equal_results(&got, &expected);
}

static void hold_network(const char *layers) {
    struct backend *reference, *cpu = cpu_backend_with(NULL, "direct", 2);
    assert_ok(backend_reference_create(&reference));
    for (int p = 0; p < PATTERNS; p++)
        hold_exact(cpu, reference, layers, patterns[p]);
    cpu->destroy(cpu);
    reference->destroy(reference);
}

static void two_convolutions_exact(void **state) {
    (void)state;
    hold_network(networks[0]);
}

static void dropout_exact(void **state) {
    (void)state;
    hold_network(networks[1]);
}

static void padding_exact(void **state) {
    (void)state;
    hold_network(networks[2]);
    hold_network(networks[3]);
    hold_network(networks[4]);
}

static void dense_layers_exact(void **state) {
    (void)state;
    hold_network(networks[5]);
}

static void dropconnect_exact(void **state) {
    (void)state;
    hold_network(networks[6]);
}

/* ---- rounded ---- */

static double farthest(const float *a, const float *b, const bool *which, size_t count) {
    double most = 0;
    for (size_t i = 0; i < count; i++)
        if (which == NULL || which[i])
            most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* The masked network's distance from the reference is that of sums in one order; sums in another
 * order are about as far, and 16 times leaves room for the luck of either. Where the masked one is
 * exact, a rounding of the largest value. */
static void expect_as_near(const float *got, const float *masked, const float *reference,
                           const bool *which, size_t count) {
    static const float zeros[MOST_VALUES];
    const double rounding = 0x1p-23 * farthest(reference, zeros, which, count);
    const double allowed = 16 * fmax(farthest(masked, reference, which, count), rounding);
    assert_true(farthest(got, reference, which, count) <= allowed);
}

static void hold_rounded(struct backend *cpu, struct backend *reference, const char *layers,
                         is_left *left) {
    static struct results exact, masked, got;
    compute(reference, layers, true, 0, left, fraction, &exact);
    compute(cpu, layers, true, 0, left, fraction, &masked);
    for (int sparse = 0; sparse <= 1; sparse++) {
        compute(cpu, layers, false, sparse, left, fraction, &got);
        expect_as_near(got.evaluation, masked.evaluation, exact.evaluation, NULL,
                       SAMPLES * CLASSES);
        expect_as_near(got.training, masked.training, exact.training, NULL, SAMPLES * CLASSES);
        expect_as_near(got.gradient, masked.gradient, exact.gradient, exact.left, MOST_VALUES);
    }
}

/* With the convolutions that the CPU chooses; batch normalisation is never exact. */
static void normalised_and_winograd_rounded(void **state) {
    (void)state;
    struct backend *reference, *cpu = cpu_backend_with(NULL, NULL, 2);
    assert_ok(backend_reference_create(&reference));
    for (int p = 0; p < PATTERNS; p++) {
        hold_rounded(cpu, reference, normalised, patterns[p]);
        hold_rounded(cpu, reference, networks[p % 2], patterns[p]);
    }
    cpu->destroy(cpu);
    reference->destroy(reference);
}

/* What a network computes goes by what is left, to the bit, and not by the events before: a run
 * that is resumed has not seen them. */
static void events_leave_no_trace(void **state) {
    (void)state;
    static struct results at_once, by_steps;
    struct backend *cpu = cpu_backend_with(NULL, NULL, 2);
    for (int n = 0; n < 6; n++)
        for (int p = 1; p < PATTERNS; p++) {
            struct side s;
            compute(cpu, networks[n], false, 0.3, patterns[p], fraction, &at_once);
            side_create(&s, cpu, networks[n], false, 0.3);
            set_values(&s, fraction);
            keep(&s, patterns[p], left_0_5);
            keep(&s, patterns[p], left_0_1);
            keep(&s, patterns[p], patterns[p]);
            run(&s, fraction, &by_steps);
            side_destroy(&s);
            assert_memory_equal(&at_once, &by_steps, sizeof at_once);
        }
    cpu->destroy(cpu);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_convolutions_exact), cmocka_unit_test(dropout_exact),
        cmocka_unit_test(padding_exact),          cmocka_unit_test(dense_layers_exact),
        cmocka_unit_test(dropconnect_exact),      cmocka_unit_test(normalised_and_winograd_rounded),
        cmocka_unit_test(events_leave_no_trace),
    };
    return RUN_TESTS(tests, argc, argv);
}
