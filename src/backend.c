/* The registry of backends: the only place that knows which are compiled in. */
#include <espalier/backend.h>
#include <string.h>

static const struct {
    const char *name;
    enum status (*create)(int threads, struct backend **backend);
} backends[] = {
    {"cpu", backend_cpu_create},
};

const char *const backend_names[] = {"cpu", NULL};

enum status backend_create(const char *name, int threads, struct backend **backend) {
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
        if (strcmp(backends[i].name, name) == 0)
            return backends[i].create(threads, backend);
    FAIL(ST_USAGE, "unknown backend '%s': expected cpu", name);
}
