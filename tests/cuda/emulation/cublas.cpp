/* cuBLAS: single-precision products of column-major matrices. */
#include "emulation_internal.h"
#include "product.h"

#include <cublas_v2.h>

using namespace emulation;

struct cublasContext {
    cudaStream_t stream;
    cublasMath_t math;
    cublasPointerMode_t pointers;
};

#define ENTER_CUBLAS(usual)                                                                        \
    do {                                                                                           \
        int status_ = entered(__func__, usual);                                                    \
        if (status_ != 0)                                                                          \
            return static_cast<cublasStatus_t>(status_);                                           \
        if (dropped(__func__))                                                                     \
            return CUBLAS_STATUS_SUCCESS;                                                          \
    } while (0)

/* A matrix as it is stored, and whether its transpose is meant. */
struct stored {
    const float *values;
    int rows, columns, stride; /* of the matrix that is meant */
    bool transposed;

    size_t stored_columns() const {
        return static_cast<size_t>(transposed ? rows : columns);
    }
    size_t stored_rows() const {
        return static_cast<size_t>(transposed ? columns : rows);
    }
    bool is_legal() const {
        size_t most = stored_columns() * static_cast<size_t>(stride) * sizeof(float);
        size_t last = (static_cast<size_t>(stride) - stored_rows()) * sizeof(float);
        return rows == 0 || columns == 0 || is_device_range(values, most - last);
    }
    float at(int row, int column) const {
        size_t r = static_cast<size_t>(transposed ? column : row);
        size_t c = static_cast<size_t>(transposed ? row : column);
        return values[c * static_cast<size_t>(stride) + r];
    }
    /* Row-major and contiguous. */
    std::vector<float> packed(bool rounded) const {
        std::vector<float> p;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++)
                p.push_back(rounded ? tf32(at(r, c)) : at(r, c));
        }
        return p;
    }
};

struct product {
    stored a, b;
    float alpha, beta;
    float *c;
    int stride;
    bool rounded;
};

/* Where beta is 0, what is in c does not matter, were it NaN. */
static void compute(const product &p) {
    size_t m = static_cast<size_t>(p.a.rows), n = static_cast<size_t>(p.b.columns);
    std::vector<float> sums(m * n);
    if (p.alpha != 0)
        add_product(m, static_cast<size_t>(p.a.columns), n, p.a.packed(p.rounded).data(),
                    p.b.packed(p.rounded).data(), sums.data());
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < m; i++) {
            float *to = &p.c[j * static_cast<size_t>(p.stride) + i];
            *to = p.alpha * sums[i * n + j] + (p.beta == 0 ? 0 : p.beta * *to);
        }
    }
}

extern "C" {

cublasStatus_t cublasCreate(cublasHandle_t *handle) {
    ENTER_CUBLAS(CUBLAS_STATUS_NOT_INITIALIZED);
    *handle = new cublasContext{nullptr, CUBLAS_DEFAULT_MATH, CUBLAS_POINTER_MODE_HOST};
    count_object(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    delete handle;
    count_object(-1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
    ENTER_CUBLAS(CUBLAS_STATUS_NOT_INITIALIZED);
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *workspace, size_t bytes) {
    ENTER_CUBLAS(CUBLAS_STATUS_NOT_INITIALIZED);
    return bytes == 0 || is_device_range(workspace, bytes) ? CUBLAS_STATUS_SUCCESS
                                                           : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t math) {
    ENTER_CUBLAS(CUBLAS_STATUS_INVALID_VALUE);
    handle->math = math;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode) {
    ENTER_CUBLAS(CUBLAS_STATUS_NOT_INITIALIZED);
    handle->pointers = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t, cublasAtomicsMode_t mode) {
    ENTER_CUBLAS(CUBLAS_STATUS_NOT_INITIALIZED);
    return mode == CUBLAS_ATOMICS_NOT_ALLOWED ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasSgemm(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                           int m, int n, int k, const float *alpha, const float *a, int stride_a,
                           const float *b, int stride_b, const float *beta, float *c,
                           int stride_c) {
    ENTER_CUBLAS(CUBLAS_STATUS_EXECUTION_FAILED);
    bool shapes = m >= 0 && n >= 0 && k >= 0 && stride_a >= (op_a == CUBLAS_OP_N ? m : k) &&
                  stride_b >= (op_b == CUBLAS_OP_N ? k : n) && stride_c >= m && stride_a > 0 &&
                  stride_b > 0 && stride_c > 0;
    if (!shapes || handle->pointers != CUBLAS_POINTER_MODE_HOST)
        return CUBLAS_STATUS_INVALID_VALUE;
    product p = {{a, m, k, stride_a, op_a != CUBLAS_OP_N},
                 {b, k, n, stride_b, op_b != CUBLAS_OP_N},
                 *alpha,
                 *beta,
                 c,
                 stride_c,
                 handle->math == CUBLAS_TF32_TENSOR_OP_MATH};
    stored to = {c, m, n, stride_c, false};
    if (!p.a.is_legal() || !p.b.is_legal() || !to.is_legal())
        complain("cublasSgemm is given matrices that are not in device memory");
    cudaError_t error = enqueue(handle->stream, [p] { compute(p); });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    default:
        return "an emulated cuBLAS error";
    }
}

const char *cublasGetStatusName(cublasStatus_t) {
    return "CUBLAS_STATUS_EMULATED";
}
}
