/* rank_backend.h - the backend that a rank computes with. */
#ifndef ESPALIER_RANK_BACKEND_H
#define ESPALIER_RANK_BACKEND_H

#include <espalier/backend.h>
#include <espalier/communicator.h>
#include <espalier/recipe.h>

/** Create the backend that the recipe asks for (train.backend), with this rank's share of the
 * cores, to which its threads are bound. ST_UNAVAILABLE says why there is no such. Not collective.
 */
enum status rank_backend_create(const struct recipe *recipe,
                                const struct communicator *communicator, struct backend **backend);

#endif
