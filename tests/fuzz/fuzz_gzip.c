/* The IDX reader on gzip files: damaged ones, and whole ones of mutated content. */
#include "fuzz.h"

#include <espalier/idx.h>
#include <zlib.h>

enum { PLAIN_MAX = 1 << 16, DAMAGED_ONE_IN = 4 };

/* What zlib's own file interface reads; 0 bytes of what it refuses. */
static size_t gunzip(const char *path, uint8_t *plain, size_t max) {
    gzFile file = gzopen(path, "rb");
    REQUIRE(file != NULL);
    int got = gzread(file, plain, (unsigned)max);
    gzclose(file);
    return got > 0 ? (size_t)got : 0;
}

static void read_as(const char *path, int dimensions) {
    static uint8_t plain[PLAIN_MAX];
    struct idx idx;
    enum status status = idx_read(path, dimensions, &idx);
    if (status != ST_OK) {
        fuzz_check_refusal(status);
        REQUIRE(idx.bytes == NULL);
        return;
    }
    size_t header = 4 + 4 * (size_t)dimensions, got = gunzip(path, plain, sizeof plain);
    uint64_t claimed = (uint64_t)idx.size[0] * idx.size[1] * idx.size[2];
    if (got < sizeof plain)
        REQUIRE(claimed == got - header && memcmp(idx.bytes, plain + header, got - header) == 0);
    idx_destroy(&idx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file(data, size);
    read_as(path, 1);
    read_as(path, 3);
    return 0;
}

static size_t gzip(uint8_t *plain, size_t count, uint8_t *data, size_t max_size) {
    z_stream stream = {.next_in = plain, .avail_in = (uInt)count, .next_out = data};
    stream.avail_out = (uInt)max_size;
    REQUIRE(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    int code = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return code == Z_STREAM_END ? stream.total_out : 0;
}

/* A flipped byte hardly ever passes the CRC, so most mutations go under the compression. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    static uint8_t plain[PLAIN_MAX];
    if (seed % DAMAGED_ONE_IN == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t count = gunzip(fuzz_file(data, size), plain, sizeof plain);
    count = LLVMFuzzerMutate(plain, count, sizeof plain);
    size_t written = gzip(plain, count, data, max_size);
    return written > 0 ? written : LLVMFuzzerMutate(data, size, max_size);
}
