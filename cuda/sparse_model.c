/* What dense layers should cost on a device in dense and in sparse form: on paper. What is assumed
 * is in this file alone; results/gpu/model.md shows what follows from it. */
#include "sparse.h"

#include <math.h>

const double sparse_launch_seconds = 2e-6;

/* Cycles. A block's start and the latency of what it loads first, the latency of a further tile;
 * a row's beginning and end; what adding up a warp's lanes takes. */
static const double start_cycles = 1500, tile_cycles = 800, row_cycles = 20, reduce_cycles = 6;

/* How many blocks share a multiprocessor. */
enum { RESIDENT = 2, MOST_PARTS = 64 };

static const int block_samples_choices[] = {8, 16, 32};
enum { CHOICES = sizeof block_samples_choices / sizeof block_samples_choices[0] };

/* ---- dense form ---- */

/* The larger of FLOPs and bytes; every operand moves once. */
double dense_seconds(const struct device_rates *rates, const struct sparse_layer *layer) {
    const double n = layer->samples, inputs = layer->inputs, units = layer->units;
    const double flops = 2 * n * inputs * units;
    const double bytes = 4 * (n * inputs + n * units + inputs * units);
    const double one = sparse_launch_seconds + fmax(flops / rates->products, bytes / rates->cache);
    return one * (layer->first ? 2 : 3);
}

/* ---- sparse form ---- */

int sparse_chunks(int columns, int block_samples) {
    return divide_up(columns, SPARSE_FLOATS / block_samples);
}

int sparse_width(int columns, int block_samples) {
    return divide_up(columns, sparse_chunks(columns, block_samples));
}

/* Rows that a block takes at once. */
static int rows_at_once(int block_samples) {
    return 256 / block_samples;
}

/* What blocks wait is borne by those of a multiprocessor together. */
double sparse_blocks_seconds(const struct device_rates *rates, double blocks, double tiles,
                             double own) {
    const double each = ceil(blocks / rates->processors);
    const double waits = start_cycles + tiles * tile_cycles;
    return sparse_launch_seconds + (ceil(each / RESIDENT) * waits + each * own) / rates->clock;
}

double sparse_cache_bytes(const struct device_rates *rates) {
    return rates->cache / rates->clock / rates->processors;
}

double sparse_add_parts_seconds(const struct device_rates *rates, int parts, double count) {
    return parts > 1 ? sparse_launch_seconds + 4 * (parts + 1) * count / rates->cache : 0;
}

/* A block loads its samples' inputs; then eight warps take its rows in turn, with what looks up a
 * value, its column and the input for each entry. Groups of lanes that meet in a bank wait. */
static double combine_seconds(const struct device_rates *rates,
                              const struct sparse_product *product, struct sparse_grid grid) {
    const int chunks = sparse_chunks(product->columns, grid.samples);
    const int width = sparse_width(product->columns, grid.samples);
    const double groups = 32.0 / grid.samples, lookups = product->is_ordered ? 4 : 3;
    const double entries = product->entries / product->rows / chunks;
    const int turns = divide_up(divide_up(product->rows, grid.parts), rows_at_once(grid.samples));
    const double row = row_cycles + grid.samples + entries * lookups * (2 + groups) / 3;
    const double own = 4.0 * width * grid.samples / sparse_cache_bytes(rates) + 8.0 * turns * row;
    return sparse_blocks_seconds(rates, (double)grid.tiles * chunks * grid.parts, 0, own) +
           sparse_add_parts_seconds(rates, chunks, (double)product->samples * product->rows);
}

/* The rows in as many parts as are fastest: each loads the inputs for itself. */
struct sparse_grid sparse_grid_of(const struct device_rates *rates,
                                  const struct sparse_product *product, int block_samples) {
    const int tiles = divide_up(product->samples, block_samples);
    struct sparse_grid best = {block_samples, tiles, 1}, tried = best;
    for (tried.parts = 2;
         tried.parts * rows_at_once(block_samples) < 2 * product->rows && tried.parts <= MOST_PARTS;
         tried.parts *= 2)
        if (combine_seconds(rates, product, tried) < combine_seconds(rates, product, best))
            best = tried;
    return best;
}

