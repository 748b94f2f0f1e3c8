/* Optimizer updates: blocks of survivors shared among the team. */
#include "cpu.h"

/* Elements that a thread takes at once: whole vectors of every set, so that a cut changes no
 * element's roundings. FEW are done before a team has met. */
enum { BLOCK = 16384, FEW = 8192, WHOLE = 16 };

static size_t block_of(size_t count, int threads) {
    const size_t parts = (size_t)threads * WHOLE, share = (count + parts - 1) / parts * WHOLE;
    return share < BLOCK ? share : BLOCK;
}

static float *from(float *state, size_t first) {
    return state == NULL ? NULL : state + first;
}

enum status cpu_update(struct backend *backend, const struct update_args *args, float *beta,
                       float *gradient, float *state0, float *state1, size_t count) {
    const struct update_kernels *kernels = cpu_kernels(backend)->update;
    if (count <= FEW) {
        kernels->update(args, (struct update_vectors){beta, gradient, state0, state1}, count);
        return ST_OK;
    }
    const size_t block = block_of(count, backend->threads);
#pragma omp parallel for num_threads(backend->threads)
    for (size_t first = 0; first < count; first += block) {
        const struct update_vectors vectors = {beta + first, gradient + first, from(state0, first),
                                               from(state1, first)};
        kernels->update(args, vectors, count - first < block ? count - first : block);
    }
    return ST_OK;
}
