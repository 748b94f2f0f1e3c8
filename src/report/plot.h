/* plot.h - curves over two axes, as inline SVG.
 *
 * A curve's colour, dashes and marker come from the page's style sheet: classes c0..c6, d0..d4. */
#ifndef ESPALIER_REPORT_PLOT_H
#define ESPALIER_REPORT_PLOT_H

#include <stdbool.h>
#include <stdio.h>

enum { PLOT_COLORS = 7, PLOT_DASHES = 5, PLOT_MARKERS = 7 };

/** One curve; borrows its points. Points that are not finite interrupt it. */
struct curve {
    const char *run, *name; /* the legend says "run, name"; name may be NULL */
    int color, dash;        /* any index >= 0, taken modulo what there is */
    int marker;             /* as well; below 0: none */
    bool hollow;            /* markers show the page through */
    bool steps;             /* a value holds until the next one */
    int count;
    const double *x, *y;
};

struct axis {
    const char *title;
    const char *unit;       /* behind a value that is read out: " %", or "" */
    double least, greatest; /* a value that the axis must reach; NaN: what the curves have */
    double limit;           /* no axis goes beyond; NaN: none */
    bool rounded;           /* ends at ticks */
    bool whole;             /* ticks at whole numbers only */
    bool logarithmic;
    int decimals; /* of a value that is read out */
};

struct plot {
    const char *id; /* of its elements, unique on the page */
    const char *title, *description;
    int width, height; /* user units, which are pixels where there is room */
    struct axis x, y;
    const struct curve *curves;
    int curves_count;
};

/** A figure: the SVG with axes, curves, and a title for each marker; then the legend, where there
 * is more than one curve. */
void plot_write(FILE *file, const struct plot *plot);

#endif
