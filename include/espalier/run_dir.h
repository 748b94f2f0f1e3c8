/* run_dir.h - the directory of one run. */
#ifndef ESPALIER_RUN_DIR_H
#define ESPALIER_RUN_DIR_H

#include <espalier/recipe.h>
#include <espalier/status.h>
#include <stdbool.h>
#include <stddef.h>

/** The default: results/runs/RECIPE-YYYYmmdd-HHMMSS, local time, with -2, -3, ... where
 *  that exists. */
void run_dir_default(const struct recipe *recipe, char *path, size_t size);

/** Make the directory, and its parents, unless it exists. ST_USAGE when it is no directory, or
 * holds something, or under `resume` something but no run (no recipe.cfg); ST_IO when the system
 * refuses. Called by rank 0, as all of these. */
enum status run_dir_create(const char *path, bool resume);

/** Under the lock of its events (events.h): check again, since another run may have come first, and
 *  write recipe.cfg. */
enum status run_dir_claim(const char *path, const struct recipe *recipe, bool resume);

/** Whether its run came to its end: summary.json is written last. */
bool run_dir_is_finished(const char *path);

/** Remove the results of a run that goes on. */
enum status run_dir_reopen(const char *path);

/** Write a small file as a whole: to PATH.tmp, flushed, renamed. ST_IO names file and reason;
 *  then what stood under PATH is untouched, and no .tmp is left. */
enum status file_write_whole(const char *path, const void *bytes, size_t count);

#endif
