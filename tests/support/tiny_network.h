/* tiny_network.h - the smallest network that has everything: 6 x 6 x 2 images, a convolution with
 * pooling, two dense layers.
 *
 *   conv1  3 filters of 3 x 3 x 2     54 weights   3 biases
 *   dense1 5 units of 2 x 2 x 3       60 weights   5 biases
 *   dense2 4 units of 5               20 weights   4 biases */
#ifndef ESPALIER_TESTS_TINY_NETWORK_H
#define ESPALIER_TESTS_TINY_NETWORK_H

#include <espalier/network.h>
#include <stdio.h>

enum { TINY_CONV1 = 54, TINY_DENSE1 = 60, TINY_DENSE2 = 20, TINY_ALL = 146, TINY_CLASSES = 4 };

static const struct shape tiny_input = {6, 6, 2};

static inline struct layer_settings *tiny_layer(struct recipe *recipe, enum layer_kind type,
                                                const char *name) {
    struct layer_settings *layer = &recipe->layers[recipe->layers_count++];
    *layer = (struct layer_settings){.type = type, .stride = 1};
    snprintf(layer->name, sizeof layer->name, "%s", name);
    return layer;
}

static inline enum status tiny_network_create(struct backend *backend, int max_samples,
                                              struct network **network) {
    struct recipe recipe = {.layers_count = 0};
    struct layer_settings *conv1 = tiny_layer(&recipe, LAYER_CONV, "conv1");
    conv1->filters = 3;
    conv1->kernel = 3;
    conv1->activation = ACTIVATION_RELU;
    tiny_layer(&recipe, LAYER_MAXPOOL, "maxpool1")->size = 2;
    struct layer_settings *dense1 = tiny_layer(&recipe, LAYER_DENSE, "dense1");
    dense1->units = 5;
    dense1->activation = ACTIVATION_TANH;
    tiny_layer(&recipe, LAYER_DENSE, "dense2")->units = TINY_CLASSES;
    return network_create(&recipe, tiny_input, max_samples, backend, network);
}

/** Numbers between -1 and 1, from a linear congruential generator (Knuth's MMIX constants). */
static inline float tiny_noise(uint64_t *x) {
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int64_t)*x * 0x1p-63);
}

#endif
