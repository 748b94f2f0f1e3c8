#include "conv_graph.h"

const char *const conv_pass_names[CONV_PASSES] = {
    [CONV_FORWARD] = "forward",
    [CONV_FORWARD_RELU] = "forward with bias and relu",
    [CONV_BACKWARD_DATA] = "backward data",
    [CONV_BACKWARD_FILTER] = "backward filter",
};

/* An operation's attributes: one row a pass. */
struct operation {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
};

#define FORWARD                                                                                    \
    {                                                                                              \
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,                                    \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,                                    \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,                                            \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,                                            \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,                                            \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,                                        \
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA                                          \
    }

static const struct operation operations[CONV_PASSES] = {
    [CONV_FORWARD] = FORWARD,
    [CONV_FORWARD_RELU] = FORWARD,
    [CONV_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [CONV_BACKWARD_FILTER] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

/* ---- descriptors ---- */

enum status descriptors_add(struct descriptors *all, cudnnBackendDescriptorType_t type,
                            cudnnBackendDescriptor_t *descriptor) {
    if (all->count == DESCRIPTORS_MOST)
        FAIL(ST_UNAVAILABLE, "cuda: a plan of more than %d descriptors", DESCRIPTORS_MOST);
    TRY_CUDNN(cudnnBackendCreateDescriptor(type, descriptor));
    all->owned[all->count++] = *descriptor;
    return ST_OK;
}

void descriptors_destroy(struct descriptors *all) {
    while (all->count > 0)
        (void)cudnnBackendDestroyDescriptor(all->owned[--all->count]);
}

enum status descriptor_set_integers(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                    int64_t count, const int64_t *values) {
    TRY_CUDNN(cudnnBackendSetAttribute(d, name, CUDNN_TYPE_INT64, count, values));
    return ST_OK;
}

enum status descriptor_set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                           const cudnnBackendDescriptor_t *value) {
    TRY_CUDNN(cudnnBackendSetAttribute(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, value));
    return ST_OK;
}

enum status descriptor_finish(cudnnBackendDescriptor_t d) {
    TRY_CUDNN(cudnnBackendFinalize(d));
    return ST_OK;
}

static enum status set_float_type(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name) {
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    TRY_CUDNN(cudnnBackendSetAttribute(d, name, CUDNN_TYPE_DATA_TYPE, 1, &type));
    return ST_OK;
}

/* ---- tensors ---- */

/* Sizes (n, c, h, w) of what lies in memory as [n][h][w][c]; one that is virtual never does. */
static enum status add_tensor(struct descriptors *all, int64_t id, int64_t outer,
                              struct shape shape, bool is_virtual, cudnnBackendDescriptor_t *d) {
    const int64_t h = shape.height, w = shape.width, c = shape.channels, alignment = 16;
    const int64_t sizes[] = {outer, c, h, w}, strides[] = {h * w * c, 1, w * c, c};
    TRY(descriptors_add(all, CUDNN_BACKEND_TENSOR_DESCRIPTOR, d));
    TRY(set_float_type(*d, CUDNN_ATTR_TENSOR_DATA_TYPE));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_TENSOR_DIMENSIONS, 4, sizes));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_TENSOR_STRIDES, 4, strides));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &id));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment));
    TRY_CUDNN(cudnnBackendSetAttribute(*d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1,
                                       &is_virtual));
    return descriptor_finish(*d);
}

/* ---- operations ---- */

static enum status add_geometry(struct descriptors *all, const struct block_desc *desc,
                                cudnnBackendDescriptor_t *d) {
    const int64_t two = 2, ones[] = {1, 1}, padding[] = {desc->padding, desc->padding};
    const int64_t strides[] = {desc->stride, desc->stride};
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    TRY(descriptors_add(all, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, d));
    TRY(set_float_type(*d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE));
    TRY_CUDNN(cudnnBackendSetAttribute(*d, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
                                       CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &two));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2, padding));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2, padding));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2, ones));
    TRY(descriptor_set_integers(*d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2, strides));
    return descriptor_finish(*d);
}

