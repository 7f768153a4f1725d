/* engine_cpu_plain.c - operators that become strided steps; see engine_cpu_lower.h */
#include "model/engine_cpu_lower.h"

#include <stdlib.h>
#include <string.h>

#include "model/resample.h"
#include "node/base/err.h"

/* in, seen with out's sizes by NumPy's rules: axes aligned at the end, stride 0 where one element
 * serves all. */
static struct place broadcast(const struct place *in, const struct place *out)
{
    struct place t = *in;
    t.rank = out->rank;
    for (int i = 0; i < out->rank; i++) {
        int from = i - (out->rank - in->rank);
        t.dim[i] = out->dim[i];
        t.stride[i] = from < 0 || (in->dim[from] == 1 && out->dim[i] != 1) ? 0 : in->stride[from];
    }
    return t;
}

static int lower_binary(struct lower *l, const struct node *n, enum cpu_binary op)
{
    struct place a, b, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &a)) < 0 || (rc = lower_read(l, n->in[1], &b)) < 0 ||
        (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct step *s = lower_step(l, STEP_BINARY, n);
    if (!s)
        return l->failed;
    s->in[0] = broadcast(&a, &out);
    s->in[1] = broadcast(&b, &out);
    s->out = out;
    s->what = (int)op;
    s->act = cpu_act_of(&n->act);
    return 0;
}

static int lower_unary(struct lower *l, const struct node *n, enum cpu_unary op)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct step *s = lower_step(l, STEP_UNARY, n);
    if (!s)
        return l->failed;
    s->in[0] = in;
    s->out = out;
    s->what = (int)op;
    return 0;
}

/* Inputs that were not made in their slice are copied there. */
static int lower_concat(struct lower *l, const struct node *n)
{
    struct place out;
    int rc = lower_write(l, n->out[0], &out);
    ptrdiff_t at = out.offset;
    for (int i = 0; i < n->n_in && rc >= 0; i++) {
        struct place in;
        if ((rc = lower_read(l, n->in[i], &in)) < 0)
            return rc;
        struct place part = in;
        memcpy(part.stride, out.stride, sizeof part.stride);
        part.root = out.root;
        part.offset = at;
        at += out.stride[n->axis] * (ptrdiff_t)in.dim[n->axis];
        if (in.root != part.root || in.offset != part.offset)
            rc = lower_copy(l, n, &in, &part, NULL);
    }
    return rc;
}

static int lower_split(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc = lower_read(l, n->in[0], &in);
    for (int i = 0; i < n->n_out && rc >= 0; i++) {
        struct place part = in;
        part.dim[n->axis] = l->g->value[n->out[i]].shape.dim[n->axis];
        in.offset += in.stride[n->axis] * (ptrdiff_t)part.dim[n->axis];
        if (l->g->value[n->out[i]].n_uses == 0)
            continue;
        if ((rc = lower_write(l, n->out[i], &out)) >= 0)
            rc = lower_copy(l, n, &part, &out, NULL);
    }
    return rc;
}

static int lower_slice(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    for (int i = 0; i < in.rank; i++) {
        in.offset += in.stride[i] * (ptrdiff_t)n->slice.start[i];
        in.stride[i] *= (ptrdiff_t)n->slice.step[i];
        in.dim[i] = out.dim[i];
    }
    return lower_copy(l, n, &in, &out, NULL);
}

/* Axes that change, to be done one after the other, each but the last into memory of its own.
 * Those that shrink come first: nothing between is then larger than the input or the output. */
struct axes {
    int n, axis[GRAPH_RANK_MAX];
};

static struct axes order_axes(const struct place *in, const struct place *out,
                              const bool changes[GRAPH_RANK_MAX])
{
    struct axes a = {0};
    for (int grows = 0; grows < 2; grows++)
        for (int i = 0; i < in->rank; i++)
            if (changes[i] && (out->dim[i] > in->dim[i]) == (grows == 1))
                a.axis[a.n++] = i;
    return a;
}

/* Where the result of the i-th of them goes. */
static int next_axis(struct lower *l, const struct axes *a, int i, const struct place *in,
                     const struct place *out, struct place *to)
{
    if (i == a->n - 1) {
        *to = *out;
        return 0;
    }
    *to = *in;
    to->dim[a->axis[i]] = out->dim[a->axis[i]];
    return lower_memory(l, to, false);
}

