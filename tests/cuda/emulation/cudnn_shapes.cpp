/* What must be there when a descriptor is finalised, and what must fit. */
#include "cudnn_internal.h"

#include <algorithm>

namespace emulation {

using dims = std::vector<int64_t>;

static cudnnStatus_t good_if(bool good) {
    return good ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

static dims dimensions(const descriptor &d) {
    return d.values<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
}

/* The attributes that each kind of descriptor cannot do without. */
static const std::map<int, std::vector<int>> &required() {
    static const std::map<int, std::vector<int>> table = {
        {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
         {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES,
          CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT}},
        {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
         {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
          CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
          CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS,
          CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS}},
        {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
         {CUDNN_ATTR_POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MATH_PREC}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}},
        {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
         {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR}},
        {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, {CUDNN_ATTR_OPERATIONGRAPH_OPS}},
        {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
         {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_ATTR_ENGINEHEUR_MODE}},
        {CUDNN_BACKEND_ENGINE_DESCRIPTOR,
         {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_ATTR_ENGINE_GLOBAL_INDEX}},
        {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, {CUDNN_ATTR_ENGINECFG_ENGINE}},
        {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG}},
        {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
         {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS}},
        {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, {}},
    };
    return table;
}

static cudnnStatus_t check_tensor(const descriptor &d) {
    dims n = dimensions(d), s = d.values<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    if (d.value<int>(CUDNN_ATTR_TENSOR_DATA_TYPE, -1) != CUDNN_DATA_FLOAT)
        return CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE;
    auto positive = [](int64_t v) { return v > 0; };
    return good_if(n.size() == 4 && s.size() == 4 && std::all_of(n.begin(), n.end(), positive) &&
                   std::all_of(s.begin(), s.end(), positive));
}

static cudnnStatus_t check_convolution(const descriptor &d) {
    if (d.value<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0) != 2 ||
        d.value<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE, -1) != CUDNN_CROSS_CORRELATION)
        return CUDNN_STATUS_NOT_SUPPORTED;
    for (int name : {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
                     CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS}) {
        if (d.values<int64_t>(name).size() != 2)
            return CUDNN_STATUS_BAD_PARAM;
    }
    return CUDNN_STATUS_SUCCESS;
}

/* y = (x + paddings - dilation (w - 1) - 1) / stride + 1, along both sides. */
static cudnnStatus_t check_shapes(const descriptor &c, const dims &x, const dims &w,
                                  const dims &y) {
    if (x[0] != y[0] || x[1] != w[1] || y[1] != w[0])
        return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
    dims before = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    dims after = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    dims dilation = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    dims stride = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    for (size_t i = 0; i < 2; i++) {
        int64_t room = x[2 + i] + before[i] + after[i] - dilation[i] * (w[2 + i] - 1) - 1;
        if (room < 0 || y[2 + i] != room / stride[i] + 1)
            return CUDNN_STATUS_BAD_PARAM;
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_forward(const descriptor &d) {
    return check_shapes(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y)));
}

static cudnnStatus_t check_backward_data(const descriptor &d) {
    return check_shapes(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY)));
}

static cudnnStatus_t check_backward_filter(const descriptor &d) {
    return check_shapes(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW)),
                        dimensions(d.only(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY)));
}

/* x and b are as large as y, or 1, along each dimension. */
static cudnnStatus_t check_pointwise(const descriptor &d) {
    if (!d.has(CUDNN_ATTR_OPERATION_POINTWISE_XDESC) ||
        !d.has(CUDNN_ATTR_OPERATION_POINTWISE_YDESC))
        return CUDNN_STATUS_NOT_SUPPORTED;
    dims y = dimensions(d.only(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    for (int name : {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC}) {
        if (!d.has(name))
            continue;
        dims x = dimensions(d.only(name));
        for (size_t i = 0; i < y.size(); i++) {
            if (x[i] != y[i] && x[i] != 1)
                return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_engine(const descriptor &d) {
    auto index = static_cast<size_t>(d.value<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1));
    return good_if(index < engines.size());
}

static cudnnStatus_t check_pack(const descriptor &d) {
    return good_if(d.values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).size() ==
                   d.values<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).size());
}

cudnnStatus_t check(const descriptor &d) {
    static const std::map<int, cudnnStatus_t (*)(const descriptor &)> checks = {
        {CUDNN_BACKEND_TENSOR_DESCRIPTOR, check_tensor},
        {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, check_convolution},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, check_forward},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, check_backward_data},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, check_backward_filter},
        {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, check_pointwise},
        {CUDNN_BACKEND_ENGINE_DESCRIPTOR, check_engine},
        {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, check_pack},
    };
    auto needs = required().find(d.type);
    if (needs == required().end())
        return CUDNN_STATUS_NOT_SUPPORTED;
    for (int name : needs->second) {
        if (!d.has(name))
            return CUDNN_STATUS_BAD_PARAM;
    }
    auto found = checks.find(d.type);
    return found == checks.end() ? CUDNN_STATUS_SUCCESS : found->second(d);
}

} // namespace emulation
