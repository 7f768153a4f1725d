/*
 * passes_window.c - lowering of Conv, ConvTranspose, pooling, normalisations and Resize
 *
 * Sources: the ONNX operators of these names, opset 7-21. Pads become explicit, weights are checked
 * against the input, batch norm becomes an affine map or, with batch statistics (in training mode,
 * or computed from its input by other nodes), an instance norm.
 */
#include "model/passes_lower.h"

#include <math.h>
#include <stdlib.h>

#include "node/base/err.h"

#include "model/constant.h"
#include "model/passes_util.h"

static int check_4d(struct lower *l)
{
    const struct shape *x = lower_shape(l, 0);
    char text[128];
    bool fits = x->rank == 4;
    for (int i = 0; fits && i < 4; i++)
        fits = x->dim[i] >= 1;
    if (!fits)
        return lower_refuse(l, ERR_UNSUPPORTED, "its input is %s: only N x C x H x W is supported",
                            shape_text(x, text, sizeof text));
    return 0;
}

/* A constant of C floats. */
static int check_channels(struct lower *l, int i, const char *what, int64_t C)
{
    int value = lower_in(l, i);
    char text[128];
    if (!lower_is_constant(l, value))
        return lower_refuse(l, ERR_UNSUPPORTED, "its %s is not constant", what);
    const struct value *v = lower_value(l, value);
    if (v->dtype != DTYPE_F32 || v->shape.rank != 1 || v->shape.dim[0] != C)
        return lower_refuse(l, ERR_INVALID, "its %s is %s, must be %lld floats", what,
                            shape_text(&v->shape, text, sizeof text), (long long)C);
    return 0;
}

static int check_weights(struct lower *l, struct conv_attr *a, int64_t in_wanted, int in_axis)
{
    int value = lower_in(l, 1);
    char x[128], w[128];
    if (!lower_is_constant(l, value) || lower_value(l, value)->dtype != DTYPE_F32)
        return lower_refuse(l, ERR_UNSUPPORTED, "its weights are not constant floats");
    const struct shape *s = lower_shape(l, 1);
    bool fits = s->rank == 4;
    for (int i = 0; fits && i < 4; i++)
        fits = s->dim[i] >= 1 && s->dim[i] <= 1 << 20;
    if (!fits || s->dim[in_axis] != in_wanted || (a->kernel[0] && a->kernel[0] != s->dim[2]) ||
        (a->kernel[1] && a->kernel[1] != s->dim[3]))
        return lower_refuse(l, ERR_INVALID,
                            "weights of %s do not fit an input of %s in %lld groups",
                            shape_text(s, w, sizeof w), shape_text(lower_shape(l, 0), x, sizeof x),
                            (long long)a->group);
    a->kernel[0] = s->dim[2];
    a->kernel[1] = s->dim[3];
    return 0;
}

/* Explicit pads from auto_pad, so that the output has ceil(in / stride) elements, or none. */
static void resolve_pads(enum auto_pad mode, int64_t in, int64_t window, int64_t stride,
                         int64_t *begin, int64_t *end)
{
    if (mode == AUTO_PAD_NOTSET)
        return;
    *begin = *end = 0;
    if (mode == AUTO_PAD_VALID)
        return;
    int64_t out = (in + stride - 1) / stride, total = (out - 1) * stride + window - in;
    if (total < 0)
        total = 0;
    *begin = mode == AUTO_PAD_SAME_UPPER ? total / 2 : total - total / 2;
    *end = total - *begin;
}

/* Is the node evaluated while lowering? */
static bool folds(struct lower *l)
{
    for (int i = 0; i < l->n->n_in; i++)
        if (l->n->in[i] >= 0 && !lower_is_constant(l, lower_in(l, i)))
            return false;
    return true;
}

/* Every weight meets every position: of the output, or of the input of a transposed one. */
static int check_macs(struct lower *l, const struct shape *positions)
{
    const int64_t factor[] = {shape_count(lower_shape(l, 1)), positions->dim[0], positions->dim[2],
                              positions->dim[3]};
    return folds(l) ? lower_work(l, &l->folded_macs, LOWER_FOLDED_MACS_MAX, factor, 4,
                                 "multiply-accumulates for its constants")
                    : lower_work(l, &l->macs, LOWER_MACS_MAX, factor, 4, "multiply-accumulates");
}

