/* threads.h - how many threads a rank computes with. Not collective. */
#ifndef ESPALIER_THREADS_H
#define ESPALIER_THREADS_H

/** `wanted` where it is positive; else this rank's share of the machine, at least 1: the smaller
 *  of the cores that the process may run on (its launcher may have bound it) and the online cores
 *  divided by the `local_size` ranks of this node; OMP_NUM_THREADS caps it. */
int threads_default(int wanted, int local_size);

#endif
