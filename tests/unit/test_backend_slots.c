/* Memory, batches, loss and survivors on every backend, against the definition in backend.h. */
#include "block_reference.h"
#include "bounds.h"
#include "cases.h"
#include "on_backends.h"

#include <espalier/bitmask.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

/* More than one OpenMP chunk and SIMD vector, and a multiple of neither. */
enum { COUNT = 1003 };
static const uint64_t seed = 20170501;

/* ---- memory ---- */

/* AddressSanitizer's own malloc would otherwise end the program where malloc must return NULL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

ON_EACH_BACKEND(alloc_is_zeroed_and_aligned) {
    static const size_t sizes[] = {1, 63, 64, 65, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *memory;
        assert_ok(b->alloc(b, sizes[i], &memory));
        assert_int_equal((uintptr_t)memory % 64, 0);
        unsigned char *bytes = host_of(b, memory, sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(bytes[j], 0);
        free(bytes);
        b->release(b, memory);
    }
}

ON_EACH_BACKEND(nothing_is_legal_memory) {
    void *memory, *other;
    assert_ok(b->alloc(b, 0, &memory));
    assert_ok(b->alloc(b, 0, &other));
    assert_ok(b->upload(b, memory, NULL, 0));
    assert_ok(b->download(b, NULL, memory, 0));
    assert_ok(b->copy(b, memory, other, 0));
    assert_ok(b->clear(b, memory, 0));
    b->release(b, memory);
    b->release(b, other);
    b->release(b, NULL);
}

ON_EACH_BACKEND(impossible_alloc_is_an_error) {
    void *memory = b;
    assert_int_equal(b->alloc(b, SIZE_MAX / 2, &memory), ST_MEMORY);
}

ON_EACH_BACKEND(host_memory_is_zeroed_and_travels) {
    float *there, *and_back, *device, values[COUNT] = {0};
    assert_ok(b->host_alloc(b, sizeof values, (void **)&there));
    assert_ok(b->host_alloc(b, sizeof values, (void **)&and_back));
    assert_memory_equal(there, values, sizeof values);
    for (int i = 0; i < COUNT; i++)
        there[i] = values[i] = (float)i;
    device = device_of(b, there, sizeof values);
    assert_ok(b->download(b, and_back, device, sizeof values));
    assert_memory_equal(and_back, values, sizeof values);
    b->release(b, device);
    b->host_release(b, there);
    b->host_release(b, and_back);
    b->host_release(b, NULL);
}

ON_EACH_BACKEND(bytes_travel_unchanged) {
    unsigned char bytes[777];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 31 + 7);
    unsigned char *a = device_of(b, bytes, sizeof bytes);
    void *c;
    assert_ok(b->alloc(b, sizeof bytes, &c));
    assert_ok(b->copy(b, c, a, sizeof bytes));
    assert_ok(b->clear(b, a, sizeof bytes - 1));
    assert_ok(b->synchronise(b));
    unsigned char *copied = host_of(b, c, sizeof bytes), *cleared = host_of(b, a, sizeof bytes);
    assert_memory_equal(copied, bytes, sizeof bytes);
    for (size_t i = 0; i + 1 < sizeof bytes; i++)
        assert_int_equal(cleared[i], 0);
    assert_int_equal(cleared[sizeof bytes - 1], bytes[sizeof bytes - 1]);
    free(copied);
    free(cleared);
    b->release(b, a);
    b->release(b, c);
}

/* ---- data ---- */

/* The float nearest to v / 255 by the definition: near, and neither neighbour is nearer. The
 * difference 255 f - v is exact in double, but where f is tiny and its neighbours too. */
static void assert_nearest(float f, int v) {
    double off = fabs(255 * (double)f - v);
    assert_true(off <= 255 * 0x1p-25);
    assert_true(off <= fabs(255 * (double)nextafterf(f, 2) - v));
    assert_true(off <= fabs(255 * (double)nextafterf(f, -1) - v));
}

