/* launch.h - starts a kernel of kernels.h: on the GPU by launch.cu, on the host by launch_host.c */
#ifndef SPINENODE_CUDA_LAUNCH_H
#define SPINENODE_CUDA_LAUNCH_H

#include <stdint.h>

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Queues `items` items of a kernel on a cudaStream_t. Returns a cudaError_t. */
int cuda_launch(enum kernel kernel, const union kernel_args *args, int64_t items, void *stream);

/* Computes `items` items of a kernel, one after the other. Device memory is the host's. */
void host_compute(enum kernel kernel, const union kernel_args *args, int64_t items);

#ifdef __cplusplus
}
#endif
#endif
