/* graph_images.c - graph_images_apart() of graph.h */
#include "model/graph.h"

static bool reduces(const struct node *n)
{
    return n->op == OP_REDUCE_MEAN || n->op == OP_REDUCE_SUM || n->op == OP_REDUCE_SUM_SQUARE ||
           n->op == OP_REDUCE_PROD;
}

/* Does the operator itself move or mix nothing along the first axis? */
static bool keeps_first_axis(const struct node *n)
{
    switch (n->op) {
    case OP_CONCAT:
    case OP_SPLIT:
        return n->axis != 0;
    case OP_SLICE:
        return n->slice.start[0] == 0 && n->slice.step[0] == 1;
    case OP_PAD:
        return n->pad.begin[0] == 0 && n->pad.end[0] == 0;
    case OP_RESIZE:
        return n->resize.scale[0] == 1.0;
    case OP_TRANSPOSE:
        return n->transpose.perm[0] == 0;
    case OP_GATHER:
        return n->gather.axis != 0;
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        return n->reduce.axis[0] != 0;
    default:
        return true;
    }
}

/* Is what it reads beside the images the same for each of them? */
static bool operands_are_shared(const struct graph *g, const struct node *n)
{
    if (n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE || n->op == OP_AFFINE ||
        n->op == OP_INSTANCE_NORM)
        return true; /* weights */
    const struct shape *out = &g->value[n->out[0]].shape;
    bool changes_rank = n->op == OP_RESHAPE || reduces(n);
    for (int j = 0; j < n->n_in; j++) {
        const struct value *v = n->in[j] < 0 ? NULL : &g->value[n->in[j]];
        /* an operand of the batch's own size holds other numbers for each image */
        if (v && v->constant && v->shape.rank >= out->rank && v->shape.rank > 0 &&
            v->shape.dim[0] != 1)
            return false;
        if (v && !v->constant && v->shape.rank != out->rank && !changes_rank)
            return false;
    }
    return true;
}

static bool has_images(const struct graph *g, int value, int64_t images)
{
    const struct shape *s = &g->value[value].shape;
    return s->rank >= 1 && s->dim[0] == images;
}

static bool node_keeps_apart(const struct graph *g, const struct node *n, int64_t images)
{
    for (int j = 0; j < n->n_out; j++)
        if (!has_images(g, n->out[j], images))
            return false;
    return operands_are_shared(g, n) && keeps_first_axis(n);
}

bool graph_images_apart(const struct graph *g, int64_t *images, int *node)
{
    int none = -1;
    node = node ? node : &none;
    *node = -1;
    if (g->n_inputs < 1 || g->value[g->input[0]].shape.rank < 1)
        return false;
    *images = g->value[g->input[0]].shape.dim[0];
    for (int i = 0; i < g->n_inputs; i++)
        if (!has_images(g, g->input[i], *images))
            return false;
    for (int i = 0; i < g->n_nodes; i++)
        if (!node_keeps_apart(g, &g->node[i], *images)) {
            *node = i;
            return false;
        }
    for (int i = 0; i < g->n_outputs; i++)
        if (g->value[g->output[i]].constant)
            return false;
    return *images > 1 && *images <= 1 << 20;
}
