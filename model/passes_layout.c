/*
 * passes_layout.c - networks written with channels last (tf2onnx), turned to channels first
 *
 * Such a file has a Transpose on either side of every operator that knows channels. Those that lead
 * to channels last move towards the outputs, through operators that work as well on the turned
 * tensor with turned attributes, until they meet the next one that turns back: then both are gone.
 * What is spelled out with simpler operators comes to look as PyTorch's exporter writes it.
 */
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/passes.h"
#include "model/passes_util.h"

/* Axis a of a tensor with channels last is axis first_of[a] of it with channels first. */
static const int first_of[4] = {0, 2, 3, 1}, last_of[4] = {0, 3, 1, 2};

struct layout {
    struct graph *g;
    int *first;  /* old value → it with channels first, −1 where there is none */
    int n_first; /* values from here on are new */
    struct replace gone;
    struct err *e;
};

static bool turns(const struct graph *g, const struct node *n, const int perm[4])
{
    const struct value *in = n->n_in > 0 ? &g->value[n->in[0]] : NULL;
    if (n->op != OP_TRANSPOSE || in->constant != NULL || in->shape.rank != 4)
        return false;
    for (int i = 0; i < 4; i++)
        if (n->transpose.perm[i] != perm[i])
            return false;
    return true;
}

static int first_value(const struct layout *l, int value)
{
    return value >= 0 && value < l->n_first ? l->first[value] : -1;
}

/* A constant whose elements stand in the same order in either layout. */
static bool turns_freely(const struct value *v)
{
    int longer = 0;
    for (int i = 0; i < v->shape.rank; i++)
        longer += v->shape.dim[i] != 1;
    return v->constant != NULL && v->shape.rank >= 0 && v->shape.rank <= 4 && longer <= 1;
}

static bool moves_through(const struct layout *l, const struct node *n)
{
    bool operands = false;
    switch (n->op) {
    case OP_PRELU:
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_POW:
    case OP_MAX:
    case OP_MIN:
        operands = true;
        break;
    case OP_ACT:
    case OP_ABS:
    case OP_SQRT:
    case OP_NEG:
    case OP_EXP:
    case OP_CONCAT:
    case OP_SPLIT:
    case OP_SLICE:
    case OP_PAD:
    case OP_RESIZE:
        break;
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        if (!n->reduce.keep_dims)
            return false;
        break;
    default:
        return false;
    }
    bool any = false;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0)
            return false;
        bool turned = first_value(l, n->in[i]) >= 0;
        any = any || turned;
        if (!turned && !(operands && turns_freely(&l->g->value[n->in[i]])))
            return false;
    }
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] < 0 || l->g->value[n->out[i]].shape.rank != 4)
            return false;
    return any;
}

static struct shape turned_shape(const struct shape *last)
{
    struct shape s = {.rank = 4}, four = {.rank = 4, .dim = {1, 1, 1, 1}};
    for (int i = 0; i < last->rank; i++)
        four.dim[4 - last->rank + i] = last->dim[i];
    for (int i = 0; i < 4; i++)
        s.dim[first_of[i]] = four.dim[i];
    return s;
}

static void turn_attributes(struct node *to, const struct node *from)
{
    switch (from->op) {
    case OP_CONCAT:
    case OP_SPLIT:
        to->axis = first_of[from->axis];
        break;
    case OP_SLICE:
        for (int i = 0; i < 4; i++) {
            to->slice.start[first_of[i]] = from->slice.start[i];
            to->slice.step[first_of[i]] = from->slice.step[i];
        }
        break;
    case OP_PAD:
        for (int i = 0; i < 4; i++) {
            to->pad.begin[first_of[i]] = from->pad.begin[i];
            to->pad.end[first_of[i]] = from->pad.end[i];
        }
        break;
    case OP_RESIZE:
        for (int i = 0; i < 4; i++)
            to->resize.scale[first_of[i]] = from->resize.scale[i];
        break;
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        to->reduce.n = 0;
        for (int axis = 0; axis < 4; axis++)
            for (int i = 0; i < from->reduce.n; i++)
                if (first_of[from->reduce.axis[i]] == axis)
                    to->reduce.axis[to->reduce.n++] = axis;
        break;
    default:
        break;
    }
}

