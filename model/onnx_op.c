/*
 * onnx_op.c - operators: which exist in which opset, and their attributes with their defaults
 *
 * The many forms that an operator took from opset 7 to 21 are brought to the newest one here:
 * what was an attribute and became an input (pads, axes, starts, min ...) becomes a constant input,
 * so that the passes know one form only. Inputs after reading:
 *   Slice [X, starts, ends, axes?, steps?]   Pad [X, pads, value?, axes?]   Split [X, sizes?]
 *   Squeeze, Unsqueeze, Reduce* [X, axes?]   Clip [X, min?, max?]   ConstantOfShape [shape, value?]
 *   Resize [X, roi?, scales?, sizes?]
 * Source: onnx.ai, "ONNX Operators" and its changelog.
 */
#include "model/onnx_read.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

typedef void read_op(struct node_reader *nr);

/* --- helpers ---------------------------------------------------------------------------------- */

static int constant_input(struct node_reader *nr, int index, enum dtype t, const char *what)
{
    struct graph *g = nr->r->g;
    char name[96];
    int n = snprintf(name, sizeof name, "%s of %s", what, nr->what);
    char *kept = graph_strdup(g, name, (size_t)n < sizeof name ? (size_t)n : sizeof name - 1);
    int value = kept ? graph_add_value(g, kept, t) : ERR_NOMEM;
    if (value < 0) {
        attr_refuse(nr, ERR_NOMEM, "no memory");
        return -1;
    }
    nr->n->in[index] = value;
    return value;
}

static void ints_as_input(struct node_reader *nr, int index, const char *what, const int64_t *data,
                          int n)
{
    int value = constant_input(nr, index, DTYPE_I64, what);
    struct shape s = {.rank = 1, .dim = {n}};
    if (value >= 0 && graph_set_i64(nr->r->g, value, &s, data) != 0)
        attr_refuse(nr, ERR_NOMEM, "no memory");
}

static void floats_as_input(struct node_reader *nr, int index, const char *what, int rank,
                            const float *data, int n)
{
    int value = constant_input(nr, index, DTYPE_F32, what);
    struct shape s = {.rank = rank, .dim = {n}};
    if (value >= 0 && graph_set_f32(nr->r->g, value, &s, data) != 0)
        attr_refuse(nr, ERR_NOMEM, "no memory");
}

/* An attribute with a list of at most a rank's numbers, as a constant input. */
static bool list_as_input(struct node_reader *nr, int index, const char *name)
{
    int64_t list[2 * GRAPH_RANK_MAX];
    int n = attr_ints(nr, name, list, 2 * GRAPH_RANK_MAX, INT64_MIN, INT64_MAX);
    if (n < 0)
        return false;
    ints_as_input(nr, index, name, list, n);
    return true;
}

static int attr_float_list(struct node_reader *nr, const char *name, float *out, int max)
{
    const struct attr *a = attr_find(nr, name, ATTR_FLOATS);
    if (a == NULL)
        return -1;
    struct repeat it = repeat_of(a->message, nr->r->start, 7, WIRE_FIXED32);
    uint64_t bits;
    int n = 0, rc;
    while ((rc = repeat_next(&it, &bits, nr->e)) > 0) {
        if (n == max) {
            attr_refuse(nr, ERR_LIMIT, "attribute '%s' has more than %d numbers", name, max);
            return -1;
        }
        uint32_t low = (uint32_t)bits;
        memcpy(&out[n++], &low, sizeof low);
    }
    if (rc < 0)
        nr->rc = rc;
    return rc < 0 ? -1 : n;
}

