/* survivors.h - which connections are left: keeping some and renumbering the rest away. */
#ifndef ESPALIER_SURVIVORS_H
#define ESPALIER_SURVIVORS_H

#include <espalier/bitmask.h>
#include <espalier/network.h>

/** A set of weights that one pruning event chooses among. */
struct survivors_scope {
    int count;
    int parameters[RECIPE_LAYERS_MAX]; /* indices into network.parameters, network order */
};

/** Current survivors in the scope, and what they were at first. */
size_t survivors_count(const struct network *network, const struct survivors_scope *scope);
size_t survivors_original_count(const struct network *network, const struct survivors_scope *scope);

/** Keep the connections whose bit is set in `mask`, renumber the rest away.
 *
 *  Algorithm 1, line 4 of Barbu et al. 2017: "keep only the M_e variables with highest |beta_j|
 *  and renumber them 1..M_e". Afterwards beta, the gradient and each of `states` (optimizer
 *  state, device vectors parallel to beta; NULL entries are passed over) hold survivors only, in
 *  the same order as before, biases and weights out of scope included; network.count and the
 *  parameters' offset, count and indices say where. A weight that loses its first connection
 *  gets its dense arrays here. The dense weights are zero where pruned; network_materialize need
 *  not be called. In a masked network the vectors keep their sizes and are 0 where pruned.
 *
 *  mask     one bit per current survivor of the scope, in scope order, host memory
 *  returns  ST_SHAPE when mask->count differs from survivors_count; then nothing has changed.
 *  Not collective: every rank calls it with the same mask. */
enum status survivors_keep(struct network *network, const struct survivors_scope *scope,
                           const struct bitmask *mask, float *const *states, int states_count);

/** Copy parameter p's survivors to `values` (device [count]), in their order. */
enum status survivors_values(const struct network *network, int parameter, float *values);

/** A hash of parameter p's survivors: hash_words of its values, and of its indices times 31 (0
 *  while all survive). Equal on all replicas that are equal. */
enum status survivors_hash(const struct network *network, int parameter, uint64_t *hash);

#endif
