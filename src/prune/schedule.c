#include <espalier/schedule.h>
#include <math.h>

/* How many of M connections a schedule would leave after event e, before the bounds. */
typedef double schedule_formula(const struct prune_settings *prune, double connections,
                                double event);

static double all_left(const struct prune_settings *prune, double connections, double event) {
    (void)prune, (void)event;
    return connections;
}

/* Capped before it is rounded: late events would leave the range of a long. */
static double linear_left(const struct prune_settings *prune, double connections, double event) {
    double removed = event * prune->rate * connections;
    return connections - (double)lround(fmin(removed, connections));
}

static schedule_formula *const formulas[SCHEDULE_COUNT] = {
    [SCHEDULE_NONE] = all_left,
    [SCHEDULE_LINEAR] = linear_left,
};

int64_t schedule_event(const struct prune_settings *prune, int64_t update) {
    if (prune->schedule == SCHEDULE_NONE || update <= prune->begin)
        return 0;
    if (prune->end != 0 && update > prune->end)
        return 0;
    int64_t since = update - prune->begin;
    return since % prune->every == 0 ? since / prune->every : 0;
}

size_t schedule_survivors(const struct prune_settings *prune, size_t connections, int64_t event) {
    double original = (double)connections;
    double keep = prune->keep < 1 ? prune->keep * original : prune->keep;
    double least = (double)lround(fmin(keep, original));
    double left = formulas[prune->schedule](prune, original, (double)event);
    return (size_t)fmin(fmax(left, fmax(least, 0)), original);
}
