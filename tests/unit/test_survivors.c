/* Keeping survivors against a brute-force model: full arrays and a flag for each connection. */
#include "backend_reference.h"
#include "check.h"
#include "tiny_network.h"

#include <espalier/digest.h>
#include <espalier/survivors.h>
#include <math.h>
#include <stdlib.h>

enum { VECTORS = 4, SAMPLES = 3, PIXELS = 72 }; /* beta, gradient and two states */

/* The network and the model: what each vector held for each original parameter, and which are
 * left. Original parameters are numbered through all of beta. */
struct fixture {
    struct backend *backend;
    struct network *network;
    float *states[3]; /* the one in the middle is NULL */
    float values[VECTORS][TINY_ALL];
    bool alive[TINY_ALL];
    uint64_t noise;
};

static float *vector_of(const struct fixture *f, int v) {
    float *const vectors[VECTORS] = {f->network->beta, f->network->gradient, f->states[0],
                                     f->states[2]};
    return vectors[v];
}

/* A layer goes into sparse form below half of its connections, where `sparse` asks for it. */
static void setup_form(struct fixture *f, bool reference, bool sparse) {
    *f = (struct fixture){.noise = 1};
    if (reference)
        assert_ok(backend_reference_create(&f->backend));
    else
        assert_ok(backend_create("cpu", &(struct backend_options){.threads = 2}, &f->backend));
    assert_ok(tiny_network_create(f->backend, SAMPLES, &f->network));
    assert_int_equal(f->network->count, TINY_ALL);
    for (int i = 0; i < f->network->blocks_count; i++)
        f->network->blocks[i].sparse_below = sparse ? 0.5 : 0;
    for (int i = 0; i < 3; i += 2)
        assert_ok(f->backend->alloc(f->backend, sizeof f->values[0], (void **)&f->states[i]));
    for (int v = 0; v < VECTORS; v++) {
        for (int i = 0; i < TINY_ALL; i++)
            f->values[v][i] = tiny_noise(&f->noise);
        assert_ok(
            f->backend->upload(f->backend, vector_of(f, v), f->values[v], sizeof f->values[v]));
    }
    for (int i = 0; i < TINY_ALL; i++)
        f->alive[i] = true;
    assert_ok(network_materialize(f->network));
}

static void setup(struct fixture *f, bool reference) {
    setup_form(f, reference, false);
}

static void teardown(struct fixture *f) {
    for (int i = 0; i < 3; i++)
        f->backend->release(f->backend, f->states[i]);
    network_destroy(f->network);
    f->backend->destroy(f->backend);
}

/* Original number of parameter p's first entry. */
static size_t first_of(const struct network *network, int p) {
    size_t first = 0;
    for (int i = 0; i < p; i++)
        first += network->parameters[i].original_count;
    return first;
}

static size_t alive_in(const struct fixture *f, int p) {
    size_t alive = 0, first = first_of(f->network, p);
    for (size_t i = 0; i < f->network->parameters[p].original_count; i++)
        alive += f->alive[first + i];
    return alive;
}

/* Draw a mask over the scope's survivors, each kept with probability `share`, in the model too. */
static void draw_mask(struct fixture *f, const struct survivors_scope *scope, float share,
                      struct bitmask *mask) {
    size_t bit = 0;
    assert_ok(bitmask_create(survivors_count(f->network, scope), mask));
    for (int s = 0; s < scope->count; s++) {
        size_t first = first_of(f->network, scope->parameters[s]);
        size_t count = f->network->parameters[scope->parameters[s]].original_count;
        for (size_t i = first; i < first + count; i++) {
            if (!f->alive[i])
                continue;
            f->alive[i] = (tiny_noise(&f->noise) + 1) / 2 < share;
            if (f->alive[i])
                bitmask_set(mask->words, bit);
            bit++;
        }
    }
    assert_int_equal(bit, mask->count);
}

static void keep(struct fixture *f, const struct survivors_scope *scope, float share) {
    struct bitmask mask;
    draw_mask(f, scope, share, &mask);
    assert_ok(survivors_keep(f->network, scope, &mask, f->states, 3));
    bitmask_destroy(&mask);
}

