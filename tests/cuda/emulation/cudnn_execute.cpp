/* Plans at work: convolutions as products with unfolded images, and pointwise operations. */
#include "cudnn_internal.h"
#include "product.h"

#include <algorithm>
#include <cmath>

namespace emulation {

/* A tensor [n][c][h][w] with its strides, somewhere in memory. */
struct view {
    int64_t n[4], stride[4];
    float *at;

    float &operator()(int64_t a, int64_t b, int64_t c, int64_t d) const {
        return at[a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3]];
    }
    size_t span() const {
        int64_t last = 0;
        for (int i = 0; i < 4; i++)
            last += (n[i] - 1) * stride[i];
        return static_cast<size_t>(last) + 1;
    }
};

/* What the pack binds to unique ids, and what is between operations. */
struct binding {
    std::map<int64_t, void *> pointers;
    std::map<int64_t, std::vector<float>> between;
};

static view view_of(const descriptor &tensor, binding &b) {
    view v;
    auto n = tensor.values<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
    auto s = tensor.values<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
    std::copy(n.begin(), n.end(), v.n);
    std::copy(s.begin(), s.end(), v.stride);
    int64_t id = tensor.value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
    if (tensor.value<char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0)) {
        b.between[id].resize(v.span());
        v.at = b.between[id].data();
    } else {
        v.at = static_cast<float *>(b.pointers.at(id));
    }
    return v;
}

/* ---- convolutions ---- */

struct geometry {
    int64_t before[2], stride[2], dilation[2];
};

static geometry geometry_of(const descriptor &c) {
    geometry g;
    for (size_t i = 0; i < 2; i++) {
        g.before[i] = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)[i];
        g.stride[i] = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)[i];
        g.dilation[i] = c.values<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS)[i];
    }
    return g;
}

/* f(tap (c, r, s), place (p, q), y, x): each pair of weight and output that pixel y, x joins. */
template <class F>
static void each_tap(const geometry &g, const view &w, const int64_t *image, const int64_t *out,
                     F f) {
    size_t tap = 0;
    for (int64_t c = 0; c < w.n[1]; c++)
        for (int64_t r = 0; r < w.n[2]; r++)
            for (int64_t s = 0; s < w.n[3]; s++, tap++)
                for (int64_t p = 0; p < out[0]; p++)
                    for (int64_t q = 0; q < out[1]; q++) {
                        int64_t y = p * g.stride[0] + r * g.dilation[0] - g.before[0];
                        int64_t x = q * g.stride[1] + s * g.dilation[1] - g.before[1];
                        if (y >= 0 && y < image[0] && x >= 0 && x < image[1])
                            f(tap, static_cast<size_t>(p * out[1] + q), c, y, x);
                    }
}

struct convolution {
    geometry g;
    view x, w, y;
    float alpha, beta;
    bool rounds, backwards;

    size_t taps() const {
        return static_cast<size_t>(w.n[1] * w.n[2] * w.n[3]);
    }
    size_t filters() const {
        return static_cast<size_t>(w.n[0]);
    }
    size_t places() const {
        return static_cast<size_t>(y.n[2] * y.n[3]);
    }
    int64_t image(int64_t i) const {
        return backwards ? x.n[0] - 1 - i : i;
    }
    float in(float v) const {
        return rounds ? tf32(v) : v;
    }
};

/* Weights as [taps][filters], or the other way round. */
static std::vector<float> pack_weights(const convolution &c, bool by_filter) {
    std::vector<float> packed(c.taps() * c.filters());
    for (size_t k = 0; k < c.filters(); k++) {
        size_t tap = 0;
        for (int64_t ch = 0; ch < c.w.n[1]; ch++)
            for (int64_t r = 0; r < c.w.n[2]; r++)
                for (int64_t s = 0; s < c.w.n[3]; s++, tap++)
                    packed[by_filter ? k * c.taps() + tap : tap * c.filters() + k] =
                        c.in(c.w(static_cast<int64_t>(k), ch, r, s));
    }
    return packed;
}

/* One image as [taps][places]. */
static std::vector<float> unfold(const convolution &c, int64_t image) {
    std::vector<float> columns(c.taps() * c.places());
    each_tap(c.g, c.w, c.x.n + 2, c.y.n + 2,
             [&](size_t tap, size_t place, int64_t ch, int64_t y, int64_t x) {
                 columns[tap * c.places() + place] = c.in(c.x(image, ch, y, x));
             });
    return columns;
}

