/* What the libraries of the CPU backend read from the environment while they are loaded, so that a
 * program can only change it by starting anew. */
#include "kernels.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* OpenBLAS picks its kernels by processor models that it knows. One that is newer than the library
 * gets these: five times slower than what it can do (OpenBLAS issue 4267). */
static const char fallback[] = "Prescott";

/* OpenBLAS's name for the best kernels that an instruction set of ours can run. */
static const struct {
    const char *isa, *core;
} cores[] = {{"avx512", "SkylakeX"}, {"avx2", "Haswell"}};

static bool choose_blas_kernels(void) {
    if (getenv("OPENBLAS_CORETYPE") != NULL || strcmp(openblas_get_corename(), fallback) != 0)
        return false;
    for (size_t i = 0; i < sizeof cores / sizeof cores[0]; i++)
        if (strcmp(kernels_available()[0], cores[i].isa) == 0)
            return setenv("OPENBLAS_CORETYPE", cores[i].core, 1) == 0;
    return false;
}

/* How long a thread spins at a barrier before it sleeps, in the OpenMP library's rounds: some 0.1
 * ms. By default it spins for milliseconds, on a core that another process could have used: beside
 * one busy process, small networks train a hundred times slower so. */
static bool choose_spinning(void) {
    if (getenv("GOMP_SPINCOUNT") != NULL || getenv("OMP_WAIT_POLICY") != NULL)
        return false;
    return setenv("GOMP_SPINCOUNT", "1000", 1) == 0;
}

void backend_cpu_prepare_process(char **argv) {
    bool kernels = choose_blas_kernels(), spinning = choose_spinning();
    if (kernels || spinning)
        execv("/proc/self/exe", argv); /* returns only if it failed: then slower, but right */
}
