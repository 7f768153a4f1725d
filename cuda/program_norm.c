/* program_norm.c - InstanceNormalization: statistics of every image and channel, then what they
 * give
 */
#include "cuda/program_build.h"
#include "node/base/err.h"

/* An item of moments takes a run of pixels: so many that an image gives about MOMENT_ITEMS items,
 * within these bounds. A function of the image's size alone, so that an image gives the same bits
 * in any batch. The parts are joined by one item for each channel, which takes its time: more than
 * MOMENT_CHUNKS of them are joined MOMENT_JOINED at a time before. */
#define MOMENT_ITEMS   4096
#define MOMENT_RUN_MIN 16
#define MOMENT_RUN_MAX 256
#define MOMENT_CHUNKS  128

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A new buffer of floats. A *rc that is not 0 stays and nothing is made. */
static struct place float_buffer(struct build *b, int64_t count, int *rc)
{
    int id = *rc == 0 ? build_buffer(b, count * (int64_t)sizeof(float)) : *rc;
    struct build_tensor t = {.buffer = id < 0 ? 0 : id};
    if (id < 0)
        *rc = id;
    return build_place(b, &t);
}

/* What n has to know of `in`, whose shape is s, in new buffers. */
static int build_statistics(struct build *b, const struct node *n, const struct shape *s,
                            const struct build_tensor *in, struct build_norm *norm)
{
    struct place gamma, beta;
    int rc = build_table(b, n->in[1], s->dim[1], &gamma);
    if (rc == 0)
        rc = build_table(b, n->in[2], s->dim[1], &beta);
    int64_t images = s->dim[0], pixels = s->dim[2] * s->dim[3], channels = in->octets * OCTET;
    int64_t run = ceil_div(pixels * in->octets, MOMENT_ITEMS * MOMENT_ROUND) * MOMENT_ROUND;
    run = run < MOMENT_RUN_MIN ? MOMENT_RUN_MIN : run > MOMENT_RUN_MAX ? MOMENT_RUN_MAX : run;
    int64_t chunks = ceil_div(pixels, run), groups = 0;
    struct place part = float_buffer(b, images * chunks * channels * 2, &rc);
    norm->centre = float_buffer(b, images * channels, &rc);
    norm->scale = float_buffer(b, images * channels, &rc);
    norm->shift = float_buffer(b, images * channels, &rc);
    if (rc != 0)
        return rc;
    union kernel_args a = {.moments_ = {.in = {NULL, b->half},
                                        .octets = (int32_t)in->octets,
                                        .pixels = (int32_t)pixels,
                                        .pitch = (int32_t)in->pitch,
                                        .chunks = (int32_t)chunks,
                                        .run = (int32_t)run}};
    rc = build_launch_map(b, KERNEL_moments, &a, images * chunks * in->octets,
                          FIELD(moments, in.data), build_place(b, in), FIELD(moments, out), part);
    for (; rc == 0 && groups != 1; chunks = groups, run *= MOMENT_JOINED) {
        groups = chunks > MOMENT_CHUNKS ? ceil_div(chunks, MOMENT_JOINED) : 1;
        struct place out =
            groups > 1 ? float_buffer(b, images * groups * channels * 2, &rc) : norm->centre;
        a = (union kernel_args){
            .moments_sum_ = {.channels = (int32_t)s->dim[1],
                             .octets = (int32_t)in->octets,
                             .pixels = (int32_t)pixels,
                             .chunks = (int32_t)chunks,
                             .run = (int32_t)run,
                             .per = (int32_t)(groups > 1 ? MOMENT_JOINED : chunks),
                             .groups = (int32_t)groups,
                             .epsilon = (float)n->norm.epsilon}};
        if (rc == 0)
            rc = build_launch(b, KERNEL_moments_sum, &a, images * groups * channels);
        if (rc != 0)
            break;
        build_point(b, FIELD(moments_sum, part), part);
        build_point(b, FIELD(moments_sum, out), out);
        if (groups == 1) {
            build_point(b, FIELD(moments_sum, scale), norm->scale);
            build_point(b, FIELD(moments_sum, shift), norm->shift);
            build_point(b, FIELD(moments_sum, gamma), gamma);
            build_point(b, FIELD(moments_sum, beta), beta);
        }
        part = out;
    }
    return rc;
}

/* ---- which nodes are done at once ------------------------------------------------------------ */

