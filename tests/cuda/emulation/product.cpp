#include "product.h"

#include <cstdint>
#include <cstring>

namespace emulation {

void add_product(size_t rows, size_t depth, size_t columns, const float *__restrict__ a,
                 const float *__restrict__ b, float *__restrict__ c) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < depth; k++) {
            const float factor = a[i * depth + k];
            for (size_t j = 0; j < columns; j++)
                c[i * columns + j] += factor * b[k * columns + j];
        }
}

float tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits >> 23 & 0xFF) != 0xFF)
        bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFFU;
    memcpy(&x, &bits, sizeof x);
    return x;
}

} // namespace emulation
