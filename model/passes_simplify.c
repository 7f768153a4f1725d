/*
 * passes_simplify.c - nodes that do nothing, or undo one another
 *
 *   relu(lrelu(x)) = relu(relu(x)) = relu(x); x·1 + 0; a Pad, Slice, Reshape or Transpose that
 *   changes nothing; Reshape after Reshape, Transpose after Transpose, a nearest Resize of rows and
 *   one of columns; zeros padded before a Conv become the Conv's own pads; an activation of a
 * Concat moves to the inputs of the Concat, where it fuses or meets another one.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/passes.h"
#include "model/passes_util.h"

/* act(x) of something that already went through p: does p change nothing for it? */
static bool absorbs(const struct act *outer, const struct act *inner)
{
    return outer->kind == ACT_RELU &&
           (inner->kind == ACT_RELU || (inner->kind == ACT_LEAKY_RELU && inner->alpha >= 0));
}

static bool is_identity_affine(const struct graph *g, const struct node *n)
{
    double s, t;
    return n->act.kind == ACT_NONE && pass_all_equal(g, n->in[1], &s) && s == 1 &&
           pass_all_equal(g, n->in[2], &t) && t == 0;
}

static bool changes_nothing(const struct graph *g, const struct node *n)
{
    const struct shape *x = &g->value[n->in[0]].shape, *y = &g->value[n->out[0]].shape;
    if (!shape_equal(x, y))
        return false;
    switch (n->op) {
    case OP_RESHAPE:
        return true;
    case OP_AFFINE:
        return is_identity_affine(g, n);
    case OP_TRANSPOSE:
        for (int i = 0; i < x->rank; i++)
            if (n->transpose.perm[i] != i)
                return false;
        return true;
    case OP_PAD:
        for (int i = 0; i < x->rank; i++)
            if (n->pad.begin[i] != 0 || n->pad.end[i] != 0)
                return false;
        return true;
    case OP_SLICE:
        for (int i = 0; i < x->rank; i++)
            if (n->slice.step[i] != 1)
                return false;
        return true;
    default:
        return false;
    }
}

/* Constant zeros around rows and columns, read by one Conv only. */
static bool pad_into_conv(struct graph *g, struct node *conv)
{
    struct node *pad = pass_producer(g, conv->in[0], OP_PAD);
    if (pad == NULL || pad->pad.mode != PAD_CONSTANT || pad->pad.value != 0)
        return false;
    for (int i = 0; i < 4; i++)
        if (pad->pad.begin[i] < 0 || pad->pad.end[i] < 0 ||
            (i < 2 && (pad->pad.begin[i] || pad->pad.end[i])))
            return false;
    for (int i = 0; i < 2; i++) {
        conv->conv.pad_begin[i] += pad->pad.begin[2 + i];
        conv->conv.pad_end[i] += pad->pad.end[2 + i];
    }
    conv->in[0] = pad->in[0];
    return true;
}

/* A transposed convolution that alone is read by a Slice of rows and columns. */
static bool crop_deconv(struct graph *g, struct node *slice)
{
    struct node *deconv = pass_producer(g, slice->in[0], OP_CONV_TRANSPOSE);
    const struct shape *from = &g->value[slice->in[0]].shape;
    const struct shape *to = &g->value[slice->out[0]].shape;
    if (deconv == NULL || deconv->act.kind != ACT_NONE || g->value[slice->in[0]].n_uses != 1)
        return false;
    for (int i = 0; i < 4; i++)
        if (slice->slice.step[i] != 1 || (i < 2 && to->dim[i] != from->dim[i]))
            return false;
    for (int i = 0; i < 2; i++) {
        int64_t start = slice->slice.start[2 + i];
        deconv->conv.pad_begin[i] += start;
        deconv->conv.pad_end[i] += from->dim[2 + i] - to->dim[2 + i] - start;
    }
    int whole = deconv->out[0]; /* the Slice is left without a reader, and swept */
    deconv->out[0] = slice->out[0];
    slice->out[0] = whole;
    return true;
}

int pass_crop(struct graph *g, struct err *e)
{
    int changes = 0;
    graph_index(g);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == OP_SLICE && crop_deconv(g, &g->node[i])) {
            g->node[i].in[0] = g->node[i].out[0]; /* reads nothing that is made */
            changes++;
        }
    int rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}

/* Does n only pass on what another node of its kind made? Then it may read that node's input. */
static bool merge_with_same(struct graph *g, struct node *n)
{
    struct node *p = pass_producer(g, n->in[0], n->op);
    if (p == NULL || p == n)
        return false;
    if (n->op == OP_TRANSPOSE) {
        struct transpose_attr t = n->transpose;
        for (int i = 0; i < g->value[n->in[0]].shape.rank; i++)
            t.perm[i] = p->transpose.perm[n->transpose.perm[i]];
        n->transpose = t;
    }
    n->in[0] = p->in[0];
    return true;
}

/* Nearest of rows after nearest of columns, or the other way round, the first read by the second
 * alone: one does both. */
