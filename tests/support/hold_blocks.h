/* hold_blocks.h - hold backends' blocks against the reference, row by row of the table of cases.
 *
 * Works on any backend: every pointer that the backend sees is its own device memory. Failures
 * are cmocka's, with the row and the element in the message. */
#ifndef ESPALIER_TESTS_HOLD_BLOCKS_H
#define ESPALIER_TESTS_HOLD_BLOCKS_H

#include "cases.h"

/** Random inputs: evaluation, training and backward are within the bounds of bounds.h, each plan
 *  within those of its algorithm. At most 16 backends. */
void hold_rounded(struct backend *const *backends, int count, const struct block_case *row);

/** Small integers under relu or none, dropout 0 or 1/2: every sum is exact in float, in any order,
 *  so results equal the reference's, with all their ties. Plans that transform get inputs whose
 *  transforms are integers. */
void hold_exact(struct backend *const *backends, int count, const struct block_case *row);

/** The same two with a block of which some weights are left, in sparse form: the reference computes
 *  with zeros in their place. `left` says whether output `row` keeps its weight `column`. */
typedef bool weight_is_left(const struct block_desc *desc, int row, int column);
void hold_sparse_rounded(struct backend *const *backends, int count, const struct block_case *row,
                         weight_is_left *left);
void hold_sparse_exact(struct backend *const *backends, int count, const struct block_case *row,
                       weight_is_left *left);

#endif
