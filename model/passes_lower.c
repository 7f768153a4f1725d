/* passes_lower.c - lowering of operators that compute element by element, reduce or tell shapes,
 * and the choice among all */
#include "model/passes_lower.h"

#include <math.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"

/* A node with one output of the shape of input 0. */
static int like_input(struct lower *l, enum op op, struct act act)
{
    int in = lower_in(l, 0);
    struct node *n = lower_emit(l, op, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    n->act = act;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

static enum dtype result_type(struct lower *l, int a, int b)
{
    enum dtype p = lower_value(l, a)->dtype, q = lower_value(l, b)->dtype;
    return p == DTYPE_F32 || q == DTYPE_F32 ? DTYPE_F32 : p == DTYPE_BOOL ? q : p;
}

int lower_no_broadcast(struct lower *l, const struct shape *a, const struct shape *b)
{
    char p[128], q[128];
    return lower_refuse(l, ERR_INVALID, "its inputs of %s and %s do not go together",
                        shape_text(a, p, sizeof p), shape_text(b, q, sizeof q));
}

/* A constant of integers as floats: a new value or an error. */
static int as_float(struct lower *l, int value)
{
    struct shape s = lower_value(l, value)->shape;
    struct node *n = lower_emit(l, OP_CAST, 1, &value, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    n->to = DTYPE_F32;
    *lower_out_shape(l, n, 0) = s;
    int made = n->out[0], rc = lower_finish(l, n);
    return rc ? rc : made;
}

/* Add, Mul ...; Sum, Max and Min of many inputs become a chain. */
static int lower_binary(struct lower *l)
{
    enum op op = l->n->op;
    int a = lower_in(l, 0);
    if (l->n->n_in == 1)
        return lower_alias(l, a);
    for (int i = 1; i < l->n->n_in; i++) {
        int b = lower_in(l, i);
        if (b < 0)
            return lower_refuse(l, ERR_INVALID, "input %d is missing", i + 1);
        enum dtype t = result_type(l, a, b);
        /* Only Pow may have an exponent of another type. */
        if (op == OP_POW && lower_is_constant(l, b) &&
            lower_value(l, a)->dtype != lower_value(l, b)->dtype && (b = as_float(l, b)) < 0)
            return b;
        if (op == OP_EQUAL || op == OP_GREATER || op == OP_LESS)
            t = DTYPE_BOOL;
        if (op == OP_POW)
            t = lower_value(l, a)->dtype;
        struct node *n = lower_emit(l, op, 2, (int[]){a, b}, 1, t);
        if (n == NULL)
            return l->e->code;
        if (shape_broadcast(&lower_value(l, a)->shape, &lower_value(l, b)->shape,
                            lower_out_shape(l, n, 0)) != 0)
            return lower_no_broadcast(l, &lower_value(l, a)->shape, &lower_value(l, b)->shape);
        int out = n->out[0];
        int rc = i + 1 == l->n->n_in ? lower_done(l, n) : lower_finish(l, n);
        if (rc != 0)
            return rc;
        a = out;
    }
    return 0;
}

static int lower_prelu(struct lower *l)
{
    int in[2] = {lower_in(l, 0), lower_in(l, 1)};
    struct node *n = lower_emit(l, OP_PRELU, 2, in, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    struct shape *s = lower_out_shape(l, n, 0);
    if (shape_broadcast(lower_shape(l, 0), lower_shape(l, 1), s) != 0 ||
        !shape_equal(s, lower_shape(l, 0)))
        return lower_no_broadcast(l, lower_shape(l, 0), lower_shape(l, 1));
    return lower_done(l, n);
}

static int lower_clip(struct lower *l)
{
    struct act act = {.kind = ACT_CLIP, .lo = -INFINITY, .hi = INFINITY};
    for (int i = 1; i <= 2; i++) {
        int value = lower_in(l, i);
        double x;
        if (value < 0)
            continue;
        int n = lower_floats(l, value, i == 1 ? "min" : "max", &x, 1);
        if (n < 0)
            return n;
        if (n != 1 || isnan(x))
            return lower_refuse(l, ERR_INVALID, "its %s is not one number", i == 1 ? "min" : "max");
        *(i == 1 ? &act.lo : &act.hi) = (float)x;
    }
    return like_input(l, OP_ACT, act);
}

static int lower_reciprocal(struct lower *l)
{
    int one = lower_scalar(l, 1, DTYPE_F32), in = lower_in(l, 0);
    struct node *n = one < 0 ? NULL : lower_emit(l, OP_DIV, 2, (int[]){one, in}, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

/* Between floats nothing is converted: all are float32 here. */
static int lower_cast(struct lower *l)
{
    int in = lower_in(l, 0);
    if (l->n->to == DTYPE_F32 && lower_value(l, in)->dtype == DTYPE_F32)
        return lower_alias(l, in);
    struct node *n = lower_emit(l, OP_CAST, 1, &in, 1, l->n->to);
    if (n == NULL)
        return l->e->code;
    n->to = l->n->to;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

/* --- Concat, Split, Slice, Pad, Gather -------------------------------------------------------- */

static int reduce_to(struct lower *l, enum op op, int n_axes, const int *axis, bool keep_dims)
{
    const struct shape x = *lower_shape(l, 0);
    bool gone[GRAPH_RANK_MAX] = {false};
    int in = lower_in(l, 0);
    struct node *n = lower_emit(l, op, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    for (int i = 0; i < n_axes; i++)
        gone[axis[i]] = true;
    struct shape *s = lower_out_shape(l, n, 0);
    s->rank = 0;
    for (int i = 0; i < x.rank; i++) {
        if (gone[i])
            n->reduce.axis[n->reduce.n++] = i;
        if (!gone[i] || keep_dims)
            s->dim[s->rank++] = gone[i] ? 1 : x.dim[i];
    }
    n->reduce.keep_dims = keep_dims;
    return lower_done(l, n);
}

static int lower_reduce(struct lower *l)
{
    int axis[GRAPH_RANK_MAX], rank = lower_shape(l, 0)->rank;
    int n = lower_read_axes(l, 1, rank, 0, axis);
    if (n < 0)
        return n;
    if (n == 0 && l->n->reduce.noop_with_empty_axes && l->n->op != OP_REDUCE_SUM_SQUARE)
        return lower_alias(l, lower_in(l, 0));
    if (n == 0 && l->n->reduce.noop_with_empty_axes)
        return lower_refuse(l, ERR_UNSUPPORTED, "noop_with_empty_axes without axes");
    if (n == 0)
        for (n = 0; n < rank; n++)
            axis[n] = n;
    if (rank == 0)
        return lower_refuse(l, ERR_UNSUPPORTED, "it reduces a scalar");
    return reduce_to(l, l->n->op, n, axis, l->n->reduce.keep_dims);
}

static int lower_global_average_pool(struct lower *l)
{
    int axis[GRAPH_RANK_MAX], rank = lower_shape(l, 0)->rank;
    for (int i = 2; i < rank; i++)
        axis[i - 2] = i;
    if (rank < 3)
        return lower_refuse(l, ERR_INVALID, "its input has %d dimensions", rank);
    return reduce_to(l, OP_REDUCE_MEAN, rank - 2, axis, true);
}

/* --- constants about shapes ------------------------------------------------------------------- */

/* A constant list of integers as the node's output. */
static int lower_list(struct lower *l, const struct shape *s, const int64_t *data)
{
    int value = graph_add_value(l->g, "constant", DTYPE_I64);
    if (value < 0 || graph_set_i64(l->g, value, s, data) != 0)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    return lower_alias(l, value);
}

static int lower_shape_of(struct lower *l)
{
    struct shape x = *lower_shape(l, 0); /* a copy: adding a value may move the values */
    int64_t a = l->n->shape.start, b = l->n->shape.end;
    a = a < 0 ? a + x.rank : a;
    b = b < 0 ? b + x.rank : b;
    a = a < 0 ? 0 : a > x.rank ? x.rank : a;
    b = b > x.rank ? x.rank : b;
    b = b < a ? a : b;
    return lower_list(l, &(struct shape){.rank = 1, .dim = {b - a}}, x.dim + a);
}

static int lower_size_of(struct lower *l)
{
    int64_t count = shape_count(lower_shape(l, 0));
    return lower_list(l, &(struct shape){.rank = 0}, &count);
}

/* Expand, ConstantOfShape: the value, broadcast to a shape that is given by numbers. */
static int lower_expand(struct lower *l, int value, int shape_value, bool both_ways)
{
    int64_t dim[GRAPH_RANK_MAX];
    int k = lower_ints(l, shape_value, "shape", dim, GRAPH_RANK_MAX);
    if (k < 0)
        return k;
    struct shape s = {.rank = k}, x = lower_value(l, value)->shape, result;
    for (int i = 0; i < k; i++) {
        if (dim[i] < 0 || dim[i] > INT32_MAX)
            return lower_refuse(l, ERR_INVALID, "its shape is not one");
        s.dim[i] = dim[i];
    }
    if (shape_broadcast(&x, &s, &result) != 0)
        return lower_no_broadcast(l, &x, &s);
    if (both_ways && shape_equal(&x, &result))
        return lower_alias(l, value);
    struct node *n = lower_emit(l, OP_EXPAND, 1, &value, 1, lower_value(l, value)->dtype);
    if (n == NULL)
        return l->e->code;
    *lower_out_shape(l, n, 0) = both_ways ? result : s;
    return lower_done(l, n);
}

static int lower_constant_of_shape(struct lower *l)
{
    int value = lower_in(l, 1), shape = lower_in(l, 0);
    if (value < 0 && (value = lower_scalar(l, 0, DTYPE_F32)) < 0)
        return value;
    if (lower_value(l, value)->shape.rank > 0) { /* one element, whatever its rank */
        int scalar = graph_add_value(l->g, "constant", lower_value(l, value)->dtype);
        if (scalar < 0)
            return lower_refuse(l, ERR_NOMEM, "no memory");
        lower_value(l, scalar)->constant = lower_value(l, value)->constant;
        lower_value(l, scalar)->shape = (struct shape){.rank = 0};
        value = scalar;
    }
    return lower_expand(l, value, shape, false);
}

static int lower_range(struct lower *l)
{
    double at[3];
    for (int i = 0; i < 3; i++) {
        int n = lower_floats(l, lower_in(l, i), "limits", &at[i], 1);
        if (n != 1)
            return n < 0 ? n : lower_refuse(l, ERR_INVALID, "a limit is missing");
    }
    double steps = ceil((at[1] - at[0]) / at[2]);
    if (!(at[2] != 0) || !(steps <= 4096))
        return lower_refuse(l, ERR_LIMIT, "it has more than 4096 elements");
    int64_t n = steps > 0 ? (int64_t)steps : 0, list[4096];
    float real[4096];
    for (int64_t i = 0; i < n; i++) {
        double x = at[0] + (double)i * at[2];
        real[i] = (float)x;
        list[i] = fabs(x) < 9e18 ? (int64_t)x : 0;
    }
    struct shape s = {.rank = 1, .dim = {n}};
    if (dtype_is_integer(lower_value(l, lower_in(l, 0))->dtype))
        return lower_list(l, &s, list);
    int value = graph_add_value(l->g, "constant", DTYPE_F32);
    if (value < 0 || graph_set_f32(l->g, value, &s, real) != 0)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    return lower_alias(l, value);
}

static int lower_where(struct lower *l)
{
    int in[3] = {lower_in(l, 0), lower_in(l, 1), lower_in(l, 2)};
    struct node *n = lower_emit(l, OP_WHERE, 3, in, 1, lower_value(l, in[1])->dtype);
    if (n == NULL)
        return l->e->code;
    struct shape s;
    if (shape_broadcast(lower_shape(l, 0), lower_shape(l, 1), &s) != 0 ||
        shape_broadcast(&s, lower_shape(l, 2), lower_out_shape(l, n, 0)) != 0)
        return lower_no_broadcast(l, lower_shape(l, 1), lower_shape(l, 2));
    return lower_done(l, n);
}

static int lower_not(struct lower *l)
{
    int in = lower_in(l, 0);
    struct node *n = lower_emit(l, OP_NOT, 1, &in, 1, DTYPE_BOOL);
    if (n == NULL)
        return l->e->code;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

int lower_node(struct lower *l)
{
    for (int i = 0; i < l->n->n_in; i++)
        if (l->n->in[i] >= 0) {
            int rc = lower_in(l, i);
            if (rc < 0)
                return rc;
        }
    switch (l->n->op) {
    case OP_CONV:
        return lower_conv(l);
    case OP_CONV_TRANSPOSE:
        return lower_conv_transpose(l);
    case OP_BATCH_NORM:
        return lower_batch_norm(l);
    case OP_INSTANCE_NORM:
        return lower_instance_norm(l);
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        return lower_pool(l);
    case OP_RESIZE:
        return lower_resize(l);
    case OP_ACT:
        return like_input(l, OP_ACT, l->n->act);
    case OP_ABS:
    case OP_SQRT:
    case OP_NEG:
    case OP_EXP:
    case OP_FLOOR:
    case OP_CEIL:
        return like_input(l, l->n->op, (struct act){0});
    case OP_CLIP:
        return lower_clip(l);
    case OP_PRELU:
        return lower_prelu(l);
    case OP_RECIPROCAL:
        return lower_reciprocal(l);
    case OP_ADD:
    case OP_SUB:
    case OP_MUL:
    case OP_DIV:
    case OP_POW:
    case OP_MAX:
    case OP_MIN:
    case OP_EQUAL:
    case OP_GREATER:
    case OP_LESS:
        return lower_binary(l);
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        return lower_reduce(l);
    case OP_GLOBAL_AVERAGE_POOL:
        return lower_global_average_pool(l);
    case OP_IDENTITY:
    case OP_DROPOUT:
        return lower_alias(l, lower_in(l, 0));
    case OP_CAST:
        return lower_cast(l);
    case OP_SHAPE:
        return lower_shape_of(l);
    case OP_SIZE:
        return lower_size_of(l);
    case OP_EXPAND:
        return lower_expand(l, lower_in(l, 0), lower_in(l, 1), true);
    case OP_CONSTANT_OF_SHAPE:
        return lower_constant_of_shape(l);
    case OP_RANGE:
        return lower_range(l);
    case OP_WHERE:
        return lower_where(l);
    case OP_NOT:
        return lower_not(l);
    default:
        return lower_move(l);
    }
}
