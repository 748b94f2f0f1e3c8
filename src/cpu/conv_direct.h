/* conv_direct.h - what the direct forward and backward passes share. */
#ifndef ESPALIER_CPU_CONV_DIRECT_H
#define ESPALIER_CPU_CONV_DIRECT_H

#include "cpu.h"

/** first .. end - 1. */
struct range {
    int first, end;
};

/** An image with zeros around and between its pixels: pixel (i, j) is pixel
 *  (offset + dilation i, offset + dilation j) of the frame; what falls outside is cut off. */
struct frame {
    struct shape image;
    int offset, dilation;
    struct shape size;
    struct range rows, columns; /* of the image that are inside the frame */
};

/** Fill a frame whose image, offset and dilation are given. ST_SHAPE where it is too large;
 *  `desc` is the block's, for the message. */
enum status frame_resize(const struct block_desc *desc, long long height, long long width,
                         struct frame *frame);

/** The block's input with its padding. */
enum status frame_of_input(const struct block_desc *desc, struct frame *frame);

/** Floats of scratch that frame_view needs, in whole cache lines. */
size_t frame_scratch(const struct frame *frame);

/** The image in its frame: in `scratch`, or where it is when there is nothing to add. */
const float *frame_view(const struct frame *frame, const float *image, float *scratch);

/** The geometry of the convolution of a frame by a kernel x kernel window. */
struct direct_layer direct_layer_of(const struct frame *frame, struct shape output, int kernel,
                                    int stride);

/** A direct convolution of frames: its geometry and weights. */
struct direct {
    struct direct_layer layer;
    struct frame frame;
    float *weights; /* packed as kernels.h says */
    float *zeros;   /* no bias, [padded channels] */
};

/** Where weights stand in the canonical array: strides from one output channel, row and column of
 *  the kernel, and input channel, to the next. */
struct weight_view {
    const float *first;
    ptrdiff_t output, row, column, input;
};

/** Allocate the weights of a convolution whose frame and layer are given. */
enum status direct_create(struct block_plan *plan, struct direct *conv);
void direct_load(const struct block_plan *plan, struct direct *conv, struct weight_view view);

/** `count` rounded up to whole cache lines of floats, to whole vectors. */
size_t whole_lines(size_t count);
size_t whole_vectors(const struct block_plan *plan, int count);

/** True when, in this pass, `activation` is all that follows the linear map. */
bool direct_is_plain(const struct block_plan *plan, const struct block_pass *pass,
                     enum activation activation);

#endif
