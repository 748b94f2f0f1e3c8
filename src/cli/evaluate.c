/* espalier evaluate: a trained network on the test images. */
#include "command.h"

#include <espalier/evaluate.h>
#include <espalier/model.h>
#include <espalier/rank_backend.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of one forward pass, and what its activations may take where more than one image fits. */
enum { PASS_SAMPLES = 256, PASS_BYTES_MAX = 1 << 28 };

/* Everything that an evaluation needs; zeroed, then made in this order. */
struct session {
    struct model model;
    const char *data_dir;
    struct dataset test;
    uint32_t images_there; /* in the directory, of which data.test_limit may leave out some */
    struct backend *backend;
    struct network *network;
    struct device_dataset device;
    struct evaluator evaluator;
    int64_t *confusion; /* [classes, classes] */
};

static void session_destroy(struct session *session) {
    free(session->confusion);
    evaluator_destroy(&session->evaluator);
    device_dataset_destroy(&session->device);
    network_destroy(session->network);
    if (session->backend != NULL)
        session->backend->destroy(session->backend);
    dataset_destroy(&session->test);
    model_destroy(&session->model);
}

/* Take "--data DIR" out of the arguments. */
static enum status take_data_option(int *argc, char **argv, const char **dir) {
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], "--data") != 0) {
            argv[kept++] = argv[i];
            continue;
        }
        if (i + 1 == *argc)
            FAIL(ST_USAGE, "evaluate: option '--data' needs a value; usage: %s",
                 command_evaluate.usage);
        *dir = argv[++i];
    }
    *argc = kept;
    return ST_OK;
}

/* The data that the model was trained on; where that is not here, what the environment names. */
static const char *training_dir(const char *dir) {
    const char *environment = getenv("ESPALIER_MNIST");
    bool usable = environment != NULL && environment[0] != '\0';
    return usable && access(dir, F_OK) != 0 ? environment : dir;
}

/* As many images as training was tested on: the result compares with its summary. */
static enum status load_images(struct session *session) {
    const struct data_settings *settings = &session->model.recipe.data;
    uint32_t limit = (uint32_t)settings->test_limit;
    if (session->data_dir == NULL)
        session->data_dir = training_dir(settings->dir);
    TRY(dataset_load(session->data_dir, DATASET_TEST, 0, &session->test));
    session->images_there = session->test.count;
    if (limit > 0 && limit < session->test.count)
        session->test.count = limit;
    return ST_OK;
}

/* Before anything of the size that the model claims is allocated. */
static enum status check_images(const struct session *session) {
    struct shape images = session->test.shape, input = session->model.input;
    if (images.height != input.height || images.width != input.width ||
        images.channels != input.channels)
        FAIL(ST_INPUT, "%s: test images are %dx%dx%d, the model %s expects %dx%dx%d",
             session->data_dir, images.height, images.width, images.channels, session->model.path,
             input.height, input.width, input.channels);
    return ST_OK;
}

static enum status check_labels(const struct session *session) {
    if (session->test.classes > session->network->classes)
        FAIL(ST_INPUT, "%s: has the test label %d, the model %s knows the classes 0 to %d",
             session->data_dir, session->test.classes - 1, session->model.path,
             session->network->classes - 1);
    return ST_OK;
}

/* As many images as fit: a few bytes of weights can call for any amount of activations. */
static enum status choose_samples(const struct session *session, int *samples) {
    struct block blocks[RECIPE_LAYERS_MAX];
    int count;
    size_t bytes = 1;
    TRY(network_describe(&session->model.recipe, session->model.input, blocks, &count));
    for (int i = 0; i < count; i++)
        bytes += 2 * sizeof(float) * shape_size(blocks[i].desc.linear);
    size_t fit = PASS_BYTES_MAX / bytes;
    *samples = fit < 1 ? 1 : fit < PASS_SAMPLES ? (int)fit : PASS_SAMPLES;
    return ST_OK;
}

static enum status build_network(struct session *session, struct communicator *communicator) {
    const struct recipe *recipe = &session->model.recipe;
    int samples;
    TRY(choose_samples(session, &samples));
    TRY(rank_backend_create(recipe, communicator, &session->backend));
    TRY(network_create(recipe, session->model.input, samples, session->backend, &session->network));
    return model_load(&session->model, session->network);
}

