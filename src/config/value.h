/* value.h - what a recipe or an override holds for a key, before it is known to fit.
 *
 * A value borrows its text from the libconfig tree or the override that it was read from, until it
 * is stored. */
#ifndef ESPALIER_CONFIG_VALUE_H
#define ESPALIER_CONFIG_VALUE_H

#include "keys.h"
#include <espalier/arena.h>
#include <libconfig.h>

enum value_type {
    VALUE_INTEGER,
    VALUE_REAL,
    VALUE_BOOLEAN,
    VALUE_TEXT,
    VALUE_NAMES, /* a list of text alone, or of nothing */
    VALUE_OTHER, /* a group, a list of other things */
    VALUE_TYPE_COUNT
};

struct value {
    enum value_type type;
    int64_t integer;
    double real;
    bool boolean;
    const char *text; /* of a VALUE_OTHER: what it is */
    const char **names;
    int names_count;
};

/** Where a setting came from, for messages. All zero: it is a default. */
struct source {
    const char *path;
    int line;             /* 0: not known */
    const char *override; /* "KEY=VALUE", NULL for a setting of the file */
};

bool source_given(const struct source *source);

/** Fail with "PATH:LINE: ..." and ST_INPUT, or "-s KEY=VALUE: ..." and ST_USAGE. */
enum status source_fail(const struct source *source, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Quote what a user wrote for a message: on one line, not longer than the buffer. */
enum { QUOTE_MAX = 80 };
const char *quote(const char *text, char quoted[QUOTE_MAX]);

/** Cut the blanks around a word off, in place. */
char *trim(char *text);

/** Say what was found: "integer 3". */
enum { SHOWN_MAX = QUOTE_MAX + 32 };
void value_show(const struct value *value, char shown[SHOWN_MAX]);

/** What a libconfig setting holds. The arena owns a list's array. */
enum status value_from_setting(const config_setting_t *setting, struct arena *arena,
                               struct value *value);

/** What the text of an override says, read as the key's type wants it. The arena owns copies. */
enum status value_from_text(const struct key *key, const char *text, struct arena *arena,
                            struct value *value);

/** The key's default, but for a default that the optimizer decides. */
struct value value_default(const struct key *key);

/** Put a value of the key's type where the key says in `settings`, whatever its bounds. */
void value_put(const struct key *key, const struct value *value, void *settings);

/** The same for a value that is the user's: it must have the key's type and lie in its bounds,
 *  else fail at `source` with what was found and what `label` expects. Text is copied into the
 *  arena, and the value then holds the copy. */
enum status value_store(const struct key *key, struct value *value, struct arena *arena,
                        void *settings, const struct source *source, const char *label);

#endif
