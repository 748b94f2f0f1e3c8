/* writing.h - settings as text. */
#ifndef ESPALIER_CONFIG_WRITING_H
#define ESPALIER_CONFIG_WRITING_H

#include "keys.h"
#include <stdio.h>

/** Write the key's value in `settings` (the struct that its row points into) as a recipe has it. */
void key_write(const struct key *key, const void *settings, FILE *file);

#endif