static double best_combine_seconds(const struct device_rates *rates,
                                   const struct sparse_product *product, int block_samples) {
    return combine_seconds(rates, product, sparse_grid_of(rates, product, block_samples));
}

int sparse_block_samples(const struct device_rates *rates, const struct sparse_product *product) {
    int best = block_samples_choices[0];
    for (int i = 1; i < CHOICES; i++)
        if (best_combine_seconds(rates, product, block_samples_choices[i]) <
            best_combine_seconds(rates, product, best))
            best = block_samples_choices[i];
    return best;
}

static double product_seconds(const struct device_rates *rates,
                              const struct sparse_product *product) {
    return best_combine_seconds(rates, product, sparse_block_samples(rates, product));
}

/* A block loads both sides of its samples, 32 at a time; an entry looks up both, and where. */
static double correlate_seconds(const struct device_rates *rates, double pieces, double count,
                                int samples, int parts) {
    const double entries = pieces > 0 ? count / pieces : 0;
    const double steps = divide_up(divide_up(samples, 32), parts);
    const double sides = SPARSE_TILE_COLUMNS + SPARSE_TILE_ROWS;
    const double own = steps * (4 * 32 * sides / sparse_cache_bytes(rates) + 3 * entries) +
                       reduce_cycles * entries;
    return sparse_blocks_seconds(rates, pieces * parts, steps, own) +
           sparse_add_parts_seconds(rates, parts, count);
}

int sparse_parts(const struct device_rates *rates, size_t pieces, size_t count, int samples) {
    int best = 1;
    for (int parts = 2; parts <= MOST_PARTS && parts * 32 < 2 * samples; parts *= 2)
        if (correlate_seconds(rates, (double)pieces, (double)count, samples, parts) <
            correlate_seconds(rates, (double)pieces, (double)count, samples, best))
            best = parts;
    return best;
}

static double gradient_seconds(const struct device_rates *rates, const struct sparse_layer *layer) {
    const double tiles = (double)divide_up(layer->inputs, SPARSE_TILE_COLUMNS) *
                         divide_up(layer->units, SPARSE_TILE_ROWS);
    const double count = layer->density * layer->inputs * layer->units;
    const double pieces = tiles * ceil(count / tiles / SPARSE_PIECE);
    const int parts = sparse_parts(rates, (size_t)pieces, (size_t)count, layer->samples);
    return correlate_seconds(rates, pieces, count, layer->samples, parts);
}

double sparse_seconds(const struct device_rates *rates, const struct sparse_layer *layer) {
    const double entries = layer->density * layer->inputs * layer->units;
    const struct sparse_product forward = {layer->units, layer->inputs, layer->samples, entries,
                                           false};
    const struct sparse_product backward = {layer->inputs, layer->units, layer->samples, entries,
                                            true};
    return product_seconds(rates, &forward) + gradient_seconds(rates, layer) +
           (layer->first ? 0 : product_seconds(rates, &backward));
}

/* By halving: both ends of [pays, fails] are what they are called. */
double sparse_meets(const struct device_rates *rates, sparse_at *sparse, const void *layer,
                    double dense) {
    double pays = 0, fails = 0.5;
    for (int i = 0; i < 12; i++) {
        const double tried = (pays + fails) / 2;
        if (sparse(rates, layer, tried) < dense)
            pays = tried;
        else
            fails = tried;
    }
    return pays;
}

static double seconds_at(const struct device_rates *rates, const void *layer, double density) {
    struct sparse_layer tried = *(const struct sparse_layer *)layer;
    tried.density = density;
    return sparse_seconds(rates, &tried);
}

double sparse_break_even(const struct device_rates *rates, const struct sparse_layer *layer) {
    return sparse_meets(rates, seconds_at, layer, dense_seconds(rates, layer));
}
