/* product.h - C += A B on the host, for what cuBLAS and cuDNN compute. */
#ifndef ESPALIER_TESTS_PRODUCT_H
#define ESPALIER_TESTS_PRODUCT_H

#include <cstddef>

namespace emulation {

/* c [rows][columns] += a [rows][depth] b [depth][columns], all contiguous. */
void add_product(size_t rows, size_t depth, size_t columns, const float *a, const float *b,
                 float *c);

/* A float as TF32 keeps it: 10 bits after the point, to nearest, ties to even. */
float tf32(float x);

} // namespace emulation

#endif
