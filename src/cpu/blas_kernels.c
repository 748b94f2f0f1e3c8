/* OpenBLAS picks its kernels when it is loaded, by processor models that it knows. One that is
 * newer than the library gets SSE3's: five times slower than what it can do (OpenBLAS issue 4267).
 */
#include <espalier/backend.h>

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char fallback_kernels[] = "Prescott";

/* The instruction sets that a family of OpenBLAS's kernels needs, by their names in /proc/cpuinfo;
 * the best family first. */
static const struct {
    const char *name, *flags[6];
} families[] = {
    {"SkylakeX", {" avx512f", " avx512cd", " avx512bw", " avx512dq", " avx512vl", NULL}},
    {"Haswell", {" avx2", " fma", NULL}},
};

/* Is the word (with its space in front) in the line? */
static bool has_flag(const char *line, const char *word) {
    size_t length = strlen(word);
    for (const char *at = strstr(line, word); at != NULL; at = strstr(at + 1, word))
        if (at[length] == ' ' || at[length] == '\n' || at[length] == '\0')
            return true;
    return false;
}

static const char *best_family(const char *line) {
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        const char *const *flag = families[i].flags;
        while (*flag != NULL && has_flag(line, *flag))
            flag++;
        if (*flag == NULL)
            return families[i].name;
    }
    return NULL;
}

/* The best family for the first processor; NULL where the system does not say. */
static const char *best_family_here(void) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL)
        return NULL;
    const char *family = NULL;
    char line[8192];
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "flags", 5) == 0) {
            family = best_family(line);
            break;
        }
    fclose(file);
    return family;
}

void backend_cpu_restart_for_kernels(char **argv) {
    if (getenv("OPENBLAS_CORETYPE") != NULL ||
        strcmp(openblas_get_corename(), fallback_kernels) != 0)
        return;
    const char *family = best_family_here();
    if (family != NULL && setenv("OPENBLAS_CORETYPE", family, 1) == 0)
        execv("/proc/self/exe", argv); /* returns only if it failed: then slower, but right */
}
