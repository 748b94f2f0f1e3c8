#include "value.h"
#include <ctype.h>
#include <errno.h>
#include <espalier/nearest.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool source_given(const struct source *source) {
    return source->path != NULL || source->override != NULL;
}

enum status source_fail(const struct source *source, const char *format, ...) {
    char text[1024], quoted[QUOTE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (source->override != NULL)
        FAIL(ST_USAGE, "-s %s: %s", quote(source->override, quoted), text);
    if (source->line > 0)
        FAIL(ST_INPUT, "%s:%d: %s", source->path, source->line, text);
    FAIL(ST_INPUT, "%s: %s", source->path, text);
}

const char *quote(const char *text, char quoted[QUOTE_MAX]) {
    int i = 0;
    for (; text[i] != '\0' && i < QUOTE_MAX - 4; i++)
        quoted[i] = iscntrl((unsigned char)text[i]) ? '?' : text[i];
    snprintf(quoted + i, QUOTE_MAX - (size_t)i, "%s", text[i] == '\0' ? "" : "...");
    return quoted;
}

static struct value other(const char *text) {
    return (struct value){.type = VALUE_OTHER, .text = text};
}

static enum status names_from_setting(const config_setting_t *setting, struct arena *arena,
                                      struct value *value) {
    int count = config_setting_length(setting);
    *value = (struct value){.type = VALUE_NAMES, .names_count = count};
    TRY(ARENA_ARRAY(arena, (size_t)count, &value->names));
    for (int i = 0; i < count; i++) {
        value->names[i] = config_setting_get_string_elem(setting, i);
        if (value->names[i] == NULL) {
            *value = other("a list of other things than text");
            return ST_OK;
        }
    }
    return ST_OK;
}

enum status value_from_setting(const config_setting_t *setting, struct arena *arena,
                               struct value *value) {
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        *value = (struct value){.type = VALUE_INTEGER,
                                .integer = (int64_t)config_setting_get_int64(setting)};
        return ST_OK;
    case CONFIG_TYPE_FLOAT:
        *value = (struct value){.type = VALUE_REAL, .real = config_setting_get_float(setting)};
        return ST_OK;
    case CONFIG_TYPE_BOOL:
        *value = (struct value){.type = VALUE_BOOLEAN, .boolean = config_setting_get_bool(setting)};
        return ST_OK;
    case CONFIG_TYPE_STRING:
        *value = (struct value){.type = VALUE_TEXT, .text = config_setting_get_string(setting)};
        return ST_OK;
    case CONFIG_TYPE_ARRAY:
    case CONFIG_TYPE_LIST:
        return names_from_setting(setting, arena, value);
    default:
        *value = other("a group");
        return ST_OK;
    }
}

/* A number where the whole text is one; else the text. */
static enum status scalar_from_text(const char *text, struct arena *arena, struct value *value) {
    (void)arena;
    char *end;
    errno = 0;
    long long integer = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0) {
        *value = (struct value){.type = VALUE_INTEGER, .integer = integer};
        return ST_OK;
    }
    double real = strtod(text, &end);
    if (end != text && *end == '\0')
        *value = (struct value){.type = VALUE_REAL, .real = real};
    else
        *value = (struct value){.type = VALUE_TEXT, .text = text};
    return ST_OK;
}

static enum status boolean_from_text(const char *text, struct arena *arena, struct value *value) {
    (void)arena;
    bool is_true = strcasecmp(text, "true") == 0;
    if (is_true || strcasecmp(text, "false") == 0)
        *value = (struct value){.type = VALUE_BOOLEAN, .boolean = is_true};
    else
        *value = (struct value){.type = VALUE_TEXT, .text = text};
    return ST_OK;
}

static enum status text_from_text(const char *text, struct arena *arena, struct value *value) {
    (void)arena;
    *value = (struct value){.type = VALUE_TEXT, .text = text};
    return ST_OK;
}

char *trim(char *text) {
    text += strspn(text, " \t");
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t", text[size - 1]) != NULL)
        size--;
    text[size] = '\0';
    return text;
}

/* A name of a list, in quotes or not, in place. */
static char *bare_name(char *text) {
    text = trim(text);
    size_t size = strlen(text);
    if (size < 2 || text[0] != '"' || text[size - 1] != '"')
        return text;
    text[size - 1] = '\0';
    return text + 1;
}

