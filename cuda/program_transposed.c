/*
 * program_transposed.c - ConvTranspose as a cuDNN forward convolution
 *
 * A transposed convolution of stride s and kernel k is one convolution of ceil(k/s)² taps and
 * stride 1 that computes all s² phases of the output as channels, and the interleave kernel (or the
 * export, at the end), which also adds bias and activation. Groups, dilated ones and odd paddings
 * go through the direct kernel.
 */
#include <stdlib.h>

#include "cuda/program_build.h"
#include "cuda/program_weights.h"

/* Lanes of a phase where they need not be octets: the export reads one by one. */
#define NARROW_LANES 4

int build_interleave(struct build *b, const struct node *n, const struct build_tensor *y,
                     const struct build_rest *rest, struct kernel_act_args act)
{
    const struct shape *s = &b->g->value[n->out[0]].shape;
    struct build_tensor *out;
    int rc = build_write(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {.interleave_ = {.in = {NULL, b->half},
                                           .out = {NULL, b->half},
                                           .octets = (int32_t)out->octets,
                                           .in_height = (int32_t)rest->height,
                                           .in_width = (int32_t)rest->width,
                                           .in_pitch = (int32_t)y->pitch,
                                           .out_height = (int32_t)s->dim[2],
                                           .out_width = (int32_t)s->dim[3],
                                           .out_pitch = (int32_t)out->pitch,
                                           .stride_y = (int32_t)rest->stride[0],
                                           .stride_x = (int32_t)rest->stride[1],
                                           .pad_y = (int32_t)rest->pad[0],
                                           .pad_x = (int32_t)rest->pad[1],
                                           .act = act}};
    rc = build_map(b, interleave, &a, s->dim[0] * rest->height * rest->width * out->octets,
                   build_place(b, y), build_place(b, out));
    if (rc == 0)
        build_point(b, FIELD(interleave, bias), rest->bias);
    return rc;
}

/* The convolution that computes the phases, false: there is none. rest: how they become rows and
 * columns. more: zeros that the input needs behind its last row and column. */
static bool as_phases(const struct build *b, const struct node *n, struct convolution_spec *spec,
                      struct build_rest *rest, int64_t more[2])
{
    const struct conv_attr *c = &n->conv;
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    int64_t q[2];
    bool possible = c->group == 1 && c->dilation[0] == 1 && c->dilation[1] == 1 &&
                    c->pad_begin[0] >= 0 && c->pad_begin[1] >= 0;
    *spec = (struct convolution_spec){.n = xs->dim[0],
                                      .c = build_round8(xs->dim[1]),
                                      .h = xs->dim[2],
                                      .w = xs->dim[3],
                                      .stride = {1, 1},
                                      .dilation = {1, 1},
                                      .half = b->half,
                                      .tf32 = b->tf32};
    for (int d = 0; possible && d < 2; d++) {
        /* Output rows y + pad = q·stride + phase; q from skip, q[d] of them. */
        int64_t taps = (c->kernel[d] + c->stride[d] - 1) / c->stride[d];
        int64_t skip = c->pad_begin[d] / c->stride[d];
        q[d] = (ys->dim[2 + d] - 1 + c->pad_begin[d]) / c->stride[d] + 1 - skip;
        spec->kernel[d] = taps;
        spec->pad_begin[d] = spec->pad_end[d] = taps - 1 - skip;
        int64_t pad_end = q[d] - xs->dim[2 + d] + taps - 1 - spec->pad_begin[d];
        if (pad_end < spec->pad_begin[d]) { /* rows that nobody reads, for symmetry */
            q[d] += spec->pad_begin[d] - pad_end;
            pad_end = spec->pad_begin[d];
        }
        more[d] = pad_end - spec->pad_begin[d]; /* output_padding beyond */
        rest->stride[d] = c->stride[d];
        rest->pad[d] = c->pad_begin[d] - skip * c->stride[d];
        possible = spec->pad_begin[d] >= 0;
    }
    if (!possible)
        return false;
    spec->oh = rest->height = q[0];
    spec->ow = rest->width = q[1];
    return true;
}

int build_conv_transpose(struct build *b, const struct node *n)
{
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct build_rest rest = build_nothing_left(ys);
    struct convolution_spec spec;
    int64_t more[2], no_pad[2] = {0, 0};
    if (!as_phases(b, n, &spec, &rest, more))
        return build_direct(b, n, true);

    struct build_tensor *in, x, y;
    struct place weights;
    struct weight_source source;
    const struct node *act = n->act.kind == ACT_NONE ? build_act_of(b, n->out[0]) : NULL;
    bool last = build_is_last(b, act ? act->out[0] : n->out[0]);
    int id = 0, rc = build_read(b, n->in[0], &in);
    if (rc == 0 && build_has_bias(n))
        rc = build_table(b, n->in[2], ys->dim[1], &rest.bias);
    if (rc == 0)
        rc = weights_load(b, n, true, &source);
    if (rc != 0)
        return rc;
    for (int d = 0; d < 2; d++)
        source.stride[d] = n->conv.stride[d];
    if (last && ys->dim[1] <= NARROW_LANES)
        source.lanes = NARROW_LANES;
    rest.lanes = source.lanes;
    spec.k = build_round8(source.lanes * n->conv.stride[0] * n->conv.stride[1]);
    rc = build_packed(b, xs, in, no_pad, more, &x);
    spec.h += more[0];
    spec.w += more[1];
    if (rc == 0)
        id = build_find_convolution(b, &spec);
    rc = id < 0 ? id : rc;
    if (rc == 0)
        rc = weights_store(b, &source, &spec, &weights);
    free(source.w);
    if (rc == 0)
        rc = build_temporary(b, spec.n, spec.oh * spec.ow, spec.k, &y);
    if (rc == 0)
        rc = build_convolve(b, id,
                            &(struct build_convolved){
                                .x = build_place(b, &x), .w = weights, .y = build_place(b, &y)});
    if (rc != 0)
        return rc;
    if (last) {
        rest.act = build_act(&n->act);
        build_leave(b, n->out[0], act, &y, &rest);
        return 0;
    }
    return build_interleave(b, n, &y, &rest, build_act(&n->act));
}