static void check_vectors(const struct fixture *f) {
    for (int v = 0; v < VECTORS; v++) {
        float got[TINY_ALL], expected[TINY_ALL];
        size_t left = 0;
        for (int i = 0; i < TINY_ALL; i++)
            if (f->alive[i])
                expected[left++] = f->values[v][i];
        assert_int_equal(f->network->count, left);
        assert_ok(f->backend->download(f->backend, got, vector_of(f, v), left * sizeof *got));
        assert_memory_equal(got, expected, left * sizeof *got);
    }
}

static void check_indices(const struct fixture *f, int p) {
    const struct parameter *parameter = &f->network->parameters[p];
    size_t first = first_of(f->network, p), j = 0;
    uint32_t indices[TINY_ALL];
    assert_ok(f->backend->download(f->backend, indices, parameter->indices,
                                   parameter->count * sizeof *indices));
    for (size_t i = 0; i < parameter->original_count; i++)
        if (f->alive[first + i])
            assert_int_equal(indices[j++], i);
    assert_int_equal(parameter->count, j);
}

/* What the kernels read: each survivor once, at its place, and else zeros. */
static void check_arrays(const struct fixture *f, int p, const float *whole) {
    const struct parameter *parameter = &f->network->parameters[p];
    const size_t first = first_of(f->network, p);
    float dense[2 * TINY_ALL], expected[2 * TINY_ALL] = {0};
    uint32_t places[TINY_ALL];
    size_t e = 0;
    assert_true(parameter->room <= 2 * TINY_ALL);
    if (parameter->places != NULL)
        assert_ok(f->backend->download(f->backend, places, parameter->places,
                                       parameter->count * sizeof *places));
    for (size_t i = 0; i < parameter->original_count; i++)
        if (f->alive[first + i]) {
            const size_t place = parameter->places != NULL ? places[e] : i;
            assert_true(place < parameter->room && expected[place] == 0);
            expected[place] = whole[i];
            e++;
        }
    assert_ok(
        f->backend->download(f->backend, dense, parameter->dense, parameter->room * sizeof *dense));
    for (size_t i = 0; i < parameter->room; i++)
        assert_true(dense[i] == expected[i]);
}

/* That, and what model files hold: beta where alive, 0 elsewhere. */
static void check_dense(const struct fixture *f, int p) {
    const struct parameter *parameter = &f->network->parameters[p];
    size_t first = first_of(f->network, p);
    float whole[TINY_ALL];
    assert_ok(network_get_parameter(f->network, p, whole));
    for (size_t i = 0; i < parameter->original_count; i++)
        assert_true(whole[i] == (f->alive[first + i] ? f->values[0][first + i] : 0));
    if (parameter->dense != NULL)
        check_arrays(f, p, whole);
}

static void check_model(const struct fixture *f) {
    size_t offset = 0;
    check_vectors(f);
    for (int p = 0; p < f->network->parameters_count; p++) {
        const struct parameter *parameter = &f->network->parameters[p];
        size_t alive = alive_in(f, p);
        assert_int_equal(parameter->offset, offset);
        assert_int_equal(parameter->count, alive);
        assert_int_equal(parameter->indices == NULL, alive == parameter->original_count);
        const struct block *block = &f->network->blocks[parameter->block];
        bool sparse = (double)alive < block->sparse_below * (double)parameter->original_count;
        bool is_part = parameter->is_weight && /* its density is another one */
                       block_weights(&block->reduced) != block_weights(&block->desc);
        bool has_places = parameter->places != NULL; /* or the part takes them as they are */
        assert_true(is_part ? has_places || parameter->sparse : parameter->sparse == sparse);
        assert_true(is_part || !has_places);
        assert_int_equal(parameter->dense != NULL,
                         is_part ? has_places : parameter->indices != NULL && !sparse);
        assert_int_equal(parameter->dense_gradient != NULL, parameter->dense != NULL);
        if (parameter->indices != NULL)
            check_indices(f, p);
        check_dense(f, p);
        offset += alive;
    }
}

/* Parameters 0, 2, 4 are the weights, 1, 3, 5 the biases. */
static const struct survivors_scope all_weights = {3, {0, 2, 4}};

