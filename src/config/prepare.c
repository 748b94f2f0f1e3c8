#include "prepare.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LINES_MAX = 65535 };

/* The text up to `at` has been copied. */
struct pass {
    const char *path, *at;
    char *out;
    int line;
};

static void copy(struct pass *pass, size_t count) {
    for (; count > 0 && *pass->at != '\0'; count--) {
        pass->line += *pass->at == '\n';
        *pass->out++ = *pass->at++;
    }
}

static void copy_comment(struct pass *pass) {
    const char *end = strstr(pass->at + 2, "*/");
    copy(pass, end == NULL ? strlen(pass->at) : (size_t)(end + 2 - pass->at));
}

static void copy_string(struct pass *pass) {
    copy(pass, 1);
    while (*pass->at != '\0' && *pass->at != '"')
        copy(pass, *pass->at == '\\' ? 2 : 1);
    copy(pass, 1);
}

static void copy_word(struct pass *pass) {
    while (isalnum((unsigned char)*pass->at) || (*pass->at != '\0' && strchr("_-*", *pass->at)))
        copy(pass, 1);
}

/* Reals cannot go wrong: they are only passed over, with the exponent's sign. */
static void copy_real(struct pass *pass) {
    while (isdigit((unsigned char)*pass->at) || *pass->at == '.')
        copy(pass, 1);
    if (*pass->at == 'e' || *pass->at == 'E')
        copy(pass, 1 + (pass->at[1] == '-' || pass->at[1] == '+'));
    while (isdigit((unsigned char)*pass->at))
        copy(pass, 1);
}

static enum status copy_number(struct pass *pass) {
    char *end;
    bool hexadecimal = pass->at[0] == '0' && (pass->at[1] == 'x' || pass->at[1] == 'X');
    errno = 0;
    unsigned long long magnitude = strtoull(pass->at, &end, hexadecimal ? 16 : 10);
    if (!hexadecimal && *end != '\0' && strchr(".eE", *end) != NULL) {
        copy_real(pass);
        return ST_OK;
    }
    if (errno != 0 || magnitude > INT64_MAX)
        FAIL(ST_INPUT, "%s:%d: found integer %.*s, expected one that fits into 64 bits", pass->path,
             pass->line, (int)(end - pass->at < 40 ? end - pass->at : 40), pass->at);
    copy(pass, (size_t)(end - pass->at));
    if (magnitude > INT_MAX && *pass->at != 'L')
        *pass->out++ = 'L';
    while (*pass->at == 'L')
        copy(pass, 1);
    return ST_OK;
}

static enum status copy_token(struct pass *pass) {
    const char *at = pass->at;
    if (*at == '@')
        FAIL(ST_INPUT, "%s:%d: a recipe stands alone: @include is not supported", pass->path,
             pass->line);
    if (isdigit((unsigned char)*at))
        return copy_number(pass);
    if (*at == '"')
        copy_string(pass);
    else if (*at == '.')
        copy_real(pass);
    else if (*at == '#' || (at[0] == '/' && at[1] == '/'))
        copy(pass, strcspn(at, "\n"));
    else if (at[0] == '/' && at[1] == '*')
        copy_comment(pass);
    else if (isalpha((unsigned char)*at) || *at == '*')
        copy_word(pass);
    else
        copy(pass, 1);
    return ST_OK;
}

enum status recipe_prepare(const char *path, const char *text, struct arena *arena,
                           char **prepared) {
    struct pass pass = {.path = path, .at = text, .line = 1};
    /* at most one L after each digit */
    TRY(arena_alloc(arena, 2 * strlen(text) + 2, 1, (void **)prepared));
    pass.out = *prepared;
    while (*pass.at != '\0')
        TRY(copy_token(&pass));
    if (pass.out == *prepared || pass.out[-1] != '\n')
        *pass.out = '\n';
    if (pass.line > LINES_MAX)
        FAIL(ST_INPUT, "%s: found %d lines, expected at most %d", path, pass.line, LINES_MAX);
    return ST_OK;
}
