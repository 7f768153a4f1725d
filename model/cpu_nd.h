/*
 * cpu_nd.h - operations of the CPU engine on tensors of any layout
 *
 * A tensor here is a pointer, sizes and strides, so NCHW, NHWC, a slice, a transpose or a
 * broadcast operand (stride 0) are all the same to it, and what has no kernel of its own runs here.
 * Axes are merged and ordered by how the output lies in memory; where all operands then lie
 * densely the vector kernels do the work. The pool shares out the rows; what is added up is added
 * in one task, so results do not depend on threads.
 */
#ifndef SPINENODE_MODEL_CPU_ND_H
#define SPINENODE_MODEL_CPU_ND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/cpu_kernels.h"

struct pool;

#define CPU_RANK 10 /* two more than a graph's: depth to space splits axes */

struct cpu_nd {
    float *data;
    int rank;
    int64_t dim[CPU_RANK];
    ptrdiff_t stride[CPU_RANK]; /* floats */
};

/* How operations run: kernels, and the threads to share with (NULL: none). */
struct cpu_run {
    const struct cpu_kernels *k;
    struct pool *pool;
};

int64_t cpu_nd_count(const struct cpu_nd *t);

/* Below, tensors of one call have equal sizes on every axis unless said otherwise. */

/* out = act(in). */
void cpu_nd_copy(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                 const struct cpu_act *act);
void cpu_nd_fill(const struct cpu_run *r, const struct cpu_nd *out, float value);
void cpu_nd_unary(const struct cpu_run *r, enum cpu_unary op, const struct cpu_nd *in,
                  const struct cpu_nd *out);
/* out = act(a op b); broadcast axes have stride 0. */
void cpu_nd_binary(const struct cpu_run *r, enum cpu_binary op, const struct cpu_nd *a,
                   const struct cpu_nd *b, const struct cpu_nd *out, const struct cpu_act *act);

/* out[.., i, ..] = in[.., index[i], ..] on `axis`, out.dim[axis] indices; a negative one: `value`.
 */
void cpu_nd_index(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                  int axis, const int *index, float value);
/* out[.., i, ..] = sum over t < taps of weight[i·taps + t] · in[.., index[i·taps + t], ..]. */
void cpu_nd_taps(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                 int axis, int taps, const int *index, const float *weight);

enum cpu_reduce { CPU_SUM, CPU_MEAN, CPU_SUM_SQUARE, CPU_PROD };
/* Reduces the axes on which out.dim is 1 and in.dim is not; sums in double. */
void cpu_nd_reduce(const struct cpu_run *r, enum cpu_reduce kind, const struct cpu_nd *in,
                   const struct cpu_nd *out);

#endif
