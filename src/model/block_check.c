/* Whether a block's shapes fit each other. */
#include <espalier/backend.h>
#include <limits.h>

static enum status check_positive(const struct block_desc *desc, const char *what, struct shape s) {
    if (s.height < 1 || s.width < 1 || s.channels < 1 ||
        (size_t)s.height * (size_t)s.width > INT_MAX / (size_t)s.channels)
        FAIL(ST_SHAPE,
             "block %u: %s of %dx%dx%d, expected sizes of at least 1 and at most %d values",
             desc->layer, what, s.height, s.width, s.channels, INT_MAX);
    return ST_OK;
}

/* Places of a kernel along one side of the image; 0 when it does not fit. */
static int places(const struct block_desc *desc, int side) {
    const long long room = (long long)side + 2LL * desc->padding - desc->kernel;
    return room < 0 ? 0 : (int)(room / desc->stride + 1);
}

static enum status check_conv(const struct block_desc *desc) {
    if (desc->kernel < 1 || desc->stride < 1 || desc->padding < 0)
        FAIL(ST_SHAPE, "block %u: kernel %d, stride %d, padding %d, expected at least 1, 1 and 0",
             desc->layer, desc->kernel, desc->stride, desc->padding);
    const long long positions = (long long)desc->kernel * desc->kernel;
    if (positions > INT_MAX / desc->input.channels)
        FAIL(ST_SHAPE, "block %u: kernel %d on %d channels is too large", desc->layer, desc->kernel,
             desc->input.channels);
    const int height = places(desc, desc->input.height), width = places(desc, desc->input.width);
    if (desc->linear.height != height || desc->linear.width != width)
        FAIL(ST_SHAPE, "block %u: kernel %d, stride %d, padding %d on %dx%d gives %dx%d, not %dx%d",
             desc->layer, desc->kernel, desc->stride, desc->padding, desc->input.height,
             desc->input.width, height, width, desc->linear.height, desc->linear.width);
    return ST_OK;
}

static enum status check_dense(const struct block_desc *desc) {
    if (desc->linear.height != 1 || desc->linear.width != 1)
        FAIL(ST_SHAPE, "block %u: dense units in the shape %dx%dx%d, expected 1x1x%d", desc->layer,
             desc->linear.height, desc->linear.width, desc->linear.channels, desc->linear.channels);
    return ST_OK;
}

/* Batch normalisation, or nothing. */
static enum status check_pass(const struct block_desc *desc) {
    const struct shape in = desc->input, z = desc->linear;
    if (in.height != z.height || in.width != z.width || in.channels != z.channels)
        FAIL(ST_SHAPE, "block %u: no linear map of pixels, yet %dx%dx%d becomes %dx%dx%d",
             desc->layer, in.height, in.width, in.channels, z.height, z.width, z.channels);
    return ST_OK;
}

static enum status check_epilogue(const struct block_desc *desc) {
    const struct shape z = desc->linear, out = desc->output;
    if (desc->pool < 1 || desc->pool > 15)
        FAIL(ST_SHAPE, "block %u: pool %d, expected 1 to 15", desc->layer, desc->pool);
    if (out.height != z.height / desc->pool || out.width != z.width / desc->pool ||
        out.channels != z.channels)
        FAIL(ST_SHAPE, "block %u: pool %d of %dx%dx%d gives %dx%dx%d, not %dx%dx%d", desc->layer,
             desc->pool, z.height, z.width, z.channels, z.height / desc->pool, z.width / desc->pool,
             z.channels, out.height, out.width, out.channels);
    if (!(desc->dropout >= 0.0F && desc->dropout < 1.0F))
        FAIL(ST_SHAPE, "block %u: dropout %g, expected at least 0 and less than 1", desc->layer,
             (double)desc->dropout);
    return ST_OK;
}

static enum status (*const checks[])(const struct block_desc *desc) = {
    [BLOCK_CONV] = check_conv,
    [BLOCK_DENSE] = check_dense,
    [BLOCK_PASS] = check_pass,
    [BLOCK_NORM] = check_pass,
};

static enum status check_dropconnect(const struct block_desc *desc) {
    const bool possible =
        desc->kind == BLOCK_DENSE ? desc->dropconnect < 1.0F : desc->dropconnect == 0.0F;
    if (!(desc->dropconnect >= 0.0F && possible) || desc->dropconnect_draws < 0)
        FAIL(ST_SHAPE,
             "block %u: dropconnect %g of %d draws, expected at least 0 and less than 1 in a dense "
             "block, 0 in another",
             desc->layer, (double)desc->dropconnect, desc->dropconnect_draws);
    return ST_OK;
}

enum status block_check(const struct block_desc *desc, int max_samples) {
    if (max_samples < 0)
        FAIL(ST_SHAPE, "block %u: passes of %d samples", desc->layer, max_samples);
    TRY(check_positive(desc, "an input", desc->input));
    TRY(check_positive(desc, "a linear map", desc->linear));
    TRY(checks[desc->kind](desc));
    TRY(check_epilogue(desc));
    TRY(check_dropconnect(desc));
    return check_positive(desc, "an output", desc->output);
}
