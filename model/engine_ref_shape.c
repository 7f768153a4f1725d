/* engine_ref_shape.c - operators that move elements: Concat, Split, Slice, Pad, Resize, Transpose
 * ... */
#include "model/engine_ref.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/resample.h"

void ref_strides(const struct shape *s, int64_t stride[GRAPH_RANK_MAX])
{
    int64_t step = 1;
    for (int i = s->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= s->dim[i];
    }
}

bool ref_next(const struct shape *s, int64_t at[GRAPH_RANK_MAX])
{
    for (int i = s->rank - 1; i >= 0; i--) {
        if (++at[i] < s->dim[i])
            return true;
        at[i] = 0;
    }
    return false;
}

/* Products of the dimensions before and after an axis. */
static void around(const struct shape *s, int axis, int64_t *outer, int64_t *inner)
{
    *outer = *inner = 1;
    for (int i = 0; i < axis; i++)
        *outer *= s->dim[i];
    for (int i = axis + 1; i < s->rank; i++)
        *inner *= s->dim[i];
}

void ref_concat(const struct node *n, const struct tensor *const *in, struct tensor *y)
{
    int64_t outer, inner, done = 0, row;
    around(&y->shape, n->axis, &outer, &inner);
    row = y->shape.dim[n->axis] * inner;
    for (int k = 0; k < n->n_in; k++) {
        int64_t part = in[k]->shape.dim[n->axis] * inner;
        for (int64_t o = 0; o < outer && part > 0; o++)
            memcpy(y->data + o * row + done, in[k]->data + o * part, (size_t)part * sizeof(double));
        done += part;
    }
}

void ref_split(const struct node *n, const struct tensor *x, struct tensor *const *out)
{
    int64_t outer, inner, done = 0, row;
    around(&x->shape, n->axis, &outer, &inner);
    row = x->shape.dim[n->axis] * inner;
    for (int k = 0; k < n->n_out; k++) {
        if (out[k] == NULL)
            continue;
        int64_t part = out[k]->shape.dim[n->axis] * inner;
        for (int64_t o = 0; o < outer && part > 0; o++)
            memcpy(out[k]->data + o * part, x->data + o * row + done,
                   (size_t)part * sizeof(double));
        done += part;
    }
}

/* y[at] = x[start + at·step] */
void ref_slice(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t stride[GRAPH_RANK_MAX], at[GRAPH_RANK_MAX] = {0}, count = shape_count(&y->shape);
    ref_strides(&x->shape, stride);
    for (int64_t i = 0; i < count; i++, ref_next(&y->shape, at)) {
        int64_t from = 0;
        for (int d = 0; d < x->shape.rank; d++)
            from += (n->slice.start[d] + at[d] * n->slice.step[d]) * stride[d];
        y->data[i] = x->data[from];
    }
}

/* y[at] = x[at − begin], mirrored without repeating the border, or the border repeated */
void ref_pad(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t stride[GRAPH_RANK_MAX], at[GRAPH_RANK_MAX] = {0}, count = shape_count(&y->shape);
    ref_strides(&x->shape, stride);
    for (int64_t i = 0; i < count; i++, ref_next(&y->shape, at)) {
        int64_t from = 0;
        bool outside = false;
        for (int d = 0; d < x->shape.rank; d++) {
            int64_t p = at[d] - n->pad.begin[d], size = x->shape.dim[d];
            if (p < 0 || p >= size) {
                if (n->pad.mode == PAD_REFLECT)
                    p = p < 0 ? -p : 2 * (size - 1) - p;
                else if (n->pad.mode == PAD_EDGE)
                    p = p < 0 ? 0 : size - 1;
                else
                    outside = true;
            }
            from += p * stride[d];
        }
        y->data[i] = outside ? (double)n->pad.value : x->data[from];
    }
}

/* One axis after the other, those that shrink first, so that nothing between is larger than the
 * input or the output; an axis that does not change is left alone. */
int ref_resize(const struct node *n, const struct tensor *x, struct tensor *y, struct err *e)
{
    struct shape shape = x->shape;
    const double *from = x->data;
    double *owned = NULL;
    int rc = 0;
    for (int i = 0; i < 2 * x->shape.rank && rc == 0; i++) {
        int axis = i % x->shape.rank;
        int64_t in = shape.dim[axis], out = y->shape.dim[axis], outer, inner;
        bool grows = out > x->shape.dim[axis], second = i >= x->shape.rank;
        if (grows != second || (in == out && n->resize.scale[axis] == 1))
            continue;
        struct resample taps;
        if ((rc = resample_init(&taps, &n->resize, axis, in, out, e)) != 0)
            break;
        around(&shape, axis, &outer, &inner);
        double *to = calloc((size_t)(outer * out * inner), sizeof *to);
        if (to == NULL)
            rc = err_set(e, ERR_NOMEM, "no memory to resize");
        for (int64_t o = 0; rc == 0 && o < outer; o++)
            for (int64_t j = 0; j < out; j++)
                for (int t = 0; t < taps.taps; t++) {
                    double w = taps.weight[j * taps.taps + t];
                    const double *row = from + (o * in + taps.index[j * taps.taps + t]) * inner;
                    for (int64_t k = 0; k < inner; k++)
                        to[(o * out + j) * inner + k] += w * row[k];
                }
        resample_fini(&taps);
        free(owned);
        from = owned = to;
        shape.dim[axis] = out;
    }
    if (rc == 0)
        memcpy(y->data, from, (size_t)shape_count(&y->shape) * sizeof(double));
    free(owned);
    return rc;
}

/* X [N, C, H, W] → Y [N, C/(b·b), H·b, W·b]; channel of (c, i, j): DCR (i·b + j)·C' + c,
 * CRD c·b·b + i·b + j */
void ref_depth_to_space(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t b = n->depth.block, H = x->shape.dim[2], W = x->shape.dim[3];
    int64_t N = y->shape.dim[0], C = y->shape.dim[1], P = y->shape.dim[2], Q = y->shape.dim[3];
    for (int64_t k = 0; k < N; k++)
        for (int64_t c = 0; c < C; c++)
            for (int64_t p = 0; p < P; p++)
                for (int64_t q = 0; q < Q; q++) {
                    int64_t phase = p % b * b + q % b;
                    int64_t from = n->depth.crd ? c * b * b + phase : phase * C + c;
                    y->data[((k * C + c) * P + p) * Q + q] =
                        x->data[((k * C * b * b + from) * H + p / b) * W + q / b];
                }
}

void ref_transpose(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t stride[GRAPH_RANK_MAX], at[GRAPH_RANK_MAX] = {0}, count = shape_count(&y->shape);
    ref_strides(&x->shape, stride);
    for (int64_t i = 0; i < count; i++, ref_next(&y->shape, at)) {
        int64_t from = 0;
        for (int d = 0; d < y->shape.rank; d++)
            from += at[d] * stride[n->transpose.perm[d]];
        y->data[i] = x->data[from];
    }
}

/* x [outer, size, inner], indices [k] → y [outer, k, inner] */
void ref_gather(const struct node *n, const struct tensor *x, struct tensor *y)
{
    int64_t outer, inner, size = x->shape.dim[n->gather.axis];
    around(&x->shape, n->gather.axis, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < n->gather.n_index; k++)
            memcpy(y->data + (o * n->gather.n_index + k) * inner,
                   x->data + (o * size + n->gather.index[k]) * inner,
                   (size_t)inner * sizeof(double));
}
