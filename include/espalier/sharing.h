/* sharing.h - ranks of one node that share the work of an update.
 *
 * Where all ranks can map each other's memory, their gradients and parameters lie there. Then
 * nothing is sent: each rank sums its share of the gradient from where the others computed it,
 * updates that share of the parameters, and takes the other shares from the ranks that updated
 * them. An optimizer's state is current in a rank's own share alone, until it is completed.
 *
 * The vectors are the communicator's memory, which must outlive the network that uses them. */
#ifndef ESPALIER_SHARING_H
#define ESPALIER_SHARING_H

#include <espalier/communicator.h>

struct sharing {
    struct communicator *communicator;
    size_t capacity;        /* floats of a vector */
    void **maps;            /* [size]: each rank's memory; NULL: nothing is shared */
    float *beta, *gradient; /* this rank's [capacity], zeros at first */
    double *exact;          /* likewise, where sums are exact; NULL else */
    uint64_t meetings;
};

/** Map vectors of up to `count` floats among the ranks; `maps` stays NULL for one rank, and for
 *  ranks that cannot map each other's memory. `exact`: with a vector of doubles, in which each rank
 *  leaves values whose sums are exact. Collective. */
enum status sharing_create(struct communicator *communicator, size_t count, bool exact,
                           struct sharing *);
void sharing_destroy(struct sharing *); /* legal on a zeroed one; leaves the vectors */

/** A range of a vector. */
struct share {
    size_t begin, count;
};

/** Rank `rank`'s share of `count` values: shares begin at cache lines and may be empty. */
struct share sharing_share(const struct sharing *, size_t count, int rank);

/** Wait until all ranks have come here as often as this one; what they wrote before is visible
 *  afterwards. Collective. */
void sharing_meet(struct sharing *);

/** Leave `count` values, at most SHARING_WISHES_MAX, for the others; to be called before the first
 *  meeting of a step. */
enum { SHARING_WISHES_MAX = 8 };
void sharing_wish(const struct sharing *, const float *wishes, int count);

/** The ranks' wishes added up, in place; between two meetings. */
void sharing_sum_wishes(const struct sharing *, float *wishes, int count);

/** gradient[range] = the ranks' gradients added up in their order. To be called between two
 *  meetings, for no more than this rank's share. */
void sharing_sum(const struct sharing *, struct share range);

/** gradient[range] = the ranks' exact vectors added up, rounded once; else as sharing_sum. */
void sharing_sum_exact(const struct sharing *, struct share range);

/** Take the other ranks' shares of beta [count] from them, likewise between two meetings. */
void sharing_fetch(const struct sharing *, size_t count);

/** Take the other ranks' shares of a state [count] in host memory from them. Collective. */
enum status sharing_complete(const struct sharing *, float *state, size_t count);

#endif
