/* engine_ref_op.c - elementwise reference operators, and the choice among all of them */
#include "model/engine_ref.h"

#include <math.h>
#include <string.h>

#include "node/base/err.h"

double ref_act(const struct act *a, double x)
{
    switch (a->kind) {
    case ACT_NONE:
        return x;
    case ACT_RELU:
        return x < 0 ? 0 : x;
    case ACT_LEAKY_RELU:
        return x < 0 ? (double)a->alpha * x : x;
    case ACT_TANH:
        return tanh(x);
    case ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACT_CLIP:
        x = x < (double)a->lo ? (double)a->lo : x;
        return x > (double)a->hi ? (double)a->hi : x;
    }
    return x;
}

static double cast(enum dtype to, double x)
{
    /* Integers of C's own conversions; out of range they wrap as NumPy's do on x86. */
    int64_t i = isnan(x) ? 0 : x >= 9.2e18 ? INT64_MAX : x <= -9.2e18 ? INT64_MIN : (int64_t)x;
    switch (to) {
    case DTYPE_F32:
        return (double)(float)x;
    case DTYPE_I64:
        return (double)i;
    case DTYPE_I32:
        return (double)(int32_t)i;
    case DTYPE_U8:
        return (double)(uint8_t)i;
    case DTYPE_BOOL:
        return x != 0;
    }
    return x;
}

static void unary(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t count = shape_count(&x->shape);
    for (int64_t i = 0; i < count; i++) {
        double v = x->data[i], r = v;
        switch (n->op) {
        case OP_ACT:
            r = ref_act(&n->act, v);
            break;
        case OP_ABS:
            r = fabs(v);
            break;
        case OP_SQRT:
            r = sqrt(v);
            break;
        case OP_NEG:
            r = -v;
            break;
        case OP_EXP:
            r = exp(v);
            break;
        case OP_FLOOR:
            r = floor(v);
            break;
        case OP_CEIL:
            r = ceil(v);
            break;
        case OP_NOT:
            r = v == 0;
            break;
        case OP_CAST:
            r = cast(n->to, v);
            break;
        default: /* Reshape */
            break;
        }
        y->data[i] = r;
    }
}

static int divide(const struct tensor *y, double a, double b, double *out, struct err *e)
{
    if (dtype_is_integer(y->dtype)) {
        if (b == 0)
            return err_set(e, ERR_INVALID, "it divides an integer by zero");
        *out = trunc(a / b);
        return 0;
    }
    *out = a / b;
    return 0;
}

static int binary(const struct node *n, double a, double b, const struct tensor *y, double *out,
                  struct err *e)
{
    switch (n->op) {
    case OP_ADD:
        *out = a + b;
        return 0;
    case OP_SUB:
        *out = a - b;
        return 0;
    case OP_MUL:
        *out = a * b;
        return 0;
    case OP_DIV:
        return divide(y, a, b, out, e);
    case OP_POW:
        *out = pow(a, b);
        return 0;
    case OP_MAX:
        *out = a > b || isnan(a) ? a : b;
        return 0;
    case OP_MIN:
        *out = a < b || isnan(a) ? a : b;
        return 0;
    case OP_PRELU:
        *out = a < 0 ? a * b : a;
        return 0;
    case OP_EQUAL:
        *out = a == b;
        return 0;
    case OP_GREATER:
        *out = a > b;
        return 0;
    case OP_LESS:
        *out = a < b;
        return 0;
    default: /* Expand */
        *out = a;
        return 0;
    }
}

/* Steps of an operand along the output's axes; 0 where it is broadcast. */
static void broadcast_strides(const struct shape *from, const struct shape *to,
                              int64_t stride[GRAPH_RANK_MAX])
{
    int64_t own[GRAPH_RANK_MAX];
    ref_strides(from, own);
    for (int i = 0; i < to->rank; i++) {
        int j = i - (to->rank - from->rank);
        stride[i] = j < 0 || from->dim[j] == 1 ? 0 : own[j];
    }
}

static int broadcast(const struct node *n, const struct tensor *const *in, struct tensor *y,
                     struct err *e)
{
    int64_t stride[3][GRAPH_RANK_MAX], at[GRAPH_RANK_MAX] = {0}, count = shape_count(&y->shape);
    int operands = n->op == OP_WHERE ? 3 : n->op == OP_EXPAND ? 1 : 2, rc = 0;
    for (int k = 0; k < operands; k++)
        broadcast_strides(&in[k]->shape, &y->shape, stride[k]);
    for (int64_t i = 0; i < count && rc == 0; i++, ref_next(&y->shape, at)) {
        double v[3] = {0};
        for (int k = 0; k < operands; k++) {
            int64_t from = 0;
            for (int d = 0; d < y->shape.rank; d++)
                from += at[d] * stride[k][d];
            v[k] = in[k]->data[from];
        }
        if (n->op == OP_WHERE)
            y->data[i] = v[0] != 0 ? v[1] : v[2];
        else
            rc = binary(n, v[0], v[1], y, &y->data[i], e);
    }
    return rc;
}

/* y = act(x·S[c] + T[c]) */
static void affine(const struct node *n, const struct tensor *const *in, struct tensor *y)
{
    int64_t C = in[0]->shape.dim[1], planes = in[0]->shape.dim[0] * C;
    int64_t size = shape_count(&in[0]->shape) / planes;
    for (int64_t b = 0; b < planes; b++)
        for (int64_t i = 0; i < size; i++)
            y->data[b * size + i] = ref_act(
                &n->act, in[0]->data[b * size + i] * in[1]->data[b % C] + in[2]->data[b % C]);
}

int ref_eval(const struct node *n, const struct tensor *const *in, struct tensor *const *out,
             struct err *e)
{
    struct tensor *y = out[0];
    switch (n->op) {
    case OP_CONV:
        ref_conv(n, in, y);
        return 0;
    case OP_CONV_TRANSPOSE:
        ref_conv_transpose(n, in, y);
        return 0;
    case OP_AFFINE:
        affine(n, in, y);
        return 0;
    case OP_INSTANCE_NORM:
        ref_instance_norm(n, in, y);
        return 0;
    case OP_ACT:
    case OP_ABS:
    case OP_SQRT:
    case OP_NEG:
    case OP_EXP:
    case OP_RESHAPE:
    case OP_FLOOR:
    case OP_CEIL:
    case OP_NOT:
    case OP_CAST:
        unary(n, in[0], y);
        return 0;
    case OP_PRELU:
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
    case OP_EXPAND:
    case OP_WHERE:
        return broadcast(n, in, y, e);
    case OP_CONCAT:
        ref_concat(n, in, y);
        return 0;
    case OP_SPLIT:
        ref_split(n, in[0], out);
        return 0;
    case OP_SLICE:
        ref_slice(n, in[0], y);
        return 0;
    case OP_PAD:
        ref_pad(n, in[0], y);
        return 0;
    case OP_RESIZE:
        return ref_resize(n, in[0], y, e);
    case OP_DEPTH_TO_SPACE:
        ref_depth_to_space(n, in[0], y);
        return 0;
    case OP_TRANSPOSE:
        ref_transpose(n, in[0], y);
        return 0;
    case OP_GATHER:
        ref_gather(n, in[0], y);
        return 0;
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        ref_reduce(n, in[0], y);
        return 0;
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        ref_pool(n, in[0], y);
        return 0;
    default:
        return err_set(e, ERR_UNSUPPORTED, "%s cannot be evaluated", op_name(n->op));
    }
}
