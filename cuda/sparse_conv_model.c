/* What convolutions should cost on a device in dense and in sparse form: on paper, as
 * sparse_model.c for dense layers. */
#include "sparse_conv.h"

#include <math.h>

/* Cycles: a band's maps, eight rows' way through the stage, what an entry takes beside its places
 * (value and place, or place and sums), and one more index. */
static const double map_cycles = 500, stage_cycles = 200, entry_cycles = 2, sum_cycles = 2.4,
                    order_cycles = 1;

/* What the dense form has beside its products: the weights' layout, there and back, and the bias.
 */
enum { LAYOUTS = 3 };

enum { MOST_ROW_PARTS = 16, MOST_BAND_PARTS = 512, LANES = 32, EIGHT = 8 };

static int groups_of(const struct conv_window *w, int parts) {
    return divide_up(divide_up(w->rows, EIGHT), parts);
}

static int bands_of(const struct conv_window *w, int samples) {
    return samples * w->bands;
}

/* ---- a band ---- */

/* To load it, of a multiprocessor, and the loads that wait for one another. */
static double load_cycles(const struct device_rates *rates, const struct conv_window *w) {
    return map_cycles + 4.0 * w->pitch * w->chunk / sparse_cache_bytes(rates) +
           3.0 * w->pitch * divide_up(w->chunk, LANES);
}

static int load_rounds(const struct conv_window *w) {
    return divide_up(w->pitch, EIGHT * EIGHT) * divide_up(w->chunk, LANES);
}

/* `entries` of its own, which take `beside` cycles beside their places, and its rows in eights. */
static double compute_cycles(const struct device_rates *rates, const struct conv_window *w,
                             double entries, double beside, int groups) {
    return entries * (divide_up(w->places, LANES) + beside) +
           groups * (stage_cycles + 4.0 * EIGHT * w->places / sparse_cache_bytes(rates));
}

/* ---- passes ---- */

static double combine_seconds(const struct device_rates *rates, const struct conv_window *w,
                              bool forward, int samples, double entries, int parts) {
    const double beside = entry_cycles + (forward ? 0 : order_cycles);
    const double own = load_cycles(rates, w) + compute_cycles(rates, w, entries / w->chunks / parts,
                                                              beside, groups_of(w, parts));
    return sparse_blocks_seconds(rates, (double)bands_of(w, samples) * w->chunks * parts,
                                 load_rounds(w), own) +
           sparse_add_parts_seconds(rates, w->chunks,
                                    (double)samples * w->out_height * w->out_width * w->rows);
}

int conv_combine_parts(const struct device_rates *rates, const struct conv_window *window,
                       bool forward, int samples, double entries) {
    int best = 1;
    for (int parts = 2; parts <= MOST_ROW_PARTS && parts * EIGHT < 2 * window->rows; parts *= 2)
        if (combine_seconds(rates, window, forward, samples, entries, parts) <
            combine_seconds(rates, window, forward, samples, entries, best))
            best = parts;
    return best;
}

static double correlate_seconds(const struct device_rates *rates, const struct conv_window *w,
                                int samples, double entries, struct conv_parts parts) {
    const int each = divide_up(bands_of(w, samples), parts.bands);
    const int groups = groups_of(w, parts.rows);
    const double own =
        each * (load_cycles(rates, w) +
                compute_cycles(rates, w, entries / w->chunks / parts.rows, sum_cycles, groups));
    return sparse_blocks_seconds(rates, (double)parts.bands * w->chunks * parts.rows,
                                 each * (load_rounds(w) + groups), own) +
           sparse_add_parts_seconds(rates, parts.bands, entries);
}

/* So many at most that none is without bands. */
static struct conv_parts parts_of(int all_bands, int bands, int rows) {
    return (struct conv_parts){divide_up(all_bands, divide_up(all_bands, bands)), rows};
}

struct conv_parts conv_gradient_parts(const struct device_rates *rates,
                                      const struct conv_window *window, int samples,
                                      double entries) {
    const int all = bands_of(window, samples);
    struct conv_parts best = {1, 1};
    for (int rows = 1; rows == 1 || (rows <= MOST_ROW_PARTS && rows * EIGHT < 2 * window->rows);
         rows *= 2)
        for (int bands = 1; bands <= MOST_BAND_PARTS && bands < 2 * all; bands *= 2) {
            const struct conv_parts tried = parts_of(all, bands, rows);
            if (correlate_seconds(rates, window, samples, entries, tried) <
                correlate_seconds(rates, window, samples, entries, best))
                best = tried;
        }
    return best;
}

/* ---- windows ---- */

static double window_seconds(const struct device_rates *rates, const struct conv_window *w,
                             bool forward, int samples, double entries) {
    const int parts = conv_combine_parts(rates, w, forward, samples, entries);
    const double combine = combine_seconds(rates, w, forward, samples, entries, parts);
    if (!forward)
        return combine;
    return combine + correlate_seconds(rates, w, samples, entries,
                                       conv_gradient_parts(rates, w, samples, entries));
}

/* The forward window is the weight gradient's too. */
static double choose(const struct device_rates *rates, const struct block_desc *desc, bool forward,
                     int samples, double entries, struct conv_window *window) {
    const int high = forward ? (desc->linear.height - 1) * desc->stride + 1 : desc->input.height;
    double least = INFINITY;
    for (int bands = 1; bands <= high; bands++) {
        struct conv_window tried;
        if (!conv_window_cut(desc, forward, bands, &tried))
            continue;
        const double seconds = window_seconds(rates, &tried, forward, samples, entries);
        if (seconds < least) {
            least = seconds;
            *window = tried;
        }
    }
    return least;
}

bool conv_window_choose(const struct device_rates *rates, const struct block_desc *desc,
                        bool forward, int samples, double entries, struct conv_window *window) {
    return choose(rates, desc, forward, samples, entries, window) < INFINITY;
}

/* ---- both forms ---- */

double conv_dense_seconds(const struct device_rates *rates, const struct conv_layer *layer) {
    const struct block_desc *d = layer->desc;
    const double n = layer->samples, weights = (double)block_weights(d);
    const double flops = 2 * n * weights * d->linear.height * d->linear.width;
    const double bytes = 4 * (n * (double)(shape_size(d->input) + shape_size(d->linear)) + weights);
    const double one = sparse_launch_seconds + fmax(flops / rates->products, bytes / rates->cache);
    return one * (layer->first ? 2 : 3) + LAYOUTS * sparse_launch_seconds;
}

double conv_sparse_seconds(const struct device_rates *rates, const struct conv_layer *layer,
                           double density) {
    struct conv_window window;
    const double entries = density * (double)block_weights(layer->desc);
    const double forward = choose(rates, layer->desc, true, layer->samples, entries, &window);
    if (layer->first)
        return forward;
    return forward + choose(rates, layer->desc, false, layer->samples, entries, &window);
}

static double seconds_at(const struct device_rates *rates, const void *layer, double density) {
    return conv_sparse_seconds(rates, layer, density);
}

double conv_break_even(const struct device_rates *rates, const struct conv_layer *layer) {
    return sparse_meets(rates, seconds_at, layer, conv_dense_seconds(rates, layer));
}
