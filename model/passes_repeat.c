/*
 * passes_repeat.c - a nearest Resize that a file spells out
 *
 *   Keras's UpSampling2D as tf2onnx writes it, for each of rows and columns: X gets an axis of 1
 *   behind the one to be repeated (Unsqueeze), a Tile makes that k (here a Gather), and a Reshape
 *   takes both axes for one. Between the last two may be a Transpose that keeps them together.
 */
#include "model/passes.h"
#include "model/passes_util.h"

/* shape without an axis */
static struct shape without(const struct shape *s, int axis)
{
    struct shape r = {.rank = s->rank - 1};
    for (int i = 0; i < r.rank; i++)
        r.dim[i] = s->dim[i < axis ? i : i + 1];
    return r;
}

/* The Gather of an axis of 1 that a Reshape put in; NULL: it is another one. */
static struct node *repeat_of(struct graph *g, int value, const struct node **unsqueeze)
{
    struct node *n = pass_producer(g, value, OP_GATHER);
    const struct node *u = n ? pass_producer(g, n->in[0], OP_RESHAPE) : NULL;
    if (u == NULL)
        return NULL;
    const struct shape *one = &g->value[n->in[0]].shape, *many = &g->value[value].shape;
    struct shape rest = without(one, n->gather.axis);
    *unsqueeze = u;
    return one->dim[n->gather.axis] == 1 && many->rank == one->rank &&
                   shape_equal(&rest, &g->value[u->in[0]].shape)
               ? n
               : NULL;
}

static void become_resize(struct node *n, int in, int axis, int64_t times)
{
    n->op = OP_RESIZE;
    n->in[0] = in;
    n->resize = (struct resize_attr){.mode = RESIZE_NEAREST,
                                     .coord = COORD_ASYMMETRIC,
                                     .nearest = NEAREST_FLOOR,
                                     .cubic_a = -0.75f};
    for (int i = 0; i < GRAPH_RANK_MAX; i++)
        n->resize.scale[i] = i == axis ? (double)times : 1;
}

static bool match(struct graph *g, struct node *merge)
{
    const struct node *turn = pass_producer(g, merge->in[0], OP_TRANSPOSE), *unsqueeze;
    struct node *repeat = repeat_of(g, turn ? turn->in[0] : merge->in[0], &unsqueeze);
    if (repeat == NULL)
        return false;
    struct shape many = g->value[repeat->out[0]].shape, turned = g->value[merge->in[0]].shape;
    int axis = repeat->gather.axis, at = 0, perm[GRAPH_RANK_MAX];
    for (int i = 0; i < many.rank; i++) {
        perm[i] = turn ? turn->transpose.perm[i] : i;
        if (perm[i] == axis)
            at = i;
    }
    int64_t times = many.dim[axis];
    if (at == 0 || times == 1) /* repeated as a whole, not element by element; or not at all */
        return false;
    struct shape merged = without(&turned, at), larger = without(&many, axis);
    int repeated = perm[at - 1] < axis ? perm[at - 1] : perm[at - 1] - 1;
    merged.dim[at - 1] *= times;
    larger.dim[repeated] *= times;
    if (!shape_equal(&merged, &g->value[merge->out[0]].shape))
        return false;
    if (turn == NULL) {
        become_resize(merge, unsqueeze->in[0], repeated, times);
        return true;
    }
    if (g->value[repeat->out[0]].n_uses != 1 || g->value[turn->out[0]].n_uses != 1)
        return false;
    become_resize(repeat, unsqueeze->in[0], repeated, times);
    g->value[repeat->out[0]].shape = larger;
    merge->op = OP_TRANSPOSE;
    merge->in[0] = repeat->out[0];
    merge->transpose = (struct transpose_attr){.given = true};
    for (int i = 0; i < many.rank - 1; i++) {
        int from = perm[i < at ? i : i + 1];
        merge->transpose.perm[i] = from < axis ? from : from - 1;
    }
    return true;
}

int pass_repeats(struct graph *g, struct err *e)
{
    int changes = 0;
    graph_index(g);
    for (int i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == OP_RESHAPE)
            changes += match(g, &g->node[i]);
    int rc = pass_sweep(g, e);
    return rc < 0 ? rc : changes;
}
