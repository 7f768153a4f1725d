/*
 * program_convolution.c - Conv and ConvTranspose as cuDNN forward convolutions
 *
 * A transposed convolution of stride s and kernel k is one convolution of ceil(k/s)² taps and
 * stride 1 that computes all s² phases of the output as channels, and the interleave kernel, which
 * also adds bias and activation. Groups, dilated transposed ones and odd paddings go through the
 * direct kernel.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "cuda/program_build.h"
#include "node/base/err.h"

static int64_t pad8(int64_t n)
{
    return (n + OCTET - 1) / OCTET * OCTET;
}

/* Loads all weights of a node. *out to be freed. */
static int load_weights(struct build *b, int value, float **out)
{
    int64_t count = shape_count(&b->g->value[value].shape);
    if (!b->g->value[value].constant)
        return build_fail(b, "its weights are computed");
    float *w = malloc(sizeof *w * (size_t)(count + 1));
    if (!w)
        return err_set(b->e, ERR_NOMEM, "no memory for weights");
    int rc = constant_load_f32(&b->g->value[value], 0, count, w, b->e);
    if (rc != 0)
        free(w);
    else
        *out = w;
    return rc;
}

static int table_or_none(struct build *b, const struct node *n, int input, int64_t count,
                         struct place *out)
{
    *out = (struct place){REGION_NONE, 0};
    if (n->n_in <= input || n->in[input] < 0)
        return 0;
    return build_table(b, n->in[input], count, out);
}

/* x as cuDNN wants it: pixels one behind the other, symmetric padding. Copies if it is not so. */
static int packed_input(struct build *b, const struct shape *s, const struct build_tensor *in,
                        const int64_t pad_begin[2], const int64_t pad_end[2],
                        struct build_tensor *out)
{
    int64_t h = s->dim[2] + pad_begin[0] + pad_end[0], w = s->dim[3] + pad_begin[1] + pad_end[1];
    bool pad = pad_begin[0] || pad_begin[1] || pad_end[0] || pad_end[1];
    if (!pad && in->pitch == in->octets * OCTET) {
        *out = *in;
        return 0;
    }
    int rc = build_temporary(b, s->dim[0], h * w, s->dim[1], out);
    if (rc != 0)
        return rc;
    if (!pad)
        return build_affine(b, in, out, s->dim[0], h * w, &(struct build_tables){0},
                            (struct kernel_act_args){0});
    return build_pad_octets(b, in, out, s->dim[0],
                            (struct frame_args){.channels = (int32_t)s->dim[1],
                                                .in_height = (int32_t)s->dim[2],
                                                .in_width = (int32_t)s->dim[3],
                                                .out_height = (int32_t)h,
                                                .out_width = (int32_t)w,
                                                .begin_y = (int32_t)pad_begin[0],
                                                .begin_x = (int32_t)pad_begin[1],
                                                .mode = KP_CONSTANT});
}

static bool same_spec(const struct convolution_spec *a, const struct convolution_spec *b)
{
    return a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w && a->k == b->k &&
           a->oh == b->oh && a->ow == b->ow &&
           memcmp(a->kernel, b->kernel, sizeof a->kernel) == 0 &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0 &&
           memcmp(a->dilation, b->dilation, sizeof a->dilation) == 0 &&
           memcmp(a->pad_begin, b->pad_begin, sizeof a->pad_begin) == 0 &&
           memcmp(a->pad_end, b->pad_end, sizeof a->pad_end) == 0 && a->half == b->half &&
           a->tf32 == b->tf32 && a->bias == b->bias && a->relu == b->relu;
}

/* The number of the program's convolution of that spec. */
static int find_convolution(struct build *b, const struct convolution_spec *spec)
{
    struct program *p = b->p;
    for (int i = 0; i < p->n_convolutions; i++)
        if (same_spec(&p->convolution[i].spec, spec))
            return i;
    if (p->n_convolutions == p->cap_convolutions) {
        int cap = p->cap_convolutions ? p->cap_convolutions * 2 : 16;
        void *more = realloc(p->convolution, (size_t)cap * sizeof *p->convolution);
        if (!more)
            return err_set(b->e, ERR_NOMEM, "no memory for a program");
        p->convolution = more;
        p->cap_convolutions = cap;
    }
    struct program_convolution *c = &p->convolution[p->n_convolutions];
    *c = (struct program_convolution){.spec = *spec};
    int rc = p->device->ops->convolution_plan(p->device, spec, &c->plan, &c->fused,
                                              &c->workspace_bytes, b->e);
    if (rc != 0) {
        err_context(b->e, "node %s", b->g->node[b->node].name);
        return rc;
    }
    return p->n_convolutions++;
}

