/* select_reference.h - the reference backend's slot select_largest, as backend.h specifies it. */
#ifndef ESPALIER_TESTS_SELECT_REFERENCE_H
#define ESPALIER_TESTS_SELECT_REFERENCE_H

#include <espalier/backend.h>

enum status reference_select(struct backend *b, const struct segment *segments, int count,
                             size_t keep, uint64_t *mask);

#endif
