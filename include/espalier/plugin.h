/* plugin.h - the CUDA backend and NCCL, which are a file of their own beside the program. */
#ifndef ESPALIER_PLUGIN_H
#define ESPALIER_PLUGIN_H

#include <espalier/status.h>

/** Set *function, of type void * where a pointer to a function is kept, as POSIX has it, to what
 *  espalier_cuda.so defines by that name. The file is opened at the first call and stays open.
 *  ST_UNAVAILABLE: no NVIDIA driver, or the file, or a library that it needs, is missing. */
enum status plugin_find(const char *name, void *function);

#endif
