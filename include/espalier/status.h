/* status.h - how a function says that it failed, and why.
 *
 * Library code never prints and never exits: it records one message with
 * FAIL and returns a code; main alone turns that into a line on stderr and
 * an exit code. The message belongs to the calling thread and lasts until
 * the next failure in it. Nothing here is collective. */
#ifndef ESPALIER_STATUS_H
#define ESPALIER_STATUS_H

#include <stddef.h>

enum status {
    ST_OK = 0,
    ST_USAGE,         /* the command line is wrong; exit code 2 */
    ST_INPUT,         /* a recipe, a data file or a model is wrong; exit code 2 */
    ST_SHAPE,         /* shapes do not fit; exit code 2 */
    ST_IO,            /* the system refused to read or write; exit code 1 */
    ST_MEMORY,        /* an allocation failed; exit code 1 */
    ST_NUMERIC,       /* a NaN or an infinity where a number must be; exit code 1 */
    ST_DIVERGED,      /* ranks that must be equal are not; exit code 1 */
    ST_UNAVAILABLE,   /* the machine or the build lacks what was asked for; exit code 1 */
    ST_COMMUNICATION, /* the message-passing library failed; exit code 1 */
    ST_STOPPED,       /* no failure: stopped on request, to be resumed; exit code 75 */
    ST_COUNT
};

enum { STATUS_MESSAGE_SIZE = 2048 }; /* of the longest message, with its end */

/** Record a message (printf's format) for this thread and return `code`. Control characters become
 *  '?', so that a message is one line whatever it quotes. */
enum status status_fail(enum status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The last message recorded in this thread; never NULL, "" if there is none. */
const char *status_message(void);

/** The process's exit code for a status: 0, 1, 2 or 75. */
int status_exit_code(enum status code);

/** Record a failure and return its code from the calling function. */
#define FAIL(code, ...) return status_fail((code), __VA_ARGS__)

/** Evaluate `expr`; return its status from the calling function unless it is ST_OK. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (expr);                                                          \
        if (try_status_ != ST_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

/** As TRY, for functions with a clean-up label: sets `status` and jumps to `out`. */
#define TRY_OUT(expr)                                                                              \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (status != ST_OK)                                                                       \
            goto out;                                                                              \
    } while (0)

#endif
