/*
 * program_convolution.c - Conv as cuDNN forward convolutions
 *
 * What is left of a convolution (bias or activation that the plan does not fuse, the taps of a row
 * that it gave as channels) is done by whatever comes next: the export of an output, the interleave
 * of a DepthToSpace, a copy to a skip. Groups and odd paddings go through the direct kernel.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/device.h"
#include "cuda/program_build.h"
#include "cuda/program_weights.h"
#include "node/base/err.h"

/* A folded input has at most so many channels: beyond, moving them costs more than empty lanes. */
#define FOLD_CHANNELS 64
/* Taps of a row come as channels when outputs are fewer than an octet, and no more than this. */
#define ROW_CHANNELS 64

/* ---- steps and plans ------------------------------------------------------------------------- */

static bool same_spec(const struct convolution_spec *a, const struct convolution_spec *b)
{
    return a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w && a->k == b->k &&
           a->oh == b->oh && a->ow == b->ow &&
           memcmp(a->kernel, b->kernel, sizeof a->kernel) == 0 &&
           memcmp(a->stride, b->stride, sizeof a->stride) == 0 &&
           memcmp(a->dilation, b->dilation, sizeof a->dilation) == 0 &&
           memcmp(a->pad_begin, b->pad_begin, sizeof a->pad_begin) == 0 &&
           memcmp(a->pad_end, b->pad_end, sizeof a->pad_end) == 0 && a->half == b->half &&
           a->tf32 == b->tf32 && a->bias == b->bias && a->relu == b->relu && a->leak == b->leak &&
           a->second_pitch == b->second_pitch;
}

int build_find_convolution(struct build *b, const struct convolution_spec *spec)
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
    int rc = p->device->ops->convolution_plan(p->device, spec, &c->made, b->e);
    if (rc != 0) {
        err_context(b->e, "node %s", b->g->node[b->node].name);
        return rc;
    }
    return p->n_convolutions++;
}

int build_convolve(struct build *b, int convolution, const struct build_convolved *places)
{
    union kernel_args none;
    memset(&none, 0, sizeof none);
    int rc = build_launch(b, KERNEL_copy, &none, 0);
    if (rc != 0)
        return rc;
    struct step *s = &b->p->step[b->p->n_steps - 1];
    s->kind = STEP_CONVOLUTION;
    s->convolution = convolution;
    s->x = places->x;
    s->w = places->w;
    s->bias = places->bias;
    s->y = places->y;
    s->second = places->second;
    return 0;
}

int build_packed(struct build *b, const struct shape *s, const struct build_tensor *in,
                 const int64_t pad_begin[2], const int64_t pad_end[2], struct build_tensor *out)
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

/* ---- by our own kernel ----------------------------------------------------------------------- */

