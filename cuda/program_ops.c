/* program_ops.c - every operator of a lowered graph that is not a convolution, as kernel launches
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/program_build.h"
#include "model/resample.h"
#include "node/base/err.h"

static const struct shape *shape_of(const struct build *b, int value)
{
    return &b->g->value[value].shape;
}

static int64_t pixels_of(const struct shape *s)
{
    return s->dim[2] * s->dim[3];
}

/* The first input and the output. */
static int unary_ends(struct build *b, const struct node *n, struct build_tensor **in,
                      struct build_tensor **out)
{
    int rc = build_read(b, n->in[0], in);
    return rc == 0 ? build_write(b, n->out[0], out) : rc;
}

/* The same for a kernel that writes element by element. */
static int element_ends(struct build *b, const struct node *n, struct build_tensor **in,
                        struct build_tensor **out)
{
    int rc = build_read(b, n->in[0], in);
    return rc == 0 ? build_write_elements(b, n->out[0], out) : rc;
}

static int build_copy(struct build *b, const struct build_tensor *in, struct kernel_view from,
                      const struct build_tensor *out, struct kernel_view to, int64_t count)
{
    union kernel_args a = {
        .copy_ = {.in = {NULL, b->half}, .out = {NULL, b->half}, .from = from, .to = to}};
    return build_map(b, copy, &a, count, build_place(b, in), build_place(b, out));
}

static int build_affine_node(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out, x;
    struct build_tables tables = {0};
    const struct shape *s = shape_of(b, n->in[0]);
    struct shape flat;
    int rc;
    if (s->rank == 4) {
        rc = unary_ends(b, n, &in, &out);
    } else {
        rc = build_flat(b, n->in[0], &flat, &x);
        in = out = &x;
    }
    if (rc == 0)
        rc = build_table(b, n->in[1], s->dim[1], &tables.scale);
    if (rc == 0)
        rc = build_table(b, n->in[2], s->dim[1], &tables.shift);
    if (rc == 0)
        rc = build_affine(b, in, out, s->dim[0], pixels_of(s->rank == 4 ? s : &flat), &tables,
                          build_act(&n->act));
    return rc != 0 || s->rank == 4 ? rc : build_unflat(b, &flat, &x, n->out[0]);
}

static int build_unary(struct build *b, const struct node *n, enum kernel_unary op)
{
    struct build_tensor *in, *out;
    const struct shape *s = shape_of(b, n->in[0]);
    if (b->tensor[n->out[0]].forked)
        return 0;
    bool octets = op == KU_ACT && s->rank == 4;
    int rc = octets ? unary_ends(b, n, &in, &out) : element_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    if (octets)
        return build_affine(b, in, out, s->dim[0], pixels_of(s), &(struct build_tables){0},
                            build_act(&n->act));
    union kernel_args a = {.unary_ = {.in = {NULL, b->half},
                                      .out = {NULL, b->half},
                                      .from = build_view(b, in, s),
                                      .to = build_view(b, out, s),
                                      .op = op,
                                      .act = build_act(&n->act)}};
    return build_map(b, unary, &a, shape_count(s), build_place(b, in), build_place(b, out));
}

/* A view of s that enumerates the elements of the larger shape to, NumPy's broadcasting. */
static struct kernel_view broadcast(struct kernel_view v, const struct shape *to)
{
    struct kernel_view r = {.rank = to->rank, .offset = v.offset};
    for (int d = 0; d < to->rank; d++) {
        int from = d - (to->rank - v.rank);
        r.dim[d] = (int32_t)to->dim[d];
        r.stride[d] = from < 0 || v.dim[from] == 1 ? 0 : v.stride[from];
    }
    return r;
}

