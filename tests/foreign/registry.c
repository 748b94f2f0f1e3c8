/* Takes the place of src/backend.c in a program that is to train in foreign memory. */
#include "backend_foreign.h"

#include <string.h>

const char *const backend_names[] = {"foreign", NULL};

enum status backend_create(const char *name, const struct backend_options *options,
                           struct backend **backend) {
    if (strcmp(name, "foreign") != 0)
        FAIL(ST_USAGE, "unknown backend '%s': expected foreign", name);
    return backend_foreign_create(options->threads, backend);
}

enum status backend_devices(const char *name, struct devices_found *found) {
    (void)name;
    *found = (struct devices_found){.usable = 1};
    return ST_OK;
}

const char *backend_chosen(enum backend_choice choice) {
    (void)choice;
    return "foreign";
}
