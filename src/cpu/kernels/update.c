/* Optimizer updates: one loop over the survivors per kind, for the compiler to vectorise. */
#include "isa.h"

#include <math.h>
#include <string.h>

static void update_plain(const struct update_args *args, struct update_vectors v, size_t count) {
    const float rate = args->learning_rate;
#pragma omp simd
    for (size_t j = 0; j < count; j++)
        v.beta[j] -= rate * v.gradient[j];
}

static void update_momentum(const struct update_args *args, struct update_vectors v, size_t count) {
    const float rate = args->learning_rate, momentum = args->momentum;
    const float of_gradient = args->nesterov ? 1.0F : 0.0F;
    const float of_velocity = args->nesterov ? momentum : 1.0F;
#pragma omp simd
    for (size_t j = 0; j < count; j++) {
        const float velocity = momentum * v.state0[j] + v.gradient[j];
        v.state0[j] = velocity;
        v.beta[j] -= rate * (of_gradient * v.gradient[j] + of_velocity * velocity);
    }
}

static void update_sgd(const struct update_args *args, struct update_vectors v, size_t count) {
    if (args->momentum == 0.0F)
        update_plain(args, v, count);
    else
        update_momentum(args, v, count);
}

static void update_adadelta(const struct update_args *args, struct update_vectors v, size_t count) {
    const float rate = args->learning_rate, rho = args->rho, rest = 1.0F - args->rho;
    const float epsilon = args->epsilon;
#pragma omp simd
    for (size_t j = 0; j < count; j++) {
        const float g = v.gradient[j];
        const float a = rho * v.state0[j] + rest * g * g;
        const float u = g * sqrtf(v.state1[j] + epsilon) / sqrtf(a + epsilon);
        v.beta[j] -= rate * u;
        v.state0[j] = a;
        v.state1[j] = rho * v.state1[j] + rest * u * u;
    }
}

static void update_adam(const struct update_args *args, struct update_vectors v, size_t count) {
    const float beta1 = args->beta1, beta2 = args->beta2, epsilon = args->epsilon;
    const float rest1 = 1.0F - beta1, rest2 = 1.0F - beta2;
    const double step = (double)args->step;
    const float rate = (float)((double)args->learning_rate / (1.0 - pow((double)beta1, step)));
    const float correction2 = (float)(1.0 / (1.0 - pow((double)beta2, step)));
#pragma omp simd
    for (size_t j = 0; j < count; j++) {
        const float g = v.gradient[j];
        const float m = beta1 * v.state0[j] + rest1 * g;
        const float s = beta2 * v.state1[j] + rest2 * g * g;
        v.state0[j] = m;
        v.state1[j] = s;
        v.beta[j] -= rate * m / (sqrtf(s * correction2) + epsilon);
    }
}

/* Adds the gradient of l1 |w| + l2 / 2 w^2. */
static void decay(const struct update_args *args, struct update_vectors v, size_t count) {
    const float l1 = args->l1, l2 = args->l2;
#pragma omp simd
    for (size_t j = 0; j < count; j++) {
        const float w = v.beta[j];
        v.gradient[j] += l2 * w + (w > 0.0F ? l1 : w < 0.0F ? -l1 : 0.0F);
    }
}

/* Elements of whole vectors of every set: what comes behind the vectors of a loop is compiled
 * otherwise, with roundings of its own, so nothing does. */
enum { WHOLE = 16 };

/* count is a multiple of WHOLE. */
static void update_whole(const struct update_args *args, struct update_vectors v, size_t count) {
    static void (*const updates[OPTIMIZER_COUNT])(const struct update_args *, struct update_vectors,
                                                  size_t) = {
        [OPTIMIZER_SGD] = update_sgd,
        [OPTIMIZER_ADADELTA] = update_adadelta,
        [OPTIMIZER_ADAM] = update_adam,
    };
    if (args->l1 != 0.0F || args->l2 != 0.0F)
        decay(args, v, count);
    updates[args->kind](args, v, count);
}

/* Fewer than WHOLE elements, filled up with zeros, by way of a buffer. */
static void update_rest(const struct update_args *args, struct update_vectors v, size_t count) {
    float *const vectors[] = {v.beta, v.gradient, v.state0, v.state1};
    float buffers[4][WHOLE] = {{0}};
    const size_t bytes = count * sizeof(float);
    for (int i = 0; i < 4; i++)
        if (vectors[i] != NULL)
            memcpy(buffers[i], vectors[i], bytes);
    update_whole(args, (struct update_vectors){buffers[0], buffers[1], buffers[2], buffers[3]},
                 WHOLE);
    for (int i = 0; i < 4; i++)
        if (vectors[i] != NULL)
            memcpy(vectors[i], buffers[i], bytes);
}

static void update(const struct update_args *args, struct update_vectors v, size_t count) {
    const size_t whole = count - count % WHOLE;
    update_whole(args, v, whole);
    if (whole == count)
        return;
    update_rest(args,
                (struct update_vectors){v.beta + whole, v.gradient + whole,
                                        v.state0 == NULL ? NULL : v.state0 + whole,
                                        v.state1 == NULL ? NULL : v.state1 + whole},
                count - whole);
}

const struct update_kernels ISA_NAME(update_kernels) = {update};
