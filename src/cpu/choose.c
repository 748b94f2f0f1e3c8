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
    bool (*pays)(const struct block_desc *desc);    /* where it applies; NULL: always */
    const struct forward_kind *forward;             /* NULL: backward only */
    const struct backward_kind *backward;           /* NULL: forward only */
};

/* Best first: a direction takes the first that applies and pays. */
static const struct choice choices[] = {
    {"sparse", BLOCK_CONV, backward_sparse_applies, NULL, NULL, &backward_sparse},
    {"winograd", BLOCK_CONV, forward_winograd_applies, forward_winograd_pays, &forward_winograd,
     NULL},
    {"direct", BLOCK_CONV, NULL, NULL, &forward_direct, &backward_direct},
    {"dropconnect", BLOCK_DENSE, dropconnect_applies, NULL, &forward_dropconnect,
     &backward_dropconnect},
    {"dense", BLOCK_DENSE, NULL, NULL, &forward_dense, &backward_dense},
    {"norm", BLOCK_NORM, NULL, NULL, &forward_norm, &backward_norm},
    {"pass", BLOCK_PASS, NULL, NULL, &forward_pass, &backward_pass},
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

static bool computes(const struct choice *c, const struct block_desc *desc, bool forward) {
    return c->block == desc->kind && (forward ? c->forward != NULL : c->backward != NULL) &&
           (c->applies == NULL || c->applies(desc));
}

/* The best of a direction, or for a name the one that has it, else the one that always applies:
 * naming one leaves no other of the special ones. */
static const struct choice *choose(const struct block_desc *desc, const char *conv, bool forward) {
    const bool named = desc->kind == BLOCK_CONV && conv != NULL;
    const struct choice *general = NULL;
    for (int i = 0; i < CHOICES; i++) {
        const struct choice *c = &choices[i];
        if (!computes(c, desc, forward))
            continue;
        if (named ? strcmp(c->name, conv) == 0 : c->pays == NULL || c->pays(desc))
            return c;
        if (general == NULL && c->applies == NULL)
            general = c;
    }
    return general;
}

const struct forward_kind *choose_forward(const struct block_desc *desc, const char *conv) {
    return choose(desc, conv, true)->forward;
}

const struct backward_kind *choose_backward(const struct block_desc *desc, const char *conv) {
    return choose(desc, conv, false)->backward;
}

const struct sparse_form *choose_sparse_form(const struct block_desc *desc) {
    static const struct sparse_form *const forms[] = {[BLOCK_CONV] = &sparse_form_conv,
                                                      [BLOCK_DENSE] = &sparse_form_dense,
                                                      [BLOCK_PASS] = NULL,
                                                      [BLOCK_NORM] = NULL};
    const struct sparse_form *form = forms[desc->kind];
    return form != NULL && form->fits(desc) && desc->dropconnect == 0 ? form : NULL;
}
