#include "reading.h"
#include "writing.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef void writer(const struct key *key, const char *settings, FILE *file);

/* A plain integer of libconfig has 32 bits; a longer one wants the suffix. */
static void write_integer(const struct key *key, const char *settings, FILE *file) {
    int narrow;
    int64_t wide;
    memcpy(&narrow, settings + key->offset, sizeof narrow);
    if (key->size == sizeof wide)
        memcpy(&wide, settings + key->offset, sizeof wide);
    else
        wide = narrow;
    fprintf(file, "%lld%s", (long long)wide, wide == (int32_t)wide ? "" : "L");
}

static void write_real(const struct key *key, const char *settings, FILE *file) {
    double real;
    char text[REAL_TEXT_MAX];
    memcpy(&real, settings + key->offset, sizeof real);
    real_text(real, text);
    fputs(text, file);
}

static void write_boolean(const struct key *key, const char *settings, FILE *file) {
    bool boolean;
    memcpy(&boolean, settings + key->offset, sizeof boolean);
    fputs(boolean ? "true" : "false", file);
}

static void write_quoted(const char *text, FILE *file) {
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        if (iscntrl((unsigned char)*text))
            fprintf(file, "\\x%02x", (unsigned)(unsigned char)*text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}

static void write_text(const struct key *key, const char *settings, FILE *file) {
    const char *text;
    memcpy(&text, settings + key->offset, sizeof text);
    write_quoted(text, file);
}

static void write_name(const struct key *key, const char *settings, FILE *file) {
    write_quoted(settings + key->offset, file);
}

static void write_names(const struct key *key, const char *settings, FILE *file) {
    int count;
    char **names;
    memcpy(&count, settings + key->count_offset, sizeof count);
    memcpy(&names, settings + key->offset, sizeof names);
    fputc('[', file);
    for (int i = 0; i < count; i++) {
        fputs(i == 0 ? "" : ", ", file);
        write_quoted(names[i], file);
    }
    fputc(']', file);
}

static void write_kind(const struct key *key, const char *settings, FILE *file) {
    int index;
    memcpy(&index, settings + key->offset, sizeof index);
    write_quoted(key->kinds[index], file);
}

static writer *const writers[KEY_TYPE_COUNT] = {
    [KEY_INTEGER] = write_integer, [KEY_REAL] = write_real, [KEY_BOOLEAN] = write_boolean,
    [KEY_TEXT] = write_text,       [KEY_NAME] = write_name, [KEY_NAMES] = write_names,
    [KEY_KIND] = write_kind,
};

void key_write(const struct key *key, const void *settings, FILE *file) {
    writers[key->type](key, settings, file);
}

static void write_layer(const struct layer_settings *layer, FILE *file) {
    fputs("  {", file);
    for (int i = 0; i < layer_keys_count; i++) {
        if (!key_is_for(&layer_keys[i], (int)layer->type))
            continue;
        fprintf(file, " %s = ", layer_keys[i].name);
        key_write(&layer_keys[i], layer, file);
        fputc(';', file);
    }
    fputs(" }", file);
}

static void write_group(const struct recipe *recipe, const char *group, FILE *file) {
    size_t size = strlen(group);
    fprintf(file, "%s = {\n", group);
    for (int i = 0; i < recipe_keys_count; i++) {
        const struct key *key = &recipe_keys[i];
        if (strncmp(key->name, group, size) != 0 || key->name[size] != '.' ||
            !key_is_for(key, (int)recipe->train.optimizer.kind))
            continue;
        fprintf(file, "  %s = ", key->name + size + 1);
        key_write(key, recipe, file);
        fputs(";\n", file);
    }
    fputs("};\n", file);
}

enum status recipe_write(const struct recipe *recipe, FILE *file) {
    fputs("# Every setting of a run: espalier train on this file repeats it.\nnetwork = (\n", file);
    for (int i = 0; i < recipe->layers_count; i++) {
        write_layer(&recipe->layers[i], file);
        fputs(i + 1 < recipe->layers_count ? ",\n" : "\n);\n", file);
    }
    for (int i = 0; recipe_groups[i] != NULL; i++)
        write_group(recipe, recipe_groups[i], file);
    if (fflush(file) != 0 || ferror(file))
        FAIL(ST_IO, "cannot write the recipe '%s': %s", recipe->name, strerror(errno));
    return ST_OK;
}

enum status recipe_text(const struct recipe *recipe, char **text) {
    size_t size;
    FILE *file = open_memstream(text, &size);
    if (file == NULL)
        FAIL(ST_MEMORY, "out of memory");
    enum status status = recipe_write(recipe, file);
    if (fclose(file) == 0 && status == ST_OK)
        return ST_OK;
    free(*text);
    *text = NULL;
    FAIL(ST_MEMORY, "out of memory");
}

/* settings: struct recipe or struct layer_settings, overwritten with the key's default */
static void write_default(const struct key *key, char *settings, FILE *file) {
    struct value value = value_default(key);
    if (key->required || key->type == KEY_NAME) {
        fputs(key->required ? "required" : "not needed", file);
        return;
    }
    fputs("default ", file);
    value_put(key, &value, settings);
    if (key->real.by_optimizer == NULL) {
        key_write(key, settings, file);
        return;
    }
    for (int i = 0; i < OPTIMIZER_COUNT; i++)
        fprintf(file, "%s%g (%s)", i == 0 ? "" : ", ", key->real.by_optimizer[i],
                optimizer_names[i]);
}

static void write_rows(const struct key *keys, int count, const char *const *users, char *settings,
                       FILE *file) {
    char expectation[EXPECTATION_MAX];
    for (int i = 0; i < count; i++) {
        const struct key *key = &keys[i];
        key_expectation(key, expectation);
        fprintf(file, "  %s", key->name);
        for (int user = 0; key->users != 0 && users[user] != NULL; user++)
            if (key_is_for(key, user))
                fprintf(file, " [%s]", users[user]);
        fprintf(file, ": %s\n      %s; ", key->meaning, expectation);
        write_default(key, settings, file);
        fputc('\n', file);
    }
}

void recipe_write_keys(FILE *file) {
    struct recipe recipe = {0};
    fputs("Keys of a recipe, and of -s; those of one optimizer name it:\n", file);
    write_rows(recipe_keys, recipe_keys_count, optimizer_names, (char *)&recipe, file);
    fputs("\nKeys of a layer in `network`; those of some types name them:\n", file);
    write_rows(layer_keys, layer_keys_count, layer_kind_names, (char *)&recipe.layers[0], file);
}
