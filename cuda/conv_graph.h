/* conv_graph.h - what a pass of a convolution computes, as a graph of cuDNN's operations.
 *
 * Descriptors belong to the struct descriptors that they are added to. */
#ifndef ESPALIER_CUDA_CONV_GRAPH_H
#define ESPALIER_CUDA_CONV_GRAPH_H

#include "check.h"

#include <espalier/backend.h>

enum conv_pass {
    CONV_FORWARD,
    CONV_FORWARD_RELU, /* relu(z + bias) in place of z */
    CONV_BACKWARD_DATA,
    CONV_BACKWARD_FILTER,
    CONV_PASSES
};

/** The tensors that a plan is run with, by their numbers in its graph. */
enum conv_tensor { CONV_X = 1, CONV_W, CONV_Y, CONV_BIAS };

extern const char *const conv_pass_names[CONV_PASSES];

enum { DESCRIPTORS_MOST = 24 };

struct descriptors {
    cudnnBackendDescriptor_t owned[DESCRIPTORS_MOST];
    int count;
};

/** A new descriptor, not finalised. */
enum status descriptors_add(struct descriptors *all, cudnnBackendDescriptorType_t type,
                            cudnnBackendDescriptor_t *descriptor);
void descriptors_destroy(struct descriptors *all); /* the last one first */

enum status descriptor_set_integers(cudnnBackendDescriptor_t descriptor,
                                    cudnnBackendAttributeName_t name, int64_t count,
                                    const int64_t *values);
enum status descriptor_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                           const cudnnBackendDescriptor_t *value);
enum status descriptor_finish(cudnnBackendDescriptor_t descriptor);

/** The operation graph of a pass over so many samples. */
enum status conv_graph_add(struct descriptors *all, enum conv_pass pass,
                           const struct block_desc *desc, int samples,
                           cudnnBackendDescriptor_t *graph);

#endif
