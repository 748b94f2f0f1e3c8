/* OpenBLAS picks its kernels when it is loaded, by processor models that it knows. One that is
 * newer than the library gets SSE3's: five times slower than what it can do (OpenBLAS issue 4267).
 */
#include "kernels.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char fallback[] = "Prescott";

/* OpenBLAS's name for the best kernels that an instruction set of ours can run. */
static const struct {
    const char *isa, *core;
} cores[] = {{"avx512", "SkylakeX"}, {"avx2", "Haswell"}};

void backend_cpu_restart_for_kernels(char **argv) {
    if (getenv("OPENBLAS_CORETYPE") != NULL || strcmp(openblas_get_corename(), fallback) != 0)
        return;
    for (size_t i = 0; i < sizeof cores / sizeof cores[0]; i++)
        if (strcmp(kernels_available()[0], cores[i].isa) == 0 &&
            setenv("OPENBLAS_CORETYPE", cores[i].core, 1) == 0)
            execv("/proc/self/exe", argv); /* returns only if it failed: then slower, but right */
}
