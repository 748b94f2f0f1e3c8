#include "reading.h"
#include <math.h>
#include <string.h>

enum status reading_check_names(const struct reading *reading) {
    const struct recipe *recipe = reading->recipe;
    char automatic[RECIPE_NAME_MAX];
    for (int i = 0; i < recipe->layers_count; i++)
        for (int j = 0; j < recipe->layers_count; j++) {
            const char *name = recipe->layers[i].name;
            if (j < i && strcmp(name, recipe->layers[j].name) == 0)
                return source_fail(&reading->layers[i],
                                   "layers %d and %d of network are both named '%s'", j + 1, i + 1,
                                   name);
            layer_automatic_name(recipe, j, automatic);
            if (j != i && strcmp(name, automatic) == 0)
                return source_fail(&reading->layers[i],
                                   "layer %d of network: '%s' is the automatic name of layer %d",
                                   i + 1, name, j + 1);
        }
    return ST_OK;
}

enum status reading_check_optimizer(const struct reading *reading) {
    enum optimizer_kind kind = reading->recipe->train.optimizer.kind;
    for (int i = 0; i < recipe_keys_count; i++)
        if (source_given(&reading->given[i]) && !key_is_for(&recipe_keys[i], (int)kind))
            return source_fail(&reading->given[i], "%s is not a setting of optimizer '%s'",
                               recipe_keys[i].name, optimizer_names[kind]);
    return ST_OK;
}

/* Which of two keys that do not fit to blame: an override before the file, `key` before `other`. */
static const struct source *blame(struct reading *reading, const char *key, const char *other) {
    const struct source *first = reading_source(reading, key);
    const struct source *second = reading_source(reading, other);
    if (first->override == NULL && (second->override != NULL || !source_given(first)))
        return second;
    return first;
}

static enum status check_layers(const struct reading *reading) {
    for (int i = 0; i < reading->recipe->layers_count; i++) {
        const struct layer_settings *layer = &reading->recipe->layers[i];
        if (layer->type == LAYER_CONV && layer->padding >= layer->kernel)
            return source_fail(&reading->layers[i],
                               "network.%s.padding: found %d, expected less than the kernel, %d",
                               layer->name, layer->padding, layer->kernel);
    }
    return ST_OK;
}

static enum status check_train(struct reading *reading) {
    const struct optimizer_settings *optimizer = &reading->recipe->train.optimizer;
    if (optimizer->nesterov && optimizer->momentum == 0)
        return source_fail(blame(reading, "train.nesterov", "train.momentum"),
                           "train.nesterov needs a train.momentum above 0");
    return ST_OK;
}

/* prune.layers[index] names a conv or dense layer, and none before it the same. */
static enum status check_pruned_layer(struct reading *reading, int index) {
    const struct recipe *recipe = reading->recipe;
    const struct source *source = reading_source(reading, "prune.layers");
    const char *name = recipe->prune.layers[index];
    const char *names[RECIPE_LAYERS_MAX];
    char quoted[QUOTE_MAX], hint[HINT_MAX];
    int count = 0;
    bool found = false;
    for (int i = 0; i < index; i++)
        if (strcmp(name, recipe->prune.layers[i]) == 0)
            return source_fail(source, "prune.layers: names '%s' twice", name);
    for (int i = 0; i < recipe->layers_count; i++)
        if (recipe->layers[i].type == LAYER_CONV || recipe->layers[i].type == LAYER_DENSE) {
            names[count++] = recipe->layers[i].name;
            found = found || strcmp(name, recipe->layers[i].name) == 0;
        }
    if (found)
        return ST_OK;
    quote(name, quoted);
    if (count == 0)
        return source_fail(source, "prune.layers: '%s' is no conv or dense layer; there is none",
                           quoted);
    return source_fail(source, "prune.layers: '%s' is no conv or dense layer of the network; %s",
                       quoted, hint_at(names, count, name, "its own", hint));
}

static enum status check_part_or_count(struct reading *reading, const char *key, double value) {
    if (value >= 1 && value != floor(value))
        return source_fail(reading_source(reading, key),
                           "%s: found %.17g, expected a part below 1 or a whole count", key, value);
    return ST_OK;
}

/* What only one of the scopes has. */
static enum status check_scope(struct reading *reading, const struct prune_settings *prune) {
    if (prune->distribution != DISTRIBUTION_UNIFORM && prune->scope != SCOPE_LAYER)
        return source_fail(blame(reading, "prune.distribution", "prune.scope"),
                           "prune.distribution '%s' needs prune.scope 'layer'",
                           distribution_names[prune->distribution]);
    if (prune->normalise && prune->scope != SCOPE_GLOBAL)
        return source_fail(blame(reading, "prune.normalise", "prune.scope"),
                           "prune.normalise needs prune.scope 'global'");
    return ST_OK;
}

static enum status check_prune(struct reading *reading) {
    const struct prune_settings *prune = &reading->recipe->prune;
    for (int i = 0; i < prune->layers_count; i++)
        TRY(check_pruned_layer(reading, i));
    if (prune->schedule != SCHEDULE_NONE && prune->layers_count == 0)
        return source_fail(blame(reading, "prune.schedule", "prune.layers"),
                           "prune.schedule '%s' needs prune.layers: the layers to prune",
                           schedule_names[prune->schedule]);
    if (schedule_goes_to_keep[prune->schedule] && prune->keep == 0)
        return source_fail(blame(reading, "prune.schedule", "prune.keep"),
                           "prune.schedule '%s' needs prune.keep: the connections that it leaves",
                           schedule_names[prune->schedule]);
    if (prune->end != 0 && prune->end <= prune->begin)
        return source_fail(blame(reading, "prune.end", "prune.begin"),
                           "prune.end: found %lld, expected more than prune.begin, %lld, or 0",
                           (long long)prune->end, (long long)prune->begin);
    TRY(check_part_or_count(reading, "prune.keep", prune->keep));
    TRY(check_part_or_count(reading, "prune.min_keep", prune->min_keep));
    return check_scope(reading, prune);
}

enum status reading_check(struct reading *reading) {
    TRY(check_layers(reading));
    TRY(check_train(reading));
    return check_prune(reading);
}
