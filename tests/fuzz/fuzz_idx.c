/* The IDX reader: any bytes, read as labels and as images. */
#include "fuzz.h"

#include <espalier/idx.h>

static uint64_t product(const struct idx *idx) {
    return (uint64_t)idx->size[0] * idx->size[1] * idx->size[2];
}

static void read_as(int dimensions, const uint8_t *data, size_t size) {
    struct idx idx;
    enum status status = idx_read(fuzz_file(data, size), dimensions, &idx);
    if (status != ST_OK) {
        fuzz_check_refusal(status);
        REQUIRE(idx.bytes == NULL);
        return;
    }
    size_t header = 4 + 4 * (size_t)dimensions;
    bool plain = data[0] == 0;
    REQUIRE(!plain || product(&idx) == size - header);
    REQUIRE(!plain || memcmp(idx.bytes, data + header, size - header) == 0);
    idx_destroy(&idx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_as(1, data, size);
    read_as(3, data, size);
    return 0;
}