static int add_convolution(struct build *b, int convolution, struct place x, struct place w,
                           struct place bias, struct place y)
{
    union kernel_args none;
    memset(&none, 0, sizeof none);
    int rc = build_launch(b, KERNEL_copy, &none, 0);
    if (rc != 0)
        return rc;
    struct step *s = &b->p->step[b->p->n_steps - 1];
    s->kind = STEP_CONVOLUTION;
    s->convolution = convolution;
    s->x = x;
    s->w = w;
    s->bias = bias;
    s->y = y;
    return 0;
}

/* Stores weights as K,kh,kw,C; at(k, i, j, c) gives each. */
struct weight_source {
    const float *w;
    int64_t m, c, kernel[2], stride[2], taps[2];
    bool transposed;
};

static float weight_at(const struct weight_source *s, int64_t k, int64_t i, int64_t j, int64_t c)
{
    if (c >= s->c)
        return 0;
    if (!s->transposed)
        return k < s->m ? s->w[((k * s->c + c) * s->kernel[0] + i) * s->kernel[1] + j] : 0;
    /* channel k = phase·pad8(m) + m; convolution tap i reads input row q - (taps-1) + i, which
     * meets kernel row phase + stride·(taps-1-i) */
    int64_t m8 = pad8(s->m), phase = k / m8, m = k % m8;
    int64_t ty = phase / s->stride[1] + s->stride[0] * (s->taps[0] - 1 - i);
    int64_t tx = phase % s->stride[1] + s->stride[1] * (s->taps[1] - 1 - j);
    if (m >= s->m || ty >= s->kernel[0] || tx >= s->kernel[1])
        return 0;
    return s->w[((c * s->m + m) * s->kernel[0] + ty) * s->kernel[1] + tx];
}

static int store_weights(struct build *b, const struct weight_source *s,
                         const struct convolution_spec *spec, struct place *out)
{
    int64_t count = spec->k * spec->kernel[0] * spec->kernel[1] * spec->c, at = 0, offset = 0;
    void *image = malloc((size_t)count * (size_t)build_element_bytes(b));
    if (!image)
        return err_set(b->e, ERR_NOMEM, "no memory for weights");
    struct kernel_array to = {image, b->half};
    for (int64_t k = 0; k < spec->k; k++)
        for (int64_t i = 0; i < spec->kernel[0]; i++)
            for (int64_t j = 0; j < spec->kernel[1]; j++)
                for (int64_t c = 0; c < spec->c; c++)
                    store(to, at++, weight_at(s, k, i, j, c));
    int rc = build_weights(b, image, count * build_element_bytes(b), &offset);
    free(image);
    *out = (struct place){REGION_WEIGHTS, offset};
    return rc;
}

/* Any Conv or ConvTranspose through the direct kernel. */
static int build_direct(struct build *b, const struct node *n, bool transposed)
{
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct build_tensor *in, *out;
    struct place bias;
    float *w = NULL;
    int64_t offset;
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = build_write(b, n->out[0], &out);
    if (rc == 0)
        rc = table_or_none(b, n, 2, ys->dim[1], &bias);
    if (rc == 0)
        rc = load_weights(b, n->in[1], &w);
    if (rc == 0)
        rc = build_weights(b, w, shape_count(&b->g->value[n->in[1]].shape) * (int64_t)sizeof *w,
                           &offset);
    free(w);
    if (rc != 0)
        return rc;
    union kernel_args a = {
        .direct_ = {.in = {NULL, b->half},
                    .out = {NULL, b->half},
                    .c = (int32_t)xs->dim[1],
                    .m = (int32_t)ys->dim[1],
                    .in_height = (int32_t)xs->dim[2],
                    .in_width = (int32_t)xs->dim[3],
                    .in_pitch = (int32_t)in->pitch,
                    .out_height = (int32_t)ys->dim[2],
                    .out_width = (int32_t)ys->dim[3],
                    .out_pitch = (int32_t)out->pitch,
                    .kernel = {(int32_t)n->conv.kernel[0], (int32_t)n->conv.kernel[1]},
                    .stride = {(int32_t)n->conv.stride[0], (int32_t)n->conv.stride[1]},
                    .dilation = {(int32_t)n->conv.dilation[0], (int32_t)n->conv.dilation[1]},
                    .pad = {(int32_t)n->conv.pad_begin[0], (int32_t)n->conv.pad_begin[1]},
                    .group = (int32_t)n->conv.group,
                    .transposed = transposed,
                    .act = build_act(&n->act)}};
    rc = build_map(b, direct, &a, shape_count(ys), build_place(b, in), build_place(b, out));
    if (rc != 0)
        return rc;
    build_point(b, FIELD(direct, weight), (struct place){REGION_WEIGHTS, offset});
    build_point(b, FIELD(direct, bias), bias);
    return 0;
}

