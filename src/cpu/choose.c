/* Which kinds compute a block. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What can compute a kind of block, in one or both directions. */
struct choice {
    const char *name;
    enum block_kind block;
    bool (*applies)(const struct block_desc *desc); /* NULL: always */
    const struct forward_kind *forward;             /* NULL: backward only */
    const struct backward_kind *backward;           /* NULL: forward only */
};

/* Best first: a direction takes the first that applies. */
static const struct choice choices[] = {
    {"im2col", BLOCK_CONV, NULL, &forward_im2col, &backward_im2col},
    {"dense", BLOCK_DENSE, NULL, &forward_dense, &backward_dense},
    {"pass", BLOCK_PASS, NULL, &forward_pass, &backward_pass},
};

enum { CHOICES = sizeof choices / sizeof choices[0] };

/* "direct, winograd": what $ESPALIER_CONV may be. */
static const char *conv_names(void) {
    static char names[128];
    size_t length = 0;
    for (int i = 0; i < CHOICES; i++)
        if (choices[i].block == BLOCK_CONV && length < sizeof names)
            length += (size_t)snprintf(names + length, sizeof names - length, "%s%s",
                                       length == 0 ? "" : ", ", choices[i].name);
    return names;
}

enum status choose_conv_name(const char **conv) {
    const char *wanted = getenv("ESPALIER_CONV");
    *conv = NULL;
    for (int i = 0; wanted != NULL && i < CHOICES; i++)
        if (choices[i].block == BLOCK_CONV && strcmp(choices[i].name, wanted) == 0)
            *conv = choices[i].name;
    if (wanted != NULL && *conv == NULL)
        FAIL(ST_USAGE, "ESPALIER_CONV=%s: no such convolution, expected one of %s", wanted,
             conv_names());
    return ST_OK;
}

/* The first of a direction, of those named `name` or, for NULL, of all; NULL when there is none. */
static const struct choice *first_of(const struct block_desc *desc, const char *name,
                                     bool forward) {
    for (int i = 0; i < CHOICES; i++) {
        const struct choice *c = &choices[i];
        if (c->block == desc->kind && (forward ? c->forward != NULL : c->backward != NULL) &&
            (name == NULL || strcmp(c->name, name) == 0) &&
            (c->applies == NULL || c->applies(desc)))
            return c;
    }
    return NULL;
}

static const struct choice *choose(const struct block_desc *desc, const char *conv, bool forward) {
    const struct choice *named = conv == NULL ? NULL : first_of(desc, conv, forward);
    return named != NULL ? named : first_of(desc, NULL, forward);
}

const struct forward_kind *choose_forward(const struct block_desc *desc, const char *conv) {
    return choose(desc, conv, true)->forward;
}

const struct backward_kind *choose_backward(const struct block_desc *desc, const char *conv) {
    return choose(desc, conv, false)->backward;
}
