/* fuzz.h - what the fuzzers share: an input as a file, checks that end the run, mutators.
 *
 * libFuzzer calls LLVMFuzzerTestOneInput with one input after another and reports what the
 * sanitizers find, and what REQUIRE finds. */
#ifndef ESPALIER_TESTS_FUZZ_H
#define ESPALIER_TESTS_FUZZ_H

#include <espalier/status.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* libFuzzer's interface. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s; message: %s\n", __FILE__, __LINE__, #condition,    \
                    status_message());                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/** Write the input to the fuzzer's one file, in memory, whose path is returned. */
static inline const char *fuzz_file(const uint8_t *data, size_t size) {
    static char path[32];
    static int file = -1;
    if (file < 0) {
        file = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    REQUIRE(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    return path;
}

/** A refusal blames the input, on one line that cannot steer a terminal. */
static inline void fuzz_check_refusal(enum status status) {
    REQUIRE(status == ST_INPUT || status == ST_SHAPE || status == ST_USAGE);
    const char *text = status_message();
    REQUIRE(text[0] != '\0');
    for (; *text != '\0'; text++)
        REQUIRE((unsigned char)*text >= ' ' && *text != 0x7f);
}

#endif
