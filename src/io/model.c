#include "file.h"
#include "safetensors_format.h"
#include <espalier/arena.h>
#include <espalier/model.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char FORMAT_KEY[] = "format", VERSION_KEY[] = "espalier.version",
                  NAME_KEY[] = "espalier.name", INPUT_KEY[] = "espalier.input",
                  RECIPE_KEY[] = "espalier.recipe";

/* Pixels of an image: what the IDX reader accepts at most. */
enum { INPUT_SIZE_MAX = 1 << 28, SHAPE_TEXT_SIZE = 128 };

/* ---- writing ---- */

static enum status gather_tensor(const struct network *network, int index, struct arena *arena,
                                 struct safetensor *tensor) {
    const struct parameter *parameter = &network->parameters[index];
    float *values;
    TRY(ARENA_ARRAY(arena, parameter->original_count, &values));
    TRY(network_get_parameter(network, index, values));
    *tensor = (struct safetensor){
        .name = parameter->name, .dimensions = parameter->dimensions, .values = values};
    for (int i = 0; i < parameter->dimensions; i++)
        tensor->size[i] = parameter->size[i];
    return ST_OK;
}

static enum status write_tensors(const char *path, const struct network *network,
                                 const struct safetensors_entry *metadata, int metadata_count,
                                 struct arena *arena) {
    struct safetensor *tensors;
    TRY(ARENA_ARRAY(arena, (size_t)network->parameters_count, &tensors));
    for (int i = 0; i < network->parameters_count; i++)
        TRY(gather_tensor(network, i, arena, &tensors[i]));
    return safetensors_write(path, tensors, network->parameters_count, metadata, metadata_count);
}

enum status model_write(const char *path, const struct network *network,
                        const struct recipe *recipe) {
    char *text = NULL, input[SHAPE_TEXT_SIZE];
    struct arena *arena = NULL;
    enum status status;
    TRY_OUT(recipe_text(recipe, &text));
    TRY_OUT(arena_create(&arena));
    snprintf(input, sizeof input, "%dx%dx%d", network->input.height, network->input.width,
             network->input.channels);
    const struct safetensors_entry metadata[] = {{FORMAT_KEY, "pt"},
                                                 {VERSION_KEY, ESPALIER_VERSION},
                                                 {NAME_KEY, recipe->name},
                                                 {INPUT_KEY, input},
                                                 {RECIPE_KEY, text}};
    status = write_tensors(path, network, metadata, sizeof metadata / sizeof metadata[0], arena);
out:
    arena_destroy(arena);
    free(text);
    return status;
}

/* ---- reading ---- */

static enum status no_model_fail(const char *directory) {
    char recipe[FILE_PATH_MAX];
    TRY(path_join(directory, "recipe.cfg", recipe));
    if (access(recipe, F_OK) == 0)
        FAIL(ST_INPUT, "%s: the run has no model.safetensors (yet): it did not finish", directory);
    FAIL(ST_INPUT,
         "%s: is a directory without model.safetensors, expected a run directory or "
         "a .safetensors file",
         directory);
}

enum status model_path(const char *model, char *path, size_t size) {
    struct stat information;
    bool directory = stat(model, &information) == 0 && S_ISDIR(information.st_mode);
    int length = snprintf(path, size, "%s%s", model, directory ? "/model.safetensors" : "");
    if (length < 0 || (size_t)length >= size)
        FAIL(ST_INPUT, "%.64s...: path of %d bytes is too long, at most %zu are possible", model,
             length, size - 1);
    if (directory && stat(path, &information) != 0)
        return no_model_fail(model);
    return ST_OK;
}

/* One size of the input's shape, from 1 to INPUT_SIZE_MAX, and the character after it. */
static bool parse_size(const char **text, char after, int *size) {
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    long value = strtol(*text, &end, 10);
    if (value < 1 || value > INPUT_SIZE_MAX || *end != after)
        return false;
    *size = (int)value;
    *text = end + 1;
    return true;
}

static enum status parse_input(struct model *model) {
    const char *text = safetensors_metadata(&model->file, INPUT_KEY), *at = text;
    struct shape *input = &model->input;
    if (text == NULL)
        FAIL(ST_INPUT, "%s: metadata %s is missing: espalier did not write this model", model->path,
             INPUT_KEY);
    if (!parse_size(&at, 'x', &input->height) || !parse_size(&at, 'x', &input->width) ||
        !parse_size(&at, '\0', &input->channels) || input->height > INPUT_SIZE_MAX / input->width ||
        input->height * input->width > INPUT_SIZE_MAX / input->channels)
        FAIL(ST_INPUT, "%s: metadata %s is '%.40s', expected HEIGHTxWIDTHxCHANNELS", model->path,
             INPUT_KEY, text);
    return ST_OK;
}

