/* sparse_model.h - a model's survivors in a safetensors file: indices and values.
 *
 * A weight that holds zeros is written as three tensors; everything else as in model.safetensors:
 *
 *   NAME.weight.indices  I32 [survivors]   row-major places of the values, ascending
 *   NAME.weight.values   F32 [survivors]   none of them 0
 *   NAME.weight.shape    I64 [dimensions]  of the dense weight
 *
 * so that dense = zeros(shape); dense.flat[indices] = values. The metadata are the model's, and
 * "espalier.sparse" says the same in words. */
#ifndef ESPALIER_SPARSE_MODEL_H
#define ESPALIER_SPARSE_MODEL_H

#include <espalier/model.h>

/** Write the sparse form of a model. Errors as safetensors_write. */
enum status sparse_model_write(const char *path, const struct model *model);

#endif
