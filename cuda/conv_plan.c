#include "conv_plan.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CONFIGURATIONS = 64 };
static const int64_t workspace_most = INT64_C(256) << 20;

struct conv_plan {
    enum conv_pass pass;
    uint32_t name;
    struct descriptors all;
    cudnnBackendDescriptor_t plan; /* one of them; NULL: none was found */
    int64_t workspace;
    /* The arguments of the last run: a variant pack costs more than a comparison. */
    cudnnBackendDescriptor_t variant;
    struct conv_arguments arguments;
    void *scratch;
};

static enum status add_properties(struct descriptors *all, const struct conv_target *target,
                                  cudnnBackendDescriptor_t *d) {
    TRY(descriptors_add(all, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, d));
    if (target->handle != NULL)
        TRY_CUDNN(cudnnBackendSetAttribute(*d, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                           &target->handle));
    else
        TRY_CUDNN(cudnnBackendSetAttribute(*d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                           CUDNN_TYPE_CHAR, (int64_t)strlen(target->properties) + 1,
                                           target->properties));
    return descriptor_finish(*d);
}

/* ---- the choice of an engine ---- */

struct choice {
    struct conv_plan *plan;
    cudnnBackendDescriptor_t properties;
    bool tf32, keeps_nan; /* keeps_nan: the engine must */
    uint32_t wanted;
    uint32_t *candidates; /* NULL: a plan is made; else their names are listed */
    int count;
};

/* What is to be known of a configuration's engine. */
struct engine {
    int64_t index;
    bool is_allowed, keeps_nan;
};

/* What an engine may not do, beside tensor cores where they are not allowed: bounds of sums of
 * products hold for what is left, and its results are the same each time. */
static bool is_allowed(cudnnBackendNumericalNote_t note, bool tf32) {
    static const bool refused[CUDNN_NUMERICAL_NOTE_TYPE_COUNT] = {
        [CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS] = true,
        [CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION] = true,
        [CUDNN_NUMERICAL_NOTE_FFT] = true,
        [CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6] = true,
        [CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13] = true,
    };
    if (note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE)
        return tf32;
    return note < CUDNN_NUMERICAL_NOTE_TYPE_COUNT && !refused[note];
}

/* False where its notes cannot be read. */
static bool read_notes(cudnnBackendDescriptor_t d, bool tf32, struct engine *engine) {
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    if (cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                 notes) != CUDNN_STATUS_SUCCESS)
        return false;
    engine->is_allowed = true;
    for (int64_t i = 0; i < count; i++) {
        engine->is_allowed = engine->is_allowed && is_allowed(notes[i], tf32);
        engine->keeps_nan = engine->keeps_nan || notes[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP;
    }
    return true;
}

/* Not allowed where it cannot be read. */
static struct engine engine_of(cudnnBackendDescriptor_t configuration, bool tf32) {
    struct engine engine = {.index = -1};
    cudnnBackendDescriptor_t d;
    int64_t count = 0;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &d) != CUDNN_STATUS_SUCCESS)
        return engine;
    engine.is_allowed =
        cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                 &d) == CUDNN_STATUS_SUCCESS &&
        count == 1 && read_notes(d, tf32, &engine) && engine.is_allowed &&
        cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count,
                                 &engine.index) == CUDNN_STATUS_SUCCESS;
    (void)cudnnBackendDestroyDescriptor(d);
    return engine;
}

/* False where the engine cannot do it after all. */
static bool finalise(const struct choice *choice, cudnnBackendDescriptor_t configuration,
                     cudnnBackendDescriptor_t d) {
    int64_t count = 0, *workspace = &choice->plan->workspace;
    return cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &configuration) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendSetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &choice->properties) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendFinalize(d) == CUDNN_STATUS_SUCCESS &&
           cudnnBackendGetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                    1, &count, workspace) == CUDNN_STATUS_SUCCESS &&
           *workspace <= workspace_most;
}

static bool take_configuration(const struct choice *choice, cudnnBackendDescriptor_t configuration,
                               uint32_t name) {
    cudnnBackendDescriptor_t d;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &d) !=
        CUDNN_STATUS_SUCCESS)
        return false;
    if (finalise(choice, configuration, d)) {
        choice->plan->plan = d;
        choice->plan->name = name;
        return true;
    }
    (void)cudnnBackendDestroyDescriptor(d);
    return false;
}

