/* fsa.h - feature selection with annealing for linear models: Algorithm 1 of Barbu, She, Ding and
 * Gramajo (TPAMI 2017, arXiv 1310.2880), and the simulation that it is measured by.
 *
 * Matrices are columns of variables, x [variables][samples]: to renumber the survivors is to close
 * the gaps between their columns, so that every product afterwards is smaller. Labels y are -1 and
 * 1; u = y x'beta is a sample's margin. */
#ifndef ESPALIER_FSA_H
#define ESPALIER_FSA_H

#include <espalier/communicator.h>
#include <espalier/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- losses ---- */

/** Functions of the margin u, meaned over the samples.
 *
 *  logistic   ln(1 + e^-u)
 *  lorenz     0 where u > 1, else ln(1 + (u - 1)^2)
 *  huber_svm  0 where u > 1 + h, 1 - u where u < 1 - h, else (1 + h - u)^2 / 4h; h = 0.1
 *  squared    (1 - u)^2, which is (y - x'beta)^2 */
#define FSA_LOSSES(X)                                                                              \
    X(FSA_LOGISTIC, "logistic")                                                                    \
    X(FSA_LORENZ, "lorenz")                                                                        \
    X(FSA_HUBER_SVM, "huber_svm")                                                                  \
    X(FSA_SQUARED, "squared")

#define FSA_ENUMERATOR(enumerator, name) enumerator,
enum fsa_loss { FSA_LOSSES(FSA_ENUMERATOR) FSA_LOSS_COUNT };
#undef FSA_ENUMERATOR

extern const char *const fsa_loss_names[FSA_LOSS_COUNT];

/** A loss at a margin, and its derivative by the margin. */
double fsa_loss_value(enum fsa_loss loss, double margin);
double fsa_loss_slope(enum fsa_loss loss, double margin);

/* ---- synthetic data ---- */

/** Where samples come from: x ~ N(0, S), S_ij = correlation^|i - j|. Every draw is a function of
 *  these and of the sample's and the variable's index. */
struct fsa_source {
    uint64_t seed;
    uint32_t run;
    uint32_t set; /* 0: training, 1: test */
    double correlation;
};

/** The columns of some variables.
 *
 *  A column given the one before it is x_c = r x_b + sqrt(1 - r^2) z with r = correlation^(c - b):
 *  exactly so distributed, whichever variables are left out.
 *
 *  columns  [count] indices of variables, ascending
 *  x        [count][samples] */
void fsa_generate(const struct fsa_source *source, const int *columns, int count, int samples,
                  double *x);

/** y_i = 1 where sums[i] > 0, else -1; then, for a part `noise` of the samples, a fair coin's. */
void fsa_label(const struct fsa_source *source, const double *sums, int samples, double noise,
               double *y);

/* ---- Algorithm 1 ---- */

struct fsa_settings {
    int samples, variables;
    int keep; /* k: of variables 10, 20, ... 10k, counted from 1, is the sum that y is the sign of
               */
    double correlation, noise;
    enum fsa_loss loss;
    double rate, growth; /* eta and g: a step with m survivors has the rate eta (M / m)^g */
    double mu;           /* of the schedule `fsa` (schedule.h) */
    int iterations;      /* N of eq. 3, even: k is reached after half of them */
    int runs;
    uint64_t seed;
    int threads; /* 0: this rank's share of the cores */
};

/** Memory of one run; owned by its creator. */
struct fsa_workspace {
    double *x;                  /* [variables][samples] */
    double *y, *margins;        /* [samples] */
    double *weights, *gradient; /* [variables], of the survivors */
    int *variables;             /* [variables]: the survivors' original indices, ascending */
    int *columns;               /* [variables]: what a test set is made of */
    int count;                  /* survivors */
};

enum status fsa_workspace_create(int samples, int variables, struct fsa_workspace *w);
void fsa_workspace_destroy(struct fsa_workspace *w); /* legal on a zeroed workspace */

/** Algorithm 1 on w->x and w->y, from beta = 0: in each iteration e a step against the gradient of
 *  the mean loss, then the M_e largest |beta| stay, renumbered (ties: the lower index).
 *
 *  growth = 0 is the paper's constant rate. Correlated variables bound the rate by the largest
 *  eigenvalue of their covariance, which falls as survivors thin out (0.9^|i - j| has nearly 19,
 *  every tenth variable of it 2): a growing rate follows that, and losses that saturate need it.
 *
 *  Afterwards count, variables and weights are the model, and x holds its columns.
 *  returns  0, or the iteration in which a weight became infinite or not a number */
int fsa_fit(const struct fsa_settings *settings, struct fsa_workspace *w);

/** The area under the ROC curve: the part of the pairs of a positive and a negative sample that the
 *  scores order rightly, ties a half; NaN where there is no such pair.
 *
 *  sorted  [count] overwritten */
double fsa_auc(const double *scores, const double *y, int count, double *sorted);

/* ---- the simulation ---- */

/** What `runs` independent runs came to, in means. */
struct fsa_result {
    double all_found; /* DR: fraction of the runs that kept all k true variables */
    double found;     /* PCD: fraction of the true variables that was kept */
    double auc;       /* on as many new samples, labels just as noisy */
};

/** Run r goes to rank r modulo the ranks, and there to any thread: the result is the same bits
 *  whatever the ranks and threads. ST_NUMERIC names a run whose weights left the numbers.
 *  Collective. */
enum status fsa_simulate(const struct fsa_settings *settings, struct communicator *communicator,
                         struct fsa_result *result);

#endif
