/* backend_reference.h - the oracle: every slot of struct backend by plain loops on one thread.
 *
 * Written from the formulas in backend.h alone: sums in double, one rounding to float at the end.
 * Its device memory is host memory. Shares no code with any other backend. */
#ifndef ESPALIER_TESTS_BACKEND_REFERENCE_H
#define ESPALIER_TESTS_BACKEND_REFERENCE_H

#include <espalier/backend.h>

/** Create it; its `destroy` slot frees it. */
enum status backend_reference_create(struct backend **backend);

#endif
