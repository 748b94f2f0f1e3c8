/* gpu.h - what tells one accelerator from another, and where its work is queued. */
#ifndef ESPALIER_GPU_H
#define ESPALIER_GPU_H

enum { GPU_NAME_MAX = 128, GPU_UUID_BYTES = 16 };

struct gpu {
    int index;               /* among those that this process sees */
    char name[GPU_NAME_MAX]; /* "NVIDIA H100 80GB HBM3" */
    unsigned char uuid[GPU_UUID_BYTES];
    void *stream; /* the backend's: cudaStream_t */
};

#endif
