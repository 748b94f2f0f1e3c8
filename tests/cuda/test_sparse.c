/* The kernels of dense layers in sparse form: every size of a block, cut into any number of parts,
 * against the sums themselves, with chunks and tiles that are cut off, in both orders of threads.
 */
#include "../../cuda/sparse.h"
#include "cases.h"
#include "on_backends.h"

#include <math.h>
#include <string.h>

enum { UNITS = 70, INPUTS = 1100, SAMPLES = 37, MOST_PARTS = 3 };

struct sides {
    struct arena *arena;
    uint32_t *indices;
    size_t count;
    float *values, *x, *dz; /* [count], [SAMPLES][INPUTS], [SAMPLES][UNITS] */
};

/* Of small integers, so that sums are exact. Row 3 and column 5 are gone; the first tile is full,
 * and more than one piece. */
static struct sides sides_create(void) {
    struct sides s = {.count = 0};
    float *draws = case_floats(9, 1, (size_t)UNITS * INPUTS);
    assert_ok(arena_create(&s.arena));
    assert_ok(ARENA_ARRAY(s.arena, (size_t)UNITS * INPUTS, &s.indices));
    for (uint32_t i = 0; i < UNITS * INPUTS; i++) {
        const uint32_t row = i / INPUTS, column = i % INPUTS;
        const bool is_full = row < SPARSE_TILE_ROWS && column < SPARSE_TILE_COLUMNS;
        if (row != 3 && column != 5 && (is_full || draws[i] < -0.9F))
            s.indices[s.count++] = i;
    }
    free(draws);
    s.values = case_integers(9, 2, s.count);
    s.x = case_integers(9, 3, SAMPLES * INPUTS);
    s.dz = case_integers(9, 4, SAMPLES * UNITS);
    return s;
}

static void sides_destroy(struct sides *s) {
    free(s->values);
    free(s->x);
    free(s->dz);
    arena_destroy(s->arena);
}

/* What the three products should be. */
static void expect(const struct sides *s, float *z, float *dx, float *gradient) {
    memset(z, 0, SAMPLES * UNITS * sizeof *z);
    memset(dx, 0, SAMPLES * INPUTS * sizeof *dx);
    memset(gradient, 0, s->count * sizeof *gradient);
    for (size_t e = 0; e < s->count; e++)
        for (int i = 0; i < SAMPLES; i++) {
            const uint32_t row = s->indices[e] / INPUTS, column = s->indices[e] % INPUTS;
            z[i * UNITS + (int)row] += s->values[e] * s->x[i * INPUTS + (int)column];
            dx[i * INPUTS + (int)column] += s->values[e] * s->dz[i * UNITS + (int)row];
            gradient[e] += s->dz[i * UNITS + (int)row] * s->x[i * INPUTS + (int)column];
        }
}

static void assert_equal_to(struct backend *b, const float *device, const float *wanted,
                            size_t count) {
    float *got = host_of(b, device, count * sizeof *got);
    for (size_t i = 0; i < count; i++)
        if (!(got[i] == wanted[i]))
            fail_msg("[%zu] is %g, not %g", i, (double)got[i], (double)wanted[i]);
    free(got);
}

/* One product of either direction, its chunks added up. */
static void hold_combine(struct backend *b, const struct sides *s, bool forward, int block_samples,
                         int parts, const float *wanted) {
    const int rows = forward ? UNITS : INPUTS, columns = forward ? INPUTS : UNITS;
    struct sparse_rows m = {.rows = rows,
                            .columns = columns,
                            .chunks = sparse_chunks(columns, block_samples),
                            .width = sparse_width(columns, block_samples)};
    const struct sparse_grid grid = {block_samples, (SAMPLES + block_samples - 1) / block_samples,
                                     parts};
    const size_t count = (size_t)SAMPLES * (size_t)rows;
    struct sparse_lists lists;
    assert_ok((forward ? sparse_list_outputs : sparse_list_inputs)(s->arena, s->indices, s->count,
                                                                   UNITS, INPUTS, m.width, &lists));
    float *values = device_of(b, s->values, s->count * sizeof *values), *sums, *z;
    float *x = device_of(b, forward ? s->x : s->dz, (size_t)SAMPLES * (size_t)columns * sizeof *x);
    assert_ok(b->alloc(b, (size_t)m.chunks * count * sizeof *sums, (void **)&sums));
    assert_ok(b->alloc(b, count * sizeof *z, (void **)&z));
    m.begin = device_of(b, lists.begin, ((size_t)m.chunks + 1) * (size_t)rows * sizeof *m.begin);
    m.column = device_of(b, lists.column, s->count * sizeof *m.column);
    if (!forward)
        m.order = device_of(b, lists.order, s->count * sizeof *m.order);
    const cudaStream_t stream = cuda_of(b)->stream;
    assert_int_equal(kernel_sparse_combine(&m, grid, values, x, SAMPLES, sums, stream), 0);
    assert_int_equal(kernel_add_parts(sums, m.chunks, count, z, stream), 0);
    assert_equal_to(b, z, wanted, count);
    void *const memory[] = {values, x, sums, z, (void *)m.begin, (void *)m.column, (void *)m.order};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
}