static const char *const auto_pads[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", NULL};

/* kernel_shape, strides, dilations, pads. Lists have one, two or three dimensions; two it must be.
 */
static void read_window(struct node_reader *nr, int64_t *kernel, int64_t *stride, int64_t *dilation,
                        int64_t *begin, int64_t *end, enum auto_pad *auto_pad, int *rank)
{
    static const char *const lists[] = {"kernel_shape", "strides", "dilations"};
    int64_t *const targets[] = {kernel, stride, dilation};
    *rank = 0;
    for (int i = 0; i < 3; i++) {
        int64_t list[GRAPH_RANK_MAX];
        targets[i][0] = targets[i][1] = i == 0 ? 0 : 1;
        int n = attr_ints(nr, lists[i], list, GRAPH_RANK_MAX, 1, ONNX_WINDOW_MAX);
        if (n < 0)
            continue;
        if (n != 2) {
            attr_refuse(nr, ERR_UNSUPPORTED,
                        "attribute '%s' has %d numbers: only two spatial dimensions are supported",
                        lists[i], n);
            return;
        }
        *rank = 2;
        targets[i][0] = list[0];
        targets[i][1] = list[1];
    }
    int64_t pads[2 * GRAPH_RANK_MAX] = {0};
    int n = attr_ints(nr, "pads", pads, 2 * GRAPH_RANK_MAX, 0, ONNX_WINDOW_MAX);
    if (n >= 0 && n != 4) {
        attr_refuse(nr, ERR_UNSUPPORTED,
                    "attribute 'pads' has %d numbers: only two spatial dimensions are supported",
                    n);
        return;
    }
    *auto_pad = (enum auto_pad)attr_word(nr, "auto_pad", auto_pads);
    if (n == 4) {
        *rank = 2;
        if (*auto_pad != AUTO_PAD_NOTSET && (pads[0] || pads[1] || pads[2] || pads[3]))
            attr_refuse(nr, ERR_INVALID, "attributes 'pads' and 'auto_pad' contradict each other");
        begin[0] = pads[0];
        begin[1] = pads[1];
        end[0] = pads[2];
        end[1] = pads[3];
    }
}

/* --- one reader per operator ------------------------------------------------------------------ */

static void read_none(struct node_reader *nr)
{
    (void)nr;
}

static void read_conv(struct node_reader *nr)
{
    struct conv_attr *a = &nr->n->conv;
    read_window(nr, a->kernel, a->stride, a->dilation, a->pad_begin, a->pad_end, &a->auto_pad,
                &a->rank);
    a->group = attr_int(nr, "group", 1, 1, ONNX_WINDOW_MAX);
}

static void read_conv_transpose(struct node_reader *nr)
{
    struct conv_attr *a = &nr->n->conv;
    read_conv(nr);
    int64_t list[GRAPH_RANK_MAX];
    int n = attr_ints(nr, "output_padding", list, GRAPH_RANK_MAX, 0, ONNX_WINDOW_MAX);
    if (n == 2) {
        a->output_padding[0] = list[0];
        a->output_padding[1] = list[1];
    }
    int m = attr_ints(nr, "output_shape", list, GRAPH_RANK_MAX, 1, ONNX_DIM_MAX);
    if (m == 2) {
        a->output_shape[0] = list[0];
        a->output_shape[1] = list[1];
    }
    if ((n >= 0 && n != 2) || (m >= 0 && m != 2))
        attr_refuse(nr, ERR_UNSUPPORTED, "only two spatial dimensions are supported");
}

static void read_pool(struct node_reader *nr)
{
    struct pool_attr *a = &nr->n->pool;
    read_window(nr, a->kernel, a->stride, a->dilation, a->pad_begin, a->pad_end, &a->auto_pad,
                &a->rank);
    a->ceil_mode = attr_int(nr, "ceil_mode", 0, 0, 1) != 0;
    if (nr->n->op == OP_AVERAGE_POOL)
        a->count_include_pad = attr_int(nr, "count_include_pad", 0, 0, 1) != 0;
    else
        attr_int(nr, "storage_order", 0, 0, 1); /* concerns the indices only, which are refused */
    if (a->kernel[0] == 0)
        attr_refuse(nr, ERR_INVALID, "attribute 'kernel_shape' is missing");
}

static void read_batch_norm(struct node_reader *nr)
{
    nr->n->norm.epsilon = (double)attr_float(nr, "epsilon", 1e-5f);
    attr_float(nr, "momentum", 0.9f);
    if (nr->opset < 9)
        attr_int(nr, "spatial", 1, 1, 1);
    if (nr->opset >= 14)
        nr->n->norm.training = attr_int(nr, "training_mode", 0, 0, 1) != 0;
    if (nr->n->norm.epsilon < 0)
        attr_refuse(nr, ERR_INVALID, "attribute 'epsilon' is negative");
}

static void read_instance_norm(struct node_reader *nr)
{
    nr->n->norm.epsilon = (double)attr_float(nr, "epsilon", 1e-5f);
    if (nr->n->norm.epsilon < 0)
        attr_refuse(nr, ERR_INVALID, "attribute 'epsilon' is negative");
}

static void read_relu(struct node_reader *nr)
{
    nr->n->act.kind = ACT_RELU;
}
static void read_leaky_relu(struct node_reader *nr)
{
    nr->n->act.kind = ACT_LEAKY_RELU;
    nr->n->act.alpha = attr_float(nr, "alpha", 0.01f);
}
static void read_tanh(struct node_reader *nr)
{
    nr->n->act.kind = ACT_TANH;
}
static void read_sigmoid(struct node_reader *nr)
{
    nr->n->act.kind = ACT_SIGMOID;
}

static void read_clip_6(struct node_reader *nr)
{
    float lo = attr_float(nr, "min", -FLT_MAX), hi = attr_float(nr, "max", FLT_MAX);
    floats_as_input(nr, 1, "min", 0, &lo, 1);
    floats_as_input(nr, 2, "max", 0, &hi, 1);
}

static void read_concat(struct node_reader *nr)
{
    if (attr_find(nr, "axis", ATTR_INT) == NULL)
        attr_refuse(nr, ERR_INVALID, "attribute 'axis' is missing");
    nr->n->axis = (int)attr_int(nr, "axis", 0, -GRAPH_RANK_MAX, GRAPH_RANK_MAX - 1);
}

static void read_gather(struct node_reader *nr)
{
    nr->n->gather.axis = (int)attr_int(nr, "axis", 0, -GRAPH_RANK_MAX, GRAPH_RANK_MAX - 1);
}

static void read_flatten(struct node_reader *nr)
{
    nr->n->axis = (int)attr_int(nr, "axis", 1, -GRAPH_RANK_MAX, GRAPH_RANK_MAX);
}

static void read_split(struct node_reader *nr)
{
    nr->n->axis = (int)attr_int(nr, "axis", 0, -GRAPH_RANK_MAX, GRAPH_RANK_MAX - 1);
    if (nr->opset < 13) {
        int64_t sizes[256];
        int n = attr_ints(nr, "split", sizes, 256, 0, ONNX_DIM_MAX);
        if (n >= 0)
            ints_as_input(nr, 1, "split", sizes, n);
    }
    if (nr->opset >= 18) {
        int64_t n = attr_int(nr, "num_outputs", nr->n->n_out, 1, ONNX_EDGES_MAX);
        if (n != nr->n->n_out)
            attr_refuse(nr, ERR_INVALID, "attribute 'num_outputs' is %lld for %d outputs",
                        (long long)n, nr->n->n_out);
    }
}

static void read_slice_1(struct node_reader *nr)
{
    if (!list_as_input(nr, 1, "starts") || !list_as_input(nr, 2, "ends"))
        attr_refuse(nr, ERR_INVALID, "attribute 'starts' or 'ends' is missing");
    list_as_input(nr, 3, "axes");
}

static void read_pad(struct node_reader *nr)
{
    static const char *const modes[] = {"constant", "reflect", "edge", NULL};
    nr->n->pad.mode = (enum pad_mode)attr_word(nr, "mode", modes);
    if (nr->opset < 11) {
        if (!list_as_input(nr, 1, "pads"))
            attr_refuse(nr, ERR_INVALID, "attribute 'pads' is missing");
        float value = attr_float(nr, "value", 0);
        floats_as_input(nr, 2, "value", 0, &value, 1);
    }
}

static void read_axes(struct node_reader *nr, int input_since)
{
    if (nr->opset < input_since)
        list_as_input(nr, 1, "axes");
}
static void read_squeeze(struct node_reader *nr)
{
    read_axes(nr, 13);
    if (nr->n->op == OP_UNSQUEEZE && nr->n->in[1] < 0)
        attr_refuse(nr, ERR_INVALID, "its axes are missing");
}
static void read_reduce(struct node_reader *nr)
{
    nr->n->reduce.keep_dims = attr_int(nr, "keepdims", 1, 0, 1) != 0;
    int since = nr->n->op == OP_REDUCE_SUM ? 13 : 18;
    if (nr->opset >= since)
        nr->n->reduce.noop_with_empty_axes = attr_int(nr, "noop_with_empty_axes", 0, 0, 1) != 0;
    read_axes(nr, since);
}

static const char *const resize_modes[] = {"nearest", "linear", "cubic", NULL};

/* Upsample 7 and 9, Resize 10: source coordinate out / scale. They don't say how nearest rounds;
 * the ONNX project's own case of Resize 10 and onnxruntime round up where the axis shrinks. */
static void read_upsample(struct node_reader *nr)
{
    struct resize_attr *a = &nr->n->resize;
    a->mode = (enum resize_mode)attr_word(nr, "mode", resize_modes);
    a->coord = COORD_ASYMMETRIC;
    a->nearest = NEAREST_BY_SCALE;
    a->cubic_a = -0.75f;
    if (a->mode == RESIZE_CUBIC)
        attr_refuse(nr, ERR_UNSUPPORTED, "attribute 'mode' is 'cubic', which this opset lacks");
    if (nr->opset < 9) {
        float scales[GRAPH_RANK_MAX];
        int n = attr_float_list(nr, "scales", scales, GRAPH_RANK_MAX);
        if (n < 1)
            attr_refuse(nr, ERR_INVALID, "attribute 'scales' is missing");
        else
            floats_as_input(nr, 2, "scales", 1, scales, n);
    } else {
        nr->n->in[2] = nr->n->in[1];
        nr->n->in[1] = -1;
    }
}

static void read_resize(struct node_reader *nr)
{
    static const char *const coords[] = {"half_pixel",
                                         "half_pixel_symmetric",
                                         "pytorch_half_pixel",
                                         "align_corners",
                                         "asymmetric",
                                         "tf_half_pixel_for_nn",
                                         NULL};
    static const char *const nearests[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                           "ceil", NULL};
    static const char *const policies[] = {"stretch", "not_larger", "not_smaller", NULL};
    struct resize_attr *a = &nr->n->resize;
    a->mode = (enum resize_mode)attr_word(nr, "mode", resize_modes);
    a->coord = (enum resize_coord)attr_word(nr, "coordinate_transformation_mode", coords);
    a->nearest = (enum resize_nearest)attr_word(nr, "nearest_mode", nearests);
    a->cubic_a = attr_float(nr, "cubic_coeff_a", -0.75f);
    a->exclude_outside = attr_int(nr, "exclude_outside", 0, 0, 1) != 0;
    attr_float(nr, "extrapolation_value", 0); /* for tf_crop_and_resize, which is refused */
    if (nr->opset < 18)
        return;
    a->antialias = attr_int(nr, "antialias", 0, 0, 1) != 0;
    a->policy = (enum resize_policy)attr_word(nr, "keep_aspect_ratio_policy", policies);
    int64_t axes[GRAPH_RANK_MAX];
    int n = attr_ints(nr, "axes", axes, GRAPH_RANK_MAX, -GRAPH_RANK_MAX, GRAPH_RANK_MAX - 1);
    for (int i = 0; i < n; i++)
        a->axis[i] = (int)axes[i];
    a->n_axes = n > 0 ? n : 0;
}

static void read_depth_to_space(struct node_reader *nr)
{
    static const char *const modes[] = {"DCR", "CRD", NULL};
    nr->n->depth.block = attr_int(nr, "blocksize", 0, 1, ONNX_WINDOW_MAX);
    if (nr->n->depth.block == 0)
        attr_refuse(nr, ERR_INVALID, "attribute 'blocksize' is missing");
    if (nr->opset >= 11)
        nr->n->depth.crd = attr_word(nr, "mode", modes) == 1;
}

static void read_reshape(struct node_reader *nr)
{
    if (nr->opset >= 14)
        nr->n->reshape.allow_zero = attr_int(nr, "allowzero", 0, 0, 1) != 0;
}

static void read_transpose(struct node_reader *nr)
{
    int64_t perm[GRAPH_RANK_MAX];
    int n = attr_ints(nr, "perm", perm, GRAPH_RANK_MAX, 0, GRAPH_RANK_MAX - 1);
    nr->n->transpose.given = n >= 0;
    for (int i = 0; i < n; i++)
        nr->n->transpose.perm[i] = (int)perm[i];
}

static void read_cast(struct node_reader *nr)
{
    char what[200];
    snprintf(what, sizeof what, "%s: attribute 'to'", nr->what);
    int64_t to = attr_int(nr, "to", 0, 0, INT32_MAX);
    if (nr->opset >= 19)
        attr_int(nr, "saturate", 1, 0, 1);
    if (nr->rc == 0)
        nr->rc = onnx_dtype((uint64_t)to, &nr->n->to, what, nr->e);
}

static void read_shape(struct node_reader *nr)
{
    nr->n->shape.start = 0;
    nr->n->shape.end = INT64_MAX;
    if (nr->opset >= 15) {
        nr->n->shape.start = attr_int(nr, "start", 0, INT64_MIN, INT64_MAX);
        nr->n->shape.end = attr_int(nr, "end", INT64_MAX, INT64_MIN, INT64_MAX);
    }
}

static void read_dropout(struct node_reader *nr)
{
    if (nr->opset < 12)
        attr_float(nr, "ratio", 0.5f);
    else
        attr_int(nr, "seed", 0, INT64_MIN, INT64_MAX);
}

/* The tensor of an attribute as input `index`. */
static void tensor_as_input(struct node_reader *nr, int index, const struct attr *a)
{
    enum dtype dtype;
    struct shape shape;
    const struct constant *c;
    if (nr->rc != 0)
        return;
    nr->rc = onnx_read_tensor(nr->r, a->s, nr->what, NULL, &dtype, &shape, &c, nr->e);
    if (nr->rc != 0)
        return;
    int value = constant_input(nr, index, dtype, "value");
    if (value < 0)
        return;
    nr->r->g->value[value].constant = c;
    nr->r->g->value[value].shape = shape;
}

static void read_constant_of_shape(struct node_reader *nr)
{
    const struct attr *a = attr_find(nr, "value", ATTR_TENSOR);
    if (a == NULL)
        return;
    tensor_as_input(nr, 1, a);
    if (nr->rc == 0 && shape_count(&nr->r->g->value[nr->n->in[1]].shape) != 1)
        attr_refuse(nr, ERR_INVALID, "attribute 'value' must have one element");
}

/* Becomes the Identity of a constant. */
static void read_constant(struct node_reader *nr)
{
    struct attr *a;
    if ((a = attr_find(nr, "value", ATTR_TENSOR)) != NULL) {
        tensor_as_input(nr, 0, a);
    } else if ((a = attr_find(nr, "value_float", ATTR_FLOAT)) != NULL) {
        floats_as_input(nr, 0, "value", 0, &a->f, 1);
    } else if ((a = attr_find(nr, "value_int", ATTR_INT)) != NULL) {
        int value = constant_input(nr, 0, DTYPE_I64, "value");
        if (value >= 0 && graph_set_i64(nr->r->g, value, &(struct shape){0}, &a->i) != 0)
            attr_refuse(nr, ERR_NOMEM, "no memory");
    } else if (attr_find(nr, "value_floats", ATTR_FLOATS) != NULL) {
        float list[1024];
        int n = attr_float_list(nr, "value_floats", list, 1024);
        if (n >= 0)
            floats_as_input(nr, 0, "value", 1, list, n);
    } else if (attr_find(nr, "value_ints", ATTR_INTS) != NULL) {
        int64_t list[1024];
        int n = attr_ints(nr, "value_ints", list, 1024, INT64_MIN, INT64_MAX);
        if (n >= 0)
            ints_as_input(nr, 0, "value", list, n);
    } else {
        attr_refuse(nr, ERR_UNSUPPORTED, "it has no value that is a tensor or numbers");
    }
    nr->n->op = OP_IDENTITY;
}

/* --- the table -------------------------------------------------------------------------------- */

#define MANY ONNX_EDGES_MAX

static const struct op_row {
    const char *name;
    enum op op;
    int since, until; /* opsets, inclusive */
    int min_in, max_in, max_out;
    read_op *read;
} rows[] = {
    {"Conv", OP_CONV, 7, 21, 2, 3, 1, read_conv},
    {"ConvTranspose", OP_CONV_TRANSPOSE, 7, 21, 2, 3, 1, read_conv_transpose},
    {"BatchNormalization", OP_BATCH_NORM, 7, 21, 5, 5, 5, read_batch_norm},
    {"InstanceNormalization", OP_INSTANCE_NORM, 7, 21, 3, 3, 1, read_instance_norm},
    {"Relu", OP_ACT, 7, 21, 1, 1, 1, read_relu},
    {"LeakyRelu", OP_ACT, 7, 21, 1, 1, 1, read_leaky_relu},
    {"Tanh", OP_ACT, 7, 21, 1, 1, 1, read_tanh},
    {"Sigmoid", OP_ACT, 7, 21, 1, 1, 1, read_sigmoid},
    {"PRelu", OP_PRELU, 7, 21, 2, 2, 1, read_none},
    {"Clip", OP_CLIP, 7, 10, 1, 1, 1, read_clip_6},
    {"Clip", OP_CLIP, 11, 21, 1, 3, 1, read_none},
    {"Abs", OP_ABS, 7, 21, 1, 1, 1, read_none},
    {"Sqrt", OP_SQRT, 7, 21, 1, 1, 1, read_none},
    {"Neg", OP_NEG, 7, 21, 1, 1, 1, read_none},
    {"Exp", OP_EXP, 7, 21, 1, 1, 1, read_none},
    {"Reciprocal", OP_RECIPROCAL, 7, 21, 1, 1, 1, read_none},
    {"Floor", OP_FLOOR, 7, 21, 1, 1, 1, read_none},
    {"Ceil", OP_CEIL, 7, 21, 1, 1, 1, read_none},
    {"Add", OP_ADD, 7, 21, 2, 2, 1, read_none},
    {"Sub", OP_SUB, 7, 21, 2, 2, 1, read_none},
    {"Mul", OP_MUL, 7, 21, 2, 2, 1, read_none},
    {"Div", OP_DIV, 7, 21, 2, 2, 1, read_none},
    {"Pow", OP_POW, 7, 21, 2, 2, 1, read_none},
    {"Sum", OP_ADD, 8, 21, 1, MANY, 1, read_none},
    {"Max", OP_MAX, 8, 21, 1, MANY, 1, read_none},
    {"Min", OP_MIN, 8, 21, 1, MANY, 1, read_none},
    {"Concat", OP_CONCAT, 7, 21, 1, MANY, 1, read_concat},
    {"Split", OP_SPLIT, 7, 12, 1, 1, MANY, read_split},
    {"Split", OP_SPLIT, 13, 21, 1, 2, MANY, read_split},
    {"Slice", OP_SLICE, 7, 9, 1, 1, 1, read_slice_1},
    {"Slice", OP_SLICE, 10, 21, 3, 5, 1, read_none},
    {"Pad", OP_PAD, 7, 10, 1, 1, 1, read_pad},
    {"Pad", OP_PAD, 11, 17, 2, 3, 1, read_pad},
    {"Pad", OP_PAD, 18, 21, 2, 4, 1, read_pad},
    {"Upsample", OP_RESIZE, 7, 8, 1, 1, 1, read_upsample},
    {"Upsample", OP_RESIZE, 9, 9, 2, 2, 1, read_upsample},
    {"Resize", OP_RESIZE, 10, 10, 2, 2, 1, read_upsample},
    {"Resize", OP_RESIZE, 11, 21, 1, 4, 1, read_resize},
    {"DepthToSpace", OP_DEPTH_TO_SPACE, 7, 21, 1, 1, 1, read_depth_to_space},
    {"Reshape", OP_RESHAPE, 7, 21, 2, 2, 1, read_reshape},
    {"Transpose", OP_TRANSPOSE, 7, 21, 1, 1, 1, read_transpose},
    {"Flatten", OP_FLATTEN, 7, 21, 1, 1, 1, read_flatten},
    {"Squeeze", OP_SQUEEZE, 7, 12, 1, 1, 1, read_squeeze},
    {"Squeeze", OP_SQUEEZE, 13, 21, 1, 2, 1, read_squeeze},
    {"Unsqueeze", OP_UNSQUEEZE, 7, 12, 1, 1, 1, read_squeeze},
    {"Unsqueeze", OP_UNSQUEEZE, 13, 21, 2, 2, 1, read_squeeze},
    {"Identity", OP_IDENTITY, 7, 21, 1, 1, 1, read_none},
    {"Dropout", OP_DROPOUT, 7, 11, 1, 1, 2, read_dropout},
    {"Dropout", OP_DROPOUT, 12, 21, 1, 3, 2, read_dropout},
    {"Cast", OP_CAST, 7, 21, 1, 1, 1, read_cast},
    {"Constant", OP_CONSTANT, 7, 21, 0, 0, 1, read_constant},
    {"ConstantOfShape", OP_CONSTANT_OF_SHAPE, 9, 21, 1, 1, 1, read_constant_of_shape},
    {"Shape", OP_SHAPE, 7, 21, 1, 1, 1, read_shape},
    {"Size", OP_SIZE, 7, 21, 1, 1, 1, read_none},
    {"Gather", OP_GATHER, 7, 21, 2, 2, 1, read_gather},
    {"Expand", OP_EXPAND, 8, 21, 2, 2, 1, read_none},
    {"Tile", OP_TILE, 7, 21, 2, 2, 1, read_none},
    {"Range", OP_RANGE, 11, 21, 3, 3, 1, read_none},
    {"Equal", OP_EQUAL, 7, 21, 2, 2, 1, read_none},
    {"Greater", OP_GREATER, 7, 21, 2, 2, 1, read_none},
    {"Less", OP_LESS, 7, 21, 2, 2, 1, read_none},
    {"Not", OP_NOT, 7, 21, 1, 1, 1, read_none},
    {"Where", OP_WHERE, 9, 21, 3, 3, 1, read_none},
    {"ReduceMean", OP_REDUCE_MEAN, 7, 17, 1, 1, 1, read_reduce},
    {"ReduceMean", OP_REDUCE_MEAN, 18, 21, 1, 2, 1, read_reduce},
    {"ReduceSum", OP_REDUCE_SUM, 7, 12, 1, 1, 1, read_reduce},
    {"ReduceSum", OP_REDUCE_SUM, 13, 21, 1, 2, 1, read_reduce},
    {"ReduceSumSquare", OP_REDUCE_SUM_SQUARE, 7, 17, 1, 1, 1, read_reduce},
    {"ReduceSumSquare", OP_REDUCE_SUM_SQUARE, 18, 21, 1, 2, 1, read_reduce},
    {"ReduceProd", OP_REDUCE_PROD, 7, 17, 1, 1, 1, read_reduce},
    {"ReduceProd", OP_REDUCE_PROD, 18, 21, 1, 2, 1, read_reduce},
    {"AveragePool", OP_AVERAGE_POOL, 7, 21, 1, 1, 1, read_pool},
    {"MaxPool", OP_MAX_POOL, 8, 21, 1, 1, 2, read_pool},
    {"GlobalAveragePool", OP_GLOBAL_AVERAGE_POOL, 7, 21, 1, 1, 1, read_none},
};

#define ROWS (int)(sizeof rows / sizeof rows[0])

int onnx_op_find(struct span op_type, int opset)
{
    int other = ONNX_OP_UNKNOWN;
    for (int i = 0; i < ROWS; i++) {
        if (!span_is(op_type, rows[i].name))
            continue;
        if (opset >= rows[i].since && opset <= rows[i].until)
            return i;
        other = ONNX_OP_OTHER_OPSET;
    }
    return other;
}

enum op onnx_op_code(int row)
{
    return rows[row].op;
}

/* Room for the inputs in the newest form. */
int onnx_op_room(int row, int n_in)
{
    int room = 0;
    switch (rows[row].op) {
    case OP_SLICE:
        room = 5;
        break;
    case OP_PAD:
    case OP_RESIZE:
        room = 4;
        break;
    case OP_CONV:
    case OP_CONV_TRANSPOSE:
    case OP_CLIP:
        room = 3;
        break;
    case OP_SPLIT:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
    case OP_CONSTANT_OF_SHAPE:
        room = 2;
        break;
    case OP_CONSTANT:
        room = 1;
        break;
    default:
        break;
    }
    return n_in > room ? n_in : room;
}

int onnx_read_op(struct node_reader *nr, int row, int n_in, int n_out)
{
    const struct op_row *o = &rows[row];
    if (n_in < o->min_in || n_in > o->max_in)
        return attr_refuse(nr, ERR_INVALID, "has %d inputs, must have %d to %d", n_in, o->min_in,
                           o->max_in);
    if (n_out < 1 || n_out > o->max_out)
        return attr_refuse(nr, ERR_INVALID, "has %d outputs, must have 1 to %d", n_out, o->max_out);
    for (int i = 0; i < o->min_in; i++)
        if (nr->n->in[i] < 0 && !(o->op == OP_RESIZE && i > 0))
            return attr_refuse(nr, ERR_INVALID, "input %d is missing", i + 1);
    o->read(nr);
    for (int i = 0; nr->rc == 0 && i < nr->n_attr; i++)
        if (!nr->attr[i].used) {
            char shown[64];
            attr_refuse(nr, ERR_UNSUPPORTED, "attribute '%s' is not known in opset %d",
                        onnx_printable(nr->attr[i].name, shown, sizeof shown), nr->opset);
        }
    return nr->rc;
}
