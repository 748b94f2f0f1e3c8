/* cases.h - the one table of blocks that every backend is held against, and its inputs.
 *
 * Nothing here owns memory but what case_floats and its like return (freed by the caller), and
 * case_inputs. */
#ifndef ESPALIER_TESTS_CASES_H
#define ESPALIER_TESTS_CASES_H

#include <espalier/backend.h>

enum case_group {
    GROUP_CONV_KERNEL,
    GROUP_CONV_STRIDE,
    GROUP_CONV_PADDING,
    GROUP_CONV_CHANNELS,
    GROUP_CONV_POOL,
    GROUP_CONV_ACTIVATION,
    GROUP_CONV_TILES,
    GROUP_CONV_DIRECT,
    GROUP_CONV_SPARSE,
    GROUP_CONV_WINOGRAD,
    GROUP_DENSE,
    GROUP_PASS,
    GROUP_DROPOUT,
    GROUP_DROPCONNECT,
    GROUP_BATCH_SIZE,
    GROUP_EMPTY_BATCH,
    GROUP_POSTER
};

struct block_case {
    enum case_group group;
    enum block_kind kind;
    struct shape input;
    int units; /* filters or units; 0 for BLOCK_PASS */
    int kernel, stride, padding;
    enum activation activation;
    int pool;
    float dropout;
    int samples;
    float dropconnect;
};

extern const struct block_case block_cases[];
extern const int block_cases_count;

/** The row's block, as block `layer` of a network: shapes inferred by the formulas of backend.h. */
struct block_desc case_desc(const struct block_case *row, uint32_t layer);

/** A row in words, for messages. The text lasts until the next call. */
const char *case_text(const struct block_case *row);

/** `count` floats, uniform in [-1, 1) out of 2^24 values: a function of (seed, stream, index). */
float *case_floats(uint64_t seed, uint32_t stream, size_t count);

/** `count` integers as floats, uniform in -3..3. */
float *case_integers(uint64_t seed, uint32_t stream, size_t count);

/** Distinct data-set indices, neither contiguous nor ascending: i -> (7919 i + 12345) mod 60000. */
uint32_t case_sample_id(int i);

typedef float *fill_values(uint64_t seed, uint32_t stream, size_t count);

/** What a block is run on, host side. */
struct case_inputs {
    float *weights, *bias, *x, *dy;
    uint32_t *ids;
    struct block_left {
        uint32_t *indices; /* of the weights that are left, NULL while all are */
        size_t count;
    } left;
};

/** Inputs for `samples` samples of a block, each array from its own stream; all weights are left.
 */
struct case_inputs case_inputs_create(const struct block_desc *desc, int samples, uint64_t seed,
                                      fill_values *fill);
void case_inputs_destroy(struct case_inputs *in);

#endif