/* One image of y as [filters][places], or the other way round. */
static std::vector<float> pack_output(const convolution &c, int64_t image, bool by_place) {
    std::vector<float> packed(c.places() * c.filters());
    for (int64_t k = 0; k < c.y.n[1]; k++)
        for (int64_t p = 0; p < c.y.n[2]; p++)
            for (int64_t q = 0; q < c.y.n[3]; q++) {
                size_t place = static_cast<size_t>(p * c.y.n[3] + q), f = static_cast<size_t>(k);
                packed[by_place ? place * c.filters() + f : f * c.places() + place] =
                    c.in(c.y(image, k, p, q));
            }
    return packed;
}

static void store(const convolution &c, float &to, float value) {
    to = c.alpha * value + (c.beta == 0 ? 0 : c.beta * to);
}

static void forward(const convolution &c) {
    std::vector<float> weights = pack_weights(c, true);
    for (int64_t i = 0; i < c.x.n[0]; i++) {
        std::vector<float> columns = unfold(c, i), sums(c.filters() * c.places());
        add_product(c.filters(), c.taps(), c.places(), weights.data(), columns.data(), sums.data());
        for (int64_t k = 0; k < c.y.n[1]; k++)
            for (int64_t p = 0; p < c.y.n[2]; p++)
                for (int64_t q = 0; q < c.y.n[3]; q++)
                    store(c, c.y(i, k, p, q),
                          sums[static_cast<size_t>((k * c.y.n[2] + p) * c.y.n[3] + q)]);
    }
}

static void backward_data(const convolution &c) {
    std::vector<float> weights = pack_weights(c, false);
    for (int64_t i = 0; i < c.x.n[0]; i++) {
        std::vector<float> dy = pack_output(c, i, false), columns(c.taps() * c.places());
        add_product(c.taps(), c.filters(), c.places(), weights.data(), dy.data(), columns.data());
        std::vector<float> sums(static_cast<size_t>(c.x.n[1] * c.x.n[2] * c.x.n[3]));
        auto at = [&](int64_t ch, int64_t y, int64_t x) -> float & {
            return sums[static_cast<size_t>((ch * c.x.n[2] + y) * c.x.n[3] + x)];
        };
        each_tap(c.g, c.w, c.x.n + 2, c.y.n + 2,
                 [&](size_t tap, size_t place, int64_t ch, int64_t y, int64_t x) {
                     at(ch, y, x) += columns[tap * c.places() + place];
                 });
        for (int64_t ch = 0; ch < c.x.n[1]; ch++)
            for (int64_t y = 0; y < c.x.n[2]; y++)
                for (int64_t x = 0; x < c.x.n[3]; x++)
                    store(c, c.x(i, ch, y, x), at(ch, y, x));
    }
}

static void backward_filter(const convolution &c) {
    std::vector<float> sums(c.taps() * c.filters());
    for (int64_t i = 0; i < c.x.n[0]; i++) {
        std::vector<float> columns = unfold(c, c.image(i)), dy = pack_output(c, c.image(i), true);
        add_product(c.taps(), c.places(), c.filters(), columns.data(), dy.data(), sums.data());
    }
    for (size_t k = 0; k < c.filters(); k++) {
        size_t tap = 0;
        for (int64_t ch = 0; ch < c.w.n[1]; ch++)
            for (int64_t r = 0; r < c.w.n[2]; r++)
                for (int64_t s = 0; s < c.w.n[3]; s++, tap++)
                    store(c, c.w(static_cast<int64_t>(k), ch, r, s), sums[tap * c.filters() + k]);
    }
}

/* The attributes of the three kinds: x, w, y, geometry, alpha, beta. */
struct convolution_kind {
    int x, w, y, geometry, alpha, beta;
    void (*run)(const convolution &);
    int output; /* which of x, w, y is written */
};

static const std::map<int, convolution_kind> convolutions = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
      forward, 2}},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, backward_data, 0}},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, backward_filter, 1}},
};

static float number(const descriptor &d, int name, float otherwise) {
    auto found = d.attributes.find(name);
    if (found == d.attributes.end())
        return otherwise;
    return found->second.type == CUDNN_TYPE_DOUBLE ? static_cast<float>(d.value<double>(name, 0))
                                                   : d.value<float>(name, 0);
}

static void run_convolution(const descriptor &op, const engine &e, binding &b) {
    const convolution_kind &kind = convolutions.at(op.type);
    convolution c = {geometry_of(op.only(kind.geometry)),
                     view_of(op.only(kind.x), b),
                     view_of(op.only(kind.w), b),
                     view_of(op.only(kind.y), b),
                     number(op, kind.alpha, 1),
                     number(op, kind.beta, 0),
                     e.rounds,
                     e.backwards};
    kind.run(c);
    view &out = kind.output == 0 ? c.x : kind.output == 1 ? c.w : c.y;
    if (e.ruins)
        out.at[0] = NAN;
}

