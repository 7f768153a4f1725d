/*
 * device.h - what a program needs of the thing that runs it: memory, launches, convolutions
 *
 * Two stand behind it: device_cuda.cu (CUDA and cuDNN) and device_host.c (the same kernel bodies
 * in loops, convolutions in plain C), by which whole programs are checked without a GPU.
 */
#ifndef SPINENODE_CUDA_DEVICE_H
#define SPINENODE_CUDA_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/convolution.h"
#include "cuda/kernels.h"

struct err;

struct device {
    const struct device_ops *ops;
    char text[96]; /* "NVIDIA H200 (GPU-…), cuDNN 9.19.0" */
};

/* Streams order work; copies from and to pinned memory do not block. All return 0 or ERR_*. */
struct device_ops {
    void (*close)(struct device *d);
    int (*memory_new)(struct device *d, int64_t bytes, void **out, struct err *e); /* zeroed */
    void (*memory_free)(struct device *d, void *p);
    int (*pinned_new)(struct device *d, int64_t bytes, void **out, struct err *e);
    void (*pinned_free)(struct device *d, void *p);

    int (*stream_new)(struct device *d, void **out, struct err *e);
    void (*stream_free)(struct device *d, void *stream);
    int (*upload)(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                  struct err *e);
    int (*download)(struct device *d, void *stream, void *to, const void *from, int64_t bytes,
                    struct err *e);
    int (*clear)(struct device *d, void *stream, void *p, int64_t bytes, struct err *e);
    int (*launch)(struct device *d, void *stream, enum kernel kernel, const union kernel_args *args,
                  int64_t items, struct err *e);
    int (*wait)(struct device *d, void *stream, struct err *e);

    /* A sequence of launches, recorded once and replayed. begin … launches … end; on a device that
     * cannot record, end gives NULL and the caller launches each time. */
    int (*record_begin)(struct device *d, void *stream, struct err *e);
    int (*record_end)(struct device *d, void *stream, void **recording, struct err *e);
    int (*replay)(struct device *d, void *stream, void *recording, struct err *e);
    void (*recording_free)(struct device *d, void *recording);

    int (*convolution_plan)(struct device *d, const struct convolution_spec *spec, void **plan,
                            enum convolution_fused *fused, int64_t *workspace_bytes, struct err *e);
    void (*convolution_free)(struct device *d, void *plan);
    int (*convolution_run)(struct device *d, void *stream, void *plan,
                           const struct convolution_spec *spec, const void *x, const void *w,
                           const void *bias, void *y, void *workspace, struct err *e);
};

/* The host twin. `fused` is what it pretends convolutions can fuse, so that every path of a program
 * can be tested. */
int device_host_open(enum convolution_fused fused, struct device **out, struct err *e);

/* A CUDA device by UUID ("GPU-…") or index; NULL: the first. cache_folder and key say where tuned
 * plans are kept; NULL: nowhere. */
int device_cuda_open(const char *selector, const char *cache_folder, const char *key,
                     struct device **out, struct err *e);

#endif
