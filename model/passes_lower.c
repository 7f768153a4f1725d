/* passes_lower.c - lowering of operators that compute element by element or move elements */
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

static int no_broadcast(struct lower *l, const struct shape *a, const struct shape *b)
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
            return no_broadcast(l, &lower_value(l, a)->shape, &lower_value(l, b)->shape);
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
        return no_broadcast(l, lower_shape(l, 0), lower_shape(l, 1));
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

static int lower_concat(struct lower *l)
{
    int *list = graph_alloc(l->g, (size_t)l->n->n_in * sizeof *list);
    int axis, rank = lower_shape(l, 0)->rank, rc;
    if (list == NULL)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    if ((rc = lower_axis(l, l->n->axis, rank, &axis)) != 0)
        return rc;
    struct shape s = *lower_shape(l, 0);
    for (int i = 0; i < l->n->n_in; i++) {
        list[i] = lower_in(l, i);
        if (list[i] < 0)
            return lower_refuse(l, ERR_INVALID, "input %d is missing", i + 1);
        if (i == 0)
            continue;
        struct shape other = *lower_shape(l, i), wanted = s;
        if (other.rank == rank)
            wanted.dim[axis] = other.dim[axis];
        if (!shape_equal(&other, &wanted))
            return no_broadcast(l, &s, &other);
        if (__builtin_add_overflow(s.dim[axis], other.dim[axis], &s.dim[axis]))
            return lower_refuse(l, ERR_LIMIT, "its output is too large");
    }
    if (l->n->n_in == 1)
        return lower_alias(l, list[0]);
    struct node *n = lower_emit(l, OP_CONCAT, l->n->n_in, list, 1, lower_value(l, list[0])->dtype);
    if (n == NULL)
        return l->e->code;
    n->axis = axis;
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

static int lower_split(struct lower *l)
{
    int in = lower_in(l, 0), sizes = lower_in(l, 1), axis, rc, parts = l->n->n_out;
    struct shape s = *lower_shape(l, 0);
    int64_t size[ONE_SPLIT_MAX], sum = 0;
    if ((rc = lower_axis(l, l->n->axis, s.rank, &axis)) != 0)
        return rc;
    if (parts > ONE_SPLIT_MAX)
        return lower_refuse(l, ERR_LIMIT, "it has more than %d outputs", ONE_SPLIT_MAX);
    int64_t each = (s.dim[axis] + parts - 1) / parts;
    if (sizes >= 0) {
        int n = lower_ints(l, sizes, "sizes", size, ONE_SPLIT_MAX);
        if (n < 0)
            return n;
        if (n != parts)
            return lower_refuse(l, ERR_INVALID, "it has %d sizes for %d outputs", n, parts);
    } else {
        for (int i = 0; i < parts; i++)
            size[i] = i + 1 < parts ? each : s.dim[axis] - each * (parts - 1);
    }
    for (int i = 0; i < parts; i++) {
        if (size[i] < 1 || size[i] > s.dim[axis])
            return lower_refuse(l, ERR_INVALID, "output %d would have %lld of %lld elements", i + 1,
                                (long long)size[i], (long long)s.dim[axis]);
        sum += size[i];
    }
    if (sum != s.dim[axis])
        return lower_refuse(l, ERR_INVALID, "its sizes add up to %lld, the axis has %lld",
                            (long long)sum, (long long)s.dim[axis]);
    struct node *n = lower_emit(l, OP_SPLIT, 1, &in, parts, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    n->axis = axis;
    for (int i = 0; i < parts; i++) {
        *lower_out_shape(l, n, i) = s;
        lower_out_shape(l, n, i)->dim[axis] = size[i];
    }
    return lower_done(l, n);
}

/* A list of axes given as input i; absent: the first `absent` ones. */
static int read_axes(struct lower *l, int i, int rank, int absent, int axis[GRAPH_RANK_MAX])
{
    int64_t list[GRAPH_RANK_MAX];
    int value = lower_in(l, i), n = absent, rc;
    bool seen[GRAPH_RANK_MAX] = {false};
    for (int k = 0; k < absent; k++)
        list[k] = k;
    if (value >= 0 && (n = lower_ints(l, value, "axes", list, GRAPH_RANK_MAX)) < 0)
        return n;
    for (int k = 0; k < n; k++) {
        if ((rc = lower_axis(l, list[k], rank, &axis[k])) != 0)
            return rc;
        if (seen[axis[k]])
            return lower_refuse(l, ERR_INVALID, "its axis %d is there twice", axis[k]);
        seen[axis[k]] = true;
    }
    return n;
}

static int lower_slice(struct lower *l)
{
    int64_t start[GRAPH_RANK_MAX], end[GRAPH_RANK_MAX], step[GRAPH_RANK_MAX];
    int axis[GRAPH_RANK_MAX], in = lower_in(l, 0), steps = lower_in(l, 4);
    struct shape s = *lower_shape(l, 0);
    int n_start = lower_ints(l, lower_in(l, 1), "starts", start, GRAPH_RANK_MAX);
    int n_end = n_start < 0 ? n_start : lower_ints(l, lower_in(l, 2), "ends", end, GRAPH_RANK_MAX);
    if (n_start > s.rank)
        return lower_refuse(l, ERR_INVALID, "it slices %d of %d axes", n_start, s.rank);
    int n_axes = n_end < 0 ? n_end : read_axes(l, 3, s.rank, n_start, axis);
    if (n_axes < 0)
        return n_axes;
    for (int i = 0; i < GRAPH_RANK_MAX; i++)
        step[i] = 1;
    int n_step = steps < 0 ? n_start : lower_ints(l, steps, "steps", step, GRAPH_RANK_MAX);
    if (n_step < 0)
        return n_step;
    if (n_end != n_start || n_axes != n_start || n_step != n_start)
        return lower_refuse(l, ERR_INVALID, "its starts, ends, axes and steps differ in number");
    struct node *n = lower_emit(l, OP_SLICE, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    for (int i = 0; i < GRAPH_RANK_MAX; i++)
        n->slice.step[i] = 1;
    for (int i = 0; i < n_start; i++) {
        int64_t size = s.dim[axis[i]], a = start[i], b = end[i], by = step[i];
        if (by == 0 || by == INT64_MIN)
            return lower_refuse(l, ERR_INVALID, "its step is %lld", (long long)by);
        a = a < 0 ? (a < -size ? -1 : a + size) : a;
        b = b < 0 ? (b < -size ? -1 : b + size) : b;
        if (by > 0) {
            a = a < 0 ? 0 : a > size ? size : a;
            b = b < 0 ? 0 : b > size ? size : b;
            s.dim[axis[i]] = b > a ? (b - a - 1) / by + 1 : 0;
        } else {
            a = a < 0 ? 0 : a > size - 1 ? size - 1 : a;
            b = b < -1 ? -1 : b > size - 1 ? size - 1 : b;
            s.dim[axis[i]] = a > b ? (a - b - 1) / -by + 1 : 0;
        }
        n->slice.start[axis[i]] = a;
        /* a step beyond the only element is none: engines multiply by it */
        n->slice.step[axis[i]] = s.dim[axis[i]] > 1 ? by : 1;
    }
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

static int lower_pad(struct lower *l)
{
    int64_t pads[2 * GRAPH_RANK_MAX];
    int axis[GRAPH_RANK_MAX], in = lower_in(l, 0), value = lower_in(l, 2);
    struct shape s = *lower_shape(l, 0);
    int n_pads = lower_ints(l, lower_in(l, 1), "pads", pads, 2 * GRAPH_RANK_MAX);
    int n_axes = n_pads < 0 ? n_pads : read_axes(l, 3, s.rank, s.rank, axis);
    double x = 0;
    if (n_axes < 0)
        return n_axes;
    if (n_pads != 2 * n_axes)
        return lower_refuse(l, ERR_INVALID, "it has %d pads for %d axes", n_pads, n_axes);
    if (value >= 0 && l->n->pad.mode == PAD_CONSTANT) {
        int k = lower_floats(l, value, "value", &x, 1);
        if (k < 0)
            return k;
        if (!isfinite(x))
            return lower_refuse(l, ERR_NUMERIC, "its value is NaN or infinite");
    }
    struct node *n = lower_emit(l, OP_PAD, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    n->pad.mode = l->n->pad.mode;
    n->pad.value = (float)x;
    for (int i = 0; i < n_axes; i++) {
        int64_t begin = pads[i], end = pads[i + n_axes], *dim = &s.dim[axis[i]], size = *dim;
        if (begin < -(1 << 20) || end < -(1 << 20) || begin > 1 << 20 || end > 1 << 20)
            return lower_refuse(l, ERR_LIMIT, "it pads by more than 2^20");
        if (n->pad.mode == PAD_REFLECT && (begin >= size || end >= size))
            return lower_refuse(l, ERR_INVALID,
                                "it reflects %lld elements of an axis that has %lld: the input is "
                                "too small",
                                (long long)(begin > end ? begin : end), (long long)size);
        n->pad.begin[axis[i]] = begin;
        n->pad.end[axis[i]] = end;
        *dim = size + begin + end;
    }
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

static int lower_gather(struct lower *l)
{
    int in = lower_in(l, 0), indices = lower_in(l, 1), axis, rc;
    const struct shape *x = lower_shape(l, 0), *k = lower_shape(l, 1);
    if ((rc = lower_axis(l, l->n->gather.axis, x->rank, &axis)) != 0)
        return rc;
    if (!lower_is_constant(l, indices) || !dtype_is_integer(lower_value(l, indices)->dtype))
        return lower_refuse(l, ERR_UNSUPPORTED,
                            "its indices depend on the data or are no integers");
    int64_t count = lower_value(l, indices)->constant->count, size = x->dim[axis];
    struct shape s = {.rank = x->rank - 1 + k->rank};
    if (s.rank > GRAPH_RANK_MAX || count > 1 << 24)
        return lower_refuse(l, ERR_LIMIT, "its output has too many dimensions or indices");
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = i < axis             ? x->dim[i]
                   : i < axis + k->rank ? k->dim[i - axis]
                                        : x->dim[i - k->rank + 1];
    int64_t *list = graph_alloc(l->g, (size_t)count * sizeof *list);
    if (list == NULL)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    if ((rc = constant_load_i64(lower_value(l, indices), 0, count, list, l->e)) != 0)
        return rc;
    for (int64_t i = 0; i < count; i++) {
        if (list[i] < -size || list[i] >= size)
            return lower_refuse(l, ERR_INVALID, "its index %lld is outside of %lld elements",
                                (long long)list[i], (long long)size);
        list[i] += list[i] < 0 ? size : 0;
    }
    struct node *n = lower_emit(l, OP_GATHER, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    n->gather = (struct gather_attr){.axis = axis, .index = list, .n_index = count};
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

/* --- shapes ----------------------------------------------------------------------------------- */

/* The same elements under another shape; of a constant without copying. */
static int reshape_to(struct lower *l, const struct shape *s)
{
    int in = lower_in(l, 0);
    char a[128], b[128];
    if (shape_count(s) != shape_count(lower_shape(l, 0)))
        return lower_refuse(l, ERR_INVALID, "%s cannot become %s",
                            shape_text(lower_shape(l, 0), a, sizeof a), shape_text(s, b, sizeof b));
    if (shape_equal(s, lower_shape(l, 0)))
        return lower_alias(l, in);
    if (lower_is_constant(l, in)) {
        int value = graph_add_value(l->g, lower_value(l, in)->name, lower_value(l, in)->dtype);
        if (value < 0)
            return lower_refuse(l, ERR_NOMEM, "no memory");
        lower_value(l, value)->constant = lower_value(l, in)->constant;
        lower_value(l, value)->shape = *s;
        return lower_alias(l, value);
    }
    struct node *n = lower_emit(l, OP_RESHAPE, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    *lower_out_shape(l, n, 0) = *s;
    return lower_done(l, n);
}

static int lower_reshape(struct lower *l)
{
    int64_t dim[GRAPH_RANK_MAX], known = 1;
    const struct shape *x = lower_shape(l, 0);
    int n = lower_ints(l, lower_in(l, 1), "shape", dim, GRAPH_RANK_MAX), open = -1;
    if (n < 0)
        return n;
    struct shape s = {.rank = n};
    for (int i = 0; i < n; i++) {
        s.dim[i] = dim[i];
        if (dim[i] == 0 && !l->n->reshape.allow_zero) {
            if (i >= x->rank)
                return lower_refuse(l, ERR_INVALID, "its shape copies dimension %d of %d", i,
                                    x->rank);
            s.dim[i] = x->dim[i];
        }
        if (dim[i] < -1 || (dim[i] == -1 && open >= 0))
            return lower_refuse(l, ERR_INVALID, "its shape is not one");
        if (dim[i] == -1)
            open = i;
        else if (__builtin_mul_overflow(known, s.dim[i], &known))
            return lower_refuse(l, ERR_INVALID, "its shape is too large");
    }
    if (open >= 0)
        s.dim[open] = known > 0 ? shape_count(x) / known : 0;
    return reshape_to(l, &s);
}

static int lower_flatten(struct lower *l)
{
    const struct shape *x = lower_shape(l, 0);
    int64_t axis = l->n->axis < 0 ? l->n->axis + x->rank : l->n->axis;
    struct shape s = {.rank = 2, .dim = {1, 1}};
    if (axis < 0 || axis > x->rank)
        return lower_refuse(l, ERR_INVALID, "its axis %d does not exist in %d dimensions",
                            l->n->axis, x->rank);
    for (int i = 0; i < x->rank; i++)
        s.dim[i >= axis] *= x->dim[i];
    return reshape_to(l, &s);
}

static int lower_squeeze(struct lower *l)
{
    const struct shape *x = lower_shape(l, 0);
    int axis[GRAPH_RANK_MAX], n = read_axes(l, 1, x->rank, 0, axis);
    bool gone[GRAPH_RANK_MAX] = {false};
    struct shape s = {.rank = 0};
    if (n < 0)
        return n;
    for (int i = 0; i < n; i++) {
        gone[axis[i]] = true;
        if (x->dim[axis[i]] != 1)
            return lower_refuse(l, ERR_INVALID, "axis %d has %lld elements, not 1", axis[i],
                                (long long)x->dim[axis[i]]);
    }
    for (int i = 0; i < x->rank; i++)
        if (lower_in(l, 1) >= 0 ? !gone[i] : x->dim[i] != 1)
            s.dim[s.rank++] = x->dim[i];
    return reshape_to(l, &s);
}

static int lower_unsqueeze(struct lower *l)
{
    const struct shape *x = lower_shape(l, 0);
    int64_t list[GRAPH_RANK_MAX];
    int n = lower_ints(l, lower_in(l, 1), "axes", list, GRAPH_RANK_MAX), axis, rc, from = 0;
    bool fresh[GRAPH_RANK_MAX] = {false};
    if (n < 0)
        return n;
    struct shape s = {.rank = x->rank + n};
    if (s.rank > GRAPH_RANK_MAX)
        return lower_refuse(l, ERR_LIMIT, "its output has more than %d dimensions", GRAPH_RANK_MAX);
    for (int i = 0; i < n; i++) {
        if ((rc = lower_axis(l, list[i], s.rank, &axis)) != 0)
            return rc;
        if (fresh[axis])
            return lower_refuse(l, ERR_INVALID, "its axis %d is there twice", axis);
        fresh[axis] = true;
    }
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = fresh[i] ? 1 : x->dim[from++];
    return reshape_to(l, &s);
}

static int lower_transpose(struct lower *l)
{
    struct shape x = *lower_shape(l, 0), s = x;
    struct transpose_attr t = l->n->transpose;
    bool seen[GRAPH_RANK_MAX] = {false};
    int in = lower_in(l, 0);
    for (int i = 0; i < x.rank; i++) {
        if (!l->n->transpose.given)
            t.perm[i] = x.rank - 1 - i;
        if (t.perm[i] >= x.rank || seen[t.perm[i]])
            return lower_refuse(l, ERR_INVALID, "attribute 'perm' is no order of %d axes", x.rank);
        seen[t.perm[i]] = true;
        s.dim[i] = x.dim[t.perm[i]];
    }
    struct node *n = lower_emit(l, OP_TRANSPOSE, 1, &in, 1, lower_value(l, in)->dtype);
    if (n == NULL)
        return l->e->code;
    n->transpose = t;
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

static int lower_depth_to_space(struct lower *l)
{
    struct shape s = *lower_shape(l, 0);
    int64_t b = l->n->depth.block;
    int in = lower_in(l, 0);
    char text[128];
    if (s.rank != 4 || b > 1 << 10 || s.dim[1] % (b * b) != 0)
        return lower_refuse(l, ERR_INVALID, "%s cannot be spread by blocks of %lld",
                            shape_text(&s, text, sizeof text), (long long)b);
    s.dim[1] /= b * b;
    s.dim[2] *= b;
    s.dim[3] *= b;
    struct node *n = lower_emit(l, OP_DEPTH_TO_SPACE, 1, &in, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    n->depth = l->n->depth;
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

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
    int n = read_axes(l, 1, rank, 0, axis);
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
        return no_broadcast(l, &x, &s);
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
        return no_broadcast(l, lower_shape(l, 1), lower_shape(l, 2));
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
    case OP_CONCAT:
        return lower_concat(l);
    case OP_SPLIT:
        return lower_split(l);
    case OP_SLICE:
        return lower_slice(l);
    case OP_PAD:
        return lower_pad(l);
    case OP_GATHER:
        return lower_gather(l);
    case OP_RESHAPE:
        return lower_reshape(l);
    case OP_FLATTEN:
        return lower_flatten(l);
    case OP_SQUEEZE:
        return lower_squeeze(l);
    case OP_UNSQUEEZE:
        return lower_unsqueeze(l);
    case OP_TRANSPOSE:
        return lower_transpose(l);
    case OP_DEPTH_TO_SPACE:
        return lower_depth_to_space(l);
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
        return lower_refuse(l, ERR_UNSUPPORTED, "it is not supported");
    }
}
