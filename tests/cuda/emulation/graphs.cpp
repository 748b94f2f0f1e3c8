/* Graphs: captured from streams, run in any order that their edges allow. */
#include "emulation_internal.h"

#include <algorithm>
#include <set>

using namespace emulation;

using nodes_ref = std::shared_ptr<const std::vector<graph_node>>;

/* One launch: what has been done of it, and what is under way. */
struct launch_state {
    nodes_ref nodes;
    std::vector<attempt> running;
    std::vector<bool> done;
    size_t left;
};

static bool is_ready(const launch_state &l, size_t i) {
    const auto &after = (*l.nodes)[i].after;
    return !l.done[i] &&
           std::all_of(after.begin(), after.end(), [&](size_t n) { return l.done[n]; });
}

/* The latest of the ready nodes first, or the earliest in reverse; false: other ranks must come. */
static bool run_graph(launch_state &l) {
    size_t count = l.nodes->size();
    for (size_t i = 0; i < count && l.left > 0; i++) {
        size_t n = set().reverse ? i : count - 1 - i;
        if (!is_ready(l, n))
            continue;
        if (!l.running[n])
            l.running[n] = (*l.nodes)[n].what.begin();
        if (!l.running[n]())
            continue;
        l.done[n] = true;
        l.left--;
        i = static_cast<size_t>(-1);
    }
    return l.left == 0;
}

static attempt begin_graph(const nodes_ref &nodes) {
    auto l = std::make_shared<launch_state>();
    l->nodes = nodes;
    l->running.resize(nodes->size());
    l->done.resize(nodes->size());
    l->left = nodes->size();
    return [l] { return run_graph(*l); };
}

/* ---- which there are ---- */

static std::set<const CUgraph_st *> graphs;
static std::set<const CUgraphExec_st *> executables;
static std::weak_ptr<capture> latest;

static bool holds(const std::vector<graph_node> &nodes, const void *object) {
    return std::any_of(nodes.begin(), nodes.end(),
                       [=](const graph_node &n) { return n.what.holds == object; });
}

bool emulation::graphs_hold(const void *object) {
    std::shared_ptr<capture> under_way = latest.lock();
    return (under_way != nullptr && holds(under_way->nodes, object)) ||
           std::any_of(graphs.begin(), graphs.end(),
                       [=](const CUgraph_st *g) { return holds(g->nodes, object); }) ||
           std::any_of(executables.begin(), executables.end(),
                       [=](const CUgraphExec_st *e) { return holds(*e->nodes, object); });
}

/* ---- capturing ---- */

/* Nodes that those of `from` follow, and themselves. */
static std::vector<bool> reached(const capture &c, const std::vector<size_t> &from) {
    std::vector<bool> seen(c.nodes.size());
    std::vector<size_t> next = from;
    while (!next.empty()) {
        size_t n = next.back();
        next.pop_back();
        if (seen[n])
            continue;
        seen[n] = true;
        next.insert(next.end(), c.nodes[n].after.begin(), c.nodes[n].after.end());
    }
    return seen;
}

static cudaError_t end(capture &c) {
    std::vector<bool> seen = reached(c, c.origin->frontier);
    bool joined = std::all_of(seen.begin(), seen.end(), [](bool s) { return s; });
    for (CUstream_st *s : c.streams) {
        s->recording = nullptr;
        s->frontier.clear();
    }
    c.origin = nullptr;
    return c.invalid ? cudaErrorStreamCaptureInvalidated
           : !joined ? cudaErrorStreamCaptureUnjoined
                     : cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    ENTER_CUDA(cudaErrorStreamCaptureUnsupported);
    CUstream_st *s = stream_of(stream);
    if (s != stream || s->recording != nullptr)
        return told(s != stream ? cudaErrorStreamCaptureUnsupported : cudaErrorIllegalState);
    s->recording = std::make_shared<capture>();
    latest = s->recording;
    s->recording->origin = s;
    s->recording->mode = mode;
    s->recording->streams = {s};
    s->frontier.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    ENTER_CUDA(cudaErrorStreamCaptureInvalidated);
    std::shared_ptr<capture> c = stream_of(stream)->recording;
    *graph = nullptr;
    if (c == nullptr)
        return told(cudaErrorIllegalState);
    if (c->origin != stream) {
        c->invalid = true;
        return told(cudaErrorStreamCaptureUnmatched);
    }
    cudaError_t error = end(*c);
    if (error != cudaSuccess) {
        c->nodes.clear();
        return told(error);
    }
    *graph = new CUgraph_st{std::move(c->nodes)};
    graphs.insert(*graph);
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    ENTER_CUDA(cudaErrorInvalidValue);
    const auto &c = stream_of(stream)->recording;
    *status = c == nullptr ? cudaStreamCaptureStatusNone
              : c->invalid ? cudaStreamCaptureStatusInvalidated
                           : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *) {
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    ENTER_CUDA(0);
    graphs.erase(graph);
    delete graph;
    count_object(-1);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    ENTER_CUDA(cudaErrorInvalidValue);
    if (nodes != nullptr)
        return told(cudaErrorNotSupported);
    *count = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    auto nodes = std::make_shared<std::vector<graph_node>>(graph->nodes);
    *executable = new CUgraphExec_st{nodes};
    executables.insert(*executable);
    count_object(1);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long flags) {
    return cudaGraphInstantiate(executable, graph, flags);
}

/* The same pieces in the same order: only what they are given may differ. */
static bool is_alike(const std::vector<graph_node> &a, const std::vector<graph_node> &b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const graph_node &m, const graph_node &n) { return m.after == n.after; });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *info) {
    ENTER_CUDA(cudaErrorGraphExecUpdateFailure);
    bool alike = is_alike(*executable->nodes, graph->nodes);
    if (info != nullptr)
        *info = {alike ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged,
                 nullptr, nullptr};
    if (!alike)
        return told(cudaErrorGraphExecUpdateFailure);
    executable->nodes = std::make_shared<std::vector<graph_node>>(graph->nodes);
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    ENTER_CUDA(cudaErrorMemoryAllocation);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    ENTER_CUDA(0);
    executables.erase(executable);
    delete executable;
    count_object(-1);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    ENTER_CUDA(cudaErrorLaunchOutOfResources);
    if (is_capturing(stream))
        return told(spoil_capture(stream, cudaErrorStreamCaptureUnsupported));
    nodes_ref nodes = executable->nodes;
    for (const graph_node &node : *nodes) {
        if (node.what.queued)
            node.what.queued();
    }
    return told(enqueue(stream, {nullptr, [nodes] { return begin_graph(nodes); }}));
}
}