/* The operand of an Add that is a norm's result which nobody else reads, or -1. Of two, the first.
 */
static int norm_operand(const struct graph *g, const struct node *n)
{
    const struct shape *s = &g->value[n->in[0]].shape;
    if (n->op != OP_ADD || s->rank != 4 || !shape_equal(s, &g->value[n->in[1]].shape))
        return -1;
    for (int k = 0; k < 2; k++) {
        const struct value *v = &g->value[n->in[k]];
        if (v->n_uses == 1 && v->producer >= 0 && g->node[v->producer].op == OP_INSTANCE_NORM)
            return k;
    }
    return -1;
}

static bool is_left_to_an_add(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_nodes; i++) {
        int k = norm_operand(g, &g->node[i]);
        if (k >= 0 && g->node[i].in[k] == value)
            return true;
    }
    return false;
}

static bool pads_rows(const struct graph *g, const struct node *n)
{
    const struct shape *is = &g->value[n->in[0]].shape, *os = &g->value[n->out[0]].shape;
    return n->op == OP_PAD && is->rank == 4 && n->pad.begin[0] == 0 && n->pad.begin[1] == 0 &&
           is->dim[0] == os->dim[0] && is->dim[1] == os->dim[1];
}

/* The Pad in whose result a norm's, or a sum's with one, is stored; NULL: it stands by itself. */
static const struct node *frame_of_value(const struct graph *g, int value)
{
    const struct node *pad = NULL;
    int uses = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] != value)
                continue;
            uses++;
            bool whole = pads_rows(g, n) && n->pad.begin[2] >= 0 && n->pad.begin[3] >= 0 &&
                         n->pad.end[2] >= 0 && n->pad.end[3] >= 0;
            int norm = norm_operand(g, n);
            if (whole && !pad)
                pad = n;
            else if (norm < 0 || norm == k)
                return NULL;
        }
    }
    return uses == g->value[value].n_uses ? pad : NULL; /* else it is an output of the graph */
}

/* ---- frames ---------------------------------------------------------------------------------- */

int build_pad_mode(const struct node *n)
{
    return n->pad.mode == PAD_REFLECT ? KP_REFLECT
           : n->pad.mode == PAD_EDGE  ? KP_EDGE
                                      : KP_CONSTANT;
}

/* What differs from a frame's size: how a Pad makes it. */
static void set_pad(struct frame_args *a, const struct graph *g, const struct node *pad)
{
    const struct shape *s = &g->value[pad->out[0]].shape;
    a->out_height = (int32_t)s->dim[2];
    a->out_width = (int32_t)s->dim[3];
    a->begin_y = (int32_t)pad->pad.begin[2];
    a->begin_x = (int32_t)pad->pad.begin[3];
    a->mode = build_pad_mode(pad);
    a->value = pad->pad.value;
}

/* norm, add: NULL for none. */
static int build_frame(struct build *b, const struct build_tensor *in,
                       const struct build_tensor *out, int64_t images, struct frame_args args,
                       const struct build_norm *norm, const struct build_tensor *add)
{
    union kernel_args a = {.frame_ = args};
    struct frame_args *f = &a.frame_;
    f->in = f->out = f->add = (struct kernel_array){NULL, b->half};
    f->octets = (int32_t)out->octets;
    f->in_pitch = (int32_t)in->pitch;
    f->out_pitch = (int32_t)out->pitch;
    f->runs = (int32_t)ceil_div(f->out_width, FRAME_PIXELS);
    if (add) {
        int64_t row = add->row ? add->row : f->in_width;
        f->add_pitch = (int32_t)add->pitch;
        f->add_row = (int32_t)(row * add->pitch);
        f->add_image = (int32_t)((add->row ? add->image : row * f->in_height) * add->pitch);
    }
    int rc = build_map(b, frame, &a, images * f->out_height * f->runs * out->octets,
                       build_place(b, in), build_place(b, out));
    if (rc == 0 && add)
        build_point(b, FIELD(frame, add.data), build_place(b, add));
    if (rc == 0 && norm) {
        build_point(b, FIELD(frame, centre), norm->centre);
        build_point(b, FIELD(frame, scale), norm->scale);
        build_point(b, FIELD(frame, shift), norm->shift);
    }
    return rc;
}

