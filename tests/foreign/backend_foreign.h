/* backend_foreign.h - the CPU backend behind memory that its host cannot touch, as a device's is.
 *
 * What it hands out as device memory can be read and written inside its slots alone: anyone else
 * who follows such a pointer crashes. Each slot refuses host pointers where it expects device
 * pointers, and the other way round (ST_USAGE, naming the slot). Released memory is filled with
 * NaN and never handed out again. Results are the CPU backend's, bit for bit. */
#ifndef ESPALIER_TESTS_BACKEND_FOREIGN_H
#define ESPALIER_TESTS_BACKEND_FOREIGN_H

#include <espalier/backend.h>

/** Create it, computing with `threads`; its `destroy` slot frees it. */
enum status backend_foreign_create(int threads, struct backend **backend);

#endif