static void survivors_follow_the_model(bool reference, bool sparse) {
    static const struct {
        struct survivors_scope scope;
        float share;
    } events[] = {
        {{1, {2}}, 0.9F},       {{1, {4}}, 0.5F},    {{2, {2, 4}}, 0.8F},    {{1, {0}}, 0.7F},
        {{3, {0, 2, 4}}, 0.9F}, {{2, {0, 4}}, 1.0F}, {{3, {0, 2, 4}}, 0.3F}, {{1, {4}}, 0},
        {{3, {0, 2, 4}}, 0.5F}, {{3, {0, 2, 4}}, 0},
    };
    struct fixture f;
    setup_form(&f, reference, sparse);
    check_model(&f);
    for (size_t e = 0; e < sizeof events / sizeof events[0]; e++) {
        keep(&f, &events[e].scope, events[e].share);
        check_model(&f);
    }
    assert_int_equal(network_survivors(f.network), 0);
    assert_int_equal(f.network->count, 3 + 5 + 4);
    teardown(&f);
}

static void survivors_follow_the_model_on_cpu(void **state) {
    (void)state;
    survivors_follow_the_model(false, false);
    survivors_follow_the_model(false, true);
}

static void survivors_follow_the_model_on_reference(void **state) {
    (void)state;
    survivors_follow_the_model(true, false);
    survivors_follow_the_model(true, true);
}

/* A layer that loses nothing gets no second copy of its weights. */
static void keeping_all_changes_nothing(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, false);
    const float *beta = f.network->beta;
    keep(&f, &all_weights, 1);
    assert_null(f.network->parameters[2].indices);
    assert_ptr_equal(f.network->beta, beta);
    check_model(&f);
    teardown(&f);
}

static void counts_are_of_the_scope(void **state) {
    (void)state;
    struct fixture f;
    const struct survivors_scope two = {2, {0, 4}};
    setup(&f, false);
    assert_int_equal(survivors_count(f.network, &two), TINY_CONV1 + TINY_DENSE2);
    keep(&f, &(struct survivors_scope){1, {4}}, 0);
    assert_int_equal(survivors_count(f.network, &two), TINY_CONV1);
    assert_int_equal(survivors_original_count(f.network, &two), TINY_CONV1 + TINY_DENSE2);
    teardown(&f);
}

static void wrong_mask_count_leaves_all_unchanged(void **state) {
    (void)state;
    struct fixture f;
    setup(&f, false);
    keep(&f, &(struct survivors_scope){1, {2}}, 0.5F);
    size_t count = survivors_count(f.network, &all_weights);
    for (size_t wrong = count - 1; wrong <= count + 1; wrong += 2) {
        struct bitmask mask;
        assert_ok(bitmask_create(wrong, &mask));
        char expected[64];
        snprintf(expected, sizeof expected, "a mask of %zu bits for %zu survivors", wrong, count);
        assert_fails(survivors_keep(f.network, &all_weights, &mask, f.states, 3), ST_SHAPE,
                     expected);
        bitmask_destroy(&mask);
        check_model(&f);
    }
    teardown(&f);
}

/* ---- out of memory ---- */

static enum status (*real_alloc)(struct backend *, size_t, void **);
static int allocations_left;

static enum status failing_alloc(struct backend *backend, size_t bytes, void **memory) {
    if (allocations_left-- == 0)
        FAIL(ST_MEMORY, "out of memory: %zu bytes", bytes);
    return real_alloc(backend, bytes, memory);
}

/* Each allocation fails in turn, and nothing leaks (ASan). The weights stay as they were where it
 * was one of theirs: the mask, and three arrays a weight. The others are of what the blocks compute
 * with. */
static void out_of_memory_loses_nothing(void **state) {
    (void)state;
    enum { OF_WEIGHTS = 1 + 3 * 3 };
    enum status status = ST_MEMORY;
    int failures = 0;
    for (; status == ST_MEMORY; failures++) {
        struct fixture f;
        struct bitmask mask;
        setup(&f, false);
        assert_ok(bitmask_create(survivors_count(f.network, &all_weights), &mask));
        real_alloc = f.backend->alloc;
        allocations_left = failures;
        f.backend->alloc = failing_alloc;
        status = survivors_keep(f.network, &all_weights, &mask, f.states, 3);
        f.backend->alloc = real_alloc;
        bitmask_destroy(&mask);
        if (status == ST_MEMORY && failures < OF_WEIGHTS) {
            check_vectors(&f);
            assert_ok(network_materialize(f.network));
            for (int p = 0; p < f.network->parameters_count; p++)
                check_dense(&f, p);
        }
        teardown(&f);
    }
    assert_int_equal(status, ST_OK);
    assert_true(failures > OF_WEIGHTS);
}

