/* watchdog.h - notices when the process gets nowhere.
 *
 * A thread of its own looks now and then whether the main thread has moved. It counts its own
 * looks, not the clock's seconds: a process that was suspended, and goes on, has not hung. The
 * process has one; nothing here is collective. */
#ifndef ESPALIER_WATCHDOG_H
#define ESPALIER_WATCHDOG_H

#include <espalier/status.h>
#include <stdbool.h>

struct watchdog_report {
    double seconds; /* without a move */
    bool waits;     /* the main thread waits for other ranks: one of them must be what hangs */
    int missing;    /* the first that has not come to where this one waits; -1: it cannot be told */
};

/** Called by the watchdog's thread, once. */
struct watchdog_alarm {
    void (*call)(void *context, const struct watchdog_report *report);
    void *context;
};

/** Watch from now on; sound the alarm when the main thread has not moved for `seconds`, or for
 * twice as long where it waits: whoever hangs is to say so first. 0: do nothing. */
enum status watchdog_start(double seconds, struct watchdog_alarm alarm);
/** Let the ranks see where the others are: counts[r] is 8 bytes of rank r's that all ranks map,
 * zeros at first (communicator.h), in which it counts its waits from now on; they must live until
 *  watchdog_stop. Does nothing where they are NULL. To be called by all ranks at the same place. */
void watchdog_share(void *const *counts, int rank, int ranks);

void watchdog_stop(void); /* legal when nothing was started */

/** The main thread has moved. */
void watchdog_beat(void);

/** The main thread begins, or ends, to wait for other ranks; it has moved, too. */
void watchdog_waits(bool waits);

#endif
