/*
 * device.h - what a program needs of the thing that runs it: memory, launches, convolutions
 *
 * Two stand behind it: device_cuda.c (CUDA and cuDNN) and device_host.c (the same kernel bodies in
 * loops, convolutions in plain C), by which whole programs, and the order in which streams work,
 * are checked without a GPU.
 *
 * Errors: ERR_NOMEM, the device's or the pinned memory is used up: the device goes on. ERR_DEVICE:
 * the device failed and will go on failing in this process.
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
    char text[96];      /* "NVIDIA H200 (GPU-…), cuDNN 9.19.0" */
    int64_t kept, made; /* convolutions planned: from the cache, anew */
};

/* What is queued on one stream runs in that order, after it was queued and at the latest when the
 * host waits; streams run beside each other but for events. Copies from and to pinned memory do not
 * block: until the host has waited for one, its memory on the host is the device's. Sizes in bytes,
 * memory aligned to 256. All return 0 or ERR_*. Any thread, one at a time for each stream;
 * convolutions and recordings one at a time for each device. */
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
    int (*wait)(struct device *d, void *stream, struct err *e); /* until all of it is done */

    /* A point in a stream: record marks what the stream has been given so far; stream_after makes
     * a stream wait for it, event_wait the host. What was never recorded is not waited for. */
    int (*event_new)(struct device *d, void **out, struct err *e);
    void (*event_free)(struct device *d, void *event);
    int (*event_record)(struct device *d, void *stream, void *event, struct err *e);
    int (*stream_after)(struct device *d, void *stream, void *event, struct err *e);
    int (*event_wait)(struct device *d, void *event, struct err *e);

    /* A sequence of launches, clears and convolutions, recorded once and replayed. begin … end;
     * nothing is executed between them. The caller frees the recording. */
    int (*record_begin)(struct device *d, void *stream, struct err *e);
    int (*record_end)(struct device *d, void *stream, void **recording, struct err *e);
    int (*replay)(struct device *d, void *stream, void *recording, struct err *e);
    void (*recording_free)(struct device *d, void *recording);
    /* Replays it `times` times and waits; the device's own time for all of them, in ms. */
    int (*replay_timed)(struct device *d, void *stream, void *recording, int times, double *ms,
                        struct err *e);

    int (*convolution_plan)(struct device *d, const struct convolution_spec *spec,
                            struct convolution_made *out, struct err *e);
    void (*convolution_free)(struct device *d, void *plan);
    int (*convolution_run)(struct device *d, void *stream, void *plan,
                           const struct convolution_spec *spec, const struct convolution_memory *m,
                           struct err *e);
    /* All convolutions of a program are planned: keeps what was tuned for the next start. */
    void (*tuned)(struct device *d);
};

/* The host twin. It queues as a GPU does and executes as late as it may: an operation runs when the
 * host waits for it or for something after it, and so a wait that is missing shows in the numbers.
 * It knows which operations touch which memory, and refuses (ERR_BUG) two that no event orders. */
struct host_options {
    enum convolution_fused fused; /* what it pretends that convolutions can fuse */
    int64_t memory_bytes;         /* device memory that there is; 0: no limit */
    int64_t replays;              /* so many, then the device is lost; 0: never */
    bool wrong;                   /* what it convolves is zero */
    bool (*lost)(void *ctx);      /* asked at each operation: has the device gone? NULL: no */
    void *ctx;
    const char *cache_folder, *key; /* as device_cuda_open() */
};
int device_host_open(const struct host_options *o, struct device **out, struct err *e);

/* A CUDA device by UUID ("GPU-…", or its beginning if only one has it) or index; NULL: the first.
 * cache_folder and key say where tuned plans are kept; NULL: nowhere. untuned: plans are taken as
 * cuDNN offers them, which starts sooner and runs slower. ERR_DEVICE: no GPU can be
 * used, or not this one. */
int device_cuda_open(const char *selector, const char *cache_folder, const char *key, bool untuned,
                     struct device **out, struct err *e);

#endif
