/* staging.h - sums over the ranks of what lies in a backend's memory.
 *
 * A communicator sums in the host's memory or in the device's (communicator.h, device_memory).
 * Where it cannot reach the vector, the sums go by way of a copy in the host's memory, which is
 * owned here. */
#ifndef ESPALIER_STAGING_H
#define ESPALIER_STAGING_H

#include <espalier/backend.h>
#include <espalier/communicator.h>
#include <espalier/recipe.h>

struct staging {
    struct communicator *communicator;
    struct backend *backend;
    float *host; /* [capacity of the vector]; NULL: the communicator sums in place */
    struct staging_part {
        size_t offset, count;
    } parts[RECIPE_LAYERS_MAX]; /* that are under way */
    int parts_count;
};

/** For vectors of up to `count` values. Not collective. */
enum status staging_create(struct communicator *, struct backend *, size_t count, struct staging *);
void staging_destroy(struct staging *); /* legal on a zeroed one */

/** Begin to sum vector[offset .. offset + count - 1] (device) over the ranks; it must not be
 *  touched before staging_finish. There are at most as many parts as layers. Collective. */
enum status staging_start(struct staging *, float *vector, size_t offset, size_t count);

/** Finish all sums of parts of the vector that were started. Collective. */
enum status staging_finish(struct staging *, float *vector);

/** values (device, [count]) become their sums over the ranks. Collective. */
enum status staging_sum_doubles(struct staging *, double *values, size_t count);

#endif