ON_EACH_BACKEND(gather_batch_divides_all_bytes_exactly) {
    enum { IMAGES = 3, PIXELS = 256, SAMPLES = 4 };
    uint8_t images[IMAGES * PIXELS];
    for (int i = 0; i < IMAGES * PIXELS; i++)
        images[i] = (uint8_t)(i % PIXELS + i / PIXELS * 85);
    const uint32_t order[SAMPLES] = {2, 0, 2, 1};
    void *device = device_of(b, images, sizeof images), *ids = device_of(b, order, sizeof order);
    void *out;
    assert_ok(b->alloc(b, SAMPLES * PIXELS * sizeof(float), &out));
    assert_ok(b->gather_batch(b, device, PIXELS, ids, SAMPLES, out));
    assert_ok(b->gather_batch(b, device, PIXELS, ids, 0, out));
    float *values = host_of(b, out, SAMPLES * PIXELS * sizeof(float));
    for (int i = 0; i < SAMPLES; i++)
        for (int p = 0; p < PIXELS; p++)
            assert_nearest(values[i * PIXELS + p], images[order[i] * PIXELS + (unsigned)p]);
    assert_true(values[255 + PIXELS] == 1.0F && values[PIXELS] == 0.0F);
    free(values);
    b->release(b, device);
    b->release(b, ids);
    b->release(b, out);
}

/* ---- loss ---- */

struct loss_case {
    int classes, samples;
    float spread; /* logits are uniform in [-spread, spread) */
    float scale;
};

/* Relative errors under u = 2^-24 where all is in float: x - max has one rounding, which exp turns
 * into |x - max| u, and its own 4 u; the sum of positive terms adds gamma_classes. */
struct softmax_error {
    double of_sum;       /* relative, of the sum of exponentials */
    double log_sum, sum; /* exact */
    double maximum;
};

static struct softmax_error analyse(const double *logits, int classes) {
    struct softmax_error e = {.maximum = logits[0]};
    for (int k = 1; k < classes; k++)
        e.maximum = fmax(e.maximum, logits[k]);
    for (int k = 0; k < classes; k++) {
        double below = e.maximum - logits[k], term = exp(-below);
        e.sum += term;
        e.of_sum += term * bound_gamma(below + 4);
    }
    e.of_sum = e.of_sum / e.sum + bound_gamma(classes);
    e.log_sum = log(e.sum);
    return e;
}

static void check_sample(const double *logits, int classes, int label, float scale,
                         const float *got, double *loss, double *loss_error) {
    struct softmax_error e = analyse(logits, classes);
    double *exact = reference_array((size_t)classes);
    double value = reference_cross_entropy_double(logits, classes, label, exact);
    *loss += value;
    *loss_error += e.of_sum + bound_gamma(4) * (fabs(e.log_sum) + e.maximum - logits[label]);
    for (int k = 0; got != NULL && k < classes; k++) {
        double target = k == label ? 1 : 0, p = exact[k] + target;
        double relative = bound_gamma(e.maximum - logits[k] + 4) + e.of_sum;
        double error = scale * (p * relative + bound_gamma(4) * (p + target)) + FLT_MIN;
        assert_true(fabs(got[k] - scale * exact[k]) <= error);
    }
    free(exact);
}

struct loss_inputs {
    float *logits;
    uint8_t labels[300];
    uint32_t ids[128];
};

static struct loss_inputs loss_inputs(const struct loss_case *c) {
    size_t count = (size_t)c->samples * (size_t)c->classes;
    struct loss_inputs in = {.logits = case_floats(seed, 11, count)};
    for (size_t i = 0; i < count; i++)
        in.logits[i] *= c->spread;
    for (int i = 0; i < 300; i++)
        in.labels[i] = (uint8_t)(i * 7 % c->classes);
    for (int i = 0; i < c->samples; i++)
        in.ids[i] = (uint32_t)(i * 77 % 300);
    return in;
}