/* ---- what the network computes ---- */

static enum status ignore_ready(void *context, size_t offset, size_t count) {
    (void)context, (void)offset, (void)count;
    return ST_OK;
}

/* One pass forward and back over SAMPLES images of noise. */
static void run_pass(struct fixture *f, float logits[SAMPLES * TINY_CLASSES]) {
    static const uint32_t ids[SAMPLES] = {4, 0, 9};
    const struct gradient_sink sink = {.ready = ignore_ready};
    struct block_pass pass = {.samples = SAMPLES, .training = true, .sample_ids = ids};
    struct backend *backend = f->backend;
    float x[SAMPLES * PIXELS], dlogits[SAMPLES * TINY_CLASSES], *device_logits;
    uint64_t noise = 99;
    float *device_x = NULL;
    for (size_t i = 0; i < SAMPLES * PIXELS; i++)
        x[i] = tiny_noise(&noise);
    for (size_t i = 0; i < SAMPLES * TINY_CLASSES; i++)
        dlogits[i] = tiny_noise(&noise);
    assert_ok(backend->alloc(backend, sizeof x, (void **)&device_x));
    assert_ok(backend->upload(backend, device_x, x, sizeof x));
    assert_ok(network_forward(f->network, &pass, device_x, &device_logits));
    assert_ok(backend->download(backend, logits, device_logits, sizeof dlogits));
    assert_ok(
        backend->upload(backend, network_logits_gradient(f->network), dlogits, sizeof dlogits));
    assert_ok(network_backward(f->network, &pass, device_x, &sink));
    backend->release(backend, device_x);
}

/* A network that prunes and one that merely holds zeros in the same places. */
static void pruned_network_computes_as_one_with_zeros(void **state) {
    (void)state;
    struct fixture pruned, zeroed;
    float logits[2][SAMPLES * TINY_CLASSES], values[TINY_ALL], gradients[2][TINY_ALL];
    setup(&pruned, false);
    setup(&zeroed, false);
    keep(&pruned, &all_weights, 0.6F);
    keep(&pruned, &all_weights, 0.8F);
    for (int i = 0; i < TINY_ALL; i++)
        values[i] = pruned.alive[i] ? pruned.values[0][i] : 0;
    assert_ok(zeroed.backend->upload(zeroed.backend, zeroed.network->beta, values, sizeof values));
    assert_ok(network_materialize(zeroed.network));
    run_pass(&pruned, logits[0]);
    run_pass(&zeroed, logits[1]);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    assert_ok(pruned.backend->download(pruned.backend, gradients[0], pruned.network->gradient,
                                       pruned.network->count * sizeof(float)));
    assert_ok(zeroed.backend->download(zeroed.backend, gradients[1], zeroed.network->gradient,
                                       sizeof gradients[1]));
    for (int i = 0, j = 0; i < TINY_ALL; i++)
        if (pruned.alive[i])
            assert_true(gradients[0][j++] == gradients[1][i]);
    teardown(&pruned);
    teardown(&zeroed);
}

/* In sparse form sums are grouped otherwise. Terms are below 1 in size but for dy and what it
 * becomes, 4 logits of 5 units of 12 inputs of 18; each layer multiplies the error of the one
 * before by its number of terms and adds a rounding for each (Higham, section 3.1): 4 5 12 18 2^-23
 * is more than twice their sum. */
static size_t deleted_outputs(const struct network *network) {
    size_t deleted = 0;
    for (int i = 0; i < network->blocks_count; i++)
        for (int k = 0; k < network->blocks[i].desc.linear.channels; k++)
            deleted += network->blocks[i].reduction.fates[k] == CHANNEL_DELETED;
    return deleted;
}

