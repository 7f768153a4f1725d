/*
 * passes_fuse.c - multiplications, additions and activations into the layer before them
 *
 * All of these move work from a pass over the activations into weights, bias or the epilogue. They
 * apply only where nothing else reads the value between.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/passes.h"
#include "model/passes_util.h"

/* --- fold affine ------------------------------------------------------------------------------ */

/* x·c, c·x, x/c, x+c, c+x, x−c, c−x with c constant per channel: as x·s + t. 1: it is. */
static int as_affine(struct graph *g, const struct node *n, int *x, double *s, double *t,
                     struct err *e)
{
    if (n->op != OP_ADD && n->op != OP_SUB && n->op != OP_MUL && n->op != OP_DIV)
        return 0;
    const struct shape *y = &g->value[n->out[0]].shape;
    for (int side = 0; side < 2; side++) {
        int in = n->in[side], c = n->in[1 - side];
        if (g->value[in].constant != NULL || !shape_equal(&g->value[in].shape, y) ||
            (n->op == OP_DIV && side == 1))
            continue;
        int rc = pass_channels(g, c, y, t, e);
        if (rc <= 0)
            return rc;
        *x = in;
        for (int64_t k = 0; k < y->dim[1]; k++) {
            double v = t[k];
            switch (n->op) {
            case OP_ADD:
                s[k] = 1;
                break;
            case OP_SUB:
                s[k] = side == 0 ? 1 : -1;
                t[k] = side == 0 ? -v : v;
                break;
            default:
                if (n->op == OP_DIV && v == 0)
                    return 0;
                s[k] = n->op == OP_DIV ? 1 / v : v;
                t[k] = 0;
                break;
            }
        }
        return 1;
    }
    return 0;
}

static bool is_conv(const struct node *n)
{
    return n->op == OP_CONV || n->op == OP_CONV_TRANSPOSE;
}

/* The layer before, if x·s+t can vanish in it. */
static struct node *host(struct graph *g, int x)
{
    if (g->value[x].producer < 0 || g->value[x].n_uses != 1)
        return NULL;
    struct node *p = &g->node[g->value[x].producer];
    bool takes = is_conv(p) || p->op == OP_AFFINE || p->op == OP_INSTANCE_NORM;
    return takes && p->act.kind == ACT_NONE ? p : NULL;
}

/* Weights times s of their output channel, as a view. */
static int scale_weights(struct graph *g, struct node *conv, const double *s, int64_t M,
                         struct err *e)
{
    struct value w = g->value[conv->in[1]];
    int64_t taps = w.shape.dim[2] * w.shape.dim[3], count = M, inner = w.shape.dim[1] * taps;
    double *table = NULL;
    if (conv->op == OP_CONV_TRANSPOSE) { /* W is C, M/group, kh, kw */
        int64_t C = w.shape.dim[0], each = w.shape.dim[1], per_group = C / conv->conv.group;
        inner = taps;
        count = conv->conv.group == 1 ? M : C * each;
        table = malloc((size_t)count * sizeof *table);
        if (table == NULL)
            return pass_no_memory(e);
        for (int64_t i = 0; i < count; i++)
            table[i] = conv->conv.group == 1 ? s[i] : s[i / each / per_group * each + i % each];
    }
    const struct constant *scaled = constant_scaled(g, w.constant, table ? table : s, count, inner);
    free(table);
    int value = scaled ? graph_add_value(g, w.name, DTYPE_F32) : ERR_NOMEM;
    if (value < 0)
        return pass_no_memory(e);
    g->value[value].constant = scaled;
    g->value[value].shape = w.shape;
    conv->in[1] = value;
    return 0;
}

static int load_or_zero(struct graph *g, int value, int64_t M, double *out, struct err *e)
{
    if (value >= 0)
        return constant_load_f64(&g->value[value], 0, M, out, e);
    memset(out, 0, (size_t)M * sizeof *out);
    return 0;
}

