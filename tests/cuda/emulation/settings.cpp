/* What the environment asks for: settings, failures, and what is left out. */
#include "emulation_internal.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

namespace emulation {

static std::string environment(const char *name) {
    const char *text = getenv(name);
    return text == nullptr ? "" : text;
}

static long rank() {
    for (const char *name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}) {
        std::string text = environment(name);
        if (!text.empty())
            return std::stol(text);
    }
    return 0;
}

static std::vector<std::string> split(const std::string &text, char by) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, by);)
        parts.push_back(part);
    return parts;
}

static std::vector<int> numbers(const std::string &text) {
    std::vector<int> found;
    for (const std::string &part : split(text, ','))
        found.push_back(std::stoi(part));
    return found;
}

static auto policy(const std::string &name) {
    return name == "others" ? settings::OTHERS : name == "now" ? settings::NOW : settings::LATE;
}

static settings read_settings() {
    std::string devices = environment("EMULATED_DEVICES"), memory = environment("EMULATED_MEMORY");
    settings s = {};
    s.devices = devices.empty() ? 4 : std::stoi(devices);
    std::string first = environment("EMULATED_FIRST");
    s.first = first.empty() ? 0 : std::stoi(first);
    s.memory = memory.empty() ? size_t{4} << 30 : std::stoull(memory);
    s.capabilities = numbers(environment("EMULATED_CAPABILITIES"));
    s.loose = environment("EMULATED_RELU") == "loose";
    s.reverse = environment("EMULATED_ORDER") == "reverse";
    s.streams = policy(environment("EMULATED_STREAMS"));
    return s;
}

settings &set() {
    static settings s = read_settings();
    return s;
}

void complain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("emulated device: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* ---- failures and calls left out: "CALL:NTH[:STATUS[:RANK]]" ---- */

struct request {
    std::string call;
    long nth;
    int status;
};

static std::vector<request> read_requests(const char *variable) {
    std::vector<request> requests;
    for (const std::string &text : split(environment(variable), ',')) {
        std::vector<std::string> part = split(text, ':');
        if (part.size() < 2 || part[0].find('@') != std::string::npos)
            continue;
        int status = part.size() > 2 ? std::stoi(part[2]) : 0;
        if (part.size() < 4 || std::stol(part[3]) == rank())
            requests.push_back({part[0], std::stol(part[1]), status});
    }
    return requests;
}

static std::vector<request> &failures() {
    static std::vector<request> requests = read_requests("EMULATED_FAIL");
    return requests;
}

/* Written down at the end, where that is asked for. */
struct call_counts {
    std::map<std::string, long> of;
    ~call_counts() {
        FILE *file = fopen(environment("EMULATED_CALLS").c_str(), "a");
        if (file == nullptr)
            return;
        for (const auto &count : of)
            fprintf(file, "%s %ld\n", count.first.c_str(), count.second);
        fclose(file);
    }
};

static std::map<std::string, long> &calls() {
    static call_counts counts;
    return counts.of;
}

static bool is_this_call(const request &r, const std::string &call) {
    return (r.call == call || r.call == "*") && (r.nth == 0 || r.nth == calls()[r.call]);
}

int entered(const char *call, int usual) {
    if (usual == 0)
        return 0;
    calls()[call]++;
    calls()["*"]++;
    for (const request &r : failures()) {
        if (is_this_call(r, call))
            return r.status != 0 ? r.status : usual;
    }
    return 0;
}

static std::map<std::string, long> &drop_counts() {
    static std::map<std::string, long> counts;
    return counts;
}

bool dropped(const char *call) {
    static const std::vector<request> requests = read_requests("EMULATED_DROP");
    if (requests.empty())
        return false;
    drop_counts()[call]++;
    for (const request &r : requests) {
        if (r.call == call && (r.nth == 0 || r.nth == drop_counts()[call]))
            return true;
    }
    return false;
}

bool is_dropped(const std::string &place) {
    static const std::vector<std::string> places = split(environment("EMULATED_DROP"), ',');
    for (const std::string &p : places) {
        if (p == place)
            return true;
    }
    return false;
}

static long live_objects;

void count_object(int change) {
    live_objects += change;
}

} // namespace emulation

using namespace emulation;

void emulation_fail(const char *call, long nth, int status) {
    failures().push_back({call, nth == 0 ? 0 : calls()[call] + nth, status});
}

void emulation_reset_failures(void) {
    failures().clear();
    calls().clear();
    drop_counts().clear();
}

long emulation_calls(const char *call) {
    return calls()[call];
}

long emulation_live_objects(void) {
    return live_objects;
}

void emulation_set_capabilities(const char *capabilities) {
    set().capabilities = numbers(capabilities);
    set().devices = static_cast<int>(set().capabilities.size());
}

void emulation_set_order(bool reverse) {
    set().reverse = reverse;
}

void emulation_set_streams(const char *name) {
    set().streams = policy(name);
}