/* ---- pointwise ---- */

static float pointwise(const descriptor &p, const engine &e, float x, float b) {
    switch (p.value<int>(CUDNN_ATTR_POINTWISE_MODE, -1)) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_IDENTITY:
        return x;
    case CUDNN_POINTWISE_RELU_FWD:
        return keeps_nan(e) ? (x < 0 ? 0 : x) : (x > 0 ? x : 0);
    case CUDNN_POINTWISE_TANH_FWD:
        return std::tanh(x);
    case CUDNN_POINTWISE_SIGMOID_FWD:
        return 1 / (1 + std::exp(-x));
    default:
        complain("this pointwise operation of cuDNN is not emulated");
    }
}

static float broadcast(const view &v, const int64_t *i) {
    return v(v.n[0] == 1 ? 0 : i[0], v.n[1] == 1 ? 0 : i[1], v.n[2] == 1 ? 0 : i[2],
             v.n[3] == 1 ? 0 : i[3]);
}

static void run_pointwise(const descriptor &op, const engine &e, binding &b) {
    const descriptor &p = op.only(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    view x = view_of(op.only(CUDNN_ATTR_OPERATION_POINTWISE_XDESC), b);
    view y = view_of(op.only(CUDNN_ATTR_OPERATION_POINTWISE_YDESC), b), other = x;
    bool two = op.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    if (two)
        other = view_of(op.only(CUDNN_ATTR_OPERATION_POINTWISE_BDESC), b);
    float alpha1 = number(op, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1);
    float alpha2 = number(op, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1);
    int64_t i[4];
    for (i[0] = 0; i[0] < y.n[0]; i[0]++)
        for (i[1] = 0; i[1] < y.n[1]; i[1]++)
            for (i[2] = 0; i[2] < y.n[2]; i[2]++)
                for (i[3] = 0; i[3] < y.n[3]; i[3]++)
                    y(i[0], i[1], i[2], i[3]) = pointwise(p, e, alpha1 * broadcast(x, i),
                                                          two ? alpha2 * broadcast(other, i) : 0);
}

/* ---- execution ---- */

/* Every tensor that is no operation's alone must be bound to as much device memory as it spans. */
static bool is_bound(const descriptor &tensor, binding &b) {
    if (tensor.value<char>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0))
        return true;
    int64_t id = tensor.value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
    if (b.pointers.count(id) == 0)
        return false;
    uint64_t alignment =
        static_cast<uint64_t>(tensor.value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1));
    view v = view_of(tensor, b);
    return reinterpret_cast<uintptr_t>(v.at) % alignment == 0 &&
           is_device_range(v.at, v.span() * sizeof(float));
}

static bool all_bound(const descriptor &graph, binding &b) {
    for (const descriptor_ref &op : graph.descriptors.at(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        for (const auto &[name, list] : op->descriptors) {
            if (list[0]->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR && !is_bound(*list[0], b))
                return false;
        }
    }
    return true;
}

static void run_operations(const descriptor &graph, const engine &e, binding b) {
    for (const descriptor_ref &op : graph.descriptors.at(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        if (op->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
            run_pointwise(*op, e, b);
        else
            run_convolution(*op, e, b);
    }
}

cudnnStatus_t execute(const descriptor_ref &plan, const descriptor &pack, cudaStream_t stream) {
    const descriptor &config = plan->only(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const descriptor &chosen = config.only(CUDNN_ATTR_ENGINECFG_ENGINE);
    const engine &e =
        engines.at(static_cast<size_t>(chosen.value<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 0)));
    descriptor_ref graph = chosen.descriptors.at(CUDNN_ATTR_ENGINE_OPERATION_GRAPH).at(0);
    binding b;
    auto ids = pack.values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto pointers = pack.values<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (size_t i = 0; i < ids.size(); i++)
        b.pointers[ids[i]] = pointers[i];
    void *workspace = pack.value<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
    size_t bytes = static_cast<size_t>(e.workspace);
    if (e.fails)
        return CUDNN_STATUS_EXECUTION_FAILED;
    if (!all_bound(*graph, b) || (bytes > 0 && !is_device_range(workspace, bytes)))
        return CUDNN_STATUS_BAD_PARAM;
    cudaError_t error = enqueue(stream, [=, &e] {
        if (bytes > 0)
            memset(workspace, 0xFF, bytes);
        run_operations(*graph, e, b);
        pass_time(e.milliseconds);
    });
    return error == cudaSuccess ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

} // namespace emulation
