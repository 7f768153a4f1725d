/*
 * cpu_conv.h - convolutions and transposed convolutions of the CPU engine
 *
 * Four ways to compute a layer, chosen by what they are reckoned to cost:
 *
 *   Winograd   tiles of 4 × 4, 5 × 5 or 6 × 6 pixels. k4 s2 convolutions (their four parity phases
 *              are 2×2 convolutions of stride 1, K = 4·C), k4 s2 transposed ones (a 2×2 convolution
 *              to 4·C' outputs), both also of a kernel of 3, as one of 4 that ends in zeros, and
 *              2×2 of stride 1: F(3×3, 2×2), F(4×4, 2×2), F(5×5, 2×2), 1.78, 1.56 or 1.44
 *              multiplications for an output in place of 4. 3×3 of stride 1: F(2×2, 3×3),
 *              F(3×3, 3×3), F(4×4, 3×3), 4, 2.78 or 2.25 in place of 9. Larger tiles store more
 *              weights and are less exact (cpu_winograd.inc.h).
 *   direct     any other: blocks of the input are packed tap by tap, then multiplied. A transposed
 *              convolution is one convolution for each phase of its stride. Taps that only ever
 *              meet padding are neither stored nor computed. Groups of few channels are computed
 *              several at a time, as one whose weights between different groups are zeros.
 *   columns    few outputs (an image): every tap of the kernel is computed as an output of its own
 *              at every pixel of the input, and they are added up with a shift.
 *   depthwise  groups of one channel to one channel: nothing is packed, a vector of channels is
 *              multiplied at a time.
 *
 * Padding, reflected borders and nearest upsampling of the input are tables of source rows and
 * columns, so nothing is copied to make room for them. Results depend neither on the number of
 * threads nor on the number of images.
 */
#ifndef SPINENODE_MODEL_CPU_CONV_H
#define SPINENODE_MODEL_CPU_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/cpu_kernels.h"

struct err;
struct pool;

/* A tensor in NHWC; strides in floats, channels next to one another. */
struct cpu_view {
    float *data;
    int n, h, w, c;
    ptrdiff_t image, row, pixel;
};

enum cpu_border { CPU_ZERO, CPU_REFLECT, CPU_EDGE };
enum cpu_shuffle { CPU_NO_SHUFFLE, CPU_DCR, CPU_CRD };
/* CPU_WINOGRAD4: by tiles of 4 × 4. */
enum cpu_way {
    CPU_DIRECT,
    CPU_COLUMNS,
    CPU_WINOGRAD4,
    CPU_WINOGRAD5,
    CPU_WINOGRAD6,
    CPU_DEPTHWISE
};

struct cpu_conv_desc {
    int n, h, w, c; /* input: images, rows, columns, channels (of all groups) */
    int oh, ow, oc; /* output */
    int kernel[2], stride[2], dilation[2];
    int pad[2]; /* before the first row, column; transposed: cut off there. May be < 0 */
    int group;
    bool transposed;
    enum cpu_border border; /* what lies outside; CPU_ZERO only if transposed */
    int up[2];              /* the input is first enlarged so (nearest); 1, 1 if transposed */
    /* Depth to space by 2 after it, group 1, not transposed: the view of the output then has
     * 2·oh × 2·ow × oc/4. CPU_CRD: PyTorch's pixel shuffle. Not with a residual. */
    enum cpu_shuffle shuffle;
    struct cpu_act in_act; /* of what is read; zeros of padding stay zeros */
    struct cpu_act out_act;
    bool low_memory; /* never Winograd where it stores more than the weights themselves */
    bool alone;      /* cut for one thread, too: for runs without a pool */
};

struct cpu_conv;

/*
 * Plans a layer for the kernels and a number of threads, without its weights. way: NULL, or the
 * way to take (tests). ERR_UNSUPPORTED: a size that does not fit an int, or a way that the layer
 * has not; ERR_NOMEM.
 */
int cpu_conv_new(struct cpu_conv **out, const struct cpu_conv_desc *d, const struct cpu_kernels *k,
                 int threads, const enum cpu_way *way, struct err *e);
void cpu_conv_free(struct cpu_conv *c);

enum cpu_way cpu_conv_way(const struct cpu_conv *c);
/* Floats of the weights as the tensor has them. */
size_t cpu_conv_weights(const struct cpu_conv *c);

/* Another way to compute a layer. */
struct cpu_other_way {
    enum cpu_way way;
    double cycles; /* that it is reckoned to save */
    size_t floats; /* that its packed weights take more */
};
/* Most of them: Winograd by tiles of three sizes. */
#define CPU_OTHER_WAYS 3
/*
 * The ways that are faster than the one it has but take more memory; returns how many. Where
 * cpu_conv_new() chooses, it takes the fastest that is not one of these: that memory is to spend
 * where it saves most, which only the whole network tells.
 */
int cpu_conv_faster(const struct cpu_conv *c, struct cpu_other_way to[CPU_OTHER_WAYS]);
/* Plans the layer anew, to go that way, before its weights are packed. ERR_NOMEM; *c is as it was.
 */
int cpu_conv_change(struct cpu_conv **c, enum cpu_way way, struct err *e);

/* Floats of packed weights and bias, to be given to cpu_conv_pack(), aligned to CPU_ALIGN. */
size_t cpu_conv_packed_floats(const struct cpu_conv *c);
/* Floats of scratch that each thread, that one alone (a run without a pool), and that all together
 * need while it runs. */
size_t cpu_conv_thread_floats(const struct cpu_conv *c);
size_t cpu_conv_alone_floats(const struct cpu_conv *c);
size_t cpu_conv_shared_floats(const struct cpu_conv *c);

/* Where weights come from. Called by several threads at once. */
struct cpu_weights {
    /* Writes n of them from the first-th on, in ONNX order. */
    int (*load)(const void *ctx, int64_t first, int64_t n, float *to, struct err *e);
    const void *ctx;
};

/* Floats of memory that cpu_conv_pack() needs besides. */
size_t cpu_conv_pack_floats(const struct cpu_conv *c);

/*
 * Packs the weights, in ONNX order (M, C/group, kh, kw; transposed: C, M/group, kh, kw), and the
 * bias (oc floats or NULL) to `to`, which the layer then borrows. spare: cpu_conv_pack_floats(). p
 * may be NULL. The error of load, if it has one; `to` is then unspecified.
 */
int cpu_conv_pack(struct cpu_conv *c, const struct cpu_weights *weights, const float *bias,
                  float *to, float *spare, struct pool *p, struct err *e);

/*
 * Runs it. residual (NULL, or a view of the output's size) is added before the activation.
 * scratch: cpu_conv_thread_floats() rounded up to a multiple of 16 for each thread of p, one after
 * the other, or cpu_conv_alone_floats() where p has but one; shared: cpu_conv_shared_floats(). Both
 * aligned to CPU_ALIGN. Allocates nothing.
 */
void cpu_conv_run(const struct cpu_conv *c, const struct cpu_view *in, const struct cpu_view *out,
                  const struct cpu_view *residual, struct pool *p, float *scratch, float *shared);

#endif
