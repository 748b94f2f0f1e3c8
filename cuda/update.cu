/* The optimizers' updates, by the formulas of backend.h. */
#include "device.cuh"

/* The arguments of an update that threads share; the rate with Adam's bias corrections. */
struct rule {
    struct update_args args;
    float rate, second_correction;
};

static __device__ void update_sgd(const struct rule *r, float g, float *w, float *s0, float *) {
    const float v = s0 == NULL ? g : r->args.momentum * *s0 + g;
    *w -= r->rate * (r->args.nesterov && s0 != NULL ? g + r->args.momentum * v : v);
    if (s0 != NULL)
        *s0 = v;
}

static __device__ void update_adadelta(const struct rule *r, float g, float *w, float *s0,
                                       float *s1) {
    const float rho = r->args.rho, rest = 1 - rho, epsilon = r->args.epsilon;
    const float mean = rho * *s0 + rest * g * g;
    const float u = g * sqrtf(*s1 + epsilon) / sqrtf(mean + epsilon);
    *w -= r->rate * u;
    *s0 = mean;
    *s1 = rho * *s1 + rest * u * u;
}

static __device__ void update_adam(const struct rule *r, float g, float *w, float *s0, float *s1) {
    const float b1 = r->args.beta1, b2 = r->args.beta2;
    const float m = b1 * *s0 + (1 - b1) * g, v = b2 * *s1 + (1 - b2) * g * g;
    *w -= r->rate * m / (sqrtf(v * r->second_correction) + r->args.epsilon);
    *s0 = m;
    *s1 = v;
}

/* Powers are formed once a block, in double. */
static __device__ struct rule rule_of(const struct update_args *args, struct step_source source) {
    const struct step_values values = values_of(source);
    struct rule rule = {*args, values.learning_rate, 1};
    if (args->kind == OPTIMIZER_ADAM) {
        const double step = (double)values.optimizer_step;
        rule.rate = (float)(values.learning_rate / (1 - pow((double)args->beta1, step)));
        rule.second_correction = (float)(1 / (1 - pow((double)args->beta2, step)));
    }
    return rule;
}

static __device__ float decayed(const struct update_args *args, float g, float w) {
    const float sign = (float)((w > 0) - (w < 0));
    return g + (args->l1 * sign + args->l2 * w);
}

static __global__ void update(struct update_args args, struct step_source source, float *beta,
                              float *gradient, float *state0, float *state1, size_t count) {
    SHARED(struct rule, shared, [1]);
    if (threadIdx.x == 0)
        shared[0] = rule_of(&args, source);
    __syncthreads();
    const struct rule rule = shared[0];
    const bool decays = args.l1 != 0 || args.l2 != 0;
    for (size_t i = first_element(); i < count; i += stride()) {
        if (decays)
            gradient[i] = decayed(&args, gradient[i], beta[i]);
        float *s0 = state0 == NULL ? NULL : state0 + i, *s1 = state1 == NULL ? NULL : state1 + i;
        if (args.kind == OPTIMIZER_ADADELTA)
            update_adadelta(&rule, gradient[i], beta + i, s0, s1);
        else if (args.kind == OPTIMIZER_ADAM)
            update_adam(&rule, gradient[i], beta + i, s0, s1);
        else
            update_sgd(&rule, gradient[i], beta + i, s0, s1);
    }
}

cudaError_t kernel_update(const struct update_args *args, struct step_source source, float *beta,
                          float *gradient, float *state0, float *state1, size_t count,
                          cudaStream_t stream) {
    if (count > 0)
        LAUNCH(update, blocks_for(count), THREADS, 0, stream, *args, source, beta, gradient, state0,
               state1, count);
    return cudaGetLastError();
}