/* The convolution of a pass, whose y is given. */
static enum status add_convolution(struct descriptors *all, const struct operation *names,
                                   const struct block_desc *desc, int samples,
                                   const cudnnBackendDescriptor_t *y, cudnnBackendDescriptor_t *d) {
    const struct shape kernel = {desc->kernel, desc->kernel, desc->input.channels};
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t x, w, geometry;
    TRY(add_tensor(all, CONV_X, samples, desc->input, false, &x));
    TRY(add_tensor(all, CONV_W, desc->linear.channels, kernel, false, &w));
    TRY(add_geometry(all, desc, &geometry));
    TRY(descriptors_add(all, names->type, d));
    TRY(descriptor_set(*d, names->convolution, &geometry));
    TRY(descriptor_set(*d, names->x, &x));
    TRY(descriptor_set(*d, names->w, &w));
    TRY(descriptor_set(*d, names->y, y));
    TRY_CUDNN(cudnnBackendSetAttribute(*d, names->alpha, CUDNN_TYPE_FLOAT, 1, &one));
    TRY_CUDNN(cudnnBackendSetAttribute(*d, names->beta, CUDNN_TYPE_FLOAT, 1, &zero));
    return descriptor_finish(*d);
}

/* y = mode(x) or, with b, mode(x, b). */
static enum status add_pointwise(struct descriptors *all, cudnnPointwiseMode_t mode,
                                 const cudnnBackendDescriptor_t *x,
                                 const cudnnBackendDescriptor_t *b,
                                 const cudnnBackendDescriptor_t *y, cudnnBackendDescriptor_t *d) {
    cudnnBackendDescriptor_t function;
    TRY(descriptors_add(all, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &function));
    TRY_CUDNN(cudnnBackendSetAttribute(function, CUDNN_ATTR_POINTWISE_MODE,
                                       CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
    TRY(set_float_type(function, CUDNN_ATTR_POINTWISE_MATH_PREC));
    TRY(descriptor_finish(function));
    TRY(descriptors_add(all, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, d));
    TRY(descriptor_set(*d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &function));
    TRY(descriptor_set(*d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x));
    if (b != NULL)
        TRY(descriptor_set(*d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b));
    TRY(descriptor_set(*d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y));
    return descriptor_finish(*d);
}

/* z + bias, then relu: operations[1] and [2]. */
static enum status add_bias_and_relu(struct descriptors *all, const struct block_desc *desc,
                                     int samples, const cudnnBackendDescriptor_t *z,
                                     const cudnnBackendDescriptor_t *y,
                                     cudnnBackendDescriptor_t *operation) {
    enum { BIASED = CONV_BIAS + 2 };
    const struct shape pixel = {1, 1, desc->linear.channels};
    cudnnBackendDescriptor_t bias, biased;
    TRY(add_tensor(all, CONV_BIAS, 1, pixel, false, &bias));
    TRY(add_tensor(all, BIASED, samples, desc->linear, true, &biased));
    TRY(add_pointwise(all, CUDNN_POINTWISE_ADD, z, &bias, &biased, &operation[1]));
    return add_pointwise(all, CUDNN_POINTWISE_RELU_FWD, &biased, NULL, y, &operation[2]);
}

enum status conv_graph_add(struct descriptors *all, enum conv_pass pass,
                           const struct block_desc *desc, int samples,
                           cudnnBackendDescriptor_t *graph) {
    enum { Z = CONV_BIAS + 1, MOST = 3 };
    const bool fused = pass == CONV_FORWARD_RELU;
    cudnnBackendDescriptor_t y, z, operation[MOST];
    TRY(add_tensor(all, CONV_Y, samples, desc->linear, false, &y));
    if (fused)
        TRY(add_tensor(all, Z, samples, desc->linear, true, &z));
    TRY(add_convolution(all, &operations[pass], desc, samples, fused ? &z : &y, &operation[0]));
    if (fused)
        TRY(add_bias_and_relu(all, desc, samples, &z, &y, operation));
    TRY(descriptors_add(all, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, graph));
    TRY_CUDNN(cudnnBackendSetAttribute(*graph, CUDNN_ATTR_OPERATIONGRAPH_OPS,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, fused ? MOST : 1, operation));
    return descriptor_finish(*graph);
}
