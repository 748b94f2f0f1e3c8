/* cuDNN: handles, descriptors and their attributes, and the engines that heuristics offer. */
#include "cudnn_internal.h"

#include <algorithm>
#include <cstdio>

using namespace emulation;

struct cudnnContext {
    cudaStream_t stream;
};

#define ENTER_CUDNN(usual)                                                                         \
    do {                                                                                           \
        int status_ = entered(__func__, usual);                                                    \
        if (status_ != 0)                                                                          \
            return static_cast<cudnnStatus_t>(status_);                                            \
        if (dropped(__func__))                                                                     \
            return CUDNN_STATUS_SUCCESS;                                                           \
    } while (0)

namespace emulation {

static engine made(const char *what, double milliseconds, int64_t workspace = 0) {
    auto is = [what](const char *word) { return strstr(what, word) != nullptr; };
    return {is("ruins"), is("rounds"), is("unbuilt"), is("backwards"),
            is("fails"), is("strict"), milliseconds,  workspace};
}

/* The first three must not be taken: they give wrong results, or none. Of the others the first is
 * not the fastest. */
const std::vector<engine> engines = {
    made("ruins", 0),
    made("rounds", 0),
    made("unbuilt", 0),
    made("strict", 5e3, 1000),
    made("fails", 0),
    made("", 9e3),
    made("strict backwards", 3e3),
};

bool keeps_nan(const engine &e) {
    return e.strict && (e.backwards || !set().loose);
}

static std::map<void *, descriptor_ref> &handles() {
    static std::map<void *, descriptor_ref> map;
    return map;
}

static descriptor_ref find(void *handle) {
    auto found = handles().find(handle);
    return found == handles().end() ? nullptr : found->second;
}

static size_t bytes_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    default:
        return 4;
    }
}

/* ---- attributes that the library computes ---- */

static descriptor_ref graph_of(const descriptor &d, int name) {
    return d.descriptors.at(name).at(0);
}

static void set_int64(descriptor &d, int name, int64_t value) {
    attribute a = {CUDNN_TYPE_INT64, 1, std::vector<char>(sizeof value)};
    memcpy(a.bytes.data(), &value, sizeof value);
    d.attributes[name] = a;
}

