/* sparse_conv.h - convolutions in sparse form on a device: how they are cut, their lists, and what
 * they should cost, which is a model of paper: nothing of it has been measured. */
#ifndef ESPALIER_CUDA_SPARSE_CONV_H
#define ESPALIER_CUDA_SPARSE_CONV_H

#include "sparse.h"

/* ---- sparse_conv_lists.c ---- */

/** Cut a block's convolution into about `bands` bands an image, or the convolution that its input's
 *  gradient is; false: bands of this height do not fit into a block. */
bool conv_window_cut(const struct block_desc *desc, bool forward, int bands,
                     struct conv_window *window);

/** Entries by what is written, with `column` where each looks up. indices [count], ascending. */
enum status conv_list_entries(struct arena *arena, const struct block_desc *desc, bool forward,
                              const struct conv_window *window, const uint32_t *indices,
                              size_t count, struct sparse_lists *lists);

/* ---- sparse_conv_model.c ---- */

/** The window that should be fastest, of so many entries; false: there is none. */
bool conv_window_choose(const struct device_rates *rates, const struct block_desc *desc,
                        bool forward, int samples, double entries, struct conv_window *window);

/** Into how many parts the rows of a window are cut. */
int conv_combine_parts(const struct device_rates *rates, const struct conv_window *window,
                       bool forward, int samples, double entries);

/** The parts of a gradient: each has a band at least. */
struct conv_parts conv_gradient_parts(const struct device_rates *rates,
                                      const struct conv_window *window, int samples,
                                      double entries);

/** A convolution of which a part is left, and a pass over it. */
struct conv_layer {
    const struct block_desc *desc;
    int samples;
    bool first;
};

/** What forward and backward passes should take, in each form, and where they meet, at most 0.5. */
double conv_dense_seconds(const struct device_rates *rates, const struct conv_layer *layer);
double conv_sparse_seconds(const struct device_rates *rates, const struct conv_layer *layer,
                           double density);
double conv_break_even(const struct device_rates *rates, const struct conv_layer *layer);

#endif
