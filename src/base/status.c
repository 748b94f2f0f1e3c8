#include <ctype.h>
#include <espalier/status.h>
#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[STATUS_MESSAGE_SIZE];

/* Names and texts of files from anywhere are quoted: they stay on the line and do not steer the
 * terminal that shows it. */
static void blunt(char *text) {
    for (; *text != '\0'; text++)
        if (iscntrl((unsigned char)*text))
            *text = '?';
}

enum status status_fail(enum status code, const char *format, ...) {
    char text[STATUS_MESSAGE_SIZE]; /* the arguments may quote the message before */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    blunt(text);
    snprintf(message, sizeof message, "%s", text);
    return code;
}

const char *status_message(void) {
    return message;
}

int status_exit_code(enum status code) {
    static const int exit_codes[ST_COUNT] = {
        [ST_OK] = 0,          [ST_USAGE] = 2,         [ST_INPUT] = 2,    [ST_SHAPE] = 2,
        [ST_IO] = 1,          [ST_MEMORY] = 1,        [ST_NUMERIC] = 1,  [ST_DIVERGED] = 1,
        [ST_UNAVAILABLE] = 1, [ST_COMMUNICATION] = 1, [ST_STOPPED] = 75,
    };
    return exit_codes[code];
}
