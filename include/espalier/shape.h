/* shape.h - the shape of one sample between two layers. */
#ifndef ESPALIER_SHAPE_H
#define ESPALIER_SHAPE_H

#include <stddef.h>

/** [height, width, channels], row-major: the canonical order of activations (and of
 *  flattening). A vector of n units is {1, 1, n}. */
struct shape {
    int height, width, channels;
};

static inline size_t shape_size(struct shape s) {
    return (size_t)s.height * (size_t)s.width * (size_t)s.channels;
}

#endif