static void check_loss(struct backend *b, const struct loss_case *c, bool in_place) {
    struct loss_inputs in = loss_inputs(c);
    size_t bytes = (size_t)c->samples * (size_t)c->classes * sizeof(float);
    float *logits = device_of(b, in.logits, bytes);
    void *labels = device_of(b, in.labels, sizeof in.labels);
    void *ids = device_of(b, in.ids, sizeof in.ids), *gradient = logits;
    struct loss_sums before = {1.5, 7};
    struct loss_sums *sums = device_of(b, &before, sizeof before);
    if (!in_place)
        assert_ok(b->alloc(b, bytes, &gradient));
    assert_ok(b->softmax_cross_entropy(b, logits, c->classes, labels, ids, c->samples, c->scale,
                                       NULL, sums));
    assert_ok(b->softmax_cross_entropy(b, logits, c->classes, labels, ids, c->samples, c->scale,
                                       gradient, sums));
    float *got = host_of(b, gradient, bytes);
    struct loss_sums *after = host_of(b, sums, sizeof *after);
    double loss = 0, error = 0, *wide = reference_array((size_t)c->classes);
    int64_t correct = 0;
    for (size_t i = 0; i < (size_t)c->samples; i++) {
        int best = 0, label = in.labels[in.ids[i]];
        const float *row = in.logits + i * (size_t)c->classes;
        for (int k = 0; k < c->classes; k++) {
            wide[k] = row[k];
            best = row[k] > row[best] ? k : best;
        }
        correct += best == label;
        check_sample(wide, c->classes, label, c->scale, got + i * (size_t)c->classes, &loss,
                     &error);
    }
    assert_true(fabs(after->loss - before.loss - 2 * loss) <= 2 * error);
    assert_int_equal(after->correct - before.correct, 2 * correct);
    free(wide);
    free(got);
    free(after);
    free(in.logits);
    if (!in_place)
        b->release(b, gradient);
    b->release(b, logits);
    b->release(b, labels);
    b->release(b, ids);
    b->release(b, sums);
}

