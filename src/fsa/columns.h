/* columns.h - products with a matrix of columns, x [count][samples]. Memory is what they wait for.
 */
#ifndef ESPALIER_FSA_COLUMNS_H
#define ESPALIER_FSA_COLUMNS_H

#include <stddef.h>

/** Column c of x. */
static inline double *column_of(double *x, int samples, int c) {
    return x + (size_t)c * (size_t)samples;
}

/** sums [samples] += weight * column */
static inline void column_add(int samples, double weight, const double *column, double *sums) {
#pragma omp simd
    for (int i = 0; i < samples; i++)
        sums[i] += weight * column[i];
}

/** The sum of the products of two columns. */
static inline double column_dot(int samples, const double *a, const double *b) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < samples; i++)
        sum += a[i] * b[i];
    return sum;
}

#endif
