/* emulation.h - what tests ask of the emulated GPU.
 *
 * The emulation implements the part of the CUDA runtime, cuBLAS, cuDNN and NCCL that espalier
 * calls, on the host, against the real headers. It shows errors of order and of memory, which a
 * device may hide; it shows nothing of speed, of tensor cores, or of warps that really run at the
 * same time. How it behaves is chosen by the environment, read when it is first needed:
 *
 *   EMULATED_DEVICES  number of devices (4); 0: none
 *   EMULATED_FIRST    which of the machine's devices is the first of them (0)
 *   EMULATED_CAPABILITIES  compute capabilities of the first of them: "35,90" (90)
 *   EMULATED_MEMORY   bytes of a device (4 GiB)
 *   EMULATED_RELU     "loose": the engine that cuDNN's heuristics put first loses NaNs
 *   EMULATED_ORDER    "reverse": threads, blocks and independent work run in the reverse order
 *   EMULATED_STREAMS  "late" (default): work is done when something waits for it, and no other;
 *                     "others": everything else that is queued is done before it;
 *                     "now": work is done when it is queued
 *   EMULATED_FAIL     CALL:NTH[:STATUS[:RANK]][,...]: the NTH call of CALL fails, or all from the
 *                     first on (NTH 0); CALL is a function of the libraries, or "ncclAsync", the
 *                     NTH collective, which never ends and is told as an asynchronous error
 *   EMULATED_DROP     WHAT[,...]: what is left out, to see that a test notices. WHAT is
 *                     barrier@FILE:LINE, block@FILE:KERNEL (the last block of a launch), or
 *                     CALL:NTH, a call that does nothing and says that it has (NTH 0: each)
 *   EMULATED_CALLS    file to which how often each function was called is appended
 *   EMULATED_SITES    file to which barrier@… and block@… of all places that ran are appended
 *
 * None of this is safe in several threads. */
#ifndef ESPALIER_TESTS_EMULATION_H
#define ESPALIER_TESTS_EMULATION_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Fail the nth call (1: the next) of a function with the status, 0: the library's usual one.
 *  "*" stands for any function that can fail. */
void emulation_fail(const char *call, long nth, int status);

/** Forget the failures asked for, and count calls from 0 again, those to leave out too. */
void emulation_reset_failures(void);

/** Calls of a function, or of all ("*"), since the last reset. */
long emulation_calls(const char *call);

/** Device and pinned allocations, streams, events, graphs, handles, descriptors and communicators
 *  that have not been destroyed. */
long emulation_live_objects(void);

/** From now on there are as many devices as compute capabilities are named: "35,90". */
void emulation_set_capabilities(const char *capabilities);

/** Choose the order of threads and work, and the policy of streams, from now on. */
void emulation_set_order(bool reverse);
void emulation_set_streams(const char *policy);

/** Pieces of work that have been queued and not done. */
long emulation_pending(void);

#ifdef __cplusplus
}
#endif

#endif
