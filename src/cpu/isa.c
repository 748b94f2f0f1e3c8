/* The registry of instruction sets: the only place that knows which are compiled in. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

#define DECLARE_KERNELS(isa)                                                                       \
    extern const struct update_kernels update_kernels_##isa;                                       \
    extern const struct connect_kernels connect_kernels_##isa;                                     \
    extern const struct norm_kernels norm_kernels_##isa;                                           \
    extern const struct epilogue_kernels epilogue_kernels_##isa;                                   \
    extern const struct direct_kernels direct_kernels_##isa;                                       \
    extern const struct winograd_kernels winograd_kernels_##isa;                                   \
    extern const struct sparse_kernels sparse_kernels_##isa;                                       \
    extern const struct product_kernels product_kernels_##isa;                                     \
    extern const struct survivor_kernels survivor_kernels_##isa;                                   \
    extern const struct pointwise_kernels pointwise_kernels_##isa;                                 \
    extern const struct select_kernels select_kernels_##isa;
#define KERNELS(name, width)                                                                       \
    {                                                                                              \
        .isa = #name, .lanes = width, .update = &update_kernels_##name,                            \
        .connect = &connect_kernels_##name, .norm = &norm_kernels_##name,                          \
        .epilogue = &epilogue_kernels_##name, .direct = &direct_kernels_##name,                    \
        .winograd = &winograd_kernels_##name, .sparse = &sparse_kernels_##name,                    \
        .survivors = &survivor_kernels_##name, .product = &product_kernels_##name,                 \
        .pointwise = &pointwise_kernels_##name, .select = &select_kernels_##name                   \
    }

DECLARE_KERNELS(baseline)

static bool always(void) {
    return true;
}

#if ESPALIER_X86
DECLARE_KERNELS(avx2)
DECLARE_KERNELS(avx512)

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
#endif

/* Best first. */
static const struct {
    bool (*available)(void);
    struct kernels kernels;
} sets[] = {
#if ESPALIER_X86
    {has_avx512, KERNELS(avx512, 16)},
    {has_avx2, KERNELS(avx2, 8)},
#endif
    {always, KERNELS(baseline, 4)},
};

enum { SETS = sizeof sets / sizeof sets[0] };

const char *const *kernels_available(void) {
    static const char *names[SETS + 1];
    int count = 0;
    for (int i = 0; i < SETS; i++)
        if (sets[i].available())
            names[count++] = sets[i].kernels.isa;
    names[count] = NULL;
    return names;
}

static enum status choose_named(const char *name, const struct kernels **kernels) {
    for (int i = 0; i < SETS; i++) {
        if (strcmp(sets[i].kernels.isa, name) != 0)
            continue;
        if (!sets[i].available())
            FAIL(ST_UNAVAILABLE, "ESPALIER_ISA=%s: this machine lacks it; it has up to %s", name,
                 kernels_available()[0]);
        *kernels = &sets[i].kernels;
        return ST_OK;
    }
    FAIL(ST_USAGE, "ESPALIER_ISA=%s: no such instruction set; this machine has up to %s", name,
         kernels_available()[0]);
}

enum status kernels_choose(const struct kernels **kernels) {
    const char *wanted = getenv("ESPALIER_ISA");
    return choose_named(wanted != NULL ? wanted : kernels_available()[0], kernels);
}
