/* gpu.h - what tells one accelerator from another, and where its work is queued. */
#ifndef ESPALIER_GPU_H
#define ESPALIER_GPU_H

#include <stddef.h>

enum { GPU_NAME_MAX = 128, GPU_UUID_BYTES = 16, GPU_REFUSED_MAX = 320 };

struct gpu {
    int index;               /* among those that this process sees */
    char name[GPU_NAME_MAX]; /* "NVIDIA H100 80GB HBM3" */
    unsigned char uuid[GPU_UUID_BYTES];
    int major, minor; /* compute capability */
    size_t memory_bytes;
    void *stream; /* the backend's: cudaStream_t */
    /** Forget what has been recorded of the stream's work, at once. A library whose sums are part
     * of it waits for that before it lets go of a communicator. NULL: nothing is ever recorded. */
    void (*drop_recorded)(void *owner);
    void *owner;
};

#endif
