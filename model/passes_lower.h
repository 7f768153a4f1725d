/*
 * passes_lower.h - what the files of graph_specialise() share
 *
 * One node of the file's graph after the other is lowered into the new graph, where all shapes are
 * known. A node whose inputs are all constant is evaluated at once.
 */
#ifndef SPINENODE_MODEL_PASSES_LOWER_H
#define SPINENODE_MODEL_PASSES_LOWER_H

#include "model/graph.h"

struct err;

#define ONE_SPLIT_MAX 256 /* outputs of one Split */

/* What a few bytes of a file can ask for without end, for all nodes of a kind together:
 * multiply-accumulates of convolutions (a minute for a GPU, a quarter of an hour for a few CPUs),
 * elements that the windows of poolings meet (half a minute for one CPU), and both of constants,
 * which the reference engine evaluates while lowering. */
#define LOWER_MACS_MAX        ((int64_t)1 << 46)
#define LOWER_TAPS_MAX        ((int64_t)1 << 34)
#define LOWER_FOLDED_MACS_MAX ((int64_t)1 << 25)

struct lower {
    const struct graph *from;
    struct graph *g;
    int *map;             /* value of from → value of g; -1: not yet */
    const struct node *n; /* being lowered */
    char what[160];       /* "node 'x' (Conv)" */
    int64_t activation_bytes, max_activation_bytes;
    int64_t folded_elements, file_elements; /* of constants: made so far, and in the file */
    int64_t macs, taps, folded_macs;        /* so far, of LOWER_MACS_MAX ... */
    struct err *e;
};

/* Sets the error, with the node before it. Returns code. */
int lower_refuse(struct lower *l, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Input i of the node, mapped; -1: absent. Negative otherwise: an error. */
int lower_in(struct lower *l, int i);
struct value *lower_value(struct lower *l, int value);
const struct shape *lower_shape(struct lower *l, int i); /* of input i */
bool lower_is_constant(struct lower *l, int value);

/* Elements of a constant that says sizes, axes ... : count ≤ max. ERR_UNSUPPORTED if it depends on
 * the data. Returns how many. */
int lower_ints(struct lower *l, int value, const char *what, int64_t *out, int max);
int lower_floats(struct lower *l, int value, const char *what, double *out, int max);
/* One axis: −rank ... rank−1 to 0 ... rank−1. */
int lower_axis(struct lower *l, int64_t axis, int rank, int *out);

/* Appends a node to the new graph: inputs as given, n_out new values of a type, shapes to be set
 * with lower_out(). NULL: no memory (the error is set). */
struct node *lower_emit(struct lower *l, enum op op, int n_in, const int *in, int n_out,
                        enum dtype t);
struct shape *lower_out_shape(struct lower *l, const struct node *n, int i);
/* Adds to *sum, of l, the product of n factors, each ≥ 0; ERR_LIMIT beyond `most`, naming the node.
 * what: "multiply-accumulates". */
int lower_work(struct lower *l, int64_t *sum, int64_t most, const int64_t *factor, int n,
               const char *what);
/* Ends the emitted node (the last): evaluates it if it can be, checks its result's size. */
int lower_finish(struct lower *l, const struct node *n);
/* The same, and its outputs become those of the node being lowered. */
int lower_done(struct lower *l, const struct node *n);
/* The node's first output is this value. */
int lower_alias(struct lower *l, int value);
/* A constant scalar; a new value or an error. */
int lower_scalar(struct lower *l, double x, enum dtype t);

/* The shape of a and b together by NumPy's rules; ERR_INVALID, without a text, if there is none. */
int shape_broadcast(const struct shape *a, const struct shape *b, struct shape *out);

/* An error about two shapes that NumPy's rules do not bring together. */
int lower_no_broadcast(struct lower *l, const struct shape *a, const struct shape *b);
/* The axes that constant input i lists, each once, as 0 ... rank−1; without that input the first
 * `absent` ones. Returns how many. */
int lower_read_axes(struct lower *l, int i, int rank, int absent, int axis[GRAPH_RANK_MAX]);

/* By operator, in passes_lower.c, passes_move.c and passes_window.c. */
int lower_node(struct lower *l);
int lower_move(struct lower *l);
int lower_conv(struct lower *l);
int lower_conv_transpose(struct lower *l);
int lower_pool(struct lower *l);
int lower_batch_norm(struct lower *l);
int lower_instance_norm(struct lower *l);
int lower_resize(struct lower *l);

#endif
