/* bench.h - what the two files of the bench command share. */
#ifndef ESPALIER_CLI_BENCH_H
#define ESPALIER_CLI_BENCH_H

#include <espalier/replica.h>

/** qsort's comparison of durations: of doubles, or of structs that begin with one. */
int bench_compare_seconds(const void *a, const void *b);

/** Time every block's plan by itself on a real batch, whose permutation has been drawn, and print
 *  a row for each on rank 0. Every rank computes its own share of the batch at the same time.
 *  step_seconds is what an update takes. Not collective. */
enum status bench_print_plans(struct replica *replica, double step_seconds);

#endif
