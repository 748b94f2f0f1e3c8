/* One rank, where there is no MPI. */
#include "peers.h"

#include <cstring>

namespace emulation {

struct peers {};

peers_ref meet(int ranks) {
    return ranks == 1 ? std::make_shared<peers>() : nullptr;
}

void gather_now(const peers_ref &, const void *mine, void *all, size_t bytes) {
    memcpy(all, mine, bytes);
}

attempt gather_begin(const peers_ref &, const void *mine, void *all, size_t bytes) {
    memcpy(all, mine, bytes);
    return [] { return true; };
}

} // namespace emulation
