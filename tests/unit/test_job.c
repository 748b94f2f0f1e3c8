/* Jobs: they go on beside their caller, and what they came to arrives there. */
#include <check.h>
#include <espalier/job.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

struct work {
    int pipe[2]; /* the caller writes, the job reads */
    enum status status;
    sigset_t signals; /* that the job's thread blocks */
};

/* Comes back only when its caller has gone on. */
static enum status wait_for_caller(void *context) {
    struct work *work = context;
    char byte;
    pthread_sigmask(SIG_SETMASK, NULL, &work->signals);
    if (read(work->pipe[0], &byte, 1) != 1)
        FAIL(ST_IO, "cannot read");
    return work->status == ST_OK ? ST_OK : status_fail(work->status, "the job's own: %d", byte);
}

static void begin(struct work *work, struct job *job, enum status status) {
    work->status = status;
    assert_int_equal(pipe(work->pipe), 0);
    job_start(job, wait_for_caller, work);
    assert_true(job_is_begun(job));
    assert_false(job_is_over(job));
}

static void let_it_end(struct work *work) {
    assert_int_equal(write(work->pipe[1], "\7", 1), 1);
}

static void end(struct work *work) {
    close(work->pipe[0]);
    close(work->pipe[1]);
}

static void goes_on_beside_its_caller(void **state) {
    (void)state;
    static struct job job;
    struct work work;
    for (int i = 0; i < 3; i++) { /* a job can be used again */
        begin(&work, &job, ST_OK);
        let_it_end(&work);
        assert_ok(job_finish(&job));
        assert_false(job_is_begun(&job));
        assert_false(job_is_over(&job));
        end(&work);
    }
}

static void failure_arrives_with_its_message(void **state) {
    (void)state;
    static struct job job;
    struct work work;
    begin(&work, &job, ST_SHAPE);
    status_fail(ST_IO, "the caller's own");
    let_it_end(&work);
    while (!job_is_over(&job))
        sched_yield();
    assert_string_equal(status_message(), "the caller's own");
    assert_fails(job_finish(&job), ST_SHAPE, "the job's own: 7");
    assert_ok(job_finish(&job)); /* nothing is begun any more */
    end(&work);
}

/* For whoever has a failure of its own to report. */
static void waiting_keeps_the_message(void **state) {
    (void)state;
    static struct job job;
    struct work work;
    job_wait(&job);
    begin(&work, &job, ST_SHAPE);
    status_fail(ST_IO, "the caller's own");
    let_it_end(&work);
    job_wait(&job);
    job_wait(&job);
    assert_string_equal(status_message(), "the caller's own");
    assert_true(job_is_over(&job));
    end(&work);
}

static void signals_are_for_others(void **state) {
    (void)state;
    static struct job job;
    struct work work;
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    begin(&work, &job, ST_OK);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    let_it_end(&work);
    assert_ok(job_finish(&job));
    for (int number = 1; number < 32; number++) {
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
        if (number != SIGKILL && number != SIGSTOP)
            assert_true(sigismember(&work.signals, number));
    }
    end(&work);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_beside_its_caller),
        cmocka_unit_test(failure_arrives_with_its_message),
        cmocka_unit_test(waiting_keeps_the_message),
        cmocka_unit_test(signals_are_for_others),
    };
    return RUN_TESTS(tests, argc, argv);
}