static int lower_pad(struct lower *l, const struct node *n)
{
    struct place in, out, to;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    bool changes[GRAPH_RANK_MAX] = {0};
    for (int i = 0; i < in.rank; i++) /* a shift keeps the size but changes the axis */
        changes[i] = n->pad.begin[i] != 0 || n->pad.end[i] != 0;
    struct axes a = order_axes(&in, &out, changes);
    if (a.n == 0)
        return lower_copy(l, n, &in, &out, NULL);
    for (int k = 0; k < a.n; k++) {
        int axis = a.axis[k];
        if ((rc = next_axis(l, &a, k, &in, &out, &to)) < 0)
            return rc;
        struct step *s = lower_step(l, STEP_INDEX, n);
        if (!s)
            return l->failed;
        s->in[0] = in;
        s->out = to;
        s->axis = axis;
        s->value = n->pad.value;
        s->index = malloc((size_t)to.dim[axis] * sizeof *s->index);
        if (!s->index)
            return err_set(l->e, ERR_NOMEM, "no memory for the table of Pad %s", n->name);
        for (int64_t i = 0; i < to.dim[axis]; i++)
            s->index[i] = (int)cpu_pad_source(n->pad.mode, i, n->pad.begin[axis], in.dim[axis]);
        in = to;
    }
    return 0;
}

static int lower_resize(struct lower *l, const struct node *n)
{
    struct place in, out, to;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    bool changes[GRAPH_RANK_MAX] = {0};
    for (int i = 0; i < in.rank; i++) /* the same size at another scale still moves elements */
        changes[i] = in.dim[i] != out.dim[i] || n->resize.scale[i] != 1.0;
    struct axes a = order_axes(&in, &out, changes);
    if (a.n == 0)
        return lower_copy(l, n, &in, &out, NULL);
    for (int k = 0; k < a.n; k++) {
        int axis = a.axis[k];
        struct resample table;
        if ((rc = next_axis(l, &a, k, &in, &out, &to)) < 0 ||
            (rc = resample_init(&table, &n->resize, axis, in.dim[axis], to.dim[axis], l->e)) < 0)
            return rc;
        bool index = table.taps == 1;
        struct step *s = lower_step(l, index ? STEP_INDEX : STEP_TAPS, n);
        size_t count = (size_t)table.out * (size_t)table.taps;
        if (!s) {
            resample_fini(&table);
            return l->failed;
        }
        s->in[0] = in;
        s->out = to;
        s->axis = axis;
        s->taps = table.taps;
        s->index = malloc(count * sizeof *s->index);
        s->weight = malloc(count * sizeof *s->weight);
        if (!s->index || !s->weight) {
            resample_fini(&table);
            return err_set(l->e, ERR_NOMEM, "no memory for the table of Resize %s", n->name);
        }
        for (size_t i = 0; i < count; i++) {
            s->index[i] = table.index[i];
            s->weight[i] = (float)table.weight[i];
        }
        resample_fini(&table);
        in = to;
    }
    return 0;
}

/* Seen with six axes (n, c, h, by, w, bx) it is a copy. */
static int lower_depth_to_space(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    int64_t b = n->depth.block, c = out.dim[1];
    ptrdiff_t step = in.stride[1];
    ptrdiff_t channel = n->depth.crd ? step * b * b : step;
    ptrdiff_t by = n->depth.crd ? step * b : step * b * c, bx = n->depth.crd ? step : step * c;
    struct place from = {.root = in.root,
                         .offset = in.offset,
                         .rank = 6,
                         .dim = {in.dim[0], c, in.dim[2], b, in.dim[3], b},
                         .stride = {in.stride[0], channel, in.stride[2], by, in.stride[3], bx}};
    struct place to = from;
    to.root = out.root;
    to.offset = out.offset;
    const ptrdiff_t strides[6] = {out.stride[0], out.stride[1],     out.stride[2] * b,
                                  out.stride[2], out.stride[3] * b, out.stride[3]};
    memcpy(to.stride, strides, sizeof strides);
    return lower_copy(l, n, &from, &to, NULL);
}

static int lower_transpose(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct place from = in;
    for (int i = 0; i < in.rank; i++) {
        from.dim[i] = in.dim[n->transpose.perm[i]];
        from.stride[i] = in.stride[n->transpose.perm[i]];
    }
    return lower_copy(l, n, &from, &out, NULL);
}

