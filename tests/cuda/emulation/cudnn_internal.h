/* cudnn_internal.h - what cuDNN's descriptors become: plans of strided operations. */
#ifndef ESPALIER_TESTS_CUDNN_INTERNAL_H
#define ESPALIER_TESTS_CUDNN_INTERNAL_H

#include "emulation_internal.h"

#include <cstring>
#include <cudnn.h>
#include <map>

namespace emulation {

struct attribute {
    cudnnBackendAttributeType_t type;
    int64_t count;
    std::vector<char> bytes;
};

struct descriptor;
using descriptor_ref = std::shared_ptr<descriptor>;

/* A descriptor keeps those that it was given, also after their handles have been destroyed. */
struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool finalized = false;
    std::map<int, attribute> attributes;
    std::map<int, std::vector<descriptor_ref>> descriptors;

    bool has(int name) const {
        return attributes.count(name) != 0 || descriptors.count(name) != 0;
    }
    template <class T> std::vector<T> values(int name) const {
        auto found = attributes.find(name);
        std::vector<T> result;
        if (found == attributes.end())
            return result;
        result.resize(found->second.bytes.size() / sizeof(T));
        memcpy(result.data(), found->second.bytes.data(), result.size() * sizeof(T));
        return result;
    }
    template <class T> T value(int name, T otherwise) const {
        std::vector<T> all = values<T>(name);
        return all.empty() ? otherwise : all[0];
    }
    const descriptor &only(int name) const {
        return *descriptors.at(name).at(0);
    }
};

/* An engine as the heuristics offer it. */
struct engine {
    bool ruins;          /* noted as not deterministic: its results are NaN */
    bool rounds;         /* noted as for tensor cores: inputs become TF32 */
    bool unbuilt;        /* its plan cannot be finalised */
    bool backwards;      /* sums in the reverse order */
    bool fails;          /* its plan cannot be run */
    bool strict;         /* noted: its relu keeps a NaN, which others lose */
    double milliseconds; /* that events around it measure */
    int64_t workspace;
};
extern const std::vector<engine> engines;
bool keeps_nan(const engine &e);

/* ---- cudnn_shapes.cpp ---- */

/* CUDNN_STATUS_SUCCESS when a descriptor's attributes are there and fit each other. */
cudnnStatus_t check(const descriptor &d);

/* ---- cudnn_execute.cpp ---- */

/* Queue the plan's operations on a stream. */
cudnnStatus_t execute(const descriptor_ref &plan, const descriptor &pack, cudaStream_t stream);

} // namespace emulation

#endif
