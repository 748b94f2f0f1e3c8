/* Steps of training on every backend: performed or replayed, a step does what its calls do. */
#include "cases.h"
#include "on_backends.h"

#include <stdlib.h>

enum { UNITS = 37, SAMPLES = 6, COUNT = UNITS * SAMPLES, STEPS = 9, FEWER = 4 };
static const uint64_t seed = 4711;

/* A step: dropout of x makes the gradient of an update. Its values differ from step to step. */
struct step {
    struct backend *backend;
    struct block_plan *plan;
    struct block_pass pass;
    struct update_args args;
    float *x, *y, *beta, *first, *second;
};

static enum status take_step(void *context) {
    struct step *s = context;
    struct backend *b = s->backend;
    TRY(b->block_forward(s->plan, &s->pass, s->x, s->y));
    return b->update(b, &s->args, s->beta, s->y, s->first, s->second,
                     UNITS * (size_t)s->pass.samples);
}

static float *zeros(struct backend *b) {
    void *memory;
    assert_ok(b->alloc(b, COUNT * sizeof(float), &memory));
    return memory;
}

static struct step step_create(struct backend *b) {
    const struct shape shape = {1, 1, UNITS};
    const struct block_desc desc = {.kind = BLOCK_PASS,
                                    .input = shape,
                                    .linear = shape,
                                    .output = shape,
                                    .pool = 1,
                                    .dropout = 0.5F,
                                    .layer = 2};
    uint32_t ids[SAMPLES];
    for (int i = 0; i < SAMPLES; i++)
        ids[i] = case_sample_id(i);
    float *x = case_floats(seed, 1, COUNT);
    struct step step = {
        .backend = b,
        .pass = {.training = true, .seed = seed},
        .args = {.kind = OPTIMIZER_ADAM, .epsilon = 1e-8F, .beta1 = 0.9F, .beta2 = 0.999F},
        .x = device_of(b, x, COUNT * sizeof *x),
        .y = zeros(b),
        .beta = zeros(b),
        .first = zeros(b),
        .second = zeros(b)};
    step.pass.sample_ids = device_of(b, ids, sizeof ids);
    assert_ok(b->block_plan_create(b, &desc, SAMPLES, false, &step.plan));
    free(x);
    return step;
}

static void step_destroy(struct step *s) {
    void *const memory[] = {s->x,     s->y,      s->beta,
                            s->first, s->second, (void *)(uintptr_t)s->pass.sample_ids};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        s->backend->release(s->backend, memory[i]);
    s->backend->block_plan_destroy(s->plan);
}

/* Sets the values of step `number`; every third one has fewer samples. */
static struct step_values set_values(struct step *s, int number) {
    s->pass.samples = number % 3 == 2 ? FEWER : SAMPLES;
    s->pass.update = (uint32_t)number * 7 + 1;
    s->args.step = (uint64_t)number + 1;
    s->args.learning_rate = 0.5F / (float)(number + 2);
    return (struct step_values){s->pass.update, s->args.learning_rate, s->args.step};
}

static void run(struct step *s, int number) {
    const struct step_values values = set_values(s, number);
    const uint64_t key = (uint64_t)s->pass.samples;
    const struct step_work work = {key, take_step, s, s->backend->step_mode(s->backend, key)};
    assert_ok(s->backend->run_step(s->backend, &values, &work));
}

static void assert_same(struct backend *b, const float *a, const float *c) {
    float *left = host_of(b, a, COUNT * sizeof *left), *right = host_of(b, c, COUNT * sizeof *left);
    assert_memory_equal(left, right, COUNT * sizeof *left);
    free(left);
    free(right);
}

ON_EACH_BACKEND(a_step_does_what_its_calls_do) {
    struct step plain = step_create(b), stepped = step_create(b);
    for (int number = 0; number < STEPS; number++) {
        (void)set_values(&plain, number);
        assert_ok(take_step(&plain));
        run(&stepped, number);
        assert_same(b, plain.y, stepped.y);
        assert_same(b, plain.beta, stepped.beta);
    }
    assert_same(b, plain.second, stepped.second);
    step_destroy(&plain);
    step_destroy(&stepped);
}

/* The same keys with other pointers. */
ON_EACH_BACKEND(forgotten_steps_are_not_replayed) {
    struct step first = step_create(b), second = step_create(b);
    for (int number = 0; number < STEPS; number++)
        run(&first, number);
    b->forget_steps(b);
    for (int number = 0; number < STEPS; number++)
        run(&second, number);
    assert_same(b, first.beta, second.beta);
    step_destroy(&first);
    step_destroy(&second);
}

/* More keys than a backend need remember, each more than once. */
ON_EACH_BACKEND(steps_may_have_many_keys) {
    struct step plain = step_create(b), stepped = step_create(b);
    for (int number = 0; number < 4 * 12; number++) {
        (void)set_values(&plain, number);
        assert_ok(take_step(&plain));
        const struct step_values values = set_values(&stepped, number);
        const uint64_t key = (uint64_t)number % 12;
        const struct step_work work = {key, take_step, &stepped, b->step_mode(b, key)};
        assert_ok(b->run_step(b, &values, &work));
    }
    assert_same(b, plain.beta, stepped.beta);
    step_destroy(&plain);
    step_destroy(&stepped);
}

/* Ranks agree on the mode of the one that can do the least. */
ON_EACH_BACKEND(a_step_may_do_less_than_it_can) {
    struct step plain = step_create(b), stepped = step_create(b);
    for (int number = 0; number < 4 * STEPS; number++) {
        (void)set_values(&plain, number);
        assert_ok(take_step(&plain));
        const struct step_values values = set_values(&stepped, number);
        const uint64_t key = (uint64_t)stepped.pass.samples;
        const enum step_mode first = b->step_mode(b, key), less = (enum step_mode)(number / 3 % 3);
        const struct step_work work = {key, take_step, &stepped, first > less ? first : less};
        assert_ok(b->run_step(b, &values, &work));
    }
    assert_same(b, plain.beta, stepped.beta);
    step_destroy(&plain);
    step_destroy(&stepped);
}

static enum status refuse(void *context) {
    FAIL(ST_NUMERIC, "refused on %s", (const char *)context);
}

ON_EACH_BACKEND(a_step_that_fails_says_why) {
    char where[] = "purpose";
    const struct step_values values = {1, 1, 1};
    const struct step_work work = {1, refuse, where, STEP_PLAIN};
    for (int i = 0; i < 3; i++)
        assert_fails(b->run_step(b, &values, &work), ST_NUMERIC, "refused on purpose");
    struct step after = step_create(b);
    run(&after, 0);
    step_destroy(&after);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_does_what_its_calls_do),
        cmocka_unit_test(forgotten_steps_are_not_replayed),
        cmocka_unit_test(steps_may_have_many_keys),
        cmocka_unit_test(a_step_may_do_less_than_it_can),
        cmocka_unit_test(a_step_that_fails_says_why),
    };
    return RUN_TESTS(tests, argc, argv);
}