static int keep(struct layout *l, const struct node *n)
{
    struct node *slot = graph_add_node(l->g, n->op, n->name, 0, 0);
    if (slot == NULL)
        return pass_no_memory(l->e);
    *slot = *n;
    return 0;
}

/* The node on turned tensors, and a Transpose to each of its old outputs. */
static int move(struct layout *l, const struct node *n)
{
    struct graph *g = l->g;
    struct node *made = graph_add_node(g, n->op, n->name, n->n_in, n->n_out);
    if (made == NULL)
        return pass_no_memory(l->e);
    int *in = made->in, *out = made->out;
    *made = *n;
    made->in = in;
    made->out = out;
    turn_attributes(made, n);
    for (int i = 0; i < n->n_in; i++) {
        in[i] = first_value(l, n->in[i]);
        if (in[i] >= 0)
            continue;
        const char *name = g->value[n->in[i]].name;
        if ((in[i] = graph_add_value(g, name, DTYPE_F32)) < 0)
            return pass_no_memory(l->e);
        const struct value *old = &g->value[n->in[i]];
        g->value[in[i]].constant = old->constant;
        g->value[in[i]].dtype = old->dtype;
        g->value[in[i]].shape = turned_shape(&old->shape);
    }
    for (int i = 0; i < n->n_out; i++) {
        const char *name = g->value[n->out[i]].name;
        if ((out[i] = graph_add_value(g, name, DTYPE_F32)) < 0)
            return pass_no_memory(l->e);
        g->value[out[i]].shape = turned_shape(&g->value[n->out[i]].shape);
        struct node *back = graph_add_node(g, OP_TRANSPOSE, n->name, 1, 1);
        if (back == NULL)
            return pass_no_memory(l->e);
        back->in[0] = out[i];
        back->out[0] = n->out[i];
        memcpy(back->transpose.perm, first_of, sizeof first_of);
        back->transpose.given = true;
        l->first[n->out[i]] = out[i];
    }
    return 0;
}

int pass_layout(struct graph *g, struct err *e)
{
    struct layout l = {.g = g, .n_first = g->n_values, .e = e};
    bool any = false;
    for (int i = 0; i < g->n_nodes; i++)
        any = any || turns(g, &g->node[i], first_of);
    if (!any)
        return 0;
    int n_old = g->n_nodes, changes = 0, rc = replace_init(&l.gone, g, e);
    struct node *old = malloc((size_t)n_old * sizeof *old);
    l.first = malloc((size_t)l.n_first * sizeof *l.first);
    if (rc == 0 && (old == NULL || l.first == NULL))
        rc = pass_no_memory(e);
    if (rc != 0) {
        free(l.gone.by);
        goto out;
    }
    memcpy(old, g->node, (size_t)n_old * sizeof *old);
    for (int i = 0; i < l.n_first; i++)
        l.first[i] = -1;
    g->n_nodes = 0;
    for (int i = 0; i < n_old && rc == 0; i++) {
        const struct node *n = &old[i];
        for (int k = 0; k < n->n_in; k++)
            n->in[k] = replace_find(&l.gone, n->in[k]);
        if (turns(g, n, last_of) && first_value(&l, n->in[0]) >= 0 &&
            !pass_is_output(g, n->out[0])) {
            l.gone.by[n->out[0]] = first_value(&l, n->in[0]);
            changes++;
            continue;
        }
        if (moves_through(&l, n)) {
            rc = move(&l, n);
            changes++;
            continue;
        }
        rc = keep(&l, n);
        if (turns(g, n, first_of))
            l.first[n->out[0]] = n->in[0];
    }
    replace_apply(&l.gone, g);
out:
    free(old);
    free(l.first);
    return rc < 0 ? rc : changes;
}