static int build_binary(struct build *b, const struct node *n, enum kernel_binary op)
{
    struct build_tensor *x, *y, *out;
    const struct shape *xs = shape_of(b, n->in[0]), *ys = shape_of(b, n->in[1]);
    const struct shape *s = shape_of(b, n->out[0]);
    int rc = build_read(b, n->in[0], &x);
    if (rc == 0)
        rc = build_read(b, n->in[1], &y);
    bool same = s->rank == 4 && shape_equal(xs, ys) && s->dim[1] % OCTET == 0;
    const struct node *act = same ? build_act_of(b, n->out[0]) : NULL;
    if (rc == 0 && same)
        rc = build_write(b, act ? act->out[0] : n->out[0], &out);
    else if (rc == 0)
        rc = build_write_elements(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    if (act) {
        out->forked = true;
        b->tensor[n->out[0]] = *out; /* for who looks for what is not finite */
    }
    union kernel_args a;
    memset(&a, 0, sizeof a);
    struct kernel_array elements = {NULL, b->half};
    if (same) {
        a.binary_octet_ = (struct binary_octet_args){.a = elements,
                                                     .b = elements,
                                                     .out = elements,
                                                     .octets = (int32_t)out->octets,
                                                     .a_pitch = (int32_t)x->pitch,
                                                     .b_pitch = (int32_t)y->pitch,
                                                     .out_pitch = (int32_t)out->pitch,
                                                     .op = op};
        if (act)
            a.binary_octet_.act = build_act(&act->act);
        rc = build_launch(b, KERNEL_binary_octet, &a, s->dim[0] * pixels_of(s) * out->octets);
    } else {
        a.binary_ = (struct binary_args){.a = elements,
                                         .b = elements,
                                         .out = elements,
                                         .from_a = broadcast(build_view(b, x, xs), s),
                                         .from_b = broadcast(build_view(b, y, ys), s),
                                         .to = build_view(b, out, s),
                                         .op = op};
        rc = build_launch(b, KERNEL_binary, &a, shape_count(s));
    }
    if (rc != 0)
        return rc;
    build_point(b, same ? FIELD(binary_octet, a.data) : FIELD(binary, a.data), build_place(b, x));
    build_point(b, same ? FIELD(binary_octet, b.data) : FIELD(binary, b.data), build_place(b, y));
    build_point(b, same ? FIELD(binary_octet, out.data) : FIELD(binary, out.data),
                build_place(b, out));
    return 0;
}

static int build_concat(struct build *b, const struct node *n)
{
    const struct shape *s = shape_of(b, n->out[0]);
    struct build_tensor *out;
    int rc = build_write_elements(b, n->out[0], &out);
    struct kernel_view whole = build_view(b, out, s);
    int64_t at = 0;
    for (int i = 0; rc == 0 && i < n->n_in; i++) {
        const struct shape *part = shape_of(b, n->in[i]);
        struct build_tensor *in;
        rc = build_read(b, n->in[i], &in);
        if (rc != 0)
            break;
        bool there = in->buffer == out->buffer && in->buffer >= 0 && n->axis == 1 &&
                     in->offset == out->offset + at;
        if (!there) {
            struct kernel_view to = whole;
            to.dim[n->axis] = (int32_t)part->dim[n->axis];
            to.offset = at * whole.stride[n->axis];
            rc = build_copy(b, in, build_view(b, in, part), out, to, shape_count(part));
        }
        at += part->dim[n->axis];
    }
    return rc;
}

static int build_split(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    int rc = build_read(b, n->in[0], &in);
    if (rc != 0)
        return rc;
    struct kernel_view whole = build_view(b, in, shape_of(b, n->in[0]));
    int64_t at = 0;
    for (int i = 0; rc == 0 && i < n->n_out; i++) {
        if (n->out[i] < 0)
            continue;
        const struct shape *part = shape_of(b, n->out[i]);
        struct kernel_view from = whole;
        from.dim[n->axis] = (int32_t)part->dim[n->axis];
        from.offset = at * whole.stride[n->axis];
        rc = build_write_elements(b, n->out[i], &out);
        if (rc == 0)
            rc = build_copy(b, in, from, out, build_view(b, out, part), shape_count(part));
        at += part->dim[n->axis];
    }
    return rc;
}

static int build_depth_to_space(struct build *b, const struct node *n)
{
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    struct build_tensor *in, *out;
    int32_t block = (int32_t)n->depth.block, c = (int32_t)os->dim[1];
    bool crd = n->depth.crd; /* channels (c, i, j), else (i, j, c) */
    int rc = build_read(b, n->in[0], &in);
    if (rc != 0)
        return rc;
    const struct node *act = build_act_of(b, n->out[0]);
    if (in->unfinished && build_is_last(b, act ? act->out[0] : n->out[0])) {
        build_leave(b, n->out[0], act, in, &in->rest);
        return 0;
    }
    if (in->unfinished)
        return build_interleave(b, n, in, &in->rest, in->rest.act);
    rc = build_write(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {.spread_ = {.in = {NULL, b->half},
                                       .out = {NULL, b->half},
                                       .channels = c,
                                       .octets = (int32_t)out->octets,
                                       .in_height = (int32_t)is->dim[2],
                                       .in_width = (int32_t)is->dim[3],
                                       .in_pitch = (int32_t)in->pitch,
                                       .out_pitch = (int32_t)out->pitch,
                                       .block = block,
                                       .step = crd ? block * block : 1,
                                       .step_y = crd ? block : block * c,
                                       .step_x = crd ? 1 : c}};
    return build_map(b, spread, &a, os->dim[0] * pixels_of(os) * out->octets, build_place(b, in),
                     build_place(b, out));
}

/* Slice, Transpose, Reshape: the input's elements in another order. */
static int build_rearranged(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    int rc = element_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    struct kernel_view v = build_view(b, in, is), from = v;
    if (n->op == OP_SLICE) {
        for (int d = 0; d < os->rank; d++) {
            from.dim[d] = (int32_t)os->dim[d];
            from.stride[d] = v.stride[d] * n->slice.step[d];
            from.offset += v.stride[d] * n->slice.start[d];
        }
    } else if (n->op == OP_TRANSPOSE) {
        for (int d = 0; d < os->rank; d++) {
            from.dim[d] = v.dim[n->transpose.perm[d]];
            from.stride[d] = v.stride[n->transpose.perm[d]];
        }
    }
    return build_copy(b, in, from, out, build_view(b, out, os), shape_count(os));
}

/* The input of the graph that it pads is folded by the convolution behind it. */
static bool pad_is_folded(const struct build *b, const struct node *n)
{
    return !build_maker(b, n->in[0]) && !b->g->value[n->in[0]].constant &&
           !b->tensor[n->in[0]].made;
}

static int build_pad(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    int rc = element_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {.pad_ = {.in = {NULL, b->half},
                                    .out = {NULL, b->half},
                                    .from = build_view(b, in, is),
                                    .to = build_view(b, out, os),
                                    .mode = build_pad_mode(n),
                                    .value = n->pad.value}};
    for (int d = 0; d < is->rank; d++)
        a.pad_.begin[d] = (int32_t)n->pad.begin[d];
    return build_map(b, pad, &a, shape_count(os), build_place(b, in), build_place(b, out));
}

/* The taps of one axis of a resize, as tables in the weights. */
static int build_taps(struct build *b, const struct resize_attr *resize, int axis, int64_t in,
                      int64_t out, int32_t *taps, struct place *index, struct place *weight)
{
    struct resample r;
    int64_t index_at = 0, weight_at = 0;
    int rc = resample_init(&r, resize, axis, in, out, b->e);
    if (rc != 0)
        return rc;
    int64_t count = out * r.taps;
    float *w = malloc(sizeof *w * (size_t)(count + 1));
    if (!w)
        rc = err_set(b->e, ERR_NOMEM, "no memory for a resize table");
    for (int64_t i = 0; rc == 0 && i < count; i++)
        w[i] = (float)r.weight[i];
    if (rc == 0)
        rc = build_weights(b, r.index, count * (int64_t)sizeof *r.index, &index_at);
    if (rc == 0)
        rc = build_weights(b, w, count * (int64_t)sizeof *w, &weight_at);
    *taps = r.taps;
    *index = (struct place){REGION_WEIGHTS, index_at};
    *weight = (struct place){REGION_WEIGHTS, weight_at};
    free(w);
    resample_fini(&r);
    return rc;
}

/* The elements of an axis that a list names. */
static int build_index(struct build *b, const struct node *n, int axis, const int32_t *index,
                       int64_t n_index)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    int64_t offset = 0, after = 1;
    int rc = element_ends(b, n, &in, &out);
    if (rc == 0)
        rc = build_weights(b, index, n_index * (int64_t)sizeof *index, &offset);
    for (int d = axis + 1; d < is->rank; d++)
        after *= is->dim[d];
    if (rc != 0)
        return rc;
    union kernel_args a;
    memset(&a, 0, sizeof a);
    a.gather_ = (struct gather_args){.in = {NULL, b->half},
                                     .out = {NULL, b->half},
                                     .from = build_view(b, in, is),
                                     .to = build_view(b, out, os),
                                     .n_index = n_index,
                                     .after = after,
                                     .axis_dim = is->dim[axis]};
    rc = build_map(b, gather, &a, shape_count(os), build_place(b, in), build_place(b, out));
    if (rc == 0)
        build_point(b, FIELD(gather, index), (struct place){REGION_WEIGHTS, offset});
    return rc;
}

/* A Resize that picks elements along one axis, whichever. */
static int build_picked(struct build *b, const struct node *n, int axis)
{
    int64_t in = shape_of(b, n->in[0])->dim[axis], out = shape_of(b, n->out[0])->dim[axis];
    struct resample r;
    int rc = resample_init(&r, &n->resize, axis, in, out, b->e);
    if (rc != 0)
        return rc;
    rc = build_index(b, n, axis, r.index, out);
    resample_fini(&r);
    return rc;
}

static int build_resize(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    int changed = 0, axis = 0;
    bool planes = is->rank == 4;
    for (int i = 0; i < is->rank; i++)
        if (is->dim[i] != os->dim[i] || n->resize.scale[i] != 1) {
            planes = planes && i >= 2;
            axis = i;
            changed++;
        }
    if (!planes && changed == 1 && n->resize.mode == RESIZE_NEAREST)
        return build_picked(b, n, axis);
    if (!planes)
        return build_fail(b, "it resizes more than rows and columns of N,C,H,W");
    int rc = unary_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {.resize_ = {.in = {NULL, b->half},
                                       .out = {NULL, b->half},
                                       .octets = (int32_t)out->octets,
                                       .in_height = (int32_t)is->dim[2],
                                       .in_width = (int32_t)is->dim[3],
                                       .in_pitch = (int32_t)in->pitch,
                                       .out_height = (int32_t)os->dim[2],
                                       .out_width = (int32_t)os->dim[3],
                                       .out_pitch = (int32_t)out->pitch}};
    struct place index[2], weight[2];
    int32_t taps[2];
    for (int d = 0; rc == 0 && d < 2; d++)
        rc = build_taps(b, &n->resize, 2 + d, is->dim[2 + d], os->dim[2 + d], &taps[d], &index[d],
                        &weight[d]);
    if (rc != 0)
        return rc;
    a.resize_.row_taps = taps[0];
    a.resize_.column_taps = taps[1];
    rc = build_map(b, resize, &a, os->dim[0] * pixels_of(os) * out->octets, build_place(b, in),
                   build_place(b, out));
    if (rc != 0)
        return rc;
    build_point(b, FIELD(resize, row_index), index[0]);
    build_point(b, FIELD(resize, row_weight), weight[0]);
    build_point(b, FIELD(resize, column_index), index[1]);
    build_point(b, FIELD(resize, column_weight), weight[1]);
    return 0;
}

static int build_pool(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    if (is->rank != 4)
        return build_fail(b, "only tensors N,C,H,W");
    int rc = unary_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    union kernel_args a = {.pool_ = {.in = {NULL, b->half},
                                     .out = {NULL, b->half},
                                     .octets = (int32_t)out->octets,
                                     .in_height = (int32_t)is->dim[2],
                                     .in_width = (int32_t)is->dim[3],
                                     .in_pitch = (int32_t)in->pitch,
                                     .out_height = (int32_t)os->dim[2],
                                     .out_width = (int32_t)os->dim[3],
                                     .out_pitch = (int32_t)out->pitch,
                                     .max = n->op == OP_MAX_POOL,
                                     .count_include_pad = n->pool.count_include_pad}};
    for (int d = 0; d < 2; d++) {
        a.pool_.kernel[d] = (int32_t)n->pool.kernel[d];
        a.pool_.stride[d] = (int32_t)n->pool.stride[d];
        a.pool_.dilation[d] = (int32_t)n->pool.dilation[d];
        a.pool_.pad_begin[d] = (int32_t)n->pool.pad_begin[d];
        a.pool_.pad_end[d] = (int32_t)n->pool.pad_end[d];
    }
    return build_map(b, pool, &a, os->dim[0] * pixels_of(os) * out->octets, build_place(b, in),
                     build_place(b, out));
}

static int build_reduce(struct build *b, const struct node *n)
{
    struct build_tensor *in, *out;
    const struct shape *is = shape_of(b, n->in[0]), *os = shape_of(b, n->out[0]);
    int rc = element_ends(b, n, &in, &out);
    if (rc != 0)
        return rc;
    struct kernel_view v = build_view(b, in, is), from = {0}, over = {0};
    union kernel_args a;
    memset(&a, 0, sizeof a);
    int64_t n_over = 1;
    for (int d = 0; d < is->rank; d++) {
        bool reduced = false;
        for (int k = 0; k < n->reduce.n; k++)
            reduced |= n->reduce.axis[k] == d;
        struct kernel_view *to = reduced ? &over : &from;
        to->dim[to->rank] = v.dim[d];
        to->stride[to->rank++] = v.stride[d];
        if (reduced)
            n_over *= v.dim[d];
    }
    a.reduce_ = (struct reduce_args){.in = {NULL, b->half},
                                     .out = {NULL, b->half},
                                     .from = from,
                                     .over = over,
                                     .to = build_view(b, out, os),
                                     .n_over = n_over,
                                     .op = n->op == OP_REDUCE_MEAN         ? KR_MEAN
                                           : n->op == OP_REDUCE_SUM        ? KR_SUM
                                           : n->op == OP_REDUCE_SUM_SQUARE ? KR_SUM_SQUARE
                                                                           : KR_PROD};
    return build_map(b, reduce, &a, shape_count(os), build_place(b, in), build_place(b, out));
}

static int build_gather(struct build *b, const struct node *n)
{
    int32_t *index = malloc(sizeof *index * (size_t)(n->gather.n_index + 1));
    if (!index)
        return err_set(b->e, ERR_NOMEM, "no memory for an index");
    for (int64_t i = 0; i < n->gather.n_index; i++)
        index[i] = (int32_t)n->gather.index[i];
    int rc = build_index(b, n, n->gather.axis, index, n->gather.n_index);
    free(index);
    return rc;
}

int build_node(struct build *b, const struct node *n)
{
    switch (n->op) {
    case OP_CONV:
        return build_conv(b, n);
    case OP_CONV_TRANSPOSE:
        return build_conv_transpose(b, n);
    case OP_AFFINE:
        return build_affine_node(b, n);
    case OP_INSTANCE_NORM:
        return build_instance_norm(b, n);
    case OP_ACT:
        return build_unary(b, n, KU_ACT);
    case OP_ABS:
        return build_unary(b, n, KU_ABS);
    case OP_SQRT:
        return build_unary(b, n, KU_SQRT);
    case OP_NEG:
        return build_unary(b, n, KU_NEG);
    case OP_EXP:
        return build_unary(b, n, KU_EXP);
    case OP_PRELU:
        return build_binary(b, n, KB_PRELU);
    case OP_ADD:
        return build_frames(b, n) ? build_framed(b, n) : build_binary(b, n, KB_ADD);
    case OP_SUB:
        return build_binary(b, n, KB_SUB);
    case OP_MUL:
        return build_binary(b, n, KB_MUL);
    case OP_DIV:
        return build_binary(b, n, KB_DIV);
    case OP_POW:
        return build_binary(b, n, KB_POW);
    case OP_MAX:
        return build_binary(b, n, KB_MAX);
    case OP_MIN:
        return build_binary(b, n, KB_MIN);
    case OP_CONCAT:
        return build_concat(b, n);
    case OP_SPLIT:
        return build_split(b, n);
    case OP_DEPTH_TO_SPACE:
        return build_depth_to_space(b, n);
    case OP_SLICE:
    case OP_RESHAPE:
    case OP_TRANSPOSE:
        return build_rearranged(b, n);
    case OP_PAD:
        if (pad_is_folded(b, n))
            return 0;
        return build_frames(b, n) ? build_framed(b, n) : build_pad(b, n);
    case OP_RESIZE:
        return build_resize(b, n);
    case OP_GATHER:
        return build_gather(b, n);
    case OP_REDUCE_MEAN:
    case OP_REDUCE_SUM:
    case OP_REDUCE_SUM_SQUARE:
    case OP_REDUCE_PROD:
        return build_reduce(b, n);
    case OP_AVERAGE_POOL:
    case OP_MAX_POOL:
        return build_pool(b, n);
    default:
        return build_fail(b, "no kernel for it");
    }
}
