/* blank.h - where images are blank, and what that saves the blocks of a chain.
 *
 * A pixel of a chain's first input is blank where all its channels are zero; a position of a
 * convolution's linear map where it sees blank pixels alone and no padding; a pixel of its output
 * where all positions of its window are. What comes of blank pixels is the same everywhere, so it
 * is computed once a pass, by the same kernels, and copied: results are the same to the bit. A kind
 * of convolution takes part that offers forward_kind.blank (cpu.h); its `image` asks
 * blank_positions or blank_outputs what it may skip. At one that does not, the map ends.
 *
 * In the backward pass all that comes of blank pixels is what their gradients' sum makes of it, to
 * rounding: for the weights the sum times the blank pixel that all taps see, and for the block
 * before, where what it sees is zero, no more than a part of the bias' gradient. A kind of backward
 * pass may sum them up in place of going through them (blank_to_leave_out) in the first two
 * blocks of a chain.
 *
 * Everything is the plan's, in its arena; a map lasts from the forward pass of its sample to the
 * next. $ESPALIER_BLANK=0 switches all of it off. */
#ifndef ESPALIER_CPU_BLANK_H
#define ESPALIER_CPU_BLANK_H

#include <espalier/backend.h>

struct block_plan;

/** A plan's part; all NULL where it has none. */
struct blank {
    bool on;          /* in this pass; else nothing of a sample is blank */
    bool goes_on;     /* all blank pixels of the output have the values `output`, to the bit */
    uint8_t *linear;  /* [max_samples][linear]: 1 where the position is blank, else 0 */
    uint8_t *pooled;  /* [max_samples][output]; without pooling, the same memory */
    int *counts;      /* [max_samples] of blank positions */
    float *input;     /* [input channels] of a blank pixel */
    float *output;    /* [output channels] likewise, before dropout */
    float *left_out;  /* [grains][output channels]: sums of the gradients that are left out of a
                       * backward pass, its kind's own */
    float *bias;      /* [output channels]: the part of the bias' gradient that comes of what the
                       * block after this one left out of dx */
    uint8_t *scratch; /* [threads][scratch_size] */
    size_t scratch_size;
};

/** Windows of a map of [height][width]; there are [rows][columns] of them, `stride` apart. */
struct blank_windows {
    int height, width;
    int kernel, stride, padding;
    int rows, columns;
};

/** Positions first .. end - 1 of a row. */
struct blank_span {
    int first, end;
};

/** What $ESPALIER_BLANK says: on unless it is 0; ST_USAGE when it is neither 0 nor 1. */
enum status blank_choose(bool *on);

/** A convolution's part, in the plan's arena. */
enum status blank_create(struct block_plan *plan);

/** Before a forward pass: what blank pixels become, from the first block of the chain on. */
void blank_begin(struct block_plan *plan, const struct block_pass *pass);

/** Before an image of it: its map. x [input] is looked at in a first block alone. */
void blank_image(const struct block_plan *plan, int sample, const float *x);

/** The map of a sample's linear positions and of its outputs; NULL where nothing is blank. */
const uint8_t *blank_positions(const struct block_plan *plan, int sample);
const uint8_t *blank_outputs(const struct block_plan *plan, int sample);

/** The map of a sample's outputs whose gradients a backward pass may leave out; or NULL. */
const uint8_t *blank_to_leave_out(const struct block_plan *plan, int sample);

/** Where those of a grain are summed up, [output channels]; zeros when the grain begins. */
float *blank_left_out(const struct block_plan *plan, int grain);
void blank_clear(const struct block_plan *plan, int grain);

/** The sum over the first `grains` grains of what was left out of a channel. */
float blank_sum(const struct block_plan *plan, int grains, int channel);

/** After a backward pass of so many grains: blank.bias of the block before. */
void blank_hand_down(const struct block_plan *plan, int grains);

/** windows [rows][columns] = 1 where all of a window is inside the map and blank, else 0; by a
 *  thread of the plan's team. The windows' pixels are at most as many as the plan's input has. */
void blank_erode(const struct block_plan *plan, const struct blank_windows *shape,
                 const uint8_t *map, uint8_t *windows);

/** The next positions of a row [width] that are not blank, from `first` on; up to a few blank ones
 *  between them are taken along. At the row's end an empty span. */
struct blank_span blank_next(const uint8_t *row, int width, int first);

#endif
