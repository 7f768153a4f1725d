/*
 * engine_ref_conv.c - convolutions, pooling, instance norm and reductions by their definitions
 *
 * Shapes: X [N, C, H, W], Y [N, M, P, Q]. The innermost loop runs along a row so that the compiler
 * can use vectors; nothing else is done for speed.
 */
#include "model/engine_ref.h"

#include <math.h>
#include <string.h>

/* First and last+1 output position o in [0, n_out) with 0 <= o·stride + offset < n_in. */
static void valid_range(int64_t n_out, int64_t n_in, int64_t stride, int64_t offset, int64_t *first,
                        int64_t *last)
{
    *first = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    int64_t room = n_in - 1 - offset;
    *last = room < 0 ? 0 : room / stride + 1;
    if (*last > n_out)
        *last = n_out;
    if (*first > *last)
        *first = *last;
}

/* Y[n,m,p,q] = act(B[m] + sum over c,i,j of W[m,c,i,j] · X[n, g·C/G+c, p·s−pad+i·d, ...]) */
void ref_conv(const struct node *n, const struct tensor *const *in, struct tensor *y)
{
    const struct conv_attr *a = &n->conv;
    const int64_t *xd = in[0]->shape.dim, *wd = in[1]->shape.dim, *yd = y->shape.dim;
    int64_t C = xd[1], H = xd[2], W = xd[3], M = yd[1], P = yd[2], Q = yd[3];
    int64_t group_in = wd[1], group_out = M / a->group;
    for (int64_t b = 0; b < xd[0]; b++)
        for (int64_t m = 0; m < M; m++) {
            double *plane = y->data + (b * M + m) * P * Q;
            double bias = in[2] ? in[2]->data[m] : 0;
            for (int64_t i = 0; i < P * Q; i++)
                plane[i] = bias;
            int64_t first_c = m / group_out * group_in;
            for (int64_t c = 0; c < group_in; c++)
                for (int64_t i = 0; i < wd[2]; i++)
                    for (int64_t j = 0; j < wd[3]; j++) {
                        double w = in[1]->data[((m * group_in + c) * wd[2] + i) * wd[3] + j];
                        const double *x = in[0]->data + (b * C + first_c + c) * H * W;
                        int64_t dy = i * a->dilation[0] - a->pad_begin[0];
                        int64_t dx = j * a->dilation[1] - a->pad_begin[1];
                        int64_t p0, p1, q0, q1;
                        valid_range(P, H, a->stride[0], dy, &p0, &p1);
                        valid_range(Q, W, a->stride[1], dx, &q0, &q1);
                        for (int64_t p = p0; p < p1; p++) {
                            const double *row = x + (p * a->stride[0] + dy) * W + dx;
                            double *out = plane + p * Q;
                            for (int64_t q = q0; q < q1; q++)
                                out[q] += w * row[q * a->stride[1]];
                        }
                    }
            for (int64_t i = 0; i < P * Q; i++)
                plane[i] = ref_act(&n->act, plane[i]);
        }
}

/* Y[n,m,h·s−pad+i·d, ...] += W[c,m,i,j] · X[n,c,h,w]; then bias and activation */
void ref_conv_transpose(const struct node *n, const struct tensor *const *in, struct tensor *y)
{
    const struct conv_attr *a = &n->conv;
    const int64_t *xd = in[0]->shape.dim, *wd = in[1]->shape.dim, *yd = y->shape.dim;
    int64_t C = xd[1], H = xd[2], W = xd[3], M = yd[1], P = yd[2], Q = yd[3];
    int64_t group_in = C / a->group, group_out = wd[1];
    for (int64_t b = 0; b < xd[0]; b++)
        for (int64_t m = 0; m < M; m++) {
            double *plane = y->data + (b * M + m) * P * Q;
            double bias = in[2] ? in[2]->data[m] : 0;
            for (int64_t i = 0; i < P * Q; i++)
                plane[i] = bias;
            int64_t first_c = m / group_out * group_in;
            for (int64_t c = first_c; c < first_c + group_in; c++)
                for (int64_t i = 0; i < wd[2]; i++)
                    for (int64_t j = 0; j < wd[3]; j++) {
                        double w =
                            in[1]->data[((c * group_out + m % group_out) * wd[2] + i) * wd[3] + j];
                        const double *x = in[0]->data + (b * C + c) * H * W;
                        int64_t dy = i * a->dilation[0] - a->pad_begin[0];
                        int64_t dx = j * a->dilation[1] - a->pad_begin[1];
                        int64_t h0, h1, w0, w1;
                        valid_range(H, P, a->stride[0], dy, &h0, &h1);
                        valid_range(W, Q, a->stride[1], dx, &w0, &w1);
                        for (int64_t h = h0; h < h1; h++) {
                            double *out = plane + (h * a->stride[0] + dy) * Q + dx;
                            for (int64_t v = w0; v < w1; v++)
                                out[v * a->stride[1]] += w * x[h * W + v];
                        }
                    }
            for (int64_t i = 0; i < P * Q; i++)
                plane[i] = ref_act(&n->act, plane[i]);
        }
}

