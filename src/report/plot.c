#include "plot.h"

#include "markup.h"

#include <math.h>

enum { LEFT = 62, RIGHT = 18, TOP = 12, BOTTOM = 50, TICKS_MAX = 32 };

/* ---- from values to places ---- */

/* Where values of an axis go: low at `from`, high at `to`. */
struct scale {
    double low, high, from, to;
    bool logarithmic;
    double ticks[TICKS_MAX];
    int ticks_count, decimals; /* of a tick's text; below 0: as many as the tick needs */
};

static double locate(const struct scale *scale, double value) {
    double part = scale->logarithmic ? log(value / scale->low) / log(scale->high / scale->low)
                                     : (value - scale->low) / (scale->high - scale->low);
    return scale->from + part * (scale->to - scale->from);
}

static bool can_show(const struct axis *axis, double value) {
    return isfinite(value) && (!axis->logarithmic || value > 0);
}

/* fmin and fmax pass a NaN over. */
static void widen(const struct axis *axis, double value, struct scale *scale) {
    if (!can_show(axis, value))
        return;
    scale->low = fmin(scale->low, value);
    scale->high = fmax(scale->high, value);
}

static void find_range(const struct plot *plot, bool is_y, struct scale *scale) {
    const struct axis *axis = is_y ? &plot->y : &plot->x;
    scale->low = scale->high = NAN;
    widen(axis, axis->least, scale);
    widen(axis, axis->greatest, scale);
    for (int c = 0; c < plot->curves_count; c++)
        for (int i = 0; i < plot->curves[c].count; i++)
            widen(axis, is_y ? plot->curves[c].y[i] : plot->curves[c].x[i], scale);
}

/* Room around a single value, or none at all. */
static void open_range(const struct axis *axis, struct scale *scale) {
    if (isnan(scale->low))
        scale->low = scale->high = 1;
    if (scale->high > scale->low)
        return;
    if (axis->logarithmic) {
        scale->low /= 2;
        scale->high *= 2;
        return;
    }
    double room = axis->whole ? 1 : fmax(0.05 * fabs(scale->high), 1e-6);
    scale->low -= room;
    scale->high += room;
}

/* The smallest of 1, 2 and 5 times a power of ten that makes at most `most` steps of the span. */
static double nice_step(double span, int most) {
    static const double digits[] = {1, 2, 5};
    double power = pow(10, floor(log10(span / most)));
    for (int i = 0; i < 3; i++)
        if (span <= most * digits[i] * power * (1 + 1e-9))
            return digits[i] * power;
    return 10 * power;
}

static void add_tick(struct scale *scale, double tick) {
    const double rounding = 1e-9 * (scale->high - scale->low);
    if (tick >= scale->low - rounding && tick <= scale->high + rounding &&
        scale->ticks_count < TICKS_MAX)
        scale->ticks[scale->ticks_count++] = tick;
}

static void linear_ticks(const struct axis *axis, int most, struct scale *scale) {
    double step = nice_step(scale->high - scale->low, most);
    if (axis->whole)
        step = fmax(step, 1);
    if (axis->rounded) {
        scale->low = step * floor(scale->low / step + 1e-9);
        scale->high = fmin(step * ceil(scale->high / step - 1e-9), axis->limit);
    }
    scale->decimals = (int)fmax(0, -floor(log10(step) + 1e-9));
    double first = ceil(scale->low / step - 1e-9) + 0.0; /* never -0 */
    for (int i = 0; i < TICKS_MAX && (first + i) * step <= scale->high + 1e-9 * step; i++)
        add_tick(scale, (first + i) * step);
}

/* At all nine digits of each power of ten, at 1, 2 and 5, or at 1 alone, as there is room. */
static void logarithmic_ticks(struct scale *scale) {
    double ratio = scale->high / scale->low;
    const char *digits = ratio <= 10 ? "123456789" : ratio <= 100 ? "125" : "1";
    scale->decimals = -1;
    for (double power = floor(log10(scale->low)); power <= log10(scale->high) + 1e-9; power++)
        for (const char *digit = digits; *digit != '\0'; digit++)
            add_tick(scale, (*digit - '0') * pow(10, power));
}

