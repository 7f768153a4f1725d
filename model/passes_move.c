/* passes_move.c - lowering of operators that move elements: Concat, Slice, Pad, Tile, Reshape ...
 */
#include "model/passes_lower.h"

#include <math.h>
#include <string.h>

#include "node/base/err.h"

#include "model/constant.h"

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
            return lower_no_broadcast(l, &s, &other);
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
int lower_read_axes(struct lower *l, int i, int rank, int absent, int axis[GRAPH_RANK_MAX])
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
    int n_axes = n_end < 0 ? n_end : lower_read_axes(l, 3, s.rank, n_start, axis);
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
    int n_axes = n_pads < 0 ? n_pads : lower_read_axes(l, 3, s.rank, s.rank, axis);
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

static struct node *emit_gather(struct lower *l, int in, int axis, int64_t *index, int64_t n_index,
                                const struct shape *s)
{
    struct node *n = lower_emit(l, OP_GATHER, 1, &in, 1, lower_value(l, in)->dtype);
    if (n != NULL) {
        n->gather = (struct gather_attr){.axis = axis, .index = index, .n_index = n_index};
        *lower_out_shape(l, n, 0) = *s;
    }
    return n;
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
    struct node *n = emit_gather(l, in, axis, list, count, &s);
    return n == NULL ? l->e->code : lower_done(l, n);
}

/* One Gather for each axis along which the elements are there several times. */
static int lower_tile(struct lower *l)
{
    int64_t times[GRAPH_RANK_MAX];
    int value = lower_in(l, 0);
    struct shape s = *lower_shape(l, 0);
    int n = lower_ints(l, lower_in(l, 1), "repeats", times, GRAPH_RANK_MAX);
    if (n < 0)
        return n;
    if (n != s.rank)
        return lower_refuse(l, ERR_INVALID, "it has %d repeats for %d axes", n, s.rank);
    for (int axis = 0; axis < s.rank; axis++) {
        int64_t size = s.dim[axis], count;
        if (times[axis] == 1)
            continue;
        if (times[axis] < 0)
            return lower_refuse(l, ERR_INVALID, "it repeats %lld times", (long long)times[axis]);
        if (__builtin_mul_overflow(size, times[axis], &count) || count > 1 << 24)
            return lower_refuse(l, ERR_LIMIT, "its output is too large");
        int64_t *list = graph_alloc(l->g, (size_t)count * sizeof *list);
        if (list == NULL)
            return lower_refuse(l, ERR_NOMEM, "no memory");
        for (int64_t i = 0; i < count; i++)
            list[i] = i % size;
        s.dim[axis] = count;
        struct node *made = emit_gather(l, value, axis, list, count, &s);
        if (made == NULL)
            return l->e->code;
        value = made->out[0]; /* finishing may take the node away */
        int rc = lower_finish(l, made);
        if (rc != 0)
            return rc;
    }
    return lower_alias(l, value);
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
    int axis[GRAPH_RANK_MAX], n = lower_read_axes(l, 1, x->rank, 0, axis);
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

int lower_move(struct lower *l)
{
    switch (l->n->op) {
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
    case OP_TILE:
        return lower_tile(l);
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
    default:
        return lower_refuse(l, ERR_UNSUPPORTED, "it is not supported");
    }
}
