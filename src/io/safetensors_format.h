/* safetensors_format.h - what the writer and the reader of safetensors files share. */
#ifndef ESPALIER_IO_SAFETENSORS_FORMAT_H
#define ESPALIER_IO_SAFETENSORS_FORMAT_H

#include <espalier/safetensors.h>

/* Values go between memory and file as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors files are little-endian");
_Static_assert(sizeof(float) == 4 && sizeof(double) == 8, "F32 has 4 bytes, F64 8");

enum {
    SAFETENSORS_LENGTH_BYTES = 8,             /* of the header's length at the head of the file */
    SAFETENSORS_HEADER_BYTES_MAX = 100000000, /* as in the format's reference implementation */
    SAFETENSORS_ALIGNMENT = 64,               /* of the data's begin in the files that we write */
    SAFETENSORS_HEADER_MEMBERS = 3            /* dtype, shape, data_offsets */
};

#define SAFETENSORS_METADATA_KEY "__metadata__"

extern const char *const safetensors_type_names[]; /* "F32", ...; NULL-terminated */

#endif
