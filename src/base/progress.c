#include <espalier/progress.h>

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR_COLUMNS = 20, DEFAULT_COLUMNS = 80, TEXT_SIZE = 512 };
static const double redraw_seconds = 0.2;
static const double line_seconds = 10; /* where there is no terminal */

#define CLEAR_LINE "\r\x1b[K"

double monotonic_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool is_terminal(FILE *stream) {
    const char *kind = getenv("TERM");
    return isatty(fileno(stream)) && (kind == NULL || strcmp(kind, "dumb") != 0);
}

void progress_begin(struct progress *progress, FILE *stream, bool quiet) {
    *progress = (struct progress){.stream = quiet ? NULL : stream, .warnings = stream};
    progress->terminal = progress->stream != NULL && is_terminal(stream);
    progress->last_seconds = progress->terminal ? -redraw_seconds : monotonic_seconds();
}

bool progress_due(const struct progress *progress) {
    double pause = progress->terminal ? redraw_seconds : line_seconds;
    return progress->stream != NULL && monotonic_seconds() - progress->last_seconds >= pause;
}

/* Asked anew for every drawing: the window may have been resized. */
static size_t terminal_columns(FILE *stream) {
    struct winsize window;
    if (ioctl(fileno(stream), TIOCGWINSZ, &window) != 0 || window.ws_col == 0)
        return DEFAULT_COLUMNS;
    return window.ws_col;
}

/* Bytes of the fields, set apart by two spaces, that fill at most so many columns: half a number
 * would be a wrong one. A continuation byte of UTF-8, 10xxxxxx, takes no column. */
static size_t bytes_in_columns(const char *text, size_t columns) {
    size_t bytes = 0, used = 0, whole = 0;
    for (; text[bytes] != '\0'; bytes++) {
        if (text[bytes] == ' ' && text[bytes + 1] == ' ')
            whole = bytes;
        if (((unsigned char)text[bytes] & 0xc0) != 0x80 && ++used > columns)
            return whole;
    }
    return bytes;
}

static void fill_bar(char bar[BAR_COLUMNS + 1], double fraction) {
    int full = (int)(fraction * BAR_COLUMNS);
    for (int i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_COLUMNS] = '\0';
}

static void draw_bar(struct progress *progress, double fraction, const char *text) {
    char line[TEXT_SIZE + BAR_COLUMNS + 16], bar[BAR_COLUMNS + 1];
    fill_bar(bar, fraction);
    snprintf(line, sizeof line, "[%s] %3.0f %%  %s", bar, floor(100 * fraction), text);
    /* The last column stays free: filling it would wrap the line on some terminals. */
    size_t bytes = bytes_in_columns(line, terminal_columns(progress->stream) - 1);
    fprintf(progress->stream, CLEAR_LINE "%.*s", (int)bytes, line);
    progress->drawn = true;
}

void progress_draw(struct progress *progress, double fraction, const char *format, ...) {
    if (progress->stream == NULL)
        return;
    char text[TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fraction = fmin(fmax(fraction, 0), 1);
    if (progress->terminal)
        draw_bar(progress, fraction, text);
    else
        fprintf(progress->stream, "%3.0f %%  %s\n", floor(100 * fraction), text);
    fflush(progress->stream);
    progress->last_seconds = monotonic_seconds();
}

void progress_line(struct progress *progress, const char *format, ...) {
    if (progress->stream == NULL)
        return;
    progress_end(progress);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(progress->stream, format, arguments);
    va_end(arguments);
    fputc('\n', progress->stream);
    fflush(progress->stream);
    /* the bar comes back at once */
    progress->last_seconds = progress->terminal ? -redraw_seconds : monotonic_seconds();
}

void progress_warn(struct progress *progress, const char *text) {
    progress_end(progress);
    fprintf(progress->warnings, "espalier: warning: %s\n", text);
    fflush(progress->warnings);
}

void progress_end(struct progress *progress) {
    if (!progress->drawn)
        return;
    fputs(CLEAR_LINE, progress->stream);
    fflush(progress->stream);
    progress->drawn = false;
}

char *format_duration(double seconds, char *text, size_t size) {
    if (!(seconds >= 0 && seconds < 1e9)) { /* also a NaN: no estimate yet */
        snprintf(text, size, "-:--");
        return text;
    }
    long whole = lround(seconds);
    if (whole >= 3600)
        snprintf(text, size, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
    else
        snprintf(text, size, "%ld:%02ld", whole / 60, whole % 60);
    return text;
}
