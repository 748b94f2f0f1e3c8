/* shipped_recipes.h - the recipes of jobs/recipes whose networks have published sizes. */
#ifndef ESPALIER_TESTS_SHIPPED_RECIPES_H
#define ESPALIER_TESTS_SHIPPED_RECIPES_H

#include "check.h"
#include <espalier/recipe.h>

static const char *const shipped[] = {"ann_d",         "ann_a",  "ann_a_global", "ann_plain",
                                      "lenet_300_100", "lenet5", "logistic"};
enum { SHIPPED = sizeof shipped / sizeof shipped[0] };

static inline void load_shipped(const char *name, struct recipe *recipe) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.cfg", RECIPES, name);
    assert_ok(recipe_load(path, NULL, 0, recipe));
}

#endif
