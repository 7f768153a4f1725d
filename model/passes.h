/*
 * passes.h - from the graph of a file to the lowered graph that an engine runs
 *
 *     graph_specialise()  binds the inputs' shapes, infers all others, folds every constant,
 *                         resolves attributes, replaces the operators that engines do not know
 *     pass_*()            rewrites that make the network cheaper and leave its function alone
 *
 * All together are graph_lower(). Any thread, but one at a time for a graph that is changed. What
 * depends on an engine (layout, phases, Winograd, concat in place, memory, packing) is that
 * engine's.
 */
#ifndef SPINENODE_MODEL_PASSES_H
#define SPINENODE_MODEL_PASSES_H

#include <stdint.h>

#include "model/graph.h"

struct err;

#define PASS_MAX 16

struct pass_figures {
    int nodes;
    int64_t macs;
    int64_t parameters;
    int64_t activation_bytes;
};

struct pass_report {
    int n;
    struct {
        const char *name; /* static: "specialise", "patterns", "fold batch norm" ... */
        int changes;      /* rewrites made */
        struct pass_figures after;
    } pass[PASS_MAX]; /* [0] is "specialise": what the file asks for, before any rewrite */
};

/* shape: one for each g->input, concrete, and agreeing with every dimension that the file fixes
 * (dimensions of one symbol must be equal). g is not changed; the new graph shares its
 * file. ERR_INVALID: shapes that do not fit (the text names the node and both shapes), weights that
 * are not finite (ERR_NUMERIC), ERR_UNSUPPORTED, ERR_LIMIT (activation bytes; 2^46
 * multiply-accumulates of convolutions, 2^34 elements in windows of poolings), ERR_NOMEM.
 * report may be NULL. */
int graph_lower(const struct graph *g, const struct shape *shape, int64_t max_activation_bytes,
                struct graph **out, struct pass_report *report, struct err *e);

/* Its first half. */
int graph_specialise(const struct graph *g, const struct shape *shape, int64_t max_activation_bytes,
                     struct graph **out, struct err *e);

/* The rewrites, in their order, on a lowered graph, in place. Each returns the number of changes or
 * a negative ERR_*; it leaves a lowered graph, after an error one that is only fit to be freed. */

/* Rows and columns that are there several times, as Keras's UpSampling2D makes them of an axis of
 * 1, a Tile and a Reshape: a nearest Resize. Before pass_layout(), which knows that. */
int pass_repeats(struct graph *g, struct err *e);
/* A network with channels last (a Transpose on either side of what knows channels) to channels
 * first. */
int pass_layout(struct graph *g, struct err *e);
/* Leaky ReLU written as a·x + b·|x| or max(x, a·x); x·x under a mean and the like: instance
 * norm and batch norm with batch statistics written out by reductions. */
int pass_patterns(struct graph *g, struct err *e);
/* Rows and columns cut off a transposed convolution by a Slice: it makes no more than is left. */
int pass_crop(struct graph *g, struct err *e);
/* Batch norm (Affine), and multiplications and additions by a constant per channel, into the
 * weights and bias of the convolution before them. */
int pass_fold_affine(struct graph *g, struct err *e);
/* An activation into the Conv, ConvTranspose, Affine or InstanceNorm before it. */
int pass_fuse_act(struct graph *g, struct err *e);
/* Activations that undo nothing: relu(lrelu(x)) = relu(x), relu(relu(x)), x·1, x+0, transposes
 * and reshapes that cancel, a nearest Resize of rows and one of columns. */
int pass_simplify(struct graph *g, struct err *e);
/* Drops nodes without use. */
int pass_sweep(struct graph *g, struct err *e);

#endif