/* The parser names a recipe after its file, which here is the model. */
static enum status parse_recipe(struct model *model) {
    const char *text = safetensors_metadata(&model->file, RECIPE_KEY);
    const char *name = safetensors_metadata(&model->file, NAME_KEY);
    if (text == NULL || name == NULL)
        FAIL(ST_INPUT, "%s: metadata %s is missing: espalier did not write this model", model->path,
             text == NULL ? RECIPE_KEY : NAME_KEY);
    TRY(recipe_parse(model->path, text, NULL, 0, &model->recipe));
    return arena_strdup(model->recipe.arena, name, &model->recipe.name);
}

/* What counts on a model's tensors reads them as floats. */
enum status model_check_types(const char *path, const struct safetensors *file) {
    for (int i = 0; i < file->tensors_count; i++) {
        const struct safetensor *tensor = &file->tensors[i];
        if (tensor->type != SAFETENSORS_F32)
            FAIL(ST_INPUT, "%s: tensor %s has dtype %s, a model has F32 alone", path, tensor->name,
                 safetensors_type_names[tensor->type]);
    }
    return ST_OK;
}

/* "[128, 784]" */
static char *format_shape(const uint64_t *size, int dimensions, char text[SHAPE_TEXT_SIZE]) {
    size_t length = (size_t)snprintf(text, SHAPE_TEXT_SIZE, "[");
    for (int i = 0; i < dimensions && length < SHAPE_TEXT_SIZE; i++)
        length += (size_t)snprintf(text + length, SHAPE_TEXT_SIZE - length, "%s%llu",
                                   i == 0 ? "" : ", ", (unsigned long long)size[i]);
    if (length < SHAPE_TEXT_SIZE)
        snprintf(text + length, SHAPE_TEXT_SIZE - length, "]");
    return text;
}

static enum status check_shape(const char *path, const struct safetensor *tensor,
                               const struct parameter *parameter) {
    uint64_t size[PARAMETER_DIMENSIONS_MAX];
    bool equal = tensor->dimensions == parameter->dimensions;
    for (int i = 0; i < parameter->dimensions; i++) {
        size[i] = parameter->size[i];
        equal = equal && tensor->size[i] == size[i];
    }
    char found[SHAPE_TEXT_SIZE], expected[SHAPE_TEXT_SIZE];
    if (!equal)
        FAIL(ST_INPUT, "%s: tensor %s has the shape %s, its recipe's network expects %s", path,
             tensor->name, format_shape(tensor->size, tensor->dimensions, found),
             format_shape(size, parameter->dimensions, expected));
    return ST_OK;
}

/* The file's tensor for a parameter, of the parameter's shape. */
static enum status find_tensor(const struct model *model, const struct parameter *parameter,
                               const struct safetensor **tensor) {
    *tensor = safetensors_find(&model->file, parameter->name);
    if (*tensor == NULL)
        FAIL(ST_INPUT, "%s: tensor %s is missing", model->path, parameter->name);
    return check_shape(model->path, *tensor, parameter);
}

/* A recipe may claim any network: nothing is built that the file does not hold. */
static enum status check_tensors(const struct model *model) {
    struct parameter parameters[NETWORK_PARAMETERS_MAX];
    const struct safetensor *tensor;
    int count;
    TRY(network_describe_parameters(&model->recipe, model->input, parameters, &count));
    for (int i = 0; i < count; i++)
        TRY(find_tensor(model, &parameters[i], &tensor));
    return ST_OK;
}

enum status model_read(const char *path, struct model *model) {
    *model = (struct model){0};
    enum status status;
    TRY_OUT(model_path(path, model->path, sizeof model->path));
    TRY_OUT(safetensors_read(model->path, &model->file));
    TRY_OUT(model_check_types(model->path, &model->file));
    TRY_OUT(parse_input(model));
    TRY_OUT(parse_recipe(model));
    TRY_OUT(check_tensors(model));
    return ST_OK;
out:
    model_destroy(model);
    return status;
}

void model_destroy(struct model *model) {
    recipe_destroy(&model->recipe);
    safetensors_destroy(&model->file);
    *model = (struct model){0};
}

/* ---- loading ---- */

static enum status load_tensor(const struct model *model, struct network *network, int index) {
    const struct parameter *parameter = &network->parameters[index];
    const struct safetensor *tensor;
    TRY(find_tensor(model, parameter, &tensor));
    const float *values = tensor->values;
    for (size_t i = 0; i < parameter->original_count; i++)
        if (!isfinite(values[i]))
            FAIL(ST_INPUT, "%s: tensor %s holds %f at index %zu, expected a finite number",
                 model->path, parameter->name, (double)values[i], i);
    return network_set_parameter(network, index, values);
}

enum status model_load(const struct model *model, struct network *network) {
    for (int i = 0; i < network->parameters_count; i++)
        TRY(load_tensor(model, network, i));
    return network_materialize(network);
}
