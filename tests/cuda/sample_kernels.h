/* sample_kernels.h - kernels whose errors the emulation must show, when something is left out.
 *
 * All pointers are device pointers; all launches are queued on `stream`. */
#ifndef ESPALIER_TESTS_SAMPLE_KERNELS_H
#define ESPALIER_TESTS_SAMPLE_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SAMPLE_BLOCK = 96 }; /* threads: three warps */

/** out[b] = sum of the b-th SAMPLE_BLOCK values of x[count], by a tree in shared memory. */
cudaError_t sample_block_sums(const int *x, int count, int *out, cudaStream_t stream);

/** out[i] = sum of x[0..i] of each block of SAMPLE_BLOCK, by shuffles and sums of warps. */
cudaError_t sample_scan(const int *x, int count, int *out, cudaStream_t stream);

/** out [columns][rows] = transpose of x [rows][columns], through tiles in shared memory. */
cudaError_t sample_transpose(const float *x, int rows, int columns, float *out,
                             cudaStream_t stream);

/** counts[v] = how often v occurs in x[count], v < values <= 1024; in dynamic shared memory. */
cudaError_t sample_histogram(const int *x, int count, int *counts, int values, cudaStream_t stream);

/** The odd values of x[count], in order, at out; *kept says how many. One block, by ballots. */
cudaError_t sample_keep_odd(const int *x, int count, int *out, int *kept, cudaStream_t stream);

/** x[i] = scale x[i] + 1. */
cudaError_t sample_step(int *x, int count, int scale, cudaStream_t stream);

/* ---- what ends the program, with a message ---- */

/** Half of a block goes to a barrier, the rest ends. */
cudaError_t sample_diverge(cudaStream_t stream);
/** A block's threads go to two different barriers. */
cudaError_t sample_two_barriers(cudaStream_t stream);
/** Writes x[count]. */
cudaError_t sample_overrun(int *x, int count, cudaStream_t stream);
/** Writes one past a shared array. */
cudaError_t sample_shared_overrun(cudaStream_t stream);
/** A lane reads a lane that its mask leaves out. */
cudaError_t sample_wrong_mask(cudaStream_t stream);

/** A launch of `grid` blocks of `block` threads that do nothing. */
cudaError_t sample_launch(unsigned grid, unsigned block, size_t shared_bytes, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