static void hold_correlate(struct backend *b, const struct sides *s, int parts,
                           const float *wanted) {
    struct sparse_tiles tiles;
    assert_ok(sparse_list_tiles(s->arena, s->indices, s->count, UNITS, INPUTS, &tiles));
    const size_t pieces = (size_t)tiles.pieces_count;
    const struct sparse_pieces m = {
        .rows = UNITS,
        .columns = INPUTS,
        .pieces_count = tiles.pieces_count,
        .count = s->count,
        .pieces = device_of(b, tiles.pieces, pieces * sizeof *tiles.pieces),
        .places = device_of(b, tiles.places, s->count * sizeof *tiles.places),
        .order = device_of(b, tiles.order, s->count * sizeof *tiles.order)};
    float *x = device_of(b, s->x, SAMPLES * INPUTS * sizeof *x);
    float *dz = device_of(b, s->dz, SAMPLES * UNITS * sizeof *dz), *sums, *gradient;
    assert_ok(b->alloc(b, (size_t)parts * s->count * sizeof *sums, (void **)&sums));
    assert_ok(b->alloc(b, s->count * sizeof *gradient, (void **)&gradient));
    const cudaStream_t stream = cuda_of(b)->stream;
    assert_int_equal(kernel_sparse_correlate(&m, parts, x, dz, SAMPLES, sums, stream), 0);
    assert_int_equal(kernel_add_parts(sums, parts, s->count, gradient, stream), 0);
    assert_equal_to(b, gradient, wanted, s->count);
    void *const memory[] = {(void *)m.pieces, (void *)m.places, (void *)m.order, x, dz, sums,
                            gradient};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
}

ON_EACH_BACKEND(products_are_the_sums_of_survivors) {
    struct sides s = sides_create();
    float *z = malloc(SAMPLES * UNITS * sizeof *z), *dx = malloc(SAMPLES * INPUTS * sizeof *dx);
    float *gradient = malloc(s.count * sizeof *gradient);
    assert_true(z != NULL && dx != NULL && gradient != NULL);
    expect(&s, z, dx, gradient);
    for (int block_samples = 8; block_samples <= 32; block_samples *= 2) {
        hold_combine(b, &s, true, block_samples, block_samples == 16 ? MOST_PARTS : 1, z);
        hold_combine(b, &s, false, block_samples, block_samples == 16 ? 1 : MOST_PARTS, dx);
    }
    hold_correlate(b, &s, 1, gradient);
    hold_correlate(b, &s, MOST_PARTS, gradient);
    free(z);
    free(dx);
    free(gradient);
    sides_destroy(&s);
}

/* ---- survivors that change ---- */

enum { ALL = UNITS * INPUTS };

static const struct block_desc layer = {.kind = BLOCK_DENSE,
                                        .input = {1, 1, INPUTS},
                                        .linear = {1, 1, UNITS},
                                        .output = {1, 1, UNITS},
                                        .pool = 1};

/* Of the weights of a layer, one in `every` is left. */
static void set_survivors(struct backend *b, struct block_plan *plan, uint32_t every) {
    uint32_t *indices = malloc(ALL * sizeof *indices);
    struct block_survivors survivors = {.sparse = true};
    assert_non_null(indices);
    for (uint32_t i = 0; i < ALL; i += every)
        indices[survivors.count++] = i;
    void *device = device_of(b, indices, survivors.count * sizeof *indices);
    survivors.indices = device;
    assert_ok(b->block_plan_set_survivors(plan, &survivors));
    b->release(b, device);
    free(indices);
}

/* y, dx and dweights of a forward and a backward pass, host side. */
static float *run_layer(struct backend *b, struct block_plan *plan, const struct sides *s,
                        size_t count) {
    const size_t y = SAMPLES * UNITS, x = SAMPLES * INPUTS;
    const struct block_pass pass = {.samples = SAMPLES, .training = true};
    float *all, *weights = device_of(b, s->values, count * sizeof *weights), *bias;
    float *in = device_of(b, s->x, x * sizeof *in), *dy = device_of(b, s->dz, y * sizeof *dy);
    assert_ok(b->alloc(b, (y + x + count + UNITS) * sizeof *all, (void **)&all));
    assert_ok(b->alloc(b, UNITS * sizeof *bias, (void **)&bias));
    assert_ok(b->block_plan_load_weights(plan, weights, bias));
    assert_ok(b->block_forward(plan, &pass, in, all));
    assert_ok(b->block_backward(plan, &pass, in, all, dy, all + y + x, all + y + x + count, all + y,
                                (struct poll){NULL, NULL}));
    float *host = host_of(b, all, (y + x + count) * sizeof *host);
    void *const memory[] = {all, weights, bias, in, dy};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        b->release(b, memory[i]);
    return host;
}

/* A plan whose survivors become fewer, and that was in dense form between, computes as one that
 * knew no others. */
