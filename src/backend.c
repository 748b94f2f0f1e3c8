/* The registry of backends: the only place that knows which are compiled in. */
#include <espalier/backend.h>
#include <string.h>

static enum status create_cpu(const struct backend_options *options, struct backend **backend) {
    return backend_cpu_create(options->threads, backend);
}

static enum status one_device(struct devices_found *found) {
    *found = (struct devices_found){.usable = 1};
    return ST_OK;
}

/* Rows without functions are not compiled in. */
static const struct row {
    const char *name;
    enum status (*create)(const struct backend_options *options, struct backend **backend);
    enum status (*devices)(struct devices_found *found);
} backends[] = {
    {"cpu", create_cpu, one_device},
#if ESPALIER_HAVE_CUDA
    {"cuda", backend_cuda_create, backend_cuda_devices},
#else
    {"cuda", NULL, NULL},
#endif
};

const char *const backend_names[] = {"cpu",
#if ESPALIER_HAVE_CUDA
                                     "cuda",
#endif
                                     NULL};

static enum status find(const char *name, const struct row **row) {
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        *row = &backends[i];
        if (strcmp(backends[i].name, name) != 0)
            continue;
        if (backends[i].create == NULL)
            FAIL(ST_UNAVAILABLE, "backend %s: not compiled in; configure with -DESPALIER_CUDA=ON",
                 name);
        return ST_OK;
    }
    FAIL(ST_USAGE, "unknown backend '%s': expected cpu or cuda", name);
}

enum status backend_create(const char *name, const struct backend_options *options,
                           struct backend **backend) {
    const struct row *row;
    TRY(find(name, &row));
    return row->create(options, backend);
}

enum status backend_devices(const char *name, struct devices_found *found) {
    const struct row *row;
    *found = (struct devices_found){.usable = 0};
    TRY(find(name, &row));
    return row->devices(found);
}

const char *backend_chosen(enum backend_choice choice) {
    struct devices_found found;
    if (choice != BACKEND_AUTO)
        return backend_choice_names[choice];
    const bool accelerated = backend_devices(backend_choice_names[BACKEND_CUDA], &found) == ST_OK;
    return backend_choice_names[accelerated ? BACKEND_CUDA : BACKEND_CPU];
}