/* The indices' own sizes are in the output: made with one axis of them, then reshaped. */
static int lower_gather(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc, axis = n->gather.axis;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct place to = in;
    to.dim[axis] = n->gather.n_index;
    bool direct = out.rank == in.rank && out.dim[axis] == n->gather.n_index;
    if (direct)
        to = out;
    else if ((rc = lower_memory(l, &to, true)) < 0)
        return rc;
    struct step *s = lower_step(l, STEP_INDEX, n);
    if (!s)
        return l->failed;
    s->in[0] = in;
    s->out = to;
    s->axis = axis;
    s->index = malloc((size_t)n->gather.n_index * sizeof *s->index + 1);
    if (!s->index)
        return err_set(l->e, ERR_NOMEM, "no memory for the table of Gather %s", n->name);
    for (int64_t i = 0; i < n->gather.n_index; i++)
        s->index[i] = (int)n->gather.index[i];
    return direct ? 0 : lower_reshape(l, n, &to, &out);
}

static int lower_reduce(struct lower *l, const struct node *n, enum cpu_reduce kind)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct place to = in; /* the output with the reduced axes kept, of one element */
    to.root = out.root;
    to.offset = out.offset;
    int axis = 0;
    for (int i = 0; i < in.rank; i++) {
        bool reduced = false;
        for (int j = 0; j < n->reduce.n; j++)
            reduced = reduced || n->reduce.axis[j] == i;
        to.dim[i] = reduced ? 1 : in.dim[i];
        to.stride[i] = reduced ? 0 : out.stride[axis];
        axis += !reduced || n->reduce.keep_dims;
    }
    struct step *s = lower_step(l, STEP_REDUCE, n);
    if (!s)
        return l->failed;
    s->in[0] = in;
    s->out = to;
    s->what = (int)kind;
    return 0;
}

static int lower_pool(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc;
    if ((rc = lower_read_nhwc(l, n->in[0], n, &in)) < 0 ||
        (rc = lower_write(l, n->out[0], &out)) < 0)
        return rc;
    struct step *s = lower_step(l, STEP_POOL, n);
    if (!s)
        return l->failed;
    s->in[0] = in;
    s->out = out;
    s->pool = n->pool;
    return 0;
}

int lower_plain(struct lower *l, const struct node *n)
{
    struct place in, out;
    int rc;
    switch (n->op) {
    case OP_ACT:
    case OP_RESHAPE:
        if ((rc = lower_read(l, n->in[0], &in)) < 0 || (rc = lower_write(l, n->out[0], &out)) < 0)
            return rc;
        if (n->op == OP_RESHAPE)
            return lower_reshape(l, n, &in, &out);
        if (l->f.late[n - l->g->node] && in.root == out.root && in.offset == out.offset)
            return 0; /* whoever reads it does it */
        return lower_copy(l, n, &in, &out, &n->act);
    case OP_PRELU:
        return lower_binary(l, n, CPU_SLOPE);
    case OP_ABS:
        return lower_unary(l, n, CPU_ABS);
    case OP_SQRT:
        return lower_unary(l, n, CPU_SQRT);
    case OP_NEG:
        return lower_unary(l, n, CPU_NEG);
    case OP_EXP:
        return lower_unary(l, n, CPU_EXP);
    case OP_ADD:
        return lower_binary(l, n, CPU_ADD);
    case OP_SUB:
        return lower_binary(l, n, CPU_SUB);
    case OP_MUL:
        return lower_binary(l, n, CPU_MUL);
    case OP_DIV:
        return lower_binary(l, n, CPU_DIV);
    case OP_POW:
        return lower_binary(l, n, CPU_POW);
    case OP_MAX:
        return lower_binary(l, n, CPU_MAX);
    case OP_MIN:
        return lower_binary(l, n, CPU_MIN);
    case OP_CONCAT:
        return lower_concat(l, n);
    case OP_SPLIT:
        return lower_split(l, n);
    case OP_SLICE:
        return lower_slice(l, n);
    case OP_PAD:
        return lower_pad(l, n);
    case OP_RESIZE:
        return lower_resize(l, n);
    case OP_DEPTH_TO_SPACE:
        return lower_depth_to_space(l, n);
    case OP_TRANSPOSE:
        return lower_transpose(l, n);
    case OP_GATHER:
        return lower_gather(l, n);
    case OP_REDUCE_MEAN:
        return lower_reduce(l, n, CPU_MEAN);
    case OP_REDUCE_SUM:
        return lower_reduce(l, n, CPU_SUM);
    case OP_REDUCE_SUM_SQUARE:
        return lower_reduce(l, n, CPU_SUM_SQUARE);
    case OP_REDUCE_PROD:
        return lower_reduce(l, n, CPU_PROD);
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        return lower_pool(l, n);
    default:
        return err_set(l->e, ERR_UNSUPPORTED, "node %s: the cpu engine has no operator %s", n->name,
                       op_name(n->op));
    }
}
