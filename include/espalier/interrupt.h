/* interrupt.h - a request to stop, by signal: SIGTERM, SIGINT or SIGUSR1 (what Slurm's --signal
 * sends). The process has one; nothing here is collective. */
#ifndef ESPALIER_INTERRUPT_H
#define ESPALIER_INTERRUPT_H

#include <stdbool.h>

/** Catch the signals from now on, but those that the process was started to ignore. A second SIGINT
 *  ends the process at once. */
void interrupt_catch(void);

/** True once a signal has come. */
bool interrupt_pending(void);

/** Let the signals end the process again. */
void interrupt_release(void);

#endif
