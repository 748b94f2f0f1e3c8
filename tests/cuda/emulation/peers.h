/* peers.h - the ranks of an emulated NCCL communicator: over MPI, or one alone without it. */
#ifndef ESPALIER_TESTS_PEERS_H
#define ESPALIER_TESTS_PEERS_H

#include "emulation_internal.h"

namespace emulation {

struct peers;
using peers_ref = std::shared_ptr<peers>;

/* Meet the other ranks; nullptr when there are not so many. Collective. */
peers_ref meet(int ranks);

/* Rank r's bytes at all[r * bytes] of every rank. Blocks. Collective. */
void gather_now(const peers_ref &p, const void *mine, void *all, size_t bytes);

/* The same begun: true from the attempt on, in which all bytes have come. */
attempt gather_begin(const peers_ref &p, const void *mine, void *all, size_t bytes);

} // namespace emulation

#endif