static void make_engine(descriptor &d, const descriptor_ref &graph, int64_t index) {
    d.descriptors[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {graph};
    set_int64(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, index);
    d.finalized = true;
}

static void make_config(descriptor &d, const descriptor_ref &graph, int64_t index) {
    auto e = std::make_shared<descriptor>();
    e->type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    make_engine(*e, graph, index);
    d.descriptors[CUDNN_ATTR_ENGINECFG_ENGINE] = {e};
    d.finalized = true;
}

/* The caller's descriptors become the configurations; all of them, or in fallback the last. */
static cudnnStatus_t give_results(const descriptor &d, int64_t wanted, int64_t *count, void **to) {
    int64_t all = static_cast<int64_t>(engines.size());
    int mode = d.value<int>(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A);
    int64_t first = mode == CUDNN_HEUR_MODE_FALLBACK ? all - 1 : 0;
    *count = wanted == 0 ? all - first : std::min(wanted, all - first);
    for (int64_t i = 0; i < *count && wanted > 0; i++) {
        descriptor_ref config = find(to[i]);
        if (config == nullptr || config->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
            return CUDNN_STATUS_BAD_PARAM;
        make_config(*config, graph_of(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH), first + i);
    }
    return CUDNN_STATUS_SUCCESS;
}

static const engine &engine_of(const descriptor &d) {
    int64_t index = d.value<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
    return engines.at(static_cast<size_t>(index));
}

static cudnnStatus_t give_notes(const descriptor &d, int64_t wanted, int64_t *count, void *to) {
    const engine &e = engine_of(d);
    std::vector<cudnnBackendNumericalNote_t> notes;
    if (e.ruins)
        notes.push_back(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    if (e.rounds)
        notes.insert(notes.end(),
                     {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS});
    if (keeps_nan(e))
        notes.push_back(CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP);
    *count = static_cast<int64_t>(notes.size());
    size_t given = std::min(notes.size(), static_cast<size_t>(wanted));
    if (given > 0)
        memcpy(to, notes.data(), given * sizeof notes[0]);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t give_engine(const descriptor &d, int64_t wanted, int64_t *count, void **to) {
    *count = 1;
    if (wanted == 0)
        return CUDNN_STATUS_SUCCESS;
    descriptor_ref e = find(to[0]);
    if (e == nullptr || e->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
        return CUDNN_STATUS_BAD_PARAM;
    *e = d.only(CUDNN_ATTR_ENGINECFG_ENGINE);
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t give_stored(const descriptor &d, int name, cudnnBackendAttributeType_t type,
                                 int64_t wanted, int64_t *count, void *to) {
    auto found = d.attributes.find(name);
    if (found == d.attributes.end())
        return CUDNN_STATUS_NOT_SUPPORTED;
    if (found->second.type != type)
        return CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE;
    if (count != nullptr)
        *count = found->second.count;
    int64_t given = std::min(wanted, found->second.count);
    memcpy(to, found->second.bytes.data(), static_cast<size_t>(given) * bytes_of(type));
    return CUDNN_STATUS_SUCCESS;
}

/* ---- setting and finalising ---- */

static cudnnStatus_t set_descriptors(descriptor &d, int name, int64_t count, const void *values) {
    std::vector<descriptor_ref> &list = d.descriptors[name];
    list.clear();
    for (int64_t i = 0; i < count; i++) {
        descriptor_ref other = find(static_cast<void *const *>(values)[i]);
        if (other == nullptr)
            return CUDNN_STATUS_BAD_PARAM;
        if (!other->finalized)
            return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
        list.push_back(other);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finalize_plan(descriptor &d) {
    const descriptor &config = d.only(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    const engine &e = engine_of(config.only(CUDNN_ATTR_ENGINECFG_ENGINE));
    if (e.unbuilt)
        return CUDNN_STATUS_NOT_SUPPORTED;
    set_int64(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, e.workspace);
    return CUDNN_STATUS_SUCCESS;
}

} // namespace emulation

extern "C" {

size_t cudnnGetVersion(void) {
    return CUDNN_VERSION;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    ENTER_CUDNN(CUDNN_STATUS_NOT_INITIALIZED);
    *handle = new cudnnContext{nullptr};
    count_object(1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    delete handle;
    count_object(-1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    ENTER_CUDNN(CUDNN_STATUS_BAD_PARAM);
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    static char text[40];
    if (status == CUDNN_STATUS_SUCCESS)
        return "CUDNN_STATUS_SUCCESS";
    snprintf(text, sizeof text, "CUDNN_STATUS_%d", static_cast<int>(status));
    return text;
}

void cudnnGetLastErrorString(char *message, size_t bytes) {
    snprintf(message, bytes, "an emulated cuDNN error");
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *handle) {
    ENTER_CUDNN(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED);
    auto d = std::make_shared<descriptor>();
    d->type = type;
    *handle = d.get();
    handles()[d.get()] = d;
    count_object(1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t handle) {
    if (handle == nullptr)
        return CUDNN_STATUS_SUCCESS;
    if (handles().erase(handle) == 0)
        complain("a cuDNN descriptor is destroyed that is none");
    count_object(-1);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t handle,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values) {
    ENTER_CUDNN(CUDNN_STATUS_BAD_PARAM);
    descriptor_ref d = find(handle);
    if (d == nullptr || d->finalized || count < 0 || (count > 0 && values == nullptr))
        return CUDNN_STATUS_BAD_PARAM;
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return set_descriptors(*d, name, count, values);
    const char *begin = static_cast<const char *>(values);
    d->attributes[name] = {
        type, count, {begin, begin + static_cast<size_t>(count) * bytes_of(type)}};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t handle) {
    ENTER_CUDNN(CUDNN_STATUS_INTERNAL_ERROR);
    descriptor_ref d = find(handle);
    if (d == nullptr)
        return CUDNN_STATUS_BAD_PARAM;
    cudnnStatus_t status = check(*d);
    if (status == CUDNN_STATUS_SUCCESS && d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        status = finalize_plan(*d);
    d->finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const handle,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t wanted,
                                       int64_t *count, void *values) {
    ENTER_CUDNN(CUDNN_STATUS_BAD_PARAM);
    descriptor_ref d = find(handle);
    int64_t unused;
    if (d == nullptr || !d->finalized)
        return d == nullptr ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    if (count == nullptr)
        count = &unused;
    void **to = static_cast<void **>(values);
    switch (static_cast<int>(name)) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        return give_results(*d, wanted, count, to);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        return give_engine(*d, wanted, count, to);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        return give_notes(*d, wanted, count, values);
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        *count = 0;
        return CUDNN_STATUS_SUCCESS;
    default:
        return give_stored(*d, name, type, wanted, count, values);
    }
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
    ENTER_CUDNN(CUDNN_STATUS_EXECUTION_FAILED);
    descriptor_ref p = find(plan), v = find(pack);
    if (p == nullptr || v == nullptr || !p->finalized || !v->finalized)
        return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
    return execute(p, *v, handle->stream);
}
}