static struct scale make_scale(const struct plot *plot, bool is_y) {
    const struct axis *axis = is_y ? &plot->y : &plot->x;
    struct scale scale = {.logarithmic = axis->logarithmic};
    find_range(plot, is_y, &scale);
    open_range(axis, &scale);
    scale.from = is_y ? plot->height - BOTTOM : LEFT;
    scale.to = is_y ? TOP : plot->width - RIGHT;
    if (axis->logarithmic && scale.high > 3 * scale.low)
        logarithmic_ticks(&scale);
    else
        linear_ticks(axis, is_y ? plot->height / 50 : plot->width / 80, &scale);
    return scale;
}

/* ---- axes ---- */

static const char *tick_text(const struct scale *scale, double tick, char text[NUMBER_TEXT_MAX]) {
    int decimals = scale->decimals;
    if (decimals < 0)
        decimals = (int)fmax(0, -floor(log10(tick) + 1e-9));
    return number_text(tick, decimals, text);
}

static void write_x_axis(FILE *file, const struct plot *plot, const struct scale *x) {
    char text[NUMBER_TEXT_MAX];
    int bottom = plot->height - BOTTOM;
    fprintf(file, "<g class=\"axis x\">\n<path d=\"M%d %dH%d\"/>\n", LEFT, bottom,
            plot->width - RIGHT);
    for (int i = 0; i < x->ticks_count; i++) {
        double at = locate(x, x->ticks[i]);
        fprintf(file, "<path d=\"M%.2f %dv5\"/><text x=\"%.2f\" y=\"%d\">%s</text>\n", at, bottom,
                at, bottom + 19, tick_text(x, x->ticks[i], text));
    }
    fprintf(file, "<text class=\"name\" x=\"%d\" y=\"%d\">", (LEFT + plot->width - RIGHT) / 2,
            plot->height - 8);
    put_escaped(file, plot->x.title);
    fputs("</text>\n</g>\n", file);
}

static void write_y_axis(FILE *file, const struct plot *plot, const struct scale *y) {
    char text[NUMBER_TEXT_MAX];
    int middle = (TOP + plot->height - BOTTOM) / 2;
    fputs("<g class=\"axis y\">\n", file);
    for (int i = 0; i < y->ticks_count; i++) {
        double at = locate(y, y->ticks[i]);
        fprintf(file,
                "<path class=\"grid\" d=\"M%d %.2fH%d\"/><text x=\"%d\" y=\"%.2f\">%s</text>\n",
                LEFT, at, plot->width - RIGHT, LEFT - 8, at, tick_text(y, y->ticks[i], text));
    }
    fprintf(file, "<text class=\"name\" transform=\"translate(14 %d) rotate(-90)\">", middle);
    put_escaped(file, plot->y.title);
    fputs("</text>\n</g>\n", file);
}

/* ---- curves ---- */

/* Shapes of about the same weight around the origin. */
static const char *const markers[PLOT_MARKERS] = {"M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
                                                  "M-3.6-3.6h7.2v7.2h-7.2z",
                                                  "M0-4.8L4.6 3.4H-4.6z",
                                                  "M0-5.2L5.2 0 0 5.2-5.2 0z",
                                                  "M0 4.8L4.6-3.4H-4.6z",
                                                  "M-5-1.7H5V1.7H-5z",
                                                  "M-1.7-5H1.7V5H-1.7z"};

static void write_label(FILE *file, const struct curve *curve) {
    put_escaped(file, curve->run);
    if (curve->name != NULL) {
        fputs(", ", file);
        put_escaped(file, curve->name);
    }
}

static void write_line(FILE *file, const struct plot *plot, const struct curve *curve,
                       const struct scale *x, const struct scale *y) {
    bool drawing = false;
    fputs("<path class=\"line\" d=\"", file);
    for (int i = 0; i < curve->count; i++) {
        bool shown = can_show(&plot->x, curve->x[i]) && can_show(&plot->y, curve->y[i]);
        if (shown && drawing && curve->steps)
            fprintf(file, "H%.2fV%.2f", locate(x, curve->x[i]), locate(y, curve->y[i]));
        else if (shown)
            fprintf(file, "%c%.2f %.2f", drawing ? 'L' : 'M', locate(x, curve->x[i]),
                    locate(y, curve->y[i]));
        drawing = shown;
    }
    fputs("\"/>\n", file);
}