static int finish_conv(struct lower *l, enum op op, const struct conv_attr *a,
                       const struct shape *s)
{
    int rc = check_macs(l, op == OP_CONV ? s : lower_shape(l, 0));
    if (rc != 0)
        return rc;
    int in[3] = {lower_in(l, 0), lower_in(l, 1), lower_in(l, 2)};
    struct node *n = lower_emit(l, op, 3, in, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    n->conv = *a;
    n->conv.auto_pad = AUTO_PAD_NOTSET;
    *lower_out_shape(l, n, 0) = *s;
    return lower_done(l, n);
}

int lower_conv(struct lower *l)
{
    struct conv_attr a = l->n->conv;
    int rc = check_4d(l);
    if (rc != 0)
        return rc;
    struct shape s = *lower_shape(l, 0);
    if (s.dim[1] % a.group != 0)
        return lower_refuse(l, ERR_INVALID, "%lld channels in %lld groups", (long long)s.dim[1],
                            (long long)a.group);
    if ((rc = check_weights(l, &a, s.dim[1] / a.group, 1)) != 0)
        return rc;
    s.dim[1] = lower_shape(l, 1)->dim[0];
    if (s.dim[1] % a.group != 0)
        return lower_refuse(l, ERR_INVALID, "%lld outputs in %lld groups", (long long)s.dim[1],
                            (long long)a.group);
    if (lower_in(l, 2) >= 0 && (rc = check_channels(l, 2, "bias", s.dim[1])) != 0)
        return rc;
    for (int i = 0; i < 2; i++) {
        int64_t window = (a.kernel[i] - 1) * a.dilation[i] + 1, *dim = &s.dim[2 + i];
        resolve_pads(a.auto_pad, *dim, window, a.stride[i], &a.pad_begin[i], &a.pad_end[i]);
        int64_t room = *dim + a.pad_begin[i] + a.pad_end[i] - window;
        if (room < 0)
            return lower_refuse(l, ERR_INVALID,
                                "a window of %lld does not fit an input of %lld: the input is too "
                                "small",
                                (long long)window, (long long)*dim);
        *dim = room / a.stride[i] + 1;
    }
    return finish_conv(l, OP_CONV, &a, &s);
}

int lower_conv_transpose(struct lower *l)
{
    struct conv_attr a = l->n->conv;
    int rc = check_4d(l);
    if (rc != 0)
        return rc;
    struct shape s = *lower_shape(l, 0);
    if (s.dim[1] % a.group != 0)
        return lower_refuse(l, ERR_INVALID, "%lld channels in %lld groups", (long long)s.dim[1],
                            (long long)a.group);
    if ((rc = check_weights(l, &a, s.dim[1], 0)) != 0)
        return rc;
    s.dim[1] = lower_shape(l, 1)->dim[1] * a.group;
    if (lower_in(l, 2) >= 0 && (rc = check_channels(l, 2, "bias", s.dim[1])) != 0)
        return rc;
    for (int i = 0; i < 2; i++) {
        int64_t *dim = &s.dim[2 + i], window = (a.kernel[i] - 1) * a.dilation[i] + 1;
        int64_t whole = a.stride[i] * (*dim - 1) + a.output_padding[i] + window,
                out = a.output_shape[i];
        bool same = a.auto_pad == AUTO_PAD_SAME_UPPER || a.auto_pad == AUTO_PAD_SAME_LOWER;
        if (out == 0 && same)
            out = *dim * a.stride[i];
        if (a.auto_pad == AUTO_PAD_VALID)
            a.pad_begin[i] = a.pad_end[i] = 0;
        if (out != 0) {
            /* More than the windows make is left to the bias, at the end. */
            int64_t total = whole > out ? whole - out : 0;
            a.pad_begin[i] = a.auto_pad == AUTO_PAD_SAME_UPPER ? total / 2 : total - total / 2;
            a.pad_end[i] = total - a.pad_begin[i];
        } else {
            out = whole - a.pad_begin[i] - a.pad_end[i];
        }
        if (out < 1 || out > INT32_MAX)
            return lower_refuse(l, ERR_INVALID, "its output would have %lld rows or columns",
                                (long long)out);
        *dim = out;
        a.output_padding[i] = a.output_shape[i] = 0; /* they are in the shape now */
    }
    return finish_conv(l, OP_CONV_TRANSPOSE, &a, &s);
}

/* Of a window no more rows and columns count than the input has. */
static int check_taps(struct lower *l, const struct pool_attr *a, const struct shape *s)
{
    const struct shape *x = lower_shape(l, 0);
    int64_t factor[6] = {s->dim[0], s->dim[1], s->dim[2], s->dim[3], 0, 0};
    for (int i = 0; i < 2; i++) {
        int64_t most = (x->dim[2 + i] - 1) / a->dilation[i] + 1;
        factor[4 + i] = a->kernel[i] < most ? a->kernel[i] : most;
    }
    return folds(l) ? lower_work(l, &l->folded_macs, LOWER_FOLDED_MACS_MAX, factor, 6,
                                 "elements in the windows of constants")
                    : lower_work(l, &l->taps, LOWER_TAPS_MAX, factor, 6,
                                 "elements in the windows of poolings");
}

int lower_pool(struct lower *l)
{
    struct pool_attr a = l->n->pool;
    int in = lower_in(l, 0), rc = check_4d(l);
    if (rc != 0)
        return rc;
    struct shape s = *lower_shape(l, 0);
    for (int i = 0; i < 2; i++) {
        int64_t *dim = &s.dim[2 + i], size = *dim, window = (a.kernel[i] - 1) * a.dilation[i] + 1;
        resolve_pads(a.auto_pad, size, window, a.stride[i], &a.pad_begin[i], &a.pad_end[i]);
        if (a.pad_begin[i] >= window || a.pad_end[i] >= window)
            return lower_refuse(
                l, ERR_INVALID, "it pads by %lld, as much as its window has",
                (long long)(a.pad_begin[i] > a.pad_end[i] ? a.pad_begin[i] : a.pad_end[i]));
        int64_t room = size + a.pad_begin[i] + a.pad_end[i] - window;
        if (room < 0)
            return lower_refuse(l, ERR_INVALID, "a window of %lld does not fit an input of %lld",
                                (long long)window, (long long)size);
        *dim = room / a.stride[i] + 1;
        /* With ceil_mode one more window, if it starts inside the input or the pads before it. */
        if (a.ceil_mode && room % a.stride[i] != 0 && *dim * a.stride[i] < size + a.pad_begin[i])
            ++*dim;
    }
    if ((rc = check_taps(l, &a, &s)) != 0)
        return rc;
    struct node *n = lower_emit(l, l->n->op, 1, &in, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    n->pool = a;
    n->pool.auto_pad = AUTO_PAD_NOTSET;
    *lower_out_shape(l, n, 0) = s;
    return lower_done(l, n);
}

/* --- normalisations --------------------------------------------------------------------------- */

static int check_rank(struct lower *l, int lowest)
{
    const struct shape *x = lower_shape(l, 0);
    if (x->rank < lowest || shape_count(x) < 1)
        return lower_refuse(l, ERR_INVALID, "its input has %d dimensions, must have %d or more",
                            x->rank, lowest);
    return 0;
}

static int emit_norm(struct lower *l, double epsilon)
{
    int in[3] = {lower_in(l, 0), lower_in(l, 1), lower_in(l, 2)};
    struct node *n = lower_emit(l, OP_INSTANCE_NORM, 3, in, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    n->norm.epsilon = epsilon;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

int lower_instance_norm(struct lower *l)
{
    int rc = check_rank(l, 3);
    int64_t C = rc ? 0 : lower_shape(l, 0)->dim[1];
    if (rc != 0 || (rc = check_channels(l, 1, "scale", C)) != 0 ||
        (rc = check_channels(l, 2, "bias", C)) != 0)
        return rc;
    return emit_norm(l, l->n->norm.epsilon);
}

static int load_channels(struct lower *l, int i, const char *what, int64_t C, double **out)
{
    int rc = check_channels(l, i, what, C);
    if (rc != 0)
        return rc;
    *out = graph_alloc(l->g, (size_t)C * sizeof **out);
    if (*out == NULL)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    if ((rc = constant_load_f64(lower_value(l, lower_in(l, i)), 0, C, *out, l->e)) != 0)
        return rc;
    for (int64_t c = 0; c < C; c++)
        if (!isfinite((*out)[c]))
            return lower_refuse(l, ERR_NUMERIC, "its %s holds NaN or infinity in channel %lld",
                                what, (long long)c);
    return 0;
}

/* x, or x as PyTorch's exporter lays it out for statistics, N,C,H,W → N,C,HW → N,HW,C. channel: its
 * axis of channels. */
static bool is_view_of(struct graph *g, int value, int x, int *channel)
{
    const struct shape *from = &g->value[x].shape, *to;
    const struct node *turn = pass_producer(g, value, OP_TRANSPOSE);
    const struct node *flat = turn ? pass_producer(g, turn->in[0], OP_RESHAPE) : NULL;
    *channel = 1;
    if (value == x)
        return true;
    if (flat == NULL || flat->in[0] != x)
        return false;
    to = &g->value[flat->out[0]].shape;
    *channel = 2;
    return to->rank == 3 && to->dim[0] == from->dim[0] && to->dim[1] == from->dim[1] &&
           turn->transpose.perm[0] == 0 && turn->transpose.perm[1] == 2;
}

/* value = the mean over all but channels of what *of then is */
static bool is_mean(struct graph *g, int value, int channel, int *of)
{
    const struct node *n = pass_producer(g, value, OP_REDUCE_MEAN);
    if (n == NULL || n->reduce.n != g->value[n->in[0]].shape.rank - 1)
        return false;
    for (int i = 0; i < n->reduce.n; i++)
        if (n->reduce.axis[i] == channel)
            return false;
    *of = n->in[0];
    return true;
}

/* Are the node's mean and variance those of its own input? That is how both exporters of PyTorch
 * write a batch norm that never learns any. */
static bool has_own_statistics(struct lower *l)
{
    struct graph *g = l->g;
    int x = lower_in(l, 0), channel, view, squares, again;
    graph_index(g);
    const struct node *mean = pass_producer(g, lower_in(l, 3), OP_REDUCE_MEAN);
    if (mean == NULL || !is_view_of(g, mean->in[0], x, &channel) ||
        !is_mean(g, mean->out[0], channel, &view) || !is_mean(g, lower_in(l, 4), channel, &squares))
        return false;
    const struct node *square = pass_producer(g, squares, OP_MUL);
    const struct node *away = square ? pass_producer(g, square->in[0], OP_SUB) : NULL;
    return away != NULL && square->in[1] == square->in[0] && away->in[0] == view &&
           is_mean(g, away->in[1], channel, &again) && again == view;
}

/* Inference: (x − mean)·S/sqrt(var + epsilon) + B as x·s + t. */
int lower_batch_norm(struct lower *l)
{
    static const char *const what[] = {"", "scale", "bias", "mean", "variance"};
    double *p[5];
    int rc = check_rank(l, 2);
    if (rc != 0)
        return rc;
    int64_t C = lower_shape(l, 0)->dim[1];
    for (int i = 1; i < 3; i++)
        if ((rc = load_channels(l, i, what[i], C, &p[i])) != 0)
            return rc;
    /* Before opset 14 training shows by the outputs that only it has. */
    if (l->n->norm.training || (l->n->opset < 14 && l->n->n_out > 1) || has_own_statistics(l))
        return emit_norm(l, l->n->norm.epsilon);
    for (int i = 3; i < 5; i++)
        if ((rc = load_channels(l, i, what[i], C, &p[i])) != 0)
            return rc;
    float *s = graph_alloc(l->g, (size_t)C * sizeof *s),
          *t = graph_alloc(l->g, (size_t)C * sizeof *t);
    int scale = graph_add_value(l->g, l->n->name, DTYPE_F32);
    int shift = graph_add_value(l->g, l->n->name, DTYPE_F32);
    if (s == NULL || t == NULL || scale < 0 || shift < 0)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    for (int64_t c = 0; c < C; c++) {
        double root = sqrt(p[4][c] + l->n->norm.epsilon);
        if (!(root > 0))
            return lower_refuse(l, ERR_NUMERIC, "its variance is negative or zero in channel %lld",
                                (long long)c);
        s[c] = (float)(p[1][c] / root);
        t[c] = (float)(p[2][c] - p[3][c] * p[1][c] / root);
    }
    struct shape channels = {.rank = 1, .dim = {C}};
    if (graph_set_f32(l->g, scale, &channels, s) != 0 ||
        graph_set_f32(l->g, shift, &channels, t) != 0)
        return lower_refuse(l, ERR_NOMEM, "no memory");
    struct node *n =
        lower_emit(l, OP_AFFINE, 3, (int[]){lower_in(l, 0), scale, shift}, 1, DTYPE_F32);
    if (n == NULL)
        return l->e->code;
    *lower_out_shape(l, n, 0) = *lower_shape(l, 0);
    return lower_done(l, n);
}

/* --- Resize ----------------------------------------------------------------------------------- */

/* Sizes or scales for the axes that are named (all if none is). Returns how many, or an error. */
static int resize_axes(struct lower *l, int rank, int axis[GRAPH_RANK_MAX])
{
    const struct resize_attr *a = &l->n->resize;
    bool seen[GRAPH_RANK_MAX] = {false};
    if (a->n_axes == 0) {
        for (int i = 0; i < rank; i++)
            axis[i] = i;
        return rank;
    }
    for (int i = 0; i < a->n_axes; i++) {
        int rc = lower_axis(l, a->axis[i], rank, &axis[i]);
        if (rc != 0)
            return rc;
        if (seen[axis[i]])
            return lower_refuse(l, ERR_INVALID, "its axis %d is there twice", axis[i]);
        seen[axis[i]] = true;
    }
    return a->n_axes;
}

static int by_sizes(struct lower *l, int value, int n, const int *axis, struct resize_attr *a,
                    struct shape *s)
{
    int64_t size[GRAPH_RANK_MAX];
    int k = lower_ints(l, value, "sizes", size, GRAPH_RANK_MAX);
    if (k < 0)
        return k;
    if (k != n)
        return lower_refuse(l, ERR_INVALID, "it has %d sizes for %d axes", k, n);
    double common = 0;
    for (int i = 0; i < n; i++) {
        if (size[i] < 1 || size[i] > INT32_MAX)
            return lower_refuse(l, ERR_INVALID, "its size %lld is not one", (long long)size[i]);
        double scale = (double)size[i] / (double)s->dim[axis[i]];
        if (i == 0 || (a->policy == RESIZE_NOT_LARGER ? scale < common : scale > common))
            common = scale;
    }
    for (int i = 0; i < n; i++) {
        int64_t in = s->dim[axis[i]];
        s->dim[axis[i]] =
            a->policy == RESIZE_STRETCH ? size[i] : (int64_t)floor(common * (double)in + 0.5);
        a->scale[axis[i]] = a->policy == RESIZE_STRETCH ? (double)size[i] / (double)in : common;
    }
    return 0;
}

static int by_scales(struct lower *l, int value, int n, const int *axis, struct resize_attr *a,
                     struct shape *s)
{
    double scale[GRAPH_RANK_MAX];
    int k = lower_floats(l, value, "scales", scale, GRAPH_RANK_MAX);
    if (k < 0)
        return k;
    if (k != n)
        return lower_refuse(l, ERR_INVALID, "it has %d scales for %d axes", k, n);
    for (int i = 0; i < n; i++) {
        if (!(scale[i] > 0) || scale[i] > 1 << 20)
            return lower_refuse(l, ERR_INVALID, "its scale %g is not one", scale[i]);
        /* In float, as exporters and other runtimes reckon: 0.7f · 10 is 7. */
        float size = (float)scale[i] * (float)s->dim[axis[i]];
        if (!(size < 2147483648.0f))
            return lower_refuse(l, ERR_LIMIT, "its output is too large");
        a->scale[axis[i]] = scale[i];
        s->dim[axis[i]] = (int64_t)floorf(size);
    }
    return 0;
}

int lower_resize(struct lower *l)
{
    int in = lower_in(l, 0), scales = lower_in(l, 2), sizes = lower_in(l, 3);
    int axis[GRAPH_RANK_MAX], rc = check_rank(l, 1);
    if (rc != 0)
        return rc;
    struct resize_attr a = l->n->resize;
    struct shape s = *lower_shape(l, 0), x = s;
    int n = resize_axes(l, s.rank, axis);
    if (n < 0)
        return n;
    for (int i = 0; i < GRAPH_RANK_MAX; i++)
        a.scale[i] = 1;
    /* An empty tensor is how opset 11 leaves an input out. */
    bool has_scales = scales >= 0 && !(lower_is_constant(l, scales) &&
                                       shape_count(&lower_value(l, scales)->shape) == 0);
    bool has_sizes = sizes >= 0 && !(lower_is_constant(l, sizes) &&
                                     shape_count(&lower_value(l, sizes)->shape) == 0);
    if (has_scales == has_sizes)
        return lower_refuse(l, ERR_INVALID, "it must have scales or sizes, and not both");
    rc = has_sizes ? by_sizes(l, sizes, n, axis, &a, &s) : by_scales(l, scales, n, axis, &a, &s);
    if (rc != 0)
        return rc;
    bool changes = false;
    for (int i = 0; i < s.rank; i++)
        changes = changes || s.dim[i] != x.dim[i] || a.scale[i] != 1;
    if (!changes)
        return lower_alias(l, in);
    struct node *node = lower_emit(l, OP_RESIZE, 1, &in, 1, DTYPE_F32);
    if (node == NULL)
        return l->e->code;
    node->resize = a;
    *lower_out_shape(l, node, 0) = s;
    return lower_done(l, node);
}