/* What the plan is made of goes when the plan goes. */
static void keep(struct descriptors *all, cudnnBackendDescriptor_t configuration,
                 cudnnBackendDescriptor_t plan) {
    all->owned[all->count++] = configuration;
    all->owned[all->count++] = plan;
}

/* Its engine and its place among those of the engine, both counted from 1. */
static uint32_t name_of(int64_t engine, int place) {
    return (uint32_t)(engine + 1) << 8 | (uint32_t)(place + 1);
}

/* The configuration to take of those that were found, -1: there is none. All that will do are
 * listed where that is asked for. */
static int pick(struct choice *choice, const cudnnBackendDescriptor_t *found, int count) {
    struct engine engines[MOST_CONFIGURATIONS];
    for (int i = 0; i < count; i++) {
        int place = 0;
        engines[i] = engine_of(found[i], choice->tf32);
        for (int k = 0; k < i; k++)
            place += engines[k].index == engines[i].index;
        const uint32_t name = name_of(engines[i].index, place);
        const bool loses_nan = choice->keeps_nan && !engines[i].keeps_nan;
        if (!engines[i].is_allowed)
            continue;
        if (loses_nan && choice->wanted == CONV_HEURISTICS && choice->candidates == NULL)
            return -1;
        if (!loses_nan && choice->candidates != NULL && choice->count < CONV_CANDIDATES)
            choice->candidates[choice->count++] = name;
        else if (!loses_nan && choice->candidates == NULL &&
                 (choice->wanted == CONV_HEURISTICS || choice->wanted == name) &&
                 take_configuration(choice, found[i], name))
            return i;
    }
    return -1;
}

/* All but the configuration that is taken are freed. */
static enum status take_first(struct choice *choice, cudnnBackendDescriptor_t heuristics) {
    cudnnBackendDescriptor_t found[MOST_CONFIGURATIONS];
    int64_t count = 0;
    int made = 0;
    enum status status = ST_OK;
    for (; made < MOST_CONFIGURATIONS && status == ST_OK; made++) {
        const cudnnStatus_t error =
            cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &found[made]);
        if (error != CUDNN_STATUS_SUCCESS) {
            status = cudnn_failed(error, "cudnnBackendCreateDescriptor");
            break;
        }
    }
    if (status == ST_OK &&
        cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_CONFIGURATIONS, &count,
                                 found) != CUDNN_STATUS_SUCCESS)
        count = 0;
    const int taken = status == ST_OK ? pick(choice, found, (int)count) : -1;
    for (int i = 0; i < made; i++)
        if (i != taken)
            (void)cudnnBackendDestroyDescriptor(found[i]);
        else
            keep(&choice->plan->all, found[i], choice->plan->plan);
    return status;
}

static enum status choose(struct choice *choice, cudnnBackendDescriptor_t graph,
                          cudnnBackendHeurMode_t mode) {
    cudnnBackendDescriptor_t d;
    TRY(descriptors_add(&choice->plan->all, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &d));
    TRY(descriptor_set(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &graph));
    TRY_CUDNN(
        cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    TRY(descriptor_set(d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, &choice->properties));
    TRY(descriptor_finish(d));
    return take_first(choice, d);
}

/* Both lists of the heuristics, the second where the first has nothing. */
static enum status build(const struct conv_target *target, enum conv_pass pass,
                         const struct block_desc *desc, int samples, struct choice *choice) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    cudnnBackendDescriptor_t graph;
    choice->tf32 = target->tf32;
    choice->keeps_nan = pass == CONV_FORWARD_RELU;
    choice->plan->pass = pass;
    TRY(conv_graph_add(&choice->plan->all, pass, desc, samples, &graph));
    TRY(add_properties(&choice->plan->all, target, &choice->properties));
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (choice->plan->plan == NULL && choice->count == 0)
            TRY(choose(choice, graph, modes[i]));
    return ST_OK;
}

/* ---- plans ---- */

static enum status allocate(struct conv_plan **plan) {
    *plan = calloc(1, sizeof **plan);
    if (*plan == NULL)
        FAIL(ST_MEMORY, "out of memory: a convolution's plan");
    return ST_OK;
}