int build_direct(struct build *b, const struct node *n, bool transposed)
{
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct build_tensor *in, *out;
    struct weight_source source = {0};
    struct place bias = {0};
    int64_t offset;
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = build_write_elements(b, n->out[0], &out);
    if (rc == 0 && build_has_bias(n))
        rc = build_table(b, n->in[2], ys->dim[1], &bias);
    if (rc == 0)
        rc = weights_load(b, n, transposed, &source);
    if (rc == 0)
        rc = build_weights(b, source.w,
                           shape_count(&b->g->value[n->in[1]].shape) * (int64_t)sizeof *source.w,
                           &offset);
    free(source.w);
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

/* ---- a folded input -------------------------------------------------------------------------- */

/* The input of the network that a convolution reads, at once or through a Pad that nobody else
 * reads; and where its taps begin. */
struct folded {
    int input;
    enum weight_fold fold;
    int64_t channels, begin[2];
    int mode;
};

static bool regular(const struct conv_attr *c)
{
    return c->group == 1 && c->pad_begin[0] >= 0 && c->pad_begin[1] >= 0 && c->pad_end[0] >= 0 &&
           c->pad_end[1] >= 0;
}

static bool is_folded(const struct build *b, const struct node *n, struct folded *f)
{
    const struct graph *g = b->g;
    const struct conv_attr *c = &n->conv;
    int value = n->in[0];
    *f = (struct folded){.input = -1, .begin = {c->pad_begin[0], c->pad_begin[1]}};
    if (n->op != OP_CONV || !regular(c) || c->dilation[0] != 1 || c->dilation[1] != 1 ||
        c->kernel[0] * c->kernel[1] == 1 || g->value[value].shape.dim[1] >= OCTET)
        return false;
    const struct node *pad = build_maker(b, value), *reader;
    if (pad && pad->op == OP_PAD) {
        const struct pad_attr *p = &pad->pad;
        f->mode = build_pad_mode(pad);
        bool zeros = f->mode == KP_CONSTANT && p->value == 0;
        bool unpadded = !(c->pad_begin[0] || c->pad_begin[1] || c->pad_end[0] || c->pad_end[1]);
        if (build_readers(b, value, &reader) != 1 ||
            !(zeros || (unpadded && f->mode != KP_CONSTANT)))
            return false;
        for (int d = 0; d < 4; d++)
            if (p->begin[d] < 0 || p->end[d] < 0 || (d < 2 && (p->begin[d] || p->end[d])))
                return false;
        f->begin[0] += p->begin[2];
        f->begin[1] += p->begin[3];
        value = pad->in[0];
    }
    for (int i = 0; i < g->n_inputs; i++)
        if (g->input[i] == value)
            f->input = i;
    int64_t channels = g->value[value].shape.dim[1];
    f->fold = channels * c->kernel[0] * c->kernel[1] <= FOLD_CHANNELS ? FOLD_ALL : FOLD_ROW;
    f->channels = build_round8(channels * c->kernel[1] * (f->fold == FOLD_ALL ? c->kernel[0] : 1));
    return f->input >= 0 && f->channels <= FOLD_CHANNELS;
}

/* Does it read every number of the input? */
static bool covers(const struct build *b, const struct node *n, const struct folded *f)
{
    const struct shape *xs = &b->g->value[b->g->input[f->input]].shape;
    const struct shape *ys = &b->g->value[n->out[0]].shape;
    bool all = true;
    for (int d = 0; d < 2; d++)
        all &= n->conv.stride[d] <= n->conv.kernel[d] &&
               (ys->dim[2 + d] - 1) * n->conv.stride[d] + n->conv.kernel[d] - f->begin[d] >=
                   xs->dim[2 + d];
    return all;
}

bool build_is_folded(const struct build *b, int value, bool *seen)
{
    bool all = true;
    *seen = false;
    for (int i = 0; i < b->g->n_nodes; i++) {
        const struct node *n = &b->g->node[i], *reader = n;
        struct folded f;
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] != value)
                continue;
            if (n->op == OP_PAD)
                build_readers(b, n->out[0], &reader);
            bool folded = k == 0 && reader && is_folded(b, reader, &f);
            all &= folded;
            *seen |= folded && covers(b, reader, &f);
        }
    }
    return all;
}

static int build_fold(struct build *b, const struct node *n, const struct folded *f,
                      struct convolution_spec *spec, struct build_tensor *out)
{
    int value = b->g->input[f->input];
    const struct shape *xs = &b->g->value[value].shape, *ys = &b->g->value[n->out[0]].shape;
    const struct conv_attr *c = &n->conv;
    bool all = f->fold == FOLD_ALL;
    int64_t height = all ? ys->dim[2] : (ys->dim[2] - 1) * c->stride[0] + c->kernel[0];
    spec->c = f->channels;
    spec->h = height;
    spec->w = ys->dim[3];
    spec->kernel[0] = all ? 1 : c->kernel[0];
    spec->kernel[1] = 1;
    spec->stride[0] = all ? 1 : c->stride[0];
    spec->stride[1] = 1;
    for (int d = 0; d < 2; d++)
        spec->pad_begin[d] = spec->pad_end[d] = 0;
    int rc = build_temporary(b, xs->dim[0], height * spec->w, f->channels, out);
    if (rc != 0)
        return rc;
    union kernel_args a = {
        .fold_ = {.out = {NULL, b->half},
                  .c = (int32_t)xs->dim[1],
                  .in_height = (int32_t)xs->dim[2],
                  .in_width = (int32_t)xs->dim[3],
                  .out_height = (int32_t)height,
                  .out_width = (int32_t)spec->w,
                  .pitch = (int32_t)out->pitch,
                  .taps = {all ? (int32_t)c->kernel[0] : 1, (int32_t)c->kernel[1]},
                  .stride = {all ? (int32_t)c->stride[0] : 1, (int32_t)c->stride[1]},
                  .begin = {(int32_t)f->begin[0], (int32_t)f->begin[1]},
                  .mode = f->mode,
                  .flag_step = b->p->batch == xs->dim[0]}};
    rc = build_launch(b, KERNEL_fold, &a, xs->dim[0] * height * spec->w);
    if (rc != 0)
        return rc;
    build_point(b, FIELD(fold, in), (struct place){REGION_INPUT, f->input});
    build_point(b, FIELD(fold, out.data), build_place(b, out));
    if (!b->tensor[value].made && covers(b, n, f))
        build_point(b, FIELD(fold, flags), (struct place){REGION_FLAGS, 0});
    return 0;
}

