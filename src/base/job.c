#include <espalier/job.h>

#include <signal.h>
#include <stdio.h>

int thread_start(pthread_t *thread, void *(*call)(void *context), void *context) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(thread, NULL, call, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void *work(void *context) {
    struct job *job = context;
    job->status = job->call(job->context);
    if (job->status != ST_OK)
        snprintf(job->message, sizeof job->message, "%s", status_message());
    atomic_store_explicit(&job->is_over, true, memory_order_release);
    return NULL;
}

void job_start(struct job *job, enum status (*call)(void *context), void *context) {
    job->call = call;
    job->context = context;
    job->is_begun = true;
    atomic_store_explicit(&job->is_over, false, memory_order_relaxed);
    job->has_thread = thread_start(&job->thread, work, job) == 0;
    if (!job->has_thread)
        work(job);
}

bool job_is_begun(const struct job *job) {
    return job->is_begun;
}

bool job_is_over(const struct job *job) {
    return job->is_begun && atomic_load_explicit(&job->is_over, memory_order_acquire);
}

void job_wait(struct job *job) {
    if (job->is_begun && job->has_thread)
        pthread_join(job->thread, NULL);
    job->has_thread = false;
}

enum status job_finish(struct job *job) {
    if (!job->is_begun)
        return ST_OK;
    job_wait(job);
    job->is_begun = false;
    return job->status == ST_OK ? ST_OK : status_fail(job->status, "%s", job->message);
}
