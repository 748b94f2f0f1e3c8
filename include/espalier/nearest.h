/* nearest.h - names: which known one may have been meant, and how to list them. */
#ifndef ESPALIER_NEAREST_H
#define ESPALIER_NEAREST_H

#include <stddef.h>

/** The one of `count` names that is near to `name`, NULL when none is.
 *
 *  Near is, first, what is the least edits away, at most a third of the longer name; an edit
 *  inserts, deletes or replaces a character, or swaps two neighbours (optimal string alignment).
 *  Else the one name that `name` abbreviates: "lr" and "lrate" stand for "learning_rate". */
const char *name_nearest(const char *const *names, int count, const char *name);

/** Write "a, b, c" into text [size], cut to end in "..." where it does not fit; `last` parts the
 *  last two: ", " or " or ". */
void names_join(const char *const *names, int count, const char *last, char *text, size_t size);

#endif
