/* The dense layer of the poster's network, 4608 -> 128 on 128 images: its three products in sparse
 * form against the same by OpenBLAS with all weights.
 *
 * usage: sparse_dense DENSITY THREADS ROUNDS. Prints one JSON object: seconds of forward and
 * backward together, sparse and dense, the fastest of as many runs in turn. */
#include <cblas.h>
#include <espalier/backend.h>
#include <espalier/digest.h>
#include <espalier/progress.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 128, INPUTS = 4608, UNITS = 128, WEIGHTS = INPUTS * UNITS, PASSES = 20 };

struct layer {
    float *weights, *bias, *x, *y, *dy, *dweights, *dbias, *dx;
    uint32_t *indices;
    size_t count;
};

/* Numbers between -1 and 1, aligned as the program's own memory is. */
static float *noise(size_t count, uint64_t stream) {
    enum { LINE = 64 };
    float *values = aligned_alloc(LINE, (count * sizeof *values + LINE - 1) / LINE * LINE);
    if (values == NULL)
        abort();
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(hash_mix(stream << 32 | (i + 1)) >> 40) * 0x1p-23F - 1;
    return values;
}

static struct layer layer_create(double density) {
    struct layer l = {.weights = noise(WEIGHTS, 1),
                      .bias = noise(UNITS, 2),
                      .x = noise(SAMPLES * INPUTS, 3),
                      .y = noise(SAMPLES * UNITS, 4),
                      .dy = noise(SAMPLES * UNITS, 5),
                      .dweights = noise(WEIGHTS, 6),
                      .dbias = noise(UNITS, 7),
                      .dx = noise(SAMPLES * INPUTS, 8),
                      .indices = malloc(WEIGHTS * sizeof *l.indices)};
    if (l.indices == NULL)
        abort();
    for (uint32_t i = 0; i < WEIGHTS; i++)
        if ((double)hash_mix(i + 1) < density * 0x1p64)
            l.indices[l.count++] = i;
    return l;
}

static void layer_destroy(struct layer *l) {
    void *const arrays[] = {l->weights,  l->bias,  l->x,  l->y,      l->dy,
                            l->dweights, l->dbias, l->dx, l->indices};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]);
}

/* Y = X W^T, dW = dY^T X, dX = dY W. */
static void run_blas(const struct layer *l) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SAMPLES, UNITS, INPUTS, 1, l->x, INPUTS,
                l->weights, INPUTS, 0, l->y, UNITS);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, UNITS, INPUTS, SAMPLES, 1, l->dy, UNITS,
                l->x, INPUTS, 0, l->dweights, INPUTS);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SAMPLES, INPUTS, UNITS, 1, l->dy, UNITS,
                l->weights, INPUTS, 0, l->dx, INPUTS);
}

static enum status run_sparse(struct backend *backend, struct block_plan *plan,
                              const struct layer *l) {
    const struct block_pass pass = {.samples = SAMPLES};
    TRY(backend->block_plan_load_weights(plan, l->weights, l->bias));
    TRY(backend->block_forward(plan, &pass, l->x, l->y));
    return backend->block_backward(plan, &pass, l->x, l->y, l->dy, l->dweights, l->dbias, l->dx,
                                   (struct poll){NULL, NULL});
}

static enum status compare(struct backend *backend, struct block_plan *plan, const struct layer *l,
                           int rounds, double *sparse, double *dense) {
    *sparse = *dense = INFINITY;
    for (int round = 0; round < rounds; round++) {
        double begin = monotonic_seconds();
        for (int i = 0; i < PASSES; i++)
            TRY(run_sparse(backend, plan, l));
        double between = monotonic_seconds();
        for (int i = 0; i < PASSES; i++)
            run_blas(l);
        double end = monotonic_seconds();
        *sparse = fmin(*sparse, (between - begin) / PASSES);
        *dense = fmin(*dense, (end - between) / PASSES);
    }
    return ST_OK;
}

static enum status measure(double density, int threads, int rounds) {
    const struct block_desc desc = {.kind = BLOCK_DENSE,
                                    .input = {1, 1, INPUTS},
                                    .linear = {1, 1, UNITS},
                                    .output = {1, 1, UNITS},
                                    .activation = ACTIVATION_NONE,
                                    .pool = 1};
    struct layer l = layer_create(density);
    const struct block_survivors survivors = {l.indices, l.count, true};
    struct backend *backend;
    struct block_plan *plan;
    double sparse, dense;
    openblas_set_num_threads(threads);
    TRY(backend_cpu_create(threads, &backend));
    TRY(backend->block_plan_create(backend, &desc, SAMPLES, false, &plan));
    TRY(backend->block_plan_set_survivors(plan, &survivors));
    TRY(compare(backend, plan, &l, rounds, &sparse, &dense));
    printf("{\"density\": %.6f, \"threads\": %d, \"sparse_seconds\": %.9f, "
           "\"openblas_seconds\": %.9f, \"openblas_core\": \"%s\"}\n",
           (double)l.count / WEIGHTS, threads, sparse, dense, openblas_get_corename());
    backend->block_plan_destroy(plan);
    backend->destroy(backend);
    layer_destroy(&l);
    return ST_OK;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: sparse_dense DENSITY THREADS ROUNDS\n");
        return 2;
    }
    const double density = strtod(argv[1], NULL);
    const long threads = strtol(argv[2], NULL, 10), rounds = strtol(argv[3], NULL, 10);
    if (!(density > 0 && density <= 1) || threads < 1 || threads > 1024 || rounds < 1 ||
        rounds > 100000) {
        fprintf(stderr, "sparse_dense: a density in (0, 1], a number of threads and of rounds\n");
        return 2;
    }
    if (measure(density, (int)threads, (int)rounds) == ST_OK)
        return 0;
    fprintf(stderr, "sparse_dense: %s\n", status_message());
    return 1;
}
