/*
 * convolution.h - 2-D convolution by cuDNN's backend descriptors: plan, run, save, free
 *
 * Everything that knows cuDNN is behind these functions (convolution.c). A plan is made for a
 * device that is there (a handle) or for one that is only described (JSON of a
 * CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR): so that on any machine a test can see which plans a network
 * would get, their workspace, and that they can be kept and read back.
 *
 * x is N,H,W,C, w is K,kh,kw,C, y is N,OH,OW,K, all packed, C and K multiples of 8; bias K
 * elements of their type (cuDNN has ready engines for no other). Elements are half, summed in
 * float, or float, never by way of TF32 unless asked. Engines that are not deterministic are never
 * taken.
 *
 * Beyond a convolution, its bias and a Relu a spec may ask for more (convolution_wants_more()): a
 * leaky activation, a rectified copy. cuDNN compiles such plans at run time, up to ten for a second
 * each, all at once on as many threads as there are processors; one is taken if it beats the best
 * ready plan and a pass of ours behind that. (Not asked for are rows of y that lie apart and a
 * residual sum: cuDNN 9.19 compiles both, and a network by such plans came out wrong on an H200. It
 * was not found out which of the two was to blame.)
 */
#ifndef SPINENODE_CUDA_CONVOLUTION_H
#define SPINENODE_CUDA_CONVOLUTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct buf;

struct convolution_spec {
    int64_t n, c, h, w; /* of x */
    int64_t k, oh, ow;  /* of y */
    int64_t kernel[2], stride[2], dilation[2], pad_begin[2], pad_end[2];
    bool half;
    bool tf32; /* float only */
    bool bias; /* add it */
    bool relu; /* then this */
    /* And more: only if the plan fuses all. */
    float leak;           /* not 0: of relu, below zero: leak·y */
    int64_t second_pitch; /* not 0: relu(y) is written, too, pixels so far apart */
};

/* How much of the epilogue a plan does by itself; the caller's kernels do the rest, from a packed
 * y. */
enum convolution_fused {
    CONVOLUTION_BARE, /* y = x * w */
    CONVOLUTION_BIAS, /* + bias */
    CONVOLUTION_ALL   /* all that was asked */
};

static inline bool convolution_wants_more(const struct convolution_spec *s)
{
    return s->leak != 0 || s->second_pitch != 0;
}

/* What a run reads and writes: device pointers, 16-byte aligned; NULL what the plan does not want.
 */
struct convolution_memory {
    const void *x, *w, *bias;
    void *y, *second, *workspace;
};

/* What became of a spec on a device. */
struct convolution_made {
    void *plan; /* the device's */
    enum convolution_fused fused;
    int64_t workspace_bytes;
};

/* Where plans are made for. */
struct convolution_target {
    void *handle;            /* cudnnHandle_t, or NULL: */
    const char *device_json; /* the description of a device */
    /* With a handle: times a candidate, in µs; an error leaves it out. NULL: the heuristics' first
     * choice is taken. */
    int (*time)(void *ctx, const void *candidate, int64_t workspace_bytes, double *us);
    /* With time: µs of a pass of ours that moves so many bytes (0: its launch; negative: it cannot
     * be told), and handles of the same device for threads that make plans (they must outlive the
     * plans), NULL for a thread that gets none. NULL: nothing more is tried. */
    double (*pass)(void *ctx, int64_t bytes);
    void *(*another)(void *ctx, int thread);
    /* With a handle: has the device failed for good? Asked after an error; NULL: nobody knows. */
    bool (*lost)(void *ctx);
    void *ctx;
};

struct convolution;

/* ERR_UNSUPPORTED: no engine for it. ERR_NOMEM: none for which the memory is there. ERR_DEVICE: the
 * device is lost, or all that cuDNN offers fails. *out to be freed. */
int convolution_plan(const struct convolution_target *target, const struct convolution_spec *spec,
                     struct convolution **out, struct err *e);
void convolution_free(struct convolution *c); /* NULL is fine */

enum convolution_fused convolution_fused(const struct convolution *c);
int64_t convolution_workspace(const struct convolution *c); /* bytes */

/* Queues it on the handle's stream. */
int convolution_run(const struct convolution *c, void *handle, const struct convolution_memory *m,
                    struct err *e);

/* For convolution_target.time: runs a candidate once, as it was handed to time(). */
int convolution_try(const void *candidate, void *handle, const struct convolution_memory *m);

/* The plan as JSON (3 to 300 kB), and back. A kept plan is good for the same device and cuDNN
 * version only; the caller sees to that. ERR_INVALID: it is the plan of another spec, or has an
 * engine that would not be taken now. */
int convolution_save(const struct convolution *c, struct buf *out, struct err *e);
int convolution_load(const struct convolution_target *target, const struct convolution_spec *spec,
                     enum convolution_fused fused, const char *json, struct convolution **out,
                     struct err *e);

/* "9.19.0", of the library that is linked. */
const char *convolution_library(void);

#endif
