/* The emulated cuBLAS and cuDNN against plain loops; small integers, so that sums are exact. */
#include "check.h"
#include "emulation.h"

#include <cublas_v2.h>
#include <cudnn.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#define assert_done(expr) assert_int_equal((expr), 0)

static float *device_copy(const float *values, size_t count) {
    float *memory;
    assert_done(cudaMalloc((void **)&memory, count * sizeof *values));
    if (values != NULL)
        assert_done(cudaMemcpy(memory, values, count * sizeof *values, cudaMemcpyHostToDevice));
    return memory;
}

static float *small_integers(size_t count, int step) {
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i * (size_t)step % 7) - 3);
    return values;
}

/* ---- cuBLAS ---- */

enum { M = 5, N = 4, K = 6, LD = 9 };

static float at(const float *x, bool transposed, int row, int column) {
    return transposed ? x[row * LD + column] : x[column * LD + row];
}

static void check_product(cublasHandle_t handle, bool ta, bool tb, float alpha, float beta) {
    float *a = small_integers(LD * LD, 5), *b = small_integers(LD * LD, 3), c[LD * LD],
          got[LD * LD];
    for (int i = 0; i < LD * LD; i++)
        c[i] = beta == 0 ? NAN : (float)(i % 5);
    float *da = device_copy(a, LD * LD), *db = device_copy(b, LD * LD),
          *dc = device_copy(c, LD * LD);
    assert_done(cublasSgemm(handle, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                            M, N, K, &alpha, da, LD, db, LD, &beta, dc, LD));
    assert_done(cudaMemcpy(got, dc, sizeof got, cudaMemcpyDeviceToHost));
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++)
                sum += at(a, ta, i, k) * at(b, tb, k, j);
            assert_true(got[j * LD + i] == alpha * sum + (beta == 0 ? 0 : beta * c[j * LD + i]));
        }
    assert_memory_equal(&got[M], &c[M], (LD - M) * sizeof *c);
    float *const memory[] = {da, db, dc};
    for (int i = 0; i < 3; i++)
        assert_done(cudaFree(memory[i]));
    free(a);
    free(b);
}

static void products(void **state) {
    (void)state;
    cublasHandle_t handle;
    assert_done(cublasCreate(&handle));
    for (int ops = 0; ops < 4; ops++) {
        check_product(handle, ops & 1, ops & 2, 1, 0);
        check_product(handle, ops & 1, ops & 2, 2, -1);
    }
    float one = 1, *x = device_copy(NULL, 16);
    assert_int_equal(
        cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x, 3, x, 4, &one, x, 4),
        CUBLAS_STATUS_INVALID_VALUE);
    assert_done(cudaFree(x));
    assert_done(cublasDestroy(handle));
    assert_int_equal(emulation_live_objects(), 0);
}

