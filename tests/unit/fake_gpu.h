/* fake_gpu.h - a CUDA runtime and a cuDNN that compute nothing and fail when they are told to
 *
 * The functions that cuda/device_cuda.c and cuda/convolution.c call. Memory is the host's and is
 * counted. A heuristic offers three engines, of which nothing is known but what stands here. */
#ifndef SPINENODE_TESTS_UNIT_FAKE_GPU_H
#define SPINENODE_TESTS_UNIT_FAKE_GPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fake_gpu {
    int64_t memory_bytes; /* that there are; 0: no limit */
    long fail_at;         /* the number of the call that fails; 0: none */
    int error;            /* with this cudaError_t */
    bool sticky;          /* and every later call of the runtime, too */
    int handles;          /* of cuDNN that can be made; 0: no limit */
    int note;             /* a cudnnBackendNumericalNote_t of every engine; -1: none */
    bool compiled;        /* every engine is compiled at run time */
    bool one_heuristic;   /* the other offers nothing; nor does any once a sticky error is there */
    int64_t workspace;    /* bytes that every plan needs */
    const char *json;     /* what every plan is written down as */
    atomic_long calls;    /* so far */
    atomic_long live;     /* things made and not freed */
};
extern struct fake_gpu fake_gpu;

/* As new; what is live is not freed. */
void fake_gpu_reset(void);

#endif