ON_EACH_BACKEND(other_survivors_leave_nothing_behind) {
    const uint32_t every = 53;
    const size_t count = (ALL + every - 1) / every, floats = SAMPLES * (UNITS + INPUTS) + count;
    const struct block_survivors all = {NULL, ALL, false};
    struct sides s = sides_create();
    struct block_plan *fresh, *used;
    assert_ok(b->block_plan_create(b, &layer, SAMPLES, false, &fresh));
    assert_ok(b->block_plan_create(b, &layer, SAMPLES, false, &used));
    set_survivors(b, fresh, every);
    set_survivors(b, used, 17);
    float *wanted = run_layer(b, fresh, &s, count);
    for (int dense = 0; dense <= 1; dense++) {
        if (dense == 1)
            assert_ok(b->block_plan_set_survivors(used, &all));
        set_survivors(b, used, every);
        float *got = run_layer(b, used, &s, count);
        assert_memory_equal(got, wanted, floats * sizeof *got);
        free(got);
    }
    free(wanted);
    b->block_plan_destroy(fresh);
    b->block_plan_destroy(used);
    sides_destroy(&s);
}

/* A NaN among the survivors, the inputs they look at or the gradients is in what they are part of,
 * and in nothing else; zeros of other weights do not make it one. */
ON_EACH_BACKEND(a_nan_stays_where_it_is) {
    static const uint32_t indices[] = {1, 4, 5};
    static const float weights[] = {NAN, 2, 3}, bias[] = {0, 0};
    static const float x[] = {NAN, 1, 1, 1, NAN, 1};
    const struct block_desc desc = {.kind = BLOCK_DENSE,
                                    .input = {1, 1, 3},
                                    .linear = {1, 1, 2},
                                    .output = {1, 1, 2},
                                    .pool = 1};
    const struct block_pass pass = {.samples = 2};
    struct block_plan *plan;
    float *y;
    void *device[] = {device_of(b, indices, sizeof indices), device_of(b, weights, sizeof weights),
                      device_of(b, bias, sizeof bias), device_of(b, x, sizeof x)};
    assert_ok(b->alloc(b, 4 * sizeof *y, (void **)&y));
    assert_ok(b->block_plan_create(b, &desc, 2, false, &plan));
    assert_ok(b->block_plan_set_survivors(plan, &(struct block_survivors){device[0], 3, true}));
    assert_ok(b->block_plan_load_weights(plan, device[1], device[2]));
    assert_ok(b->block_forward(plan, &pass, device[3], y));
    float *got = host_of(b, y, 4 * sizeof *got);
    assert_true(isnan(got[0]) && got[1] == 5 && isnan(got[2]) && isnan(got[3]));
    free(got);
    b->block_plan_destroy(plan);
    b->release(b, y);
    for (size_t i = 0; i < 4; i++)
        b->release(b, device[i]);
}

/* More samples make sparse form pay at higher densities, TF32 at lower ones; a layer whose launches
 * are all that it costs gains nothing. */
static void break_even_follows_the_work(void **state) {
    (void)state;
    const struct device_numbers a100 = {80, 108, 1410000};
    struct device_rates fp32, tf32;
    device_rates_of(&a100, false, &fp32);
    device_rates_of(&a100, true, &tf32);
    const struct sparse_layer small = {.inputs = 784, .units = 300, .samples = 128, .first = true};
    struct sparse_layer large = small, tiny = {.inputs = 100, .units = 10, .samples = 128};
    large.samples = 1024;
    assert_true(sparse_break_even(&fp32, &small) > 0);
    assert_true(sparse_break_even(&fp32, &large) > sparse_break_even(&fp32, &small));
    assert_true(sparse_break_even(&fp32, &large) > sparse_break_even(&tf32, &large));
    assert_true(sparse_break_even(&fp32, &tiny) < 0.001);
}

/* No sparse form at all is 0, one that never pays is not: prune.sparse_below overrides it. */
ON_EACH_BACKEND(every_dense_layer_has_a_sparse_form) {
    const struct block_desc desc = {.kind = BLOCK_DENSE,
                                    .input = {1, 1, 3},
                                    .linear = {1, 1, 2},
                                    .output = {1, 1, 2},
                                    .pool = 1};
    struct block_desc connect = desc;
    struct block_plan *plan;
    connect.dropconnect = 0.5F;
    assert_ok(b->block_plan_create(b, &desc, 1, false, &plan));
    assert_true(b->block_plan_sparse_below(plan) > 0);
    assert_true(b->block_plan_sparse_below(plan) < 0.01);
    b->block_plan_destroy(plan);
    assert_ok(b->block_plan_create(b, &connect, 1, false, &plan));
    assert_true(b->block_plan_sparse_below(plan) == 0);
    b->block_plan_destroy(plan);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_the_sums_of_survivors),
        cmocka_unit_test(other_survivors_leave_nothing_behind),
        cmocka_unit_test(a_nan_stays_where_it_is),
        cmocka_unit_test(every_dense_layer_has_a_sparse_form),
        cmocka_unit_test(break_even_follows_the_work),
    };
    return RUN_TESTS(tests, argc, argv);
}