/* "[a, b]" or ["a", "b"]: every comma parts two names, "[]" holds none. */
static enum status names_from_text(const char *text, struct arena *arena, struct value *value) {
    size_t size = strlen(text);
    *value = (struct value){.type = VALUE_TEXT, .text = text};
    if (size < 2 || text[0] != '[' || text[size - 1] != ']')
        return ST_OK;
    char *word;
    TRY(arena_strdup(arena, text + 1, &word));
    word[size - 2] = '\0';
    *value = (struct value){.type = VALUE_NAMES};
    TRY(ARENA_ARRAY(arena, size, &value->names));
    if (*trim(word) == '\0')
        return ST_OK;
    for (char *comma; (comma = strchr(word, ',')) != NULL; word = comma + 1) {
        *comma = '\0';
        value->names[value->names_count++] = bare_name(word);
    }
    value->names[value->names_count++] = bare_name(word);
    return ST_OK;
}

static void show_integer(const struct value *value, char *shown) {
    snprintf(shown, SHOWN_MAX, "integer %lld", (long long)value->integer);
}

static void show_real(const struct value *value, char *shown) {
    char text[REAL_TEXT_MAX];
    real_text(value->real, text);
    snprintf(shown, SHOWN_MAX, "real number %s", text);
}

static void show_boolean(const struct value *value, char *shown) {
    snprintf(shown, SHOWN_MAX, "boolean %s", value->boolean ? "true" : "false");
}

static void show_text(const struct value *value, char *shown) {
    char text[QUOTE_MAX];
    snprintf(shown, SHOWN_MAX, "text '%s'", quote(value->text, text));
}

static void show_names(const struct value *value, char *shown) {
    snprintf(shown, SHOWN_MAX, "a list of %d", value->names_count);
}

static void show_other(const struct value *value, char *shown) {
    snprintf(shown, SHOWN_MAX, "%s", value->text);
}

void value_show(const struct value *value, char shown[SHOWN_MAX]) {
    static void (*const shows[VALUE_TYPE_COUNT])(const struct value *, char *) = {
        [VALUE_INTEGER] = show_integer, [VALUE_REAL] = show_real,   [VALUE_BOOLEAN] = show_boolean,
        [VALUE_TEXT] = show_text,       [VALUE_NAMES] = show_names, [VALUE_OTHER] = show_other,
    };
    shows[value->type](value, shown);
}

static bool integer_fits(const struct key *key, const struct value *value) {
    return value->type == VALUE_INTEGER && value->integer >= key->integer.low &&
           value->integer <= key->integer.high;
}

static double number(const struct value *value) {
    return value->type == VALUE_INTEGER ? (double)value->integer : value->real;
}

/* Kernels compute in float, so a bound holds for the value rounded to float too: a rate just below
 * 1 must not become 1, nor a tiny epsilon 0. Neither NaN nor infinity lies in any interval. */
static bool real_fits(const struct key *key, const struct value *value) {
    if (value->type != VALUE_REAL && value->type != VALUE_INTEGER)
        return false;
    const struct interval *bounds = &key->real.bounds;
    double exact = number(value), rounded = (double)(float)exact;
    bool above = bounds->low_open ? rounded > bounds->low : exact >= bounds->low;
    bool below = bounds->high_open ? rounded < bounds->high : exact <= bounds->high;
    return above && below;
}

static bool boolean_fits(const struct key *key, const struct value *value) {
    (void)key;
    return value->type == VALUE_BOOLEAN;
}

static bool text_fits(const struct key *key, const struct value *value) {
    (void)key;
    return value->type == VALUE_TEXT && value->text[0] != '\0' &&
           strlen(value->text) < KEY_TEXT_MAX;
}

static bool name_fits(const struct key *key, const struct value *value) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789_-";
    return text_fits(key, value) && strlen(value->text) < RECIPE_NAME_MAX &&
           value->text[strspn(value->text, allowed)] == '\0';
}

static bool names_fit(const struct key *key, const struct value *value) {
    (void)key;
    return value->type == VALUE_NAMES;
}

static bool kind_fits(const struct key *key, const struct value *value) {
    return value->type == VALUE_TEXT && kind_find(key->kinds, value->text) >= 0;
}

static void put_integer(const struct key *key, const struct value *value, char *settings) {
    int narrow = (int)value->integer;
    if (key->size == sizeof narrow)
        memcpy(settings + key->offset, &narrow, sizeof narrow);
    else
        memcpy(settings + key->offset, &value->integer, sizeof value->integer);
}