/* ---- Conv ------------------------------------------------------------------------------------ */

/* A Conv on its way: what it reads, and what becomes of its result. */
struct conv {
    const struct node *n;
    struct convolution_spec spec;
    struct weight_source source;
    const struct build_tensor *x;
    bool last;                  /* the export does the rest, */
    const struct node *end;     /* and this activation; NULL: none */
    const struct node *shuffle; /* its only reader, done with it; NULL: none */
    int result;                 /* the value that it writes, and what is done before that */
    const struct act *act;
    struct build_tensor *second; /* a rectified copy; NULL: none */
};

/* Its only reader, if that is a DepthToSpace which can be an interleave. */
static const struct node *shuffle_of(const struct build *b, const struct node *n)
{
    const struct node *reader;
    bool plain = n->act.kind == ACT_NONE || n->act.kind == ACT_RELU;
    return plain && build_readers(b, n->out[0], &reader) == 1 && reader &&
                   reader->op == OP_DEPTH_TO_SPACE
               ? reader
               : NULL;
}

/* Where one leaky activation and one Relu alone read its result, as behind a skip of a U-Net, the
 * leaky value is written at once, and the Relu can be made of that. */
static void take_leaky(const struct build *b, struct conv *c)
{
    const struct node *leaky = NULL, *only;
    int value = c->n->out[0], relus = 0;
    if (c->n->act.kind != ACT_NONE || build_readers(b, value, &only) != 2)
        return;
    for (int i = b->node + 1; i < b->g->n_nodes; i++) {
        const struct node *r = &b->g->node[i];
        if (r->op != OP_ACT || r->in[0] != value)
            continue;
        relus += r->act.kind == ACT_RELU;
        if (r->act.kind == ACT_LEAKY_RELU && r->act.alpha > 0)
            leaky = r;
    }
    if (leaky && relus == 1) {
        c->result = leaky->out[0];
        c->act = &leaky->act;
    }
}

/* What the plan left of bias and activation, into the result. */
static int finish(struct build *b, const struct conv *c, const struct build_tensor *y,
                  struct place bias, struct kernel_act_args act)
{
    const struct shape *s = &b->g->value[c->result].shape;
    int64_t pixels = s->dim[2] * s->dim[3];
    const struct build_tensor *out = &b->tensor[c->result];
    if (!c->second)
        return build_affine(b, y, out, s->dim[0], pixels, &(struct build_tables){.shift = bias},
                            act);
    union kernel_args a = {.fork_ = {.in = {NULL, b->half},
                                     .out = {NULL, b->half},
                                     .octets = (int32_t)y->octets,
                                     .in_pitch = (int32_t)y->pitch,
                                     .out_pitch = (int32_t)out->pitch,
                                     .second_pitch = (int32_t)c->second->pitch,
                                     .act = act}};
    int rc = build_map(b, fork, &a, s->dim[0] * pixels * y->octets, build_place(b, y),
                       build_place(b, out));
    if (rc != 0)
        return rc;
    build_point(b, FIELD(fork, shift), bias);
    build_point(b, FIELD(fork, second), build_place(b, c->second));
    return 0;
}

/* Weights and bias of a spec, the bias for a plan that fuses it or for a pass behind. */
static int operands(struct build *b, const struct conv *c, const struct convolution_spec *spec,
                    enum convolution_fused fused, struct place *weights, struct place *bias)
{
    int rc = 0;
    *bias = (struct place){0};
    if (build_has_bias(c->n))
        rc = weights_table(b, &c->source, c->n->in[2], spec->k,
                           spec->bias && fused != CONVOLUTION_BARE, bias);
    return rc == 0 ? weights_store(b, &c->source, spec, weights) : rc;
}