/* The title shows where the pointer rests. */
static void write_marker(FILE *file, const struct plot *plot, const struct curve *curve, int i,
                         double x, double y) {
    char x_text[NUMBER_TEXT_MAX], y_text[NUMBER_TEXT_MAX];
    fprintf(file, "<path class=\"marker%s\" transform=\"translate(%.2f %.2f)\" d=\"%s\"><title>",
            curve->hollow ? " hollow" : "", x, y, markers[curve->marker % PLOT_MARKERS]);
    write_label(file, curve);
    fputs(": ", file);
    put_escaped(file, plot->x.title);
    fprintf(file, " %s%s, %s%s</title></path>\n",
            number_text(curve->x[i], plot->x.decimals, x_text), plot->x.unit,
            number_text(curve->y[i], plot->y.decimals, y_text), plot->y.unit);
}

static void write_curve(FILE *file, const struct plot *plot, const struct curve *curve,
                        const struct scale *x, const struct scale *y) {
    fprintf(file, "<g class=\"curve c%d d%d\" data-curve=\"", curve->color % PLOT_COLORS,
            curve->dash % PLOT_DASHES);
    write_label(file, curve);
    fputs("\">\n", file);
    write_line(file, plot, curve, x, y);
    for (int i = 0; i < curve->count && curve->marker >= 0; i++)
        if (can_show(&plot->x, curve->x[i]) && can_show(&plot->y, curve->y[i]))
            write_marker(file, plot, curve, i, locate(x, curve->x[i]), locate(y, curve->y[i]));
    fputs("</g>\n", file);
}

/* ---- the figure ---- */

static void write_legend(FILE *file, const struct plot *plot) {
    fputs("<ul class=\"legend\">\n", file);
    for (int i = 0; i < plot->curves_count; i++) {
        const struct curve *curve = &plot->curves[i];
        fprintf(file,
                "<li><svg class=\"curve c%d d%d\" width=\"44\" height=\"14\" viewBox=\"-22 -7 44 "
                "14\" aria-hidden=\"true\"><path class=\"line\" d=\"M-22 0H22\"/>",
                curve->color % PLOT_COLORS, curve->dash % PLOT_DASHES);
        if (curve->marker >= 0)
            fprintf(file, "<path class=\"marker%s\" d=\"%s\"/>", curve->hollow ? " hollow" : "",
                    markers[curve->marker % PLOT_MARKERS]);
        fputs("</svg>", file);
        write_label(file, curve);
        fputs("</li>\n", file);
    }
    fputs("</ul>\n", file);
}

static void write_svg(FILE *file, const struct plot *plot) {
    struct scale x = make_scale(plot, false), y = make_scale(plot, true);
    fprintf(file,
            "<svg id=\"%s\" class=\"plot\" role=\"img\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" aria-labelledby=\"%s-title %s-description\">\n<title id=\"%s-title\">",
            plot->id, plot->width, plot->height, plot->width, plot->height, plot->id, plot->id,
            plot->id);
    put_escaped(file, plot->title);
    fprintf(file, "</title>\n<desc id=\"%s-description\">", plot->id);
    put_escaped(file, plot->description);
    fputs("</desc>\n", file);
    write_y_axis(file, plot, &y);
    write_x_axis(file, plot, &x);
    for (int i = 0; i < plot->curves_count; i++)
        write_curve(file, plot, &plot->curves[i], &x, &y);
    fputs("</svg>\n", file);
}

void plot_write(FILE *file, const struct plot *plot) {
    fputs("<figure>\n<figcaption>", file);
    put_escaped(file, plot->title);
    fputs("</figcaption>\n", file);
    if (plot->curves_count > 1)
        write_legend(file, plot);
    write_svg(file, plot);
    fputs("</figure>\n", file);
}
