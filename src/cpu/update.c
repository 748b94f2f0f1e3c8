/* Optimizer updates: blocks of survivors shared among the team. */
#include "cpu.h"

enum { BLOCK = 16384 };

static float *from(float *state, size_t first) {
    return state == NULL ? NULL : state + first;
}

enum status cpu_update(struct backend *backend, const struct update_args *args, float *beta,
                       float *gradient, float *state0, float *state1, size_t count) {
    const struct update_kernels *kernels = cpu_kernels(backend)->update;
#pragma omp parallel for num_threads(backend->threads) if (count > BLOCK)
    for (size_t first = 0; first < count; first += BLOCK) {
        const struct update_vectors vectors = {beta + first, gradient + first, from(state0, first),
                                               from(state1, first)};
        kernels->update(args, vectors, count - first < BLOCK ? count - first : BLOCK);
    }
    return ST_OK;
}