int build_conv(struct build *b, const struct node *n)
{
    const struct conv_attr *c = &n->conv;
    if (c->group != 1 || c->pad_begin[0] < 0 || c->pad_begin[1] < 0 || c->pad_end[0] < 0 ||
        c->pad_end[1] < 0)
        return build_direct(b, n, false);
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct build_tensor *in, *out, x, y;
    struct place bias, weights, none = {0};
    static const int64_t no_pad[2] = {0, 0};
    float *w = NULL;
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = table_or_none(b, n, 2, ys->dim[1], &bias);
    if (rc != 0)
        return rc;
    bool symmetric = c->pad_begin[0] == c->pad_end[0] && c->pad_begin[1] == c->pad_end[1];
    rc = packed_input(b, xs, in, symmetric ? no_pad : c->pad_begin, symmetric ? no_pad : c->pad_end,
                      &x);
    if (rc != 0)
        return rc;
    struct convolution_spec spec = {
        .n = xs->dim[0],
        .c = x.octets * OCTET,
        .h = xs->dim[2] + (symmetric ? 0 : c->pad_begin[0] + c->pad_end[0]),
        .w = xs->dim[3] + (symmetric ? 0 : c->pad_begin[1] + c->pad_end[1]),
        .k = pad8(ys->dim[1]),
        .oh = ys->dim[2],
        .ow = ys->dim[3],
        .half = b->half,
        .tf32 = b->tf32,
        .bias = bias.region != REGION_NONE,
        .relu = n->act.kind == ACT_RELU};
    for (int d = 0; d < 2; d++) {
        spec.kernel[d] = c->kernel[d];
        spec.stride[d] = c->stride[d];
        spec.dilation[d] = c->dilation[d];
        spec.pad_begin[d] = spec.pad_end[d] = symmetric ? c->pad_begin[d] : 0;
    }
    int id = find_convolution(b, &spec);
    if (id < 0)
        return id;
    enum convolution_fused fused = b->p->convolution[id].fused;
    if (spec.bias && fused != CONVOLUTION_BARE && b->half)
        rc = build_element_table(b, n->in[2], ys->dim[1], &bias);
    if (rc != 0)
        return rc;

    rc = load_weights(b, n->in[1], &w);
    if (rc == 0) {
        struct weight_source source = {
            .w = w, .m = ys->dim[1], .c = xs->dim[1], .kernel = {c->kernel[0], c->kernel[1]}};
        rc = store_weights(b, &source, &spec, &weights);
    }
    free(w);
    if (rc == 0)
        rc = build_write(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    bool packed = out->pitch == out->octets * OCTET;
    y = *out;
    if (!packed)
        rc = build_temporary(b, ys->dim[0], ys->dim[2] * ys->dim[3], ys->dim[1], &y);
    if (rc == 0)
        rc = add_convolution(b, id, build_place(b, &x), weights, bias, build_place(b, &y));
    if (rc != 0)
        return rc;
    bool act_left = n->act.kind != ACT_NONE && !(fused == CONVOLUTION_ALL && spec.relu);
    bool bias_left = spec.bias && fused == CONVOLUTION_BARE;
    if (packed && !act_left && !bias_left)
        return 0;
    struct kernel_act_args act = build_act(&n->act);
    if (!act_left)
        act.kind = KACT_NONE;
    const struct build_tables tables = {.shift = bias_left ? bias : none};
    return build_affine(b, &y, out, ys->dim[0], ys->dim[2] * ys->dim[3], &tables, act);
}

int build_conv_transpose(struct build *b, const struct node *n)
{
    const struct conv_attr *c = &n->conv;
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct convolution_spec spec = {.n = xs->dim[0],
                                    .c = pad8(xs->dim[1]),
                                    .h = xs->dim[2],
                                    .w = xs->dim[3],
                                    .k = pad8(ys->dim[1]) * c->stride[0] * c->stride[1],
                                    .stride = {1, 1},
                                    .dilation = {1, 1},
                                    .half = b->half,
                                    .tf32 = b->tf32};
    int64_t taps[2], skip[2], q[2];
    bool direct = c->group != 1 || c->dilation[0] != 1 || c->dilation[1] != 1 ||
                  c->pad_begin[0] < 0 || c->pad_begin[1] < 0;
    for (int d = 0; d < 2; d++) {
        /* Output rows y + pad = q·stride + phase; q from skip, q[d] of them. */
        taps[d] = (c->kernel[d] + c->stride[d] - 1) / c->stride[d];
        skip[d] = c->pad_begin[d] / c->stride[d];
        q[d] = (ys->dim[2 + d] - 1 + c->pad_begin[d]) / c->stride[d] + 1 - skip[d];
        spec.kernel[d] = taps[d];
        spec.pad_begin[d] = taps[d] - 1 - skip[d];
        spec.pad_end[d] = q[d] - xs->dim[2 + d] + taps[d] - 1 - spec.pad_begin[d];
        if (spec.pad_end[d] < spec.pad_begin[d]) { /* rows that nobody reads, for symmetry */
            q[d] += spec.pad_begin[d] - spec.pad_end[d];
            spec.pad_end[d] = spec.pad_begin[d];
        }
        direct |= spec.pad_begin[d] < 0;
    }
    if (direct)
        return build_direct(b, n, true);
    spec.oh = q[0];
    spec.ow = q[1];

    struct build_tensor *in, *out, x, y;
    struct place bias, weights, none = {0};
    int64_t no_pad[2] = {0, 0}, more[2] = {0, 0};
    float *w = NULL;
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = table_or_none(b, n, 2, ys->dim[1], &bias);
    if (rc != 0)
        return rc;
    for (int d = 0; d < 2; d++) { /* output_padding beyond: zeros behind the input */
        more[d] = spec.pad_end[d] - spec.pad_begin[d];
        spec.pad_end[d] = spec.pad_begin[d];
    }
    rc = packed_input(b, xs, in, no_pad, more, &x);
    if (rc != 0)
        return rc;
    spec.h += more[0];
    spec.w += more[1];
    int id = find_convolution(b, &spec);
    if (id < 0)
        return id;
    rc = load_weights(b, n->in[1], &w);
    if (rc == 0) {
        struct weight_source source = {.w = w,
                                       .m = ys->dim[1],
                                       .c = xs->dim[1],
                                       .kernel = {c->kernel[0], c->kernel[1]},
                                       .stride = {c->stride[0], c->stride[1]},
                                       .taps = {taps[0], taps[1]},
                                       .transposed = true};
        rc = store_weights(b, &source, &spec, &weights);
    }
    free(w);
    if (rc == 0)
        rc = build_temporary(b, spec.n, q[0] * q[1], spec.k, &y);
    if (rc == 0)
        rc = add_convolution(b, id, build_place(b, &x), weights, none, build_place(b, &y));
    if (rc == 0)
        rc = build_write(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {
        .interleave_ = {.in = {NULL, b->half},
                        .out = {NULL, b->half},
                        .octets = (int32_t)out->octets,
                        .in_height = (int32_t)q[0],
                        .in_width = (int32_t)q[1],
                        .in_pitch = (int32_t)y.pitch,
                        .out_height = (int32_t)ys->dim[2],
                        .out_width = (int32_t)ys->dim[3],
                        .out_pitch = (int32_t)out->pitch,
                        .stride_y = (int32_t)c->stride[0],
                        .stride_x = (int32_t)c->stride[1],
                        .pad_y = (int32_t)(c->pad_begin[0] - skip[0] * c->stride[0]),
                        .pad_x = (int32_t)(c->pad_begin[1] - skip[1] * c->stride[1]),
                        .act = build_act(&n->act)}};
    rc = build_map(b, interleave, &a, ys->dim[0] * ys->dim[2] * ys->dim[3] * out->octets,
                   build_place(b, &y), build_place(b, out));
    if (rc != 0)
        return rc;
    build_point(b, FIELD(interleave, bias), bias);
    return 0;
}