/* What each rank does by itself. */
static enum status prepare(struct session *session, struct communicator *communicator, int argc,
                           char **argv) {
    const char *path = NULL;
    TRY(take_data_option(&argc, argv, &session->data_dir));
    TRY(command_one_argument(&command_evaluate, argc, argv, &path));
    TRY(model_read(path, &session->model));
    TRY(load_images(session));
    TRY(check_images(session));
    TRY(build_network(session, communicator));
    TRY(check_labels(session));
    TRY(device_dataset_create(session->backend, &session->test, &session->device));
    TRY(evaluator_create(session->network, communicator, &session->evaluator));
    size_t classes = (size_t)session->network->classes;
    session->confusion = calloc(classes * classes, sizeof *session->confusion);
    if (session->confusion == NULL)
        FAIL(ST_MEMORY, "out of memory: confusion matrix of %zu classes", classes);
    return ST_OK;
}

/* Columns that the counts need, with a space before each. */
static int count_width(const int64_t *confusion, int classes) {
    int64_t largest = classes - 1;
    for (int i = 0; i < classes * classes; i++)
        largest = confusion[i] > largest ? confusion[i] : largest;
    return 1 + snprintf(NULL, 0, "%" PRId64, largest);
}

static void print_row(const int64_t *counts, int label, int classes, int width) {
    int64_t total = 0;
    printf("%5d |", label);
    for (int k = 0; k < classes; k++) {
        total += counts[k];
        if (counts[k] == 0)
            printf("%*s", width, ".");
        else
            printf("%*" PRId64, width, counts[k]);
    }
    if (total == 0)
        printf(" |     no images\n");
    else
        printf(" | %7.2f %%\n", 100.0 * (double)counts[label] / (double)total);
}

static void print_confusion(const int64_t *confusion, int classes) {
    int width = count_width(confusion, classes);
    printf("\nconfusion matrix: a row for each label, a column for each prediction\n");
    printf("label |");
    for (int k = 0; k < classes; k++)
        printf("%*d", width, k);
    printf(" |  accuracy\n");
    for (int label = 0; label < classes; label++)
        print_row(confusion + (size_t)label * (size_t)classes, label, classes, width);
}

static enum status print_results(const struct session *session, const struct evaluation *result) {
    printf("model          %s\n", session->model.path);
    printf("data           %s, ", session->data_dir);
    if (session->images_there > result->samples)
        printf("the first %" PRId64 " (data.test_limit) of ", result->samples);
    printf("%" PRIu32 " test images\n", session->images_there);
    printf("test accuracy  %.2f %%\n", 100.0 * result->accuracy);
    printf("test errors    %" PRId64 " of %" PRId64 "\n", result->errors, result->samples);
    printf("test loss      %.6f\n", result->loss);
    print_confusion(session->confusion, session->network->classes);
    return command_flush_output();
}

static enum status evaluate(struct session *session, struct communicator *communicator, int argc,
                            char **argv) {
    struct evaluation result;
    TRY_TOGETHER(communicator, prepare(session, communicator, argc, argv));
    TRY(evaluator_run(&session->evaluator, &session->device, &session->test, session->confusion,
                      &result));
    TRY_TOGETHER(communicator, communicator->rank == 0 ? print_results(session, &result) : ST_OK);
    return ST_OK;
}

static enum status run(struct communicator *communicator, int argc, char **argv) {
    struct session *session = calloc(1, sizeof *session);
    TRY_TOGETHER(communicator, session == NULL ? status_fail(ST_MEMORY, "out of memory") : ST_OK);
    enum status status = evaluate(session, communicator, argc, argv);
    session_destroy(session);
    free(session);
    return status;
}

const struct command command_evaluate = {
    .name = "evaluate",
    .usage = "espalier evaluate MODEL [--data DIR]",
    .summary = "test a trained network: accuracy, errors, confusion matrix",
    .help =
        "  MODEL       a run directory or a .safetensors file that espalier has written\n"
        "  --data DIR  where the test images are (IDX, plain or .gz); without it the data.dir\n"
        "              that the model was trained on, or $ESPALIER_MNIST where that is not here\n"
        "\n"
        "No more images are taken than the recipe's data.test_limit, as in training.\n",
    .run = run,
};
