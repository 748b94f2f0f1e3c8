/* What the machine's multiply-and-add units reach at best, for other figures to be held against.
 *
 * usage: fma_peak THREADS. Prints one JSON object: threads, vector_bits, gflops (the fastest of
 * several bursts, each of all threads together). Compiled once for each instruction set; a set
 * without fused operations multiplies, then adds. */
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

/* As wide as the set's registers are. */
typedef float vector __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));

enum {
    LANES = sizeof(vector) / sizeof(float),
    CHAINS = 12, /* independent sums: two units of latency 4 need 8, registers number 16 or more */
    TURNS = 1 << 22,
    BURSTS = 20
};

/* What the compiler must neither know nor leave out. */
static volatile float factor = 0.5F, term = 0.5F, sink;

static vector everywhere(float value) {
    vector v;
    for (int i = 0; i < LANES; i++)
        v[i] = value;
    return v;
}

/* TURNS * CHAINS times sum = sum * factor + term, which tends to 1 and never to a denormal. */
static float run_chains(void) {
    vector sums[CHAINS], f = everywhere(factor), t = everywhere(term);
    for (int c = 0; c < CHAINS; c++)
        sums[c] = everywhere((float)c);
    for (long i = 0; i < TURNS; i++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            sums[c] = sums[c] * f + t;
    for (int c = 1; c < CHAINS; c++)
        sums[0] += sums[c];
    return sums[0][0];
}

static double burst_seconds(int threads) {
    double begin = omp_get_wtime();
#pragma omp parallel num_threads(threads)
    {
        float sum = run_chains();
#pragma omp critical
        sink = sum;
    }
    return omp_get_wtime() - begin;
}

int main(int argc, char **argv) {
    char *end = NULL;
    errno = 0;
    long threads = argc == 2 ? strtol(argv[1], &end, 10) : 0;
    if (argc != 2 || *end != '\0' || errno != 0 || threads < 1 || threads > 4096) {
        fprintf(stderr, "usage: fma_peak THREADS\n");
        return 2;
    }
    double fastest = burst_seconds((int)threads);
    for (int i = 1; i < BURSTS; i++) {
        double seconds = burst_seconds((int)threads);
        fastest = seconds < fastest ? seconds : fastest;
    }
    double flops = 2.0 * LANES * CHAINS * TURNS * (double)threads;
    printf("{\"threads\": %ld, \"vector_bits\": %d, \"gflops\": %.1f}\n", threads, 32 * LANES,
           1e-9 * flops / fastest);
    return 0;
}