static bool merge_resizes(struct graph *g, struct node *n)
{
    struct node *p = pass_producer(g, n->in[0], OP_RESIZE);
    if (p == NULL || g->value[n->in[0]].n_uses != 1 || n->resize.mode != RESIZE_NEAREST ||
        p->resize.mode != RESIZE_NEAREST || n->resize.coord != p->resize.coord ||
        n->resize.nearest != p->resize.nearest)
        return false;
    const struct shape *x = &g->value[p->in[0]].shape, *between = &g->value[n->in[0]].shape,
                       *y = &g->value[n->out[0]].shape;
    struct resize_attr both = n->resize;
    for (int i = 0; i < x->rank; i++) {
        bool first = p->resize.scale[i] != 1 || x->dim[i] != between->dim[i];
        bool second = n->resize.scale[i] != 1 || between->dim[i] != y->dim[i];
        if ((first && second) || (i < 2 && (first || second)))
            return false;
        if (first)
            both.scale[i] = p->resize.scale[i];
    }
    n->resize = both;
    n->in[0] = p->in[0];
    return true;
}

/* Activations may so become as many as the network has nodes, and this many more: a Concat of
 * thousands of inputs is no skip connection. */
#define PUSHED_SPARE 256

struct push {
    int *reader; /* [values] the last node that reads it */
    int *order;  /* of the nodes, new ones among them */
    int n_order;
    int room; /* nodes that may still come */
};

/* The activation that alone reads a value, −1 if there is none. */
static int lone_act(const struct graph *g, const struct push *p, int value)
{
    int reader = g->value[value].n_uses == 1 ? p->reader[value] : -1;
    return reader >= 0 && g->node[reader].op == OP_ACT ? reader : -1;
}

/* act(concat(a, b)) → concat(act(a), act(b)), if nothing else reads the concat; and on with the
 * activation after that. Returns how many were moved. */
static int push_acts(struct graph *g, int concat, struct push *p, struct err *e)
{
    int moved = 0, act;
    for (int i = 0; i < g->node[concat].n_in; i++)
        if (g->value[g->node[concat].in[i]].constant != NULL)
            return 0;
    while ((act = lone_act(g, p, g->node[concat].out[0])) >= 0 && g->node[concat].n_in <= p->room) {
        for (int i = 0; i < g->node[concat].n_in; i++) {
            int from = g->node[concat].in[i];
            struct node *n = graph_add_node(g, OP_ACT, g->node[act].name, 1, 1);
            int value = n ? graph_add_value(g, g->value[from].name, DTYPE_F32) : ERR_NOMEM;
            if (value < 0)
                return pass_no_memory(e);
            n->act = g->node[act].act;
            n->in[0] = from;
            n->out[0] = value;
            g->value[value].shape = g->value[from].shape;
            g->node[concat].in[i] = value;
            p->order[p->n_order++] = g->n_nodes - 1;
        }
        p->room -= g->node[concat].n_in;
        g->node[concat].out[0] = g->node[act].out[0];
        g->node[act].op = OP_COUNT; /* gone */
        moved++;
    }
    return moved;
}

/* Every Concat of the graph. The order of the nodes is made anew once, not with each of them. */
static int push_all(struct graph *g, struct err *e)
{
    int n = g->n_nodes, changes = 0, rc = 0;
    struct push p = {.room = n + PUSHED_SPARE};
    struct node *sorted = NULL;
    p.reader = malloc(((size_t)g->n_values + 1) * sizeof *p.reader);
    p.order = malloc((size_t)(n + p.room) * sizeof *p.order);
    if (p.reader == NULL || p.order == NULL) {
        rc = pass_no_memory(e);
        goto out;
    }
    for (int i = 0; i < g->n_values; i++)
        p.reader[i] = -1;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < g->node[i].n_in; k++)
            if (g->node[i].in[k] >= 0)
                p.reader[g->node[i].in[k]] = i;
    for (int i = 0; i < n; i++) {
        if (g->node[i].op == OP_CONCAT && (rc = push_acts(g, i, &p, e)) < 0)
            goto out;
        changes += g->node[i].op == OP_CONCAT ? rc : 0;
        if (g->node[i].op != OP_COUNT)
            p.order[p.n_order++] = i;
    }
    rc = 0;
    if (changes == 0)
        goto out;
    sorted = malloc((size_t)p.n_order * sizeof *sorted);
    if (sorted == NULL) {
        rc = pass_no_memory(e);
        goto out;
    }
    for (int i = 0; i < p.n_order; i++)
        sorted[i] = g->node[p.order[i]];
    memcpy(g->node, sorted, (size_t)p.n_order * sizeof *sorted);
    g->n_nodes = p.n_order;
    graph_index(g);
out:
    free(p.reader);
    free(p.order);
    free(sorted);
    return rc < 0 ? rc : changes;
}

int pass_simplify(struct graph *g, struct err *e)
{
    struct replace r;
    graph_index(g);
    int changes = push_all(g, e), rc = changes;
    if (rc < 0 || (rc = replace_init(&r, g, e)) != 0)
        return rc;
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->node[i];
        for (int k = 0; k < n->n_in; k++)
            n->in[k] = replace_find(&r, n->in[k]);
        if (n->n_in < 1 || g->value[n->in[0]].constant != NULL)
            continue;
        if (n->op == OP_CONV)
            changes += pad_into_conv(g, n);
        if (n->op == OP_RESHAPE || n->op == OP_TRANSPOSE)
            changes += merge_with_same(g, n);
        if (n->op == OP_RESIZE)
            changes += merge_resizes(g, n);
        if (n->op == OP_ACT) {
            struct node *p = pass_producer(g, n->in[0], OP_ACT);
            if (p != NULL && absorbs(&n->act, &p->act)) {
                n->in[0] = p->in[0];
                changes++;
            }
        }
        if (n->n_out == 1 && !pass_is_output(g, n->out[0]) && changes_nothing(g, n)) {
            r.by[n->out[0]] = n->in[0];
            changes++;
        }
    }
    replace_apply(&r, g);
    rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}