/* Few outputs, or a DepthToSpace at the end: the export does the rest. */
static int leave_to_export(struct build *b, struct conv *c)
{
    const struct shape *ys = &b->g->value[c->n->out[0]].shape;
    struct build_rest rest = build_nothing_left(ys);
    struct build_convolved at = {.x = build_place(b, c->x)};
    struct build_tensor y;
    int id = build_find_convolution(b, &c->spec);
    int rc = id < 0 ? id : weights_store(b, &c->source, &c->spec, &at.w);
    if (rc == 0 && build_has_bias(c->n))
        rc = build_table(b, c->n->in[2], ys->dim[1], &rest.bias);
    if (rc == 0)
        rc = build_temporary(b, c->spec.n, c->spec.oh * c->spec.ow, c->spec.k, &y);
    if (rc != 0)
        return rc;
    rest.act = build_act(&c->n->act);
    if (c->source.row) {
        rest.taps = c->n->conv.kernel[1];
        rest.tap_pad = c->n->conv.pad_begin[1];
        rest.width = c->spec.w;
    }
    at.y = build_place(b, &y);
    build_leave(b, c->n->out[0], c->end, &y, &rest);
    return build_convolve(b, id, &at);
}

static int convolve_to_shuffle(struct build *b, struct conv *c)
{
    const struct shape *ys = &b->g->value[c->n->out[0]].shape;
    struct build_rest rest = build_nothing_left(ys);
    struct build_convolved at = {.x = build_place(b, c->x)};
    struct build_tensor y;
    int64_t block = c->shuffle->depth.block;
    c->source.stride[0] = c->source.stride[1] = rest.stride[0] = rest.stride[1] = block;
    c->source.lanes = rest.lanes = build_round8(ys->dim[1] / (block * block));
    c->source.crd = c->shuffle->depth.crd;
    c->spec.k = c->source.lanes * block * block;
    int id = build_find_convolution(b, &c->spec);
    if (id < 0)
        return id;
    enum convolution_fused fused = b->p->convolution[id].made.fused;
    int rc = operands(b, c, &c->spec, fused, &at.w, &at.bias);
    if (rc == 0)
        rc = build_temporary(b, c->spec.n, c->spec.oh * c->spec.ow, c->spec.k, &y);
    if (rc != 0)
        return rc;
    at.y = build_place(b, &y);
    rc = build_convolve(b, id, &at);
    struct build_tables left = {0};
    if (fused == CONVOLUTION_BARE)
        left.shift = at.bias;
    if (rc == 0 && fused != CONVOLUTION_ALL)
        rc = build_affine(b, &y, &y, c->spec.n, c->spec.oh * c->spec.ow, &left,
                          build_act(&c->n->act));
    build_leave(b, c->n->out[0], NULL, &y, &rest);
    return rc;
}

/* To a tensor of its own, and a rectified copy to another's. */
static int convolve_to_tensor(struct build *b, struct conv *c)
{
    struct build_convolved at = {.x = build_place(b, c->x)};
    struct convolution_spec *s = &c->spec;
    struct build_tensor y, *out;
    take_leaky(b, c);
    const struct act *act = c->act;
    int rc = build_write(b, c->result, &out);
    if (rc == 0 && c->result != c->n->out[0]) {
        out->forked = true;
        b->tensor[c->n->out[0]] = *out; /* for who looks for what is not finite */
    }
    if (rc == 0)
        rc = build_fork_target(b, c->n, &c->second);
    if (rc != 0)
        return rc;
    bool packed = out->pitch == out->octets * OCTET;
    if (b->half && packed) { /* what a plan could do, too */
        s->second_pitch = c->second ? c->second->pitch : 0;
        s->leak = act->kind == ACT_LEAKY_RELU && act->alpha > 0 ? act->alpha : 0;
        s->relu |= s->leak != 0;
    }
    int id = build_find_convolution(b, s);
    if (id < 0)
        return id;
    enum convolution_fused fused = b->p->convolution[id].made.fused;
    bool all = fused == CONVOLUTION_ALL, copied = !c->second || (all && s->second_pitch != 0);
    bool activated = act->kind == ACT_NONE || (all && s->relu);
    bool biased = !build_has_bias(c->n) || fused != CONVOLUTION_BARE;
    rc = operands(b, c, s, fused, &at.w, &at.bias);
    if (all && s->second_pitch != 0)
        at.second = build_place(b, c->second);
    bool done = activated && biased && copied && packed;
    if (rc == 0 && !done)
        rc = build_temporary(b, s->n, s->oh * s->ow, s->k, &y);
    if (rc != 0)
        return rc;
    at.y = build_place(b, done ? out : &y);
    rc = build_convolve(b, id, &at);
    if (rc != 0 || done)
        return rc;
    struct kernel_act_args left = {0};
    if (!activated)
        left = build_act(act);
    if (biased)
        at.bias = (struct place){0};
    return finish(b, c, &y, at.bias, left);
}