static void put_real(const struct key *key, const struct value *value, char *settings) {
    double real = number(value);
    memcpy(settings + key->offset, &real, sizeof real);
}

static void put_boolean(const struct key *key, const struct value *value, char *settings) {
    memcpy(settings + key->offset, &value->boolean, key->size);
}

static void put_text(const struct key *key, const struct value *value, char *settings) {
    memcpy(settings + key->offset, &value->text, key->size);
}

static void put_name(const struct key *key, const struct value *value, char *settings) {
    snprintf(settings + key->offset, key->size, "%s", value->text);
}

static void put_names(const struct key *key, const struct value *value, char *settings) {
    memcpy(settings + key->offset, &value->names, key->size);
    memcpy(settings + key->count_offset, &value->names_count, sizeof value->names_count);
}

static void put_kind(const struct key *key, const struct value *value, char *settings) {
    struct value index = {.integer = kind_find(key->kinds, value->text)};
    put_integer(key, &index, settings);
}

/* What a type of key is: how an override's text is read, what fits, where it goes. */
static const struct {
    enum value_type value;
    enum status (*from_text)(const char *, struct arena *, struct value *);
    bool (*fits)(const struct key *, const struct value *);
    void (*put)(const struct key *, const struct value *, char *);
} types[KEY_TYPE_COUNT] = {
    [KEY_INTEGER] = {VALUE_INTEGER, scalar_from_text, integer_fits, put_integer},
    [KEY_REAL] = {VALUE_REAL, scalar_from_text, real_fits, put_real},
    [KEY_BOOLEAN] = {VALUE_BOOLEAN, boolean_from_text, boolean_fits, put_boolean},
    [KEY_TEXT] = {VALUE_TEXT, text_from_text, text_fits, put_text},
    [KEY_NAME] = {VALUE_TEXT, text_from_text, name_fits, put_name},
    [KEY_NAMES] = {VALUE_NAMES, names_from_text, names_fit, put_names},
    [KEY_KIND] = {VALUE_TEXT, text_from_text, kind_fits, put_kind},
};

enum status value_from_text(const struct key *key, const char *text, struct arena *arena,
                            struct value *value) {
    return types[key->type].from_text(text, arena, value);
}

struct value value_default(const struct key *key) {
    return (struct value){.type = types[key->type].value,
                          .integer = key->integer.value,
                          .real = key->real.value,
                          .text = key->kinds ? key->kinds[key->integer.value] : key->text};
}

/* How the file and an override write a list. */
static const char *example(const struct key *key, const struct source *source) {
    if (key->type != KEY_NAMES)
        return "";
    return source->override != NULL ? ", like [dense1,dense2]" : ", like [\"dense1\", \"dense2\"]";
}

static enum status misfit(const struct key *key, const struct value *value,
                          const struct source *source, const char *label) {
    char found[SHOWN_MAX], expected[EXPECTATION_MAX];
    const char *nearest = NULL;
    int count = 0;
    value_show(value, found);
    key_expectation(key, expected);
    while (key->type == KEY_KIND && key->kinds[count] != NULL)
        count++;
    if (value->type == VALUE_TEXT)
        nearest = name_nearest(key->kinds, count, value->text);
    if (nearest != NULL)
        return source_fail(source, "%s: found %s, expected %s; nearest: '%s'", label, found,
                           expected, nearest);
    return source_fail(source, "%s: found %s, expected %s%s", label, found, expected,
                       example(key, source));
}

void value_put(const struct key *key, const struct value *value, void *settings) {
    types[key->type].put(key, value, settings);
}

/* The settings outlive the tree or the command line that the text came from. */
static enum status own(struct value *value, struct arena *arena) {
    char *copy;
    if (value->type == VALUE_TEXT) {
        TRY(arena_strdup(arena, value->text, &copy));
        value->text = copy;
    }
    for (int i = 0; i < value->names_count; i++) {
        TRY(arena_strdup(arena, value->names[i], &copy));
        value->names[i] = copy;
    }
    return ST_OK;
}

enum status value_store(const struct key *key, struct value *value, struct arena *arena,
                        void *settings, const struct source *source, const char *label) {
    if (!types[key->type].fits(key, value))
        return misfit(key, value, source, label);
    TRY(own(value, arena));
    value_put(key, value, settings);
    return ST_OK;
}
