/* checkpoint_format.h - what the writer and the reader of checkpoints share. */
#ifndef ESPALIER_IO_CHECKPOINT_FORMAT_H
#define ESPALIER_IO_CHECKPOINT_FORMAT_H

#include <espalier/checkpoint.h>

#define CHECKPOINT_FORMAT_KEY "espalier.checkpoint"
#define CHECKPOINT_FORMAT "1"
#define CHECKPOINT_SPARSE_BELOW "deletion.sparse_below"
#define CHECKPOINT_CHOICES "backend.choices"
#define CHECKPOINT_RANK_LOSS "tally.rank_loss"
#define CHECKPOINT_RANK_CORRECT "tally.rank_correct"
#define CHECKPOINT_FOLDER "checkpoints"

enum { CHECKPOINT_TENSOR_NAME_MAX = PARAMETER_NAME_MAX + 32 };

/** A member of struct run_state and the name of its tensor. */
struct checkpoint_scalar {
    const char *name;
    enum safetensors_type type; /* F64, or I64 for a whole number of any size */
    size_t offset, size;
};

extern const struct checkpoint_scalar checkpoint_scalars[];
extern const int checkpoint_scalars_count;

/** "dense1.weight.survivors": of a parameter's further tensors. */
void checkpoint_tensor_name(const struct parameter *parameter, const char *what,
                            char name[CHECKPOINT_TENSOR_NAME_MAX]);

#endif
