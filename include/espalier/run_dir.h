/* run_dir.h - the directory of one run. */
#ifndef ESPALIER_RUN_DIR_H
#define ESPALIER_RUN_DIR_H

#include <espalier/recipe.h>
#include <espalier/status.h>
#include <stddef.h>

/** The default: results/runs/RECIPE-YYYYmmdd-HHMMSS, local time, with -2, -3, ... where
 *  that exists. */
void run_dir_default(const struct recipe *recipe, char *path, size_t size);

/** Make the directory (and its parents) and write recipe.cfg into it. ST_USAGE when it exists and
 *  is not empty, or is no directory; ST_IO when the system refuses. Called by rank 0. */
enum status run_dir_create(const char *path, const struct recipe *recipe);

/** Write a small file as a whole: to PATH.tmp, flushed, renamed. ST_IO names file and reason;
 *  then what stood under PATH is untouched, and no .tmp is left. */
enum status file_write_whole(const char *path, const void *bytes, size_t count);

#endif