/* 1 + 2^-12 is no TF32 number: products see it as 1, when that is asked for. */
static void tf32_is_rounded_when_asked_for(void **state) {
    (void)state;
    const float value = 1 + 0x1p-12F, one = 1, zero = 0;
    float *x = device_copy(&value, 1), *y = device_copy(NULL, 1), got;
    cublasHandle_t handle;
    assert_done(cublasCreate(&handle));
    for (int tf32 = 0; tf32 <= 1; tf32++) {
        assert_done(
            cublasSetMathMode(handle, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
        assert_done(
            cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1, &zero, y, 1));
        assert_done(cudaMemcpy(&got, y, sizeof got, cudaMemcpyDeviceToHost));
        assert_true(got == (tf32 ? 1 : value * value));
    }
    assert_done(cublasDestroy(handle));
    assert_done(cudaFree(x));
    assert_done(cudaFree(y));
}

/* ---- cuDNN ---- */

enum { IMAGES = 2, CHANNELS = 3, FILTERS = 4, SIDE = 7, TAPS = 3, STRIDE = 2, PAD = 1, OUT = 4 };
enum { X_ID = 1, W_ID, Y_ID, BIAS_ID, BETWEEN_ID, SUM_ID };
enum { X_COUNT = IMAGES * CHANNELS * SIDE * SIDE, W_COUNT = FILTERS * CHANNELS * TAPS * TAPS };
enum { Y_COUNT = IMAGES * FILTERS * OUT * OUT };

static cudnnBackendDescriptor_t made[64];
static int made_count;

static cudnnBackendDescriptor_t make(cudnnBackendDescriptorType_t type) {
    assert_true(made_count < 64);
    assert_done(cudnnBackendCreateDescriptor(type, &made[made_count]));
    return made[made_count++];
}

static void unmake_all(void) {
    while (made_count > 0)
        assert_done(cudnnBackendDestroyDescriptor(made[--made_count]));
}

static void put(cudnnBackendDescriptor_t d, int name, cudnnBackendAttributeType_t type,
                int64_t count, const void *values) {
    assert_done(
        cudnnBackendSetAttribute(d, (cudnnBackendAttributeName_t)name, type, count, values));
}

static void put_descriptor(cudnnBackendDescriptor_t d, int name, cudnnBackendDescriptor_t other) {
    put(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other);
}

static cudnnBackendDescriptor_t tensor(int64_t id, const int64_t *dims, const int64_t *strides,
                                       bool between) {
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const int64_t alignment = 4;
    put(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    put(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    put(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    put(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    put(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    put(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &between);
    assert_done(cudnnBackendFinalize(d));
    return d;
}

/* x and y are [n][h][w][c] in memory, w is [k][c][h][w]. */
static const int64_t x_dims[] = {IMAGES, CHANNELS, SIDE, SIDE};
static const int64_t x_strides[] = {SIDE * SIDE * CHANNELS, 1, SIDE *CHANNELS, CHANNELS};
static const int64_t w_dims[] = {FILTERS, CHANNELS, TAPS, TAPS};
static const int64_t w_strides[] = {CHANNELS * TAPS * TAPS, TAPS *TAPS, TAPS, 1};
static const int64_t y_dims[] = {IMAGES, FILTERS, OUT, OUT};
static const int64_t y_strides[] = {OUT * OUT * FILTERS, 1, OUT *FILTERS, FILTERS};
static const int64_t bias_dims[] = {1, FILTERS, 1, 1};
static const int64_t bias_strides[] = {FILTERS, 1, FILTERS, FILTERS};

static cudnnBackendDescriptor_t convolution(void) {
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t sides = 2, pad[] = {PAD, PAD}, stride[] = {STRIDE, STRIDE}, one[] = {1, 1};
    put(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    put(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    put(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &sides);
    put(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
    put(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
    put(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    put(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, one);
    assert_done(cudnnBackendFinalize(d));
    return d;
}

/* The attributes of the three kinds of convolution. */
static const struct kind {
    cudnnBackendDescriptorType_t type;
    int x, w, y, convolution, alpha, beta;
} kinds[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static cudnnBackendDescriptor_t operation(const struct kind *kind, cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t d = make(kind->type);
    const float alpha = 1, beta = 0;
    put_descriptor(d, kind->x, tensor(X_ID, x_dims, x_strides, false));
    put_descriptor(d, kind->w, tensor(W_ID, w_dims, w_strides, false));
    put_descriptor(d, kind->y, y);
    put_descriptor(d, kind->convolution, convolution());
    put(d, kind->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    put(d, kind->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    return d;
}

static cudnnBackendDescriptor_t pointwise(cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                          cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t p = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    put(p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    put(p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    assert_done(cudnnBackendFinalize(p));
    put_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p);
    put_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    put_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    if (b != NULL)
        put_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    assert_done(cudnnBackendFinalize(d));
    return d;
}

static cudnnBackendDescriptor_t heuristics(const cudnnBackendDescriptor_t *ops, int count) {
    cudnnBackendDescriptor_t graph = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    put(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, ops);
    assert_done(cudnnBackendFinalize(graph));
    put_descriptor(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    put(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    assert_done(cudnnBackendFinalize(d));
    return d;
}

enum { ENGINES = 7 };

static void configurations(cudnnBackendDescriptor_t heuristics, cudnnBackendDescriptor_t *configs) {
    int64_t count;
    assert_done(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, NULL));
    assert_int_equal(count, ENGINES);
    for (int i = 0; i < ENGINES; i++)
        configs[i] = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    assert_done(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES, &count, configs));
    assert_int_equal(count, ENGINES);
}

static cudnnBackendDescriptor_t pack(float *const *pointers, void *workspace) {
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    const int64_t ids[] = {X_ID, W_ID, Y_ID, BIAS_ID};
    put(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 4, ids);
    put(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 4, pointers);
    put(d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    assert_done(cudnnBackendFinalize(d));
    return d;
}

/* y, dx or dw by plain loops over the definition, in the layouts above. */
static void plain(int kind, const float *x, const float *w, const float *y, float *out) {
    for (int n = 0; n < IMAGES; n++)
        for (int k = 0; k < FILTERS; k++)
            for (int p = 0; p < OUT * OUT; p++)
                for (int t = 0; t < CHANNELS * TAPS * TAPS; t++) {
                    int c = t / (TAPS * TAPS), row = p / OUT * STRIDE + t / TAPS % TAPS - PAD;
                    int column = p % OUT * STRIDE + t % TAPS - PAD;
                    if (row < 0 || row >= SIDE || column < 0 || column >= SIDE)
                        continue;
                    int i = ((n * SIDE + row) * SIDE + column) * CHANNELS + c;
                    int j = k * CHANNELS * TAPS * TAPS + t, o = (n * OUT * OUT + p) * FILTERS + k;
                    if (kind == 0)
                        out[o] += x[i] * w[j];
                    else if (kind == 1)
                        out[i] += w[j] * y[o];
                    else
                        out[j] += x[i] * y[o];
                }
}

struct arrays {
    float *host[4], *device[4], *workspace;
};
static const size_t counts[] = {X_COUNT, W_COUNT, Y_COUNT, FILTERS};

static struct arrays arrays_create(void) {
    struct arrays a;
    for (int i = 0; i < 4; i++) {
        a.host[i] = small_integers(counts[i], i + 2);
        a.device[i] = device_copy(a.host[i], counts[i]);
    }
    a.workspace = device_copy(NULL, 250);
    return a;
}

static void arrays_destroy(struct arrays *a) {
    for (int i = 0; i < 4; i++) {
        free(a->host[i]);
        assert_done(cudaFree(a->device[i]));
    }
    assert_done(cudaFree(a->workspace));
}

/* Engines 3, 5 and 6 are right, the others must not be taken: their notes say so, or they fail. */
static void run_engines(cudnnHandle_t handle, const cudnnBackendDescriptor_t *configs,
                        const struct arrays *a, int output, const float *want) {
    static const bool right[ENGINES] = {false, true, false, true, false, true, true};
    cudnnBackendDescriptor_t variants = pack(a->device, a->workspace);
    float *got = malloc(counts[output] * sizeof *got);
    assert_non_null(got);
    for (int e = 0; e < ENGINES; e++) {
        cudnnBackendDescriptor_t plan = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        put(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
        put_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[e]);
        assert_int_equal(cudnnBackendFinalize(plan),
                         e == 2 ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS);
        if (e == 2)
            continue;
        assert_int_equal(cudnnBackendExecute(handle, plan, variants),
                         e == 4 ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS);
        if (e == 4)
            continue;
        assert_done(cudaMemcpy(got, a->device[output], counts[output] * sizeof *got,
                               cudaMemcpyDeviceToHost));
        assert_int_equal(memcmp(got, want, counts[output] * sizeof *got) == 0, right[e]);
    }
    free(got);
}

static void check_kind(cudnnHandle_t handle, int kind) {
    static const int outputs[] = {2, 0, 1};
    struct arrays a = arrays_create();
    cudnnBackendDescriptor_t op = operation(&kinds[kind], tensor(Y_ID, y_dims, y_strides, false));
    cudnnBackendDescriptor_t configs[ENGINES];
    assert_done(cudnnBackendFinalize(op));
    configurations(heuristics(&op, 1), configs);
    float *want = calloc(counts[outputs[kind]], sizeof *want);
    assert_non_null(want);
    plain(kind, a.host[0], a.host[1], a.host[2], want);
    run_engines(handle, configs, &a, outputs[kind], want);
    free(want);
    arrays_destroy(&a);
    unmake_all();
}

static void convolutions(void **state) {
    (void)state;
    cudnnHandle_t handle;
    assert_done(cudnnCreate(&handle));
    for (int kind = 0; kind < 3; kind++)
        check_kind(handle, kind);
    assert_done(cudnnDestroy(handle));
    assert_int_equal(emulation_live_objects(), 0);
}

static void bias_and_relu_are_fused(void **state) {
    (void)state;
    cudnnHandle_t handle;
    assert_done(cudnnCreate(&handle));
    struct arrays a = arrays_create();
    cudnnBackendDescriptor_t between = tensor(BETWEEN_ID, y_dims, y_strides, true);
    cudnnBackendDescriptor_t sum = tensor(SUM_ID, y_dims, y_strides, true), configs[ENGINES];
    cudnnBackendDescriptor_t bias = tensor(BIAS_ID, bias_dims, bias_strides, false);
    cudnnBackendDescriptor_t y = tensor(Y_ID, y_dims, y_strides, false);
    cudnnBackendDescriptor_t ops[] = {operation(&kinds[0], between),
                                      pointwise(CUDNN_POINTWISE_ADD, between, bias, sum),
                                      pointwise(CUDNN_POINTWISE_RELU_FWD, sum, NULL, y)};
    assert_done(cudnnBackendFinalize(ops[0]));
    configurations(heuristics(ops, 3), configs);
    float want[Y_COUNT] = {0};
    plain(0, a.host[0], a.host[1], NULL, want);
    for (int i = 0; i < Y_COUNT; i++)
        want[i] = fmaxf(want[i] + a.host[3][i % FILTERS], 0);
    cudnnBackendDescriptor_t plan = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    put_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configs[6]);
    assert_done(cudnnBackendFinalize(plan));
    assert_done(cudnnBackendExecute(handle, plan, pack(a.device, NULL)));
    float got[Y_COUNT];
    assert_done(cudaMemcpy(got, a.device[2], sizeof got, cudaMemcpyDeviceToHost));
    for (int i = 0; i < Y_COUNT; i++)
        assert_true(got[i] == want[i]);
    arrays_destroy(&a);
    unmake_all();
    assert_done(cudnnDestroy(handle));
}

static void notes_tell_what_must_not_be_taken(void **state) {
    (void)state;
    static const int64_t notes[ENGINES] = {1, 2, 0, 1, 0, 0, 1};
    cudnnBackendDescriptor_t op = operation(&kinds[0], tensor(Y_ID, y_dims, y_strides, false));
    cudnnBackendDescriptor_t configs[ENGINES];
    assert_done(cudnnBackendFinalize(op));
    configurations(heuristics(&op, 1), configs);
    for (int e = 0; e < ENGINES; e++) {
        cudnnBackendDescriptor_t engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
        cudnnBackendNumericalNote_t told[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
        int64_t count;
        assert_done(cudnnBackendGetAttribute(configs[e], CUDNN_ATTR_ENGINECFG_ENGINE,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine));
        assert_done(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                             CUDNN_TYPE_NUMERICAL_NOTE,
                                             CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, told));
        assert_int_equal(count, notes[e]);
        assert_true(e != 0 || told[0] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
        assert_true(e != 1 || told[0] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
    }
    unmake_all();
}

static void misfits_are_refused(void **state) {
    (void)state;
    const int64_t wide[] = {IMAGES, FILTERS, OUT, OUT + 1},
                  more[] = {IMAGES, FILTERS + 1, OUT, OUT};
    for (int kind = 0; kind < 3; kind++) {
        cudnnBackendDescriptor_t op = operation(&kinds[kind], tensor(Y_ID, wide, y_strides, false));
        assert_int_equal(cudnnBackendFinalize(op), CUDNN_STATUS_BAD_PARAM);
        op = operation(&kinds[kind], tensor(Y_ID, more, y_strides, false));
        assert_int_equal(cudnnBackendFinalize(op), CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH);
        unmake_all();
    }
    cudnnBackendDescriptor_t bare = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnnBackendDescriptor_t op = make(kinds[0].type);
    assert_int_equal(cudnnBackendFinalize(bare), CUDNN_STATUS_BAD_PARAM);
    assert_int_equal(cudnnBackendSetAttribute(op, (cudnnBackendAttributeName_t)kinds[0].x,
                                              CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &bare),
                     CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
    unmake_all();
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(tf32_is_rounded_when_asked_for),
        cmocka_unit_test(convolutions),
        cmocka_unit_test(bias_and_relu_are_fused),
        cmocka_unit_test(notes_tell_what_must_not_be_taken),
        cmocka_unit_test(misfits_are_refused),
    };
    return RUN_TESTS(tests, argc, argv);
}
