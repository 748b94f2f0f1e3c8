/* model.h - a trained network in a file: model.safetensors.
 *
 * Dense F32 tensors NAME.weight and NAME.bias in their original shapes, zeros where pruned;
 * metadata "espalier.recipe" (resolved recipe), "espalier.name" (the recipe's name),
 * "espalier.input" ("HEIGHTxWIDTHxCHANNELS"), "espalier.version" and "format" = "pt" (so that
 * common readers accept it). */
#ifndef ESPALIER_MODEL_H
#define ESPALIER_MODEL_H

#include <espalier/network.h>
#include <espalier/safetensors.h>

/** A model read back from a run directory or a .safetensors file. */
struct model {
    char path[4096]; /* of the file */
    struct recipe recipe;
    struct shape input;
    struct safetensors file;
};

/** Write the network's parameters. Called by one rank. Errors as safetensors_write. */
enum status model_write(const char *path, const struct network *network,
                        const struct recipe *recipe);

/** The path of MODEL's file, in path [size]: MODEL/model.safetensors where MODEL is a directory,
 *  else MODEL itself. ST_INPUT when it does not fit. */
enum status model_path(const char *model, char *path, size_t size);

/** ST_INPUT, naming `path` and a tensor, unless all tensors are F32. */
enum status model_check_types(const char *path, const struct safetensors *file);

/** Open MODEL: a .safetensors file, or a run directory that holds model.safetensors. ST_INPUT
 *  when it is neither, when the metadata that espalier writes is missing or unusable, or when a
 *  tensor of the recipe's network is missing or has another shape (ST_SHAPE for a recipe that is
 *  no network): a network that the file does not hold is never allocated. */
enum status model_read(const char *path, struct model *model);
void model_destroy(struct model *model); /* legal on a zeroed model */

/** Copy the file's tensors into a network of the same recipe, and materialise them. ST_INPUT
 *  names a tensor that is missing, has another shape, or holds a NaN or an infinity. */
enum status model_load(const struct model *model, struct network *network);

#endif
