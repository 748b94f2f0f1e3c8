/* markup.h - text and numbers as HTML. */
#ifndef ESPALIER_REPORT_MARKUP_H
#define ESPALIER_REPORT_MARKUP_H

#include <stdio.h>

enum { NUMBER_TEXT_MAX = 64 };

/** Any text, in an element or in a quoted attribute. */
void put_escaped(FILE *file, const char *text);

/** As "12,345.68", with `decimals` digits behind the point; a dash for what is not finite. */
const char *number_text(double value, int decimals, char text[NUMBER_TEXT_MAX]);

#endif
