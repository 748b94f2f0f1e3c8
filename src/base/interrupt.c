#include <espalier/interrupt.h>

#include <signal.h>
#include <stddef.h>

static const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
enum { SIGNALS = sizeof signals / sizeof signals[0] };

static volatile sig_atomic_t pending;
static struct sigaction before[SIGNALS];

static void note(int signal) {
    (void)signal;
    pending = 1;
}

void interrupt_catch(void) {
    for (size_t i = 0; i < SIGNALS; i++) {
        struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
        if (signals[i] == SIGINT)
            action.sa_flags |= (int)SA_RESETHAND; /* the second one ends the process */
        sigemptyset(&action.sa_mask);
        sigaction(signals[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

bool interrupt_pending(void) {
    return pending != 0;
}

void interrupt_release(void) {
    for (size_t i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &before[i], NULL);
    pending = 0;
}