ON_EACH_BACKEND(softmax_cross_entropy_adds_up) {
    static const struct loss_case cases[] = {
        {10, 128, 3, 1.0F / 128}, {2, 17, 1, 1}, {256, 3, 20, 0.5F},
        {10, 1, 60, 1.0F / 96},   {10, 0, 1, 1}, {3, 100, 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_loss(b, &cases[i], false);
        check_loss(b, &cases[i], true);
    }
}

/* exp of these logits overflows, and p of the label underflows: all stays finite. */
ON_EACH_BACKEND(softmax_cross_entropy_takes_huge_logits) {
    static const struct loss_case cases[] = {{10, 64, 1e4F, 1}, {10, 64, 1e30F, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_loss(b, &cases[i], true);
}

/* ln 10 for equal logits, and the first of equals is the answer. */
ON_EACH_BACKEND(softmax_cross_entropy_breaks_ties_to_the_first) {
    const float logits[10] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2};
    const uint8_t labels[2] = {0, 1};
    for (uint32_t id = 0; id < 2; id++) {
        struct loss_sums zero = {0};
        void *x = device_of(b, logits, sizeof logits), *l = device_of(b, labels, sizeof labels);
        void *ids = device_of(b, &id, sizeof id), *sums = device_of(b, &zero, sizeof zero);
        assert_ok(b->softmax_cross_entropy(b, x, 10, l, ids, 1, 1, NULL, sums));
        struct loss_sums *after = host_of(b, sums, sizeof *after);
        assert_int_equal(after->correct, id == 0 ? 1 : 0);
        assert_true(fabs(after->loss - log(10)) <= bound_gamma(16) * log(10));
        free(after);
        void *const memory[] = {x, l, ids, sums};
        for (int i = 0; i < 4; i++)
            b->release(b, memory[i]);
    }
}

/* ---- survivors ---- */

/* Here and there, or in runs that begin anywhere; indices ascend but for one pair in a run. */
static size_t choose_indices(bool in_runs, uint32_t total, uint32_t *indices) {
    enum { PERIOD = 53, LEFT_OUT = 5, SWAPPED = 70 };
    size_t count = 0;
    for (uint32_t i = 0; i < total; i++)
        if (in_runs ? i % PERIOD >= LEFT_OUT : i * i % 7 < 3)
            indices[count++] = i;
    indices[SWAPPED] ^= indices[SWAPPED + 1];
    indices[SWAPPED + 1] ^= indices[SWAPPED];
    indices[SWAPPED] ^= indices[SWAPPED + 1];
    return count;
}

static void check_gather_and_scatter(struct backend *b, bool in_runs, uint32_t total) {
    float *dense = case_floats(seed, 21, total), *fresh = case_floats(seed, 22, total);
    float *want = case_floats(seed, 21, total);
    uint32_t *indices = malloc(total * sizeof *indices);
    assert_non_null(indices);
    const size_t count = choose_indices(in_runs, total, indices);
    for (size_t j = 0; j < count; j++)
        want[indices[j]] = fresh[j];
    float *device = device_of(b, dense, total * sizeof *dense);
    void *list = device_of(b, indices, count * sizeof *indices);
    float *values = device_of(b, fresh, count * sizeof *fresh);
    assert_ok(b->scatter(b, values, list, count, device));
    assert_ok(b->clear(b, values, count * sizeof *fresh));
    assert_ok(b->gather(b, device, list, count, values));
    assert_ok(b->gather(b, device, list, 0, values));
    float *gathered = host_of(b, values, count * sizeof *fresh);
    float *scattered = host_of(b, device, total * sizeof *dense);
    assert_memory_equal(gathered, fresh, count * sizeof *fresh);
    assert_memory_equal(scattered, want, total * sizeof *want);
    void *const on_device[] = {device, list, values};
    for (int i = 0; i < 3; i++)
        b->release(b, on_device[i]);
    void *const on_host[] = {gathered, scattered, dense, fresh, want, indices};
    for (int i = 0; i < 6; i++)
        free(on_host[i]);
}

ON_EACH_BACKEND(gather_and_scatter_are_inverse_on_survivors) {
    enum { MANY = 10007 }; /* for a team */
    check_gather_and_scatter(b, false, COUNT);
    check_gather_and_scatter(b, true, COUNT);
    check_gather_and_scatter(b, false, MANY);
    check_gather_and_scatter(b, true, MANY);
}

/* Masks whose bits are `pattern` of the index; words are their own indices times an odd number. */
static bool in_mask(int pattern, size_t i) {
    return pattern == 0 ? false : pattern == 1 ? true : i * i % 5 < 2;
}

static void check_compact(struct backend *b, size_t first_bit, size_t count, int pattern,
                          bool in_place) {
    uint32_t words[COUNT], want[COUNT];
    uint64_t mask[COUNT / 64 + 4];
    size_t kept = 0;
    memset(mask, pattern == 0 ? 0xff : 0, sizeof mask); /* bits outside must not count */
    for (size_t i = 0; i < count; i++) {
        uint64_t bit = (uint64_t)1 << (first_bit + i) % 64;
        words[i] = (uint32_t)i * 2654435761u;
        mask[(first_bit + i) / 64] &= ~bit;
        if (in_mask(pattern, i)) {
            mask[(first_bit + i) / 64] |= bit;
            want[kept++] = words[i];
        }
    }
    void *from = device_of(b, words, count * sizeof *words), *to = from;
    void *bits = device_of(b, mask, sizeof mask);
    if (!in_place)
        assert_ok(b->alloc(b, kept * sizeof *words, &to));
    assert_ok(b->compact(b, from, bits, first_bit, count, to));
    uint32_t *got = host_of(b, to, kept * sizeof *words);
    assert_memory_equal(got, want, kept * sizeof *want);
    free(got);
    if (!in_place)
        b->release(b, to);
    b->release(b, from);
    b->release(b, bits);
}

ON_EACH_BACKEND(compact_keeps_order_at_any_bit) {
    static const size_t first_bits[] = {0, 1, 63, 64, 65, 130}, counts[] = {0, 1, 63, 64, 65, 1000};
    for (int pattern = 0; pattern < 3; pattern++)
        for (size_t f = 0; f < 6; f++)
            for (size_t c = 0; c < 6; c++) {
                check_compact(b, first_bits[f], counts[c], pattern, false);
                check_compact(b, first_bits[f], counts[c], pattern, true);
            }
}

/* More than a device counts at a time: 256 of its blocks of 1024. */
ON_EACH_BACKEND(compact_takes_many_words) {
    enum { MANY = 300 * 1024 };
    uint32_t *words = malloc(MANY * sizeof *words);
    uint64_t *bits = calloc(MANY / 64, sizeof *bits);
    assert_true(words != NULL && bits != NULL);
    for (size_t i = 0; i < MANY; i++) {
        words[i] = (uint32_t)i;
        if (i % 3 == 1)
            bitmask_set(bits, i);
    }
    void *device = device_of(b, words, MANY * sizeof *words);
    void *mask = device_of(b, bits, MANY / 8);
    assert_ok(b->compact(b, device, mask, 0, MANY, device));
    uint32_t *kept = host_of(b, device, MANY / 3 * sizeof *kept);
    for (uint32_t i = 0; i < MANY / 3; i++)
        assert_int_equal(kept[i], 3 * i + 1);
    b->release(b, device);
    b->release(b, mask);
    free(kept);
    free(words);
    free(bits);
}

/* The definition in digest.h, spelled out: the finaliser of SplitMix64 over (index, word). */
static uint64_t hash_by_definition(const uint32_t *words, size_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t x = i * 0x100000000ull + words[i];
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
        x = (x ^ x >> 27) * 0x94d049bb133111ebull;
        sum += x ^ x >> 31;
    }
    return sum;
}

ON_EACH_BACKEND(hash_notices_every_word_and_place) {
    uint32_t words[COUNT];
    uint64_t hash, other;
    for (size_t i = 0; i < COUNT; i++)
        words[i] = (uint32_t)(i * 2654435761u);
    void *device = device_of(b, words, sizeof words);
    assert_ok(b->hash(b, device, COUNT, &hash));
    assert_true(hash == hash_by_definition(words, COUNT));
    assert_ok(b->hash(b, device, 0, &other));
    assert_true(other == 0);
    words[500] ^= 1;
    assert_ok(b->upload(b, device, words, sizeof words));
    assert_ok(b->hash(b, device, COUNT, &other));
    assert_true(hash != other);
    b->release(b, device);
}

/* ---- registry ---- */

static void registry_names_what_there_is(void **state) {
    (void)state;
    struct backend *backend = NULL;
    for (int i = 0; backend_names[i] != NULL; i++) {
        assert_ok(
            backend_create(backend_names[i], &(struct backend_options){.threads = 1}, &backend));
        assert_string_equal(backend->name, backend_names[i]);
        backend->destroy(backend);
    }
    assert_fails(backend_create("cuda", &(struct backend_options){.threads = 1}, &backend),
                 ST_UNAVAILABLE, "not compiled in; configure with -DESPALIER_CUDA=ON");
    assert_string_equal(backend_chosen(BACKEND_AUTO), "cpu");
    assert_string_equal(backend_chosen(BACKEND_CUDA), "cuda");
    assert_fails(backend_create("abacus", &(struct backend_options){.threads = 1}, &backend),
                 ST_USAGE, "abacus");
    assert_fails(backend_create("abacus", &(struct backend_options){.threads = 1}, &backend),
                 ST_USAGE, "cpu");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_is_zeroed_and_aligned),
        cmocka_unit_test(nothing_is_legal_memory),
        cmocka_unit_test(impossible_alloc_is_an_error),
        cmocka_unit_test(host_memory_is_zeroed_and_travels),
        cmocka_unit_test(bytes_travel_unchanged),
        cmocka_unit_test(gather_batch_divides_all_bytes_exactly),
        cmocka_unit_test(softmax_cross_entropy_adds_up),
        cmocka_unit_test(softmax_cross_entropy_takes_huge_logits),
        cmocka_unit_test(softmax_cross_entropy_breaks_ties_to_the_first),
        cmocka_unit_test(gather_and_scatter_are_inverse_on_survivors),
        cmocka_unit_test(compact_keeps_order_at_any_bit),
        cmocka_unit_test(compact_takes_many_words),
        cmocka_unit_test(hash_notices_every_word_and_place),
        cmocka_unit_test(registry_names_what_there_is),
    };
    return RUN_TESTS(tests, argc, argv);
}