/* p's scale and shift become S·s and T·s + t. */
static int absorb(struct graph *g, struct node *p, const double *s, const double *t, int64_t M,
                  struct err *e)
{
    double *old = malloc((size_t)M * sizeof *old);
    bool scales = false;
    int rc = old ? 0 : pass_no_memory(e);
    for (int64_t c = 0; c < M; c++)
        scales = scales || s[c] != 1;
    if (rc == 0 && scales) {
        if (is_conv(p)) {
            rc = scale_weights(g, p, s, M, e);
        } else if ((rc = load_or_zero(g, p->in[1], M, old, e)) == 0) {
            for (int64_t c = 0; c < M; c++)
                old[c] *= s[c];
            rc = pass_new_channels(g, p->name, old, M, e);
            if (rc >= 0) {
                p->in[1] = rc;
                rc = 0;
            }
        }
    }
    if (rc == 0 && (rc = load_or_zero(g, p->in[2], M, old, e)) == 0) {
        for (int64_t c = 0; c < M; c++)
            old[c] = old[c] * s[c] + t[c];
        rc = pass_new_channels(g, p->name, old, M, e);
        if (rc >= 0) {
            p->in[2] = rc;
            rc = 0;
        }
    }
    free(old);
    return rc;
}

/* One node: merged with the layer before (1), or turned into Affine (1 if it was not), or left. */
static int fold_one(struct graph *g, int index, double *s, double *t, struct err *e)
{
    struct node *n = &g->node[index];
    int x = -1, rc;
    int64_t C = g->value[n->out[0]].shape.rank >= 2 ? g->value[n->out[0]].shape.dim[1] : 0;
    if (n->op == OP_AFFINE) {
        x = n->in[0];
        if ((rc = load_or_zero(g, n->in[1], C, s, e)) != 0 ||
            (rc = load_or_zero(g, n->in[2], C, t, e)) != 0)
            return rc;
    } else if ((rc = as_affine(g, n, &x, s, t, e)) <= 0) {
        return rc;
    }
    struct node *p = host(g, x);
    if (p != NULL) {
        if ((rc = absorb(g, p, s, t, C, e)) != 0)
            return rc;
        p->out[0] = n->out[0]; /* the layer makes what this node made */
        g->value[n->out[0]].producer = (int)(p - g->node);
        n->op = OP_RESHAPE; /* dead: nothing reads its new output */
        n->n_in = 1;
        n->in[0] = p->in[0];
        n->out[0] = x;
        g->value[x].n_uses = 0;
        g->value[x].producer = index;
        return 1;
    }
    if (n->op == OP_AFFINE)
        return 0;
    int scale = pass_new_channels(g, n->name, s, C, e);
    int shift = scale < 0 ? scale : pass_new_channels(g, n->name, t, C, e);
    int *in = shift < 0 ? NULL : graph_alloc(g, 3 * sizeof *in);
    if (in == NULL)
        return shift < 0 ? shift : pass_no_memory(e);
    in[0] = x;
    in[1] = scale;
    in[2] = shift;
    n->op = OP_AFFINE;
    n->in = in;
    n->n_in = 3;
    return 1;
}

int pass_fold_affine(struct graph *g, struct err *e)
{
    int64_t widest = 1;
    int changes = 0;
    graph_index(g);
    for (int i = 0; i < g->n_values; i++)
        if (g->value[i].shape.rank >= 2 && g->value[i].shape.dim[1] > widest)
            widest = g->value[i].shape.dim[1];
    double *s = malloc((size_t)widest * sizeof *s), *t = malloc((size_t)widest * sizeof *t);
    int rc = s && t ? 0 : pass_no_memory(e);
    for (int i = 0; i < g->n_nodes && rc >= 0; i++) {
        rc = fold_one(g, i, s, t, e);
        changes += rc > 0;
    }
    free(s);
    free(t);
    if (rc >= 0)
        rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}

/* --- activations ------------------------------------------------------------------------------ */

int pass_fuse_act(struct graph *g, struct err *e)
{
    int changes = 0;
    graph_index(g);
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->node[i];
        if (n->op != OP_ACT)
            continue;
        struct node *p = host(g, n->in[0]);
        if (p == NULL)
            continue;
        int between = n->in[0];
        p->act = n->act;
        p->out[0] = n->out[0];
        g->value[n->out[0]].producer = (int)(p - g->node);
        n->op = OP_RESHAPE; /* dead */
        n->act = (struct act){0};
        n->in[0] = p->in[0];
        n->out[0] = between;
        g->value[between].n_uses = 0;
        g->value[between].producer = i;
        changes++;
    }
    int rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}