static int convolved(struct build *b, struct conv *c)
{
    if (c->last)
        return leave_to_export(b, c);
    c->shuffle = shuffle_of(b, c->n);
    c->spec.bias = build_has_bias(c->n);
    c->spec.relu = c->n->act.kind == ACT_RELU;
    return c->shuffle ? convolve_to_shuffle(b, c) : convolve_to_tensor(b, c);
}

/* The input as the convolution reads it, packed and padded; and its spec. */
static int prepare(struct build *b, struct conv *c, struct build_tensor *x)
{
    const struct conv_attr *a = &c->n->conv;
    const struct shape *xs = &b->g->value[c->n->in[0]].shape;
    struct convolution_spec *spec = &c->spec;
    struct build_tensor *in;
    struct folded f;
    static const int64_t no_pad[2] = {0, 0};
    spec->dilation[0] = spec->dilation[1] = 1;
    if (is_folded(b, c->n, &f)) {
        c->source.fold = f.fold;
        return build_fold(b, c->n, &f, spec, x);
    }
    /* Columns are not padded where their taps are added later. */
    bool row = c->last && a->kernel[1] > 1 && a->stride[1] == 1 && a->dilation[1] == 1 &&
               c->source.m < OCTET && c->source.m * a->kernel[1] <= ROW_CHANNELS;
    int64_t begin[2] = {a->pad_begin[0], row ? 0 : a->pad_begin[1]};
    int64_t end[2] = {a->pad_end[0], row ? 0 : a->pad_end[1]};
    bool symmetric = begin[0] == end[0] && begin[1] == end[1];
    int rc = build_read(b, c->n->in[0], &in);
    if (rc == 0)
        rc = build_packed(b, xs, in, symmetric ? no_pad : begin, symmetric ? no_pad : end, x);
    if (rc != 0)
        return rc;
    for (int d = 0; d < 2; d++) {
        spec->kernel[d] = a->kernel[d];
        spec->stride[d] = a->stride[d];
        spec->dilation[d] = a->dilation[d];
        spec->pad_begin[d] = spec->pad_end[d] = symmetric ? begin[d] : 0;
    }
    spec->c = x->octets * OCTET;
    spec->h = xs->dim[2] + (symmetric ? 0 : begin[0] + end[0]);
    spec->w = xs->dim[3] + (symmetric ? 0 : begin[1] + end[1]);
    if (row) {
        c->source.row = true;
        spec->kernel[1] = 1;
        spec->k = build_round8(c->source.m * a->kernel[1]);
        spec->ow = spec->w;
    }
    return 0;
}

int build_conv(struct build *b, const struct node *n)
{
    if (!regular(&n->conv))
        return build_direct(b, n, false);
    const struct shape *xs = &b->g->value[n->in[0]].shape, *ys = &b->g->value[n->out[0]].shape;
    struct build_tensor x;
    struct conv c = {.n = n, .x = &x, .result = n->out[0], .act = &n->act};
    c.end = n->act.kind == ACT_NONE ? build_act_of(b, n->out[0]) : NULL;
    c.last = build_is_last(b, c.end ? c.end->out[0] : n->out[0]);
    c.spec = (struct convolution_spec){.n = xs->dim[0],
                                       .k = build_round8(ys->dim[1]),
                                       .oh = ys->dim[2],
                                       .ow = ys->dim[3],
                                       .half = b->half,
                                       .tf32 = b->tf32};
    int rc = weights_load(b, n, false, &c.source);
    if (rc == 0)
        rc = prepare(b, &c, &x);
    if (rc == 0)
        rc = convolved(b, &c);
    free(c.source.w);
    return rc;
}
