/* style.h - how the page looks: in light and dark, on paper, wide and narrow. */
#ifndef ESPALIER_REPORT_STYLE_H
#define ESPALIER_REPORT_STYLE_H

/** Pieces of a style sheet, NULL-terminated. */
extern const char *const report_style[];

#endif
