/* initializer.h - initial weights as pure functions of (seed, layer, index).
 *
 *  glorot_uniform  uniform in [-l, l), l = sqrt(6 / (fan_in + fan_out))  (Glorot & Bengio 2010, eq.
 * 16) he_normal       normal, variance 2 / fan_in                           (He et al. 2015, eq.
 * 10) he_uniform      uniform in [-l, l), l = sqrt(6 / fan_in): the same variance
 *
 * fan_in and fan_out count connections into and out of a unit; a convolution's are channels times
 * kernel area. */
#ifndef ESPALIER_INITIALIZER_H
#define ESPALIER_INITIALIZER_H

#include <espalier/backend.h>

/** Fill weights[block_weights(desc)] (host). Index i uses word i%4 of the draw of group i/4,
 *  stream (RNG_INITIALIZER, desc->layer); he_normal pairs words by Box-Muller (word 2j, 2j+1). */
void initializer_fill(enum initializer kind, const struct block_desc *desc, uint64_t seed,
                      float *weights);

#endif