int build_pad_octets(struct build *b, const struct build_tensor *in, const struct build_tensor *out,
                     int64_t images, struct frame_args args)
{
    return build_frame(b, in, out, images, args, NULL, NULL);
}

/* value = act(norm(n's input)) + add, which may be NULL. */
static int apply_norm(struct build *b, const struct node *n, const struct build_norm *norm,
                      const struct build_tensor *add, int value)
{
    const struct node *pad = frame_of_value(b->g, value);
    const struct shape *s = &b->g->value[value].shape;
    struct build_tensor *in, *out, *t = &b->tensor[value];
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = build_write(b, pad ? pad->out[0] : value, &out);
    if (rc != 0)
        return rc;
    struct frame_args a = {.channels = (int32_t)s->dim[1],
                           .in_height = (int32_t)s->dim[2],
                           .in_width = (int32_t)s->dim[3],
                           .act = build_act(&n->act)};
    if (pad) {
        set_pad(&a, b->g, pad);
        *t = *out;
        t->offset += ((int64_t)a.begin_y * a.out_width + a.begin_x) * out->pitch;
        t->owns_lanes = false;
        t->row = a.out_width;
        t->image = (int64_t)a.out_height * a.out_width;
    } else {
        if (!add || add->row == 0) { /* one long row: no rest at the end of each */
            a.in_width *= a.in_height;
            a.in_height = 1;
        }
        a.out_height = a.in_height;
        a.out_width = a.in_width;
    }
    return build_frame(b, in, out, s->dim[0], a, norm, add);
}

/* A norm of another rank: a GroupNorm is one over images, groups and all of a group. */
static int build_flat_norm(struct build *b, const struct node *n)
{
    struct build_tensor x, y;
    struct build_norm norm;
    struct shape flat;
    int rc = build_flat(b, n->in[0], &flat, &x);
    if (rc == 0)
        rc = build_temporary(b, flat.dim[0], flat.dim[3], flat.dim[1], &y);
    if (rc == 0)
        rc = build_statistics(b, n, &flat, &x, &norm);
    if (rc == 0)
        rc = build_frame(b, &x, &y, flat.dim[0],
                         (struct frame_args){.channels = (int32_t)flat.dim[1],
                                             .in_height = 1,
                                             .in_width = (int32_t)flat.dim[3],
                                             .out_height = 1,
                                             .out_width = (int32_t)flat.dim[3],
                                             .act = build_act(&n->act)},
                         &norm, NULL);
    return rc != 0 ? rc : build_unflat(b, &flat, &y, n->out[0]);
}

int build_instance_norm(struct build *b, const struct node *n)
{
    const struct shape *s = &b->g->value[n->in[0]].shape;
    struct build_tensor *in;
    struct build_norm norm;
    if (s->rank != 4)
        return build_flat_norm(b, n);
    int rc = build_read(b, n->in[0], &in);
    if (rc == 0)
        rc = build_statistics(b, n, s, in, &norm);
    if (rc != 0)
        return rc;
    if (is_left_to_an_add(b->g, n->out[0])) {
        b->tensor[n->out[0]].norm = norm;
        return 0;
    }
    return apply_norm(b, n, &norm, NULL, n->out[0]);
}

bool build_frames(const struct build *b, const struct node *n)
{
    return pads_rows(b->g, n) || norm_operand(b->g, n) >= 0;
}

int build_framed(struct build *b, const struct node *n)
{
    int k = norm_operand(b->g, n), other = k < 0 ? n->in[0] : n->in[1 - k];
    struct build_tensor *t = &b->tensor[other], *out;
    if (k < 0 && t->row != 0) /* the Pad in whose result its input was stored */
        return 0;
    int rc = t->row != 0 ? 0 : build_read(b, other, &t);
    if (rc == 0 && k >= 0)
        return apply_norm(b, &b->g->node[b->g->value[n->in[k]].producer], &b->tensor[n->in[k]].norm,
                          t, n->out[0]);
    if (rc == 0)
        rc = build_write(b, n->out[0], &out);
    if (rc != 0)
        return rc;
    const struct shape *s = &b->g->value[other].shape;
    struct frame_args a = {.channels = (int32_t)s->dim[1],
                           .in_height = (int32_t)s->dim[2],
                           .in_width = (int32_t)s->dim[3]};
    set_pad(&a, b->g, n);
    return build_pad_octets(b, t, out, s->dim[0], a);
}
