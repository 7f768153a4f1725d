/*
 * engine_ref.h - the reference operators, on tensors of doubles
 *
 * For the reference engine and for constant folding: plain loops over the definition of each
 * operator, everything in double, integers included (exact up to 2^53).
 */
#ifndef SPINENODE_MODEL_ENGINE_REF_H
#define SPINENODE_MODEL_ENGINE_REF_H

#include "model/graph.h"

struct err;

struct tensor {
    enum dtype dtype;
    struct shape shape;
    double *data;
};

/* Runs a node. in[i] is NULL where an optional input is absent; out[i] has its shape and room.
 * Operators of enum op after OP_LOWERED_END that work on constants are known too (Cast, Equal ...).
 * ERR_UNSUPPORTED, ERR_NOMEM, ERR_INVALID (integer division by zero). */
int ref_eval(const struct node *n, const struct tensor *const *in, struct tensor *const *out,
             struct err *e);

/* Parts, by file. */
void ref_conv(const struct node *n, const struct tensor *const *in, struct tensor *y);
void ref_conv_transpose(const struct node *n, const struct tensor *const *in, struct tensor *y);
void ref_pool(const struct node *n, const struct tensor *x, struct tensor *y);
void ref_instance_norm(const struct node *n, const struct tensor *const *in, struct tensor *y);
void ref_reduce(const struct node *n, const struct tensor *x, struct tensor *y);

void ref_concat(const struct node *n, const struct tensor *const *in, struct tensor *y);
void ref_split(const struct node *n, const struct tensor *x, struct tensor *const *out);
void ref_slice(const struct node *n, const struct tensor *x, struct tensor *y);
void ref_pad(const struct node *n, const struct tensor *x, struct tensor *y);
int ref_resize(const struct node *n, const struct tensor *x, struct tensor *y, struct err *e);
void ref_depth_to_space(const struct node *n, const struct tensor *x, struct tensor *y);
void ref_transpose(const struct node *n, const struct tensor *x, struct tensor *y);
void ref_gather(const struct node *n, const struct tensor *x, struct tensor *y);

double ref_act(const struct act *a, double x);

/* Steps in elements of a row-major tensor. */
void ref_strides(const struct shape *s, int64_t stride[GRAPH_RANK_MAX]);
/* Advances a multi-index; false when it wrapped to all zeros. */
bool ref_next(const struct shape *s, int64_t at[GRAPH_RANK_MAX]);

#endif
