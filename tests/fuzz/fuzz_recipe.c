/* The recipe reader: text, then overrides, each behind a byte 0. What is accepted must come back
 * from the text that it is written as. */
#include "fuzz.h"

#include <espalier/recipe.h>

enum { OVERRIDES_MAX = 4 };

static int split(char *text, size_t size, const char *overrides[OVERRIDES_MAX]) {
    int count = 0;
    for (size_t i = strlen(text) + 1; i < size && count < OVERRIDES_MAX; i += strlen(text + i) + 1)
        overrides[count++] = text + i;
    return count;
}

static void check_round_trip(const struct recipe *recipe) {
    char *first, *second;
    struct recipe again;
    REQUIRE(recipe_text(recipe, &first) == ST_OK);
    REQUIRE(recipe_parse("again.cfg", first, NULL, 0, &again) == ST_OK);
    REQUIRE(recipe_text(&again, &second) == ST_OK);
    REQUIRE(strcmp(first, second) == 0);
    recipe_destroy(&again);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct recipe recipe;
    const char *overrides[OVERRIDES_MAX];
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    int count = split(text, size, overrides);
    enum status status = recipe_parse("fuzz.cfg", text, overrides, count, &recipe);
    if (status == ST_OK)
        check_round_trip(&recipe);
    else
        fuzz_check_refusal(status);
    recipe_destroy(&recipe);
    free(text);
    return 0;
}
