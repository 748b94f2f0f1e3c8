/* report.h - runs on one page: HTML with inline SVG, which needs no network and no script. */
#ifndef ESPALIER_REPORT_H
#define ESPALIER_REPORT_H

#include <espalier/run_record.h>
#include <espalier/status.h>
#include <stdio.h>

/** Write the page: a table of the runs, accuracy at each epoch, survivors of each layer and the
 * time of an update over the updates. The same records give the same bytes.
 *
 *  runs     [count] at least one
 *  returns  ST_MEMORY; what could not be written is for the caller to find (ferror) */
enum status report_write(FILE *file, const struct run_record *runs, int count);

#endif
