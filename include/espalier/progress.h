/* progress.h - how far a long piece of work is, for the person who waits.
 *
 * On a terminal one line, redrawn at most five times a second and cut, between its fields, to the
 * width; elsewhere (a log, mpirun) a plain line every ten seconds. Writes to the stream it was
 * given (stderr). */
#ifndef ESPALIER_PROGRESS_H
#define ESPALIER_PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

struct progress {
    FILE *stream;   /* NULL: silent */
    FILE *warnings; /* the stream, even where all else is silent */
    bool terminal;
    bool drawn; /* a line stands that must be cleared */
    double last_seconds;
};

/** Seconds of a clock that never jumps. */
double monotonic_seconds(void);

/** Begin; `quiet` makes everything silent. */
void progress_begin(struct progress *progress, FILE *stream, bool quiet);

/** Is it time to redraw? */
bool progress_due(const struct progress *progress);

/** Redraw the line: a bar of `fraction` in [0, 1], then the text (printf's format), whose fields
 * are set apart by two spaces, the most important first. */
void progress_draw(struct progress *progress, double fraction, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** Print a line that stays, above the bar. */
void progress_line(struct progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Print a line that must be seen, whether or not the rest is silent. */
void progress_warn(struct progress *progress, const char *text);

/** Clear the bar. */
void progress_end(struct progress *progress);

/** Seconds as "1:02:03" or "4:05". Returns text. */
char *format_duration(double seconds, char *text, size_t size);

#endif
