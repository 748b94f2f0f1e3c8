/* job.h - work that goes on in a thread of its own while the caller does something else.
 *
 * Between job_start and job_finish the job owns what its context points to. Nothing here is
 * collective. */
#ifndef ESPALIER_JOB_H
#define ESPALIER_JOB_H

#include <espalier/status.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct job {
    enum status (*call)(void *context);
    void *context;
    bool is_begun, has_thread;
    atomic_bool is_over;
    pthread_t thread;
    enum status status;
    char message[STATUS_MESSAGE_SIZE]; /* where status is not ST_OK */
};

/** Begin call(context). Where the system gives no thread, it is done before this returns. */
void job_start(struct job *job, enum status (*call)(void *context), void *context);

/** True while a job that was begun has not been finished. */
bool job_is_begun(const struct job *job);

/** True when job_finish would not wait. */
bool job_is_over(const struct job *job);

/** Wait for the end, whatever it is; legal on a zeroed job. */
void job_wait(struct job *job);

/** Wait for the end. The job's status; its message becomes the calling thread's. ST_OK where
 *  nothing was begun; legal on a zeroed job. */
enum status job_finish(struct job *job);

/** A thread that leaves all signals to the others; 0, or an error number as pthread_create's. */
int thread_start(pthread_t *thread, void *(*call)(void *context), void *context);

#endif