/* Average: the divisor counts the taps inside the input, or with count_include_pad those inside the
 * padded input (not those that ceil_mode adds beyond it). */
void ref_pool(const struct node *n, const struct tensor *x, struct tensor *y)
{
    const struct pool_attr *a = &n->pool;
    bool max = n->op == OP_MAX_POOL;
    int64_t planes = x->shape.dim[0] * x->shape.dim[1], H = x->shape.dim[2], W = x->shape.dim[3];
    int64_t P = y->shape.dim[2], Q = y->shape.dim[3];
    for (int64_t b = 0; b < planes; b++)
        for (int64_t p = 0; p < P; p++)
            for (int64_t q = 0; q < Q; q++) {
                double best = -INFINITY, sum = 0;
                /* only taps that meet the input: a window may be far larger */
                int64_t i0 = pool_taps(a, 0, p, 0), i1 = pool_taps(a, 0, p, H);
                int64_t j0 = pool_taps(a, 1, q, 0), j1 = pool_taps(a, 1, q, W);
                for (int64_t i = i0; i < i1; i++)
                    for (int64_t j = j0; j < j1; j++) {
                        int64_t h = p * a->stride[0] - a->pad_begin[0] + i * a->dilation[0];
                        int64_t w = q * a->stride[1] - a->pad_begin[1] + j * a->dilation[1];
                        double v = x->data[(b * H + h) * W + w];
                        sum += v;
                        if (v > best)
                            best = v;
                    }
                int64_t inside = (i1 - i0) * (j1 - j0);
                int64_t padded =
                    pool_taps(a, 0, p, H + a->pad_end[0]) * pool_taps(a, 1, q, W + a->pad_end[1]);
                int64_t count = a->count_include_pad ? padded : inside;
                y->data[(b * P + p) * Q + q] = max ? best : count ? sum / (double)count : 0;
            }
}

/* Y = act(S[c]·(X − mean)/sqrt(var + epsilon) + B[c]), mean and var over one sample's channel */
void ref_instance_norm(const struct node *n, const struct tensor *const *in, struct tensor *y)
{
    const struct tensor *x = in[0];
    int64_t C = x->shape.dim[1], planes = x->shape.dim[0] * C,
            size = shape_count(&x->shape) / planes;
    for (int64_t b = 0; b < planes; b++) {
        const double *from = x->data + b * size;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < size; i++)
            mean += from[i];
        mean /= (double)size;
        for (int64_t i = 0; i < size; i++)
            variance += (from[i] - mean) * (from[i] - mean);
        variance /= (double)size;
        double scale = in[1]->data[b % C] / sqrt(variance + n->norm.epsilon);
        double shift = in[2]->data[b % C];
        for (int64_t i = 0; i < size; i++)
            y->data[b * size + i] = ref_act(&n->act, (from[i] - mean) * scale + shift);
    }
}

void ref_reduce(const struct node *n, const struct tensor *x, struct tensor *y)
{
    bool reduced[GRAPH_RANK_MAX] = {false};
    for (int i = 0; i < n->reduce.n; i++)
        reduced[n->reduce.axis[i]] = true;
    /* Steps of the output along the input's axes: 0 along those that vanish. */
    int64_t step[GRAPH_RANK_MAX] = {0}, size = 1, count = shape_count(&x->shape);
    for (int i = x->shape.rank - 1; i >= 0; i--)
        if (!reduced[i]) {
            step[i] = size;
            size *= x->shape.dim[i];
        }
    for (int64_t i = 0; i < size; i++)
        y->data[i] = n->op == OP_REDUCE_PROD ? 1 : 0;
    int64_t at[GRAPH_RANK_MAX] = {0};
    for (int64_t i = 0; i < count; i++, ref_next(&x->shape, at)) {
        int64_t to = 0;
        for (int d = 0; d < x->shape.rank; d++)
            to += at[d] * step[d];
        double v = x->data[i];
        if (n->op == OP_REDUCE_PROD)
            y->data[to] *= v;
        else
            y->data[to] += n->op == OP_REDUCE_SUM_SQUARE ? v * v : v;
    }
    if (n->op == OP_REDUCE_MEAN)
        for (int64_t i = 0; i < size; i++) {
            y->data[i] /= (double)(count / size);
            if (dtype_is_integer(y->dtype))
                y->data[i] = trunc(y->data[i]);
        }
}
