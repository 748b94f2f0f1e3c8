#include "prepare.h"
#include "reading.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A recipe is a page of text: what is larger is some other file. */
enum { RECIPE_BYTES_MAX = 1 << 20 };

static void set_default(struct recipe *recipe, const struct key *key) {
    struct value value = value_default(key);
    if (key->real.by_optimizer != NULL)
        value.real = key->real.by_optimizer[recipe->train.optimizer.kind];
    value_put(key, &value, recipe);
}

/* The file name without its directory and .cfg. */
static enum status set_names(struct recipe *recipe, const char *path) {
    static const char suffix[] = ".cfg";
    const char *slash = strrchr(path, '/');
    TRY(arena_strdup(recipe->arena, path, &recipe->path));
    TRY(arena_strdup(recipe->arena, slash == NULL ? path : slash + 1, &recipe->name));
    size_t size = strlen(recipe->name), cut = sizeof suffix - 1;
    if (size > cut && strcmp(recipe->name + size - cut, suffix) == 0)
        recipe->name[size - cut] = '\0';
    return ST_OK;
}

static enum status read_text(struct reading *reading, const char *text) {
    const struct recipe *recipe = reading->recipe;
    char *prepared;
    TRY(recipe_prepare(recipe->path, text, recipe->arena, &prepared));
    config_t config;
    config_init(&config);
    enum status status;
    if (config_read_string(&config, prepared) == CONFIG_TRUE)
        status = reading_read_tree(reading, config_root_setting(&config));
    else
        status = status_fail(ST_INPUT, "%s:%d: %s", recipe->path, config_error_line(&config),
                             config_error_text(&config));
    config_destroy(&config);
    return status;
}

/* What the file says for its own optimizer, the learning rate too, does not hold for another. */
static void forget_optimizer(struct reading *reading) {
    for (int i = 0; i < recipe_keys_count; i++) {
        const struct key *key = &recipe_keys[i];
        if (reading->given[i].override != NULL || (key->users == 0 && !key->real.by_optimizer))
            continue;
        set_default(reading->recipe, key);
        reading->given[i] = (struct source){0};
    }
}

static enum status apply_overrides(struct reading *reading, const char *const *overrides,
                                   int count) {
    const enum optimizer_kind *optimizer = &reading->recipe->train.optimizer.kind;
    enum optimizer_kind before = *optimizer;
    for (int i = 0; i < count; i++)
        TRY(reading_override(reading, overrides[i]));
    if (*optimizer != before)
        forget_optimizer(reading);
    return ST_OK;
}

/* Defaults that other settings or the environment decide. */
static enum status set_late_defaults(struct reading *reading) {
    struct recipe *recipe = reading->recipe;
    static const struct source environment = {.path = "environment variable ESPALIER_MNIST"};
    struct value dir = {.type = VALUE_TEXT, .text = getenv("ESPALIER_MNIST")};
    if (!source_given(reading_source(reading, "train.learning_rate")))
        set_default(recipe, recipe_key("train.learning_rate"));
    if (recipe->prune.unit == UNIT_EPOCHS && !source_given(reading_source(reading, "prune.every")))
        recipe->prune.every = 1;
    if (source_given(reading_source(reading, "data.dir")) || !dir.text || dir.text[0] == '\0')
        return ST_OK;
    return value_store(recipe_key("data.dir"), &dir, recipe->arena, recipe, &environment,
                       "data.dir");
}

static enum status read_all(struct reading *reading, const char *path, const char *text,
                            const char *const *overrides, int overrides_count) {
    struct recipe *recipe = reading->recipe;
    TRY(arena_create(&recipe->arena));
    TRY(set_names(recipe, path));
    for (int i = 0; i < recipe_keys_count; i++)
        set_default(recipe, &recipe_keys[i]);
    TRY(read_text(reading, text));
    TRY(reading_check_names(reading));
    TRY(reading_check_optimizer(reading));
    TRY(apply_overrides(reading, overrides, overrides_count));
    TRY(reading_check_optimizer(reading));
    TRY(set_late_defaults(reading));
    return reading_check(reading);
}

enum status recipe_parse(const char *path, const char *text, const char *const *overrides,
                         int overrides_count, struct recipe *recipe) {
    memset(recipe, 0, sizeof *recipe);
    struct reading reading = {.recipe = recipe};
    return read_all(&reading, path, text, overrides, overrides_count);
}

/* The file's bytes, with a 0 behind them; the caller frees them. */
static enum status slurp(const char *path, FILE *file, char **text) {
    *text = malloc(RECIPE_BYTES_MAX + 1);
    if (*text == NULL)
        FAIL(ST_MEMORY, "out of memory");
    size_t size = fread(*text, 1, RECIPE_BYTES_MAX + 1, file);
    if (ferror(file))
        FAIL(ST_INPUT, "cannot read recipe '%s': %s", path, strerror(errno));
    if (size > RECIPE_BYTES_MAX)
        FAIL(ST_INPUT, "%s: is larger than %d bytes, so it is no recipe", path, RECIPE_BYTES_MAX);
    if (memchr(*text, '\0', size) != NULL)
        FAIL(ST_INPUT, "%s: holds a byte 0, so it is no recipe", path);
    (*text)[size] = '\0';
    return ST_OK;
}

/* A run directory holds the recipe that repeats its run. */
static enum status directory_fail(const char *path) {
    int size = (int)strlen(path);
    char inside[PATH_MAX];
    while (size > 1 && path[size - 1] == '/')
        size--;
    snprintf(inside, sizeof inside, "%.*s/recipe.cfg", size, path);
    if (access(inside, F_OK) == 0)
        FAIL(ST_INPUT, "%s: is a directory; its recipe is %s", path, inside);
    FAIL(ST_INPUT, "cannot read recipe '%s': %s", path, strerror(EISDIR));
}

static enum status open_fail(const char *path) {
    int reason = errno;
    const char *suffix = strrchr(path, '.');
    bool bare = strchr(path, '/') == NULL && (suffix == NULL || strcmp(suffix, ".cfg") != 0);
    FAIL(ST_INPUT, "cannot open recipe '%s': %s%s", path, strerror(reason),
         bare && reason == ENOENT ? "; shipped recipes are in jobs/recipes, for example "
                                    "jobs/recipes/ann_a.cfg"
                                  : "");
}

enum status recipe_load(const char *path, const char *const *overrides, int overrides_count,
                        struct recipe *recipe) {
    memset(recipe, 0, sizeof *recipe);
    struct stat information;
    if (stat(path, &information) == 0 && S_ISDIR(information.st_mode))
        return directory_fail(path);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return open_fail(path);
    char *text = NULL;
    enum status status = slurp(path, file, &text);
    fclose(file);
    if (status == ST_OK)
        status = recipe_parse(path, text, overrides, overrides_count, recipe);
    free(text);
    return status;
}

void recipe_destroy(struct recipe *recipe) {
    arena_destroy(recipe->arena);
    memset(recipe, 0, sizeof *recipe);
}
