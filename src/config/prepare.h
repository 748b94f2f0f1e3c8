/* prepare.h - make a recipe's text safe for libconfig. */
#ifndef ESPALIER_CONFIG_PREPARE_H
#define ESPALIER_CONFIG_PREPARE_H

#include <espalier/arena.h>

/** Copy a recipe's text into the arena, mended where libconfig would go wrong without a word:
 *
 *  - libconfig 1.5 wraps integers beyond 32 bits that lack its suffix L, so one is added;
 *    ST_INPUT where an integer does not fit into 64 bits.
 *  - it ends the process when what an @include names is a directory, so @include is refused.
 *  - it counts lines in 16 bits, so ST_INPUT where there are more.
 *  - a comment needs a line's end, so the copy has one. */
enum status recipe_prepare(const char *path, const char *text, struct arena *arena,
                           char **prepared);

#endif