static enum status find_named(const struct conv_target *target, uint32_t name, enum conv_pass pass,
                              const struct block_desc *desc, int samples, struct conv_plan **plan) {
    struct choice choice = {.wanted = name};
    TRY(allocate(plan));
    choice.plan = *plan;
    const enum status status = build(target, pass, desc, samples, &choice);
    if (status != ST_OK || (*plan)->plan == NULL) {
        conv_plan_destroy(*plan);
        *plan = NULL;
    }
    return status;
}

enum status conv_plan_find(const struct conv_target *target, enum conv_pass pass,
                           const struct block_desc *desc, int samples, struct conv_plan **plan) {
    const uint32_t wanted = target->choice;
    const uint32_t names[] = {wanted, (wanted & ~UINT32_C(0xff)) | 1, CONV_HEURISTICS};
    *plan = NULL;
    for (int i = wanted == CONV_HEURISTICS ? 2 : 0; i < 3 && *plan == NULL; i++)
        TRY(find_named(target, names[i], pass, desc, samples, plan));
    return ST_OK;
}

enum status conv_plan_candidates(const struct conv_target *target, enum conv_pass pass,
                                 const struct block_desc *desc, int samples,
                                 uint32_t choices[CONV_CANDIDATES], int *count) {
    struct conv_plan *plan;
    struct choice choice = {.candidates = choices};
    TRY(allocate(&plan));
    choice.plan = plan;
    const enum status status = build(target, pass, desc, samples, &choice);
    *count = choice.count;
    conv_plan_destroy(plan);
    return status;
}

enum status conv_plan_create(const struct conv_target *target, enum conv_pass pass,
                             const struct block_desc *desc, int samples, struct conv_plan **plan) {
    TRY(conv_plan_find(target, pass, desc, samples, plan));
    if (*plan == NULL)
        FAIL(ST_UNAVAILABLE,
             "cuda: block %u: cuDNN has no engine for its convolution's pass %s with %d samples",
             desc->layer, conv_pass_names[pass], samples);
    return ST_OK;
}

void conv_plan_destroy(struct conv_plan *plan) {
    if (plan == NULL)
        return;
    if (plan->variant != NULL)
        (void)cudnnBackendDestroyDescriptor(plan->variant);
    descriptors_destroy(&plan->all);
    free(plan);
}

enum conv_pass conv_plan_pass(const struct conv_plan *plan) {
    return plan->pass;
}

uint32_t conv_plan_name(const struct conv_plan *plan) {
    return plan->name;
}

size_t conv_plan_workspace(const struct conv_plan *plan) {
    return (size_t)plan->workspace;
}

static enum status set_arguments(struct conv_plan *plan, const struct conv_arguments *arguments,
                                 void *workspace) {
    static const int64_t ids[] = {CONV_X, CONV_W, CONV_Y, CONV_BIAS};
    const void *const pointers[] = {arguments->x, arguments->w, arguments->y, arguments->bias};
    const int64_t count = arguments->bias == NULL ? 3 : 4;
    if (plan->variant != NULL)
        (void)cudnnBackendDestroyDescriptor(plan->variant);
    plan->variant = NULL;
    TRY_CUDNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &plan->variant));
    const cudnnBackendDescriptor_t d = plan->variant;
    TRY(descriptor_set_integers(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, count, ids));
    TRY_CUDNN(cudnnBackendSetAttribute(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                       CUDNN_TYPE_VOID_PTR, count, pointers));
    TRY_CUDNN(cudnnBackendSetAttribute(d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                                       &workspace));
    return descriptor_finish(d);
}

enum status conv_plan_run(struct conv_plan *plan, cudnnHandle_t handle,
                          const struct conv_arguments *arguments, void *workspace) {
    if (plan->variant == NULL || plan->scratch != workspace ||
        memcmp(arguments, &plan->arguments, sizeof *arguments) != 0) {
        TRY(set_arguments(plan, arguments, workspace));
        plan->arguments = *arguments;
        plan->scratch = workspace;
    }
    TRY_CUDNN(cudnnBackendExecute(handle, plan->plan, plan->variant));
    return ST_OK;
}