static void compare_forms(bool reference, float share, bool deletes) {
    struct fixture dense, sparse;
    float logits[2][SAMPLES * TINY_CLASSES], gradients[2][TINY_ALL];
    setup_form(&dense, reference, false);
    setup_form(&sparse, reference, true);
    keep(&dense, &all_weights, share);
    keep(&sparse, &all_weights, share);
    assert_true(!deletes || deleted_outputs(sparse.network) > 0);
    assert_int_equal(deleted_outputs(dense.network), deleted_outputs(sparse.network));
    run_pass(&dense, logits[0]);
    run_pass(&sparse, logits[1]);
    for (int v = 0; v < 2; v++) {
        struct fixture *f = v == 0 ? &dense : &sparse;
        assert_ok(f->backend->download(f->backend, gradients[v], f->network->gradient,
                                       f->network->count * sizeof(float)));
    }
    const double bound = 4 * 5 * 12 * 18 * 0x1p-23;
    for (int i = 0; i < SAMPLES * TINY_CLASSES; i++)
        assert_true(fabs((double)logits[0][i] - (double)logits[1][i]) <= bound);
    for (size_t i = 0; i < dense.network->count; i++)
        assert_true(fabs((double)gradients[0][i] - (double)gradients[1][i]) <= bound);
    teardown(&dense);
    teardown(&sparse);
}

/* With few connections left, some outputs are read by nothing, and are left out. */
static void sparse_network_computes_as_a_dense_one(void **state) {
    (void)state;
    for (int reference = 0; reference <= 1; reference++) {
        compare_forms(reference == 1, 0.3F, false);
        compare_forms(reference == 1, 0.15F, true);
        compare_forms(reference == 1, 0.05F, true);
        compare_forms(reference == 1, 0, true);
    }
}

/* Momentum that pulls at every weight, between events: the pruned ones stay exactly zero. */
static void hold_at_zero(bool sparse) {
    struct fixture f;
    const struct update_args args = {
        .kind = OPTIMIZER_SGD, .learning_rate = 0.1F, .momentum = 0.9F, .step = 1};
    float logits[SAMPLES * TINY_CLASSES];
    setup_form(&f, false, sparse);
    for (int update = 0; update < 12; update++) {
        run_pass(&f, logits);
        assert_ok(f.backend->update(f.backend, &args, f.network->beta, f.network->gradient,
                                    f.states[0], NULL, f.network->count));
        assert_ok(network_materialize(f.network));
        if (update % 3 == 0)
            keep(&f, &all_weights, 0.7F);
        for (int p = 0; p < f.network->parameters_count; p++) {
            float whole[TINY_ALL];
            size_t first = first_of(f.network, p);
            assert_ok(network_get_parameter(f.network, p, whole));
            for (size_t i = 0; i < f.network->parameters[p].original_count; i++)
                f.values[0][first + i] = whole[i];
            check_dense(&f, p);
        }
    }
    teardown(&f);
}

static void pruned_weights_stay_zero(void **state) {
    (void)state;
    hold_at_zero(false);
    hold_at_zero(true);
}

/* ---- hashes ---- */

static void hash_follows_its_definition(void **state) {
    (void)state;
    struct fixture f;
    uint64_t hash = 0;
    setup(&f, false);
    assert_ok(survivors_hash(f.network, 2, &hash));
    assert_true(hash == hash_words(&f.values[0][57], TINY_DENSE1));
    keep(&f, &all_weights, 0.5F);
    float values[TINY_DENSE1];
    uint32_t indices[TINY_DENSE1];
    size_t count = 0;
    for (uint32_t i = 0; i < TINY_DENSE1; i++)
        if (f.alive[57 + i]) {
            values[count] = f.values[0][57 + i];
            indices[count++] = i;
        }
    assert_ok(survivors_hash(f.network, 2, &hash));
    assert_true(hash == hash_words(values, count) + 31 * hash_words(indices, count));
    teardown(&f);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survivors_follow_the_model_on_cpu),
        cmocka_unit_test(survivors_follow_the_model_on_reference),
        cmocka_unit_test(keeping_all_changes_nothing),
        cmocka_unit_test(counts_are_of_the_scope),
        cmocka_unit_test(wrong_mask_count_leaves_all_unchanged),
        cmocka_unit_test(out_of_memory_loses_nothing),
        cmocka_unit_test(pruned_network_computes_as_one_with_zeros),
        cmocka_unit_test(sparse_network_computes_as_a_dense_one),
        cmocka_unit_test(pruned_weights_stay_zero),
        cmocka_unit_test(hash_follows_its_definition),
    };
    return RUN_TESTS(tests, argc, argv);
}
