#include <espalier/schedule.h>
#include <math.h>

/* How many of M connections a schedule would leave after event e, 0 < e < E, before the bounds;
 * k of them stay in the end. */
typedef double schedule_formula(const struct schedule *s, double M, double k, double e);

static double all_left(const struct schedule *s, double M, double k, double e) {
    (void)s, (void)k, (void)e;
    return M;
}

/* Capped before it is rounded: late events would leave the range of a long. */
static double linear_left(const struct schedule *s, double M, double k, double e) {
    (void)k;
    return M - (double)lround(fmin(e * s->rate * M, M));
}

static double geometric_left(const struct schedule *s, double M, double k, double e) {
    (void)k;
    return (double)lround(M * pow(1 - s->rate, e));
}

static double fsa_left(const struct schedule *s, double M, double k, double e) {
    double E = (double)s->events;
    return (double)lround(k + (M - k) * (E - e) / (E + s->mu * e));
}

static double fsa_exponential_left(const struct schedule *s, double M, double k, double e) {
    return (double)lround(M * pow(k / M, e / (double)s->events));
}

static double cubic_left(const struct schedule *s, double M, double k, double e) {
    double to_go = 1 - e / (double)s->events;
    return (double)lround(k + (M - k) * to_go * to_go * to_go);
}

static double keep_left(const struct schedule *s, double M, double k, double e) {
    (void)s, (void)M, (void)e;
    return k;
}

static const struct {
    schedule_formula *left;
    const char *text;
} schedules[SCHEDULE_COUNT] = {
    [SCHEDULE_NONE] = {all_left, "M"},
    [SCHEDULE_LINEAR] = {linear_left, "M - e rate M"},
    [SCHEDULE_GEOMETRIC] = {geometric_left, "M (1 - rate)^e"},
    [SCHEDULE_FSA] = {fsa_left, "k + (M - k) (E - e) / (E + mu e)"},
    [SCHEDULE_FSA_EXPONENTIAL] = {fsa_exponential_left, "M (k / M)^(e / E)"},
    [SCHEDULE_CUBIC] = {cubic_left, "k + (M - k) (1 - e / E)^3"},
    [SCHEDULE_ONESHOT] = {keep_left, "k"},
};

/* ---- when ---- */

static int64_t last_event(const struct prune_settings *prune, const struct schedule *schedule,
                          int64_t unit, int64_t updates) {
    if (prune->schedule == SCHEDULE_ONESHOT)
        return 1;
    if (prune->end == 0 && !schedule_goes_to_keep[prune->schedule])
        return INT64_MAX;
    int64_t length =
        prune->end > 0 ? prune->end * unit - schedule->begin : (updates - schedule->begin) / 2;
    return length > 0 ? length / schedule->every : 0;
}

struct schedule schedule_plan(const struct prune_settings *prune, struct run_length run) {
    const int64_t units[SCHEDULE_UNIT_COUNT] = {
        [UNIT_UPDATES] = 1, [UNIT_EVENTS] = prune->every, [UNIT_EPOCHS] = run.updates_per_epoch};
    int64_t unit = units[prune->unit];
    struct schedule schedule = {.kind = prune->schedule,
                                .begin = prune->begin * unit,
                                .every =
                                    prune->unit == UNIT_EPOCHS ? prune->every * unit : prune->every,
                                .rate = prune->rate,
                                .mu = prune->mu,
                                .keep = prune->keep};
    if (prune->schedule != SCHEDULE_NONE && schedule.every > 0)
        schedule.events = last_event(prune, &schedule, unit, run.updates);
    return schedule;
}

int64_t schedule_event(const struct schedule *schedule, int64_t update) {
    int64_t since = update - schedule->begin;
    if (schedule->events == 0 || since <= 0 || since % schedule->every != 0)
        return 0;
    int64_t event = since / schedule->every;
    return event <= schedule->events ? event : 0;
}

/* ---- how many ---- */

size_t schedule_survivors(const struct schedule *schedule, size_t connections, int64_t event) {
    double M = (double)connections, e = (double)event;
    double keep = schedule->keep < 1 ? schedule->keep * M : schedule->keep;
    double k = (double)lround(fmin(keep, M)), left = M;
    if (schedule_goes_to_keep[schedule->kind] && event >= schedule->events)
        left = k;
    else if (event > 0 && connections > 0)
        left = schedules[schedule->kind].left(schedule, M, k, e);
    return (size_t)fmin(fmax(left, k), M);
}

void schedule_write_table(FILE *file) {
    fputs("Schedules of prune.schedule: what event e = 1, 2, ... leaves of M connections, rounded "
          "and never\nfewer than k = prune.keep; E is the last event:\n",
          file);
    for (int i = 0; i < SCHEDULE_COUNT; i++)
        fprintf(file, "  %-15s  %s\n", schedule_names[i], schedules[i].text);
}
