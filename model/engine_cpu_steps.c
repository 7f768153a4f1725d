/* engine_cpu_steps.c - carries out the steps of a plan; see engine_cpu_plan.h */
#include "model/engine_cpu_plan.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "model/cpu_conv_plan.h"
#include "node/base/pool.h"

struct cpu_nd cpu_place_nd(const struct place *at, float *const *base)
{
    struct cpu_nd t = {.data = base[at->root] + at->offset, .rank = at->rank};
    memcpy(t.dim, at->dim, sizeof t.dim);
    memcpy(t.stride, at->stride, sizeof t.stride);
    return t;
}

static struct cpu_view view_of(const struct cpu_nd *t)
{
    return (struct cpu_view){.data = t->data,
                             .n = (int)t->dim[0],
                             .h = (int)t->dim[2],
                             .w = (int)t->dim[3],
                             .c = (int)t->dim[1],
                             .image = t->stride[0],
                             .row = t->stride[2],
                             .pixel = t->stride[3]};
}

/* --- layouts: rows of an image between planes and pixels --- */

/* Floats of one task: of fewer, handing them out costs as much as turning them. */
#define TURN_FLOATS (16 * 1024)

struct turn {
    const struct cpu_kernels *k;
    const struct cpu_nd *in, *out;
    const struct cpu_act *act;
    bool to_pixels;
    int rows, step; /* of all images; of one task */
};

static void turn_row(const struct turn *t, int row)
{
    int64_t h = t->in->dim[2], n = row / h, y = row % h;
    const float *from = t->in->data + n * t->in->stride[0] + y * t->in->stride[2];
    float *to = t->out->data + n * t->out->stride[0] + y * t->out->stride[2];
    int w = (int)t->in->dim[3], c = (int)t->in->dim[1];
    if (t->to_pixels)
        t->k->to_pixels(from, (size_t)t->in->stride[1], w, c, to, t->out->stride[3]);
    else
        t->k->to_planes(from, t->in->stride[3], w, c, t->act, to, (size_t)t->out->stride[1]);
}

static void turn_rows(void *arg, int task, int thread)
{
    (void)thread;
    const struct turn *t = arg;
    int end = t->step * (task + 1);
    for (int row = t->step * task; row < (end < t->rows ? end : t->rows); row++)
        turn_row(t, row);
}

static void turn(struct pool *pool, struct turn *t)
{
    int64_t floats = t->in->dim[1] * t->in->dim[3];
    t->rows = (int)(t->in->dim[0] * t->in->dim[2]);
    t->step = floats < TURN_FLOATS ? (int)(TURN_FLOATS / floats) : 1;
    pool_run(pool, (t->rows + t->step - 1) / t->step, turn_rows, t);
}

static void run_copy(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                     const struct cpu_act *act)
{
    struct turn t = {.k = r->k, .in = in, .out = out, .act = act, .to_pixels = true};
    bool image = in->rank == 4 && in->dim[1] > 1 && in->dim[3] > 1 && in->stride[1] > 0;
    if (image && in->stride[3] == 1 && out->stride[1] == 1 && act->kind == CPU_NONE) {
        turn(r->pool, &t);
    } else if (image && in->stride[1] == 1 && out->stride[3] == 1) {
        t.to_pixels = false;
        turn(r->pool, &t);
    } else {
        cpu_nd_copy(r, in, out, act);
    }
}

/* --- norm and affine ------------------------------------------------------------------------- */

/* Rows of an image are summed in bands whose number depends on the image alone. */
#define BANDS_MAX 32

struct norm {
    const struct cpu_kernels *k;
    struct cpu_view in, out, residual;
    bool has_residual;
    int bands;
    float *partial;      /* [image][band][channel] */
    float *mean, *scale; /* [image][channel] */
    const float *gain, *shift;
    bool squares;
    const struct cpu_act *act;
};

static void norm_sum(void *arg, int task, int thread)
{
    (void)thread;
    const struct norm *t = arg;
    int n = task / t->bands, band = task % t->bands, c = t->in.c;
    float *sum = t->partial + (size_t)task * (size_t)c;
    memset(sum, 0, (size_t)c * sizeof *sum);
    for (int y = t->in.h * band / t->bands; y < t->in.h * (band + 1) / t->bands; y++) {
        const float *x = t->in.data + n * t->in.image + y * t->in.row;
        for (int i = 0; i < t->in.w; i++, x += t->in.pixel) {
            if (t->squares)
                t->k->add_square_to(x, t->mean + (size_t)n * (size_t)c, c, sum);
            else
                t->k->add_to(x, c, sum);
        }
    }
}

static void norm_apply(void *arg, int task, int thread)
{
    (void)thread;
    const struct norm *t = arg;
    int n = task / t->in.h, y = task % t->in.h, c = t->in.c;
    const float *x = t->in.data + n * t->in.image + y * t->in.row;
    float *to = t->out.data + n * t->out.image + y * t->out.row;
    const float *add = t->residual.data;
    if (t->has_residual)
        add += n * t->residual.image + y * t->residual.row;
    const float *mean = t->mean ? t->mean + (size_t)n * (size_t)c : NULL;
    const float *scale = t->mean ? t->scale + (size_t)n * (size_t)c : t->gain;
    for (int i = 0; i < t->in.w; i++) {
        t->k->affine(x, mean, scale, t->shift, t->has_residual ? add : NULL, c, t->act, to);
        x += t->in.pixel;
        to += t->out.pixel;
        if (t->has_residual)
            add += t->residual.pixel;
    }
}

static int bands_of(int64_t rows)
{
    return rows < BANDS_MAX ? (int)rows : BANDS_MAX;
}

size_t cpu_step_shared_floats(const struct step *s, const struct cpu_plan *p)
{
    (void)p;
    if (s->kind == STEP_CONV)
        return cpu_conv_shared_floats(s->conv);
    if (s->kind != STEP_NORM)
        return 0;
    size_t channels = (size_t)(s->in[0].dim[0] * s->in[0].dim[1]);
    return cpu_round16(channels * (size_t)(bands_of(s->in[0].dim[2]) + 2)) + CPU_SLACK;
}

/* Biased variance over the image, two passes, so that a large mean costs no digits. */
static void run_norm(const struct step *s, const struct cpu_plan *p, const struct cpu_run *r,
                     const struct cpu_nd *in, const struct cpu_nd *residual,
                     const struct cpu_nd *out, float *shared)
{
    struct norm t = {.k = r->k, .in = view_of(in), .out = view_of(out), .act = &s->act};
    t.gain = p->constants + s->scale;
    t.shift = p->constants + s->shift;
    t.has_residual = residual != NULL;
    if (residual)
        t.residual = view_of(residual);
    if (s->kind == STEP_NORM) {
        size_t channels = (size_t)t.in.n * (size_t)t.in.c;
        t.bands = bands_of(t.in.h);
        t.mean = shared;
        t.scale = shared + channels;
        t.partial = shared + 2 * channels;
        for (int pass = 0; pass < 2; pass++) {
            t.squares = pass == 1;
            pool_run(r->pool, t.in.n * t.bands, norm_sum, &t);
            for (size_t i = 0; i < channels; i++) {
                size_t image = i / (size_t)t.in.c, c = i % (size_t)t.in.c;
                double sum = 0;
                for (int b = 0; b < t.bands; b++)
                    sum +=
                        (double)
                            t.partial[(image * (size_t)t.bands + (size_t)b) * (size_t)t.in.c + c];
                sum /= (double)t.in.h * (double)t.in.w;
                if (pass == 0)
                    t.mean[i] = (float)sum;
                else
                    t.scale[i] = (float)((double)t.gain[c] / sqrt(sum + s->epsilon));
            }
        }
    }
    pool_run(r->pool, t.in.n * t.in.h, norm_apply, &t);
}

/* --- pooling --------------------------------------------------------------------------------- */

struct pooling {
    const struct cpu_run *r;
    const struct step *s;
    struct cpu_view in, out;
};

static void pool_row(void *arg, int task, int thread)
{
    (void)thread;
    const struct pooling *t = arg;
    const struct pool_attr *a = &t->s->pool;
    const struct cpu_kernels *k = t->r->k;
    const struct cpu_act none = {CPU_NONE, 0, 0};
    int n = task / t->out.h, y = task % t->out.h, c = t->in.c;
    bool mean = t->s->op == OP_AVERAGE_POOL;
    for (int x = 0; x < t->out.w; x++) {
        float *to = t->out.data + n * t->out.image + y * t->out.row + x * t->out.pixel;
        for (int i = 0; i < c; i++)
            to[i] = mean ? 0.0f : -FLT_MAX;
        /* only taps that meet the input: a window may be far larger */
        int64_t i0 = pool_taps(a, 0, y, 0), i1 = pool_taps(a, 0, y, t->in.h);
        int64_t j0 = pool_taps(a, 1, x, 0), j1 = pool_taps(a, 1, x, t->in.w);
        for (int64_t i = i0; i < i1; i++)
            for (int64_t j = j0; j < j1; j++) {
                int64_t sy = y * a->stride[0] - a->pad_begin[0] + i * a->dilation[0];
                int64_t sx = x * a->stride[1] - a->pad_begin[1] + j * a->dilation[1];
                const float *from =
                    t->in.data + n * t->in.image + sy * t->in.row + sx * t->in.pixel;
                if (mean)
                    k->add_to(from, c, to);
                else
                    k->binary(CPU_MAX, to, 1, from, 1, (size_t)c, &none, to);
            }
        /* a window that ceil_mode lets hang over counts only what pads cover */
        int64_t by = (i1 - i0) * (j1 - j0);
        if (a->count_include_pad)
            by = pool_taps(a, 0, y, t->in.h + a->pad_end[0]) *
                 pool_taps(a, 1, x, t->in.w + a->pad_end[1]);
        if (mean && by > 0) {
            float w = (float)by;
            k->binary(CPU_DIV, to, 1, &w, 0, (size_t)c, &none, to);
        }
    }
}

void cpu_step_run(const struct cpu_plan *p, const struct step *s, float *const *base,
                  struct pool *pool, float *scratch, float *shared)
{
    const struct cpu_run r = {p->k, pool};
    struct cpu_nd out = cpu_place_nd(&s->out, base), a = {0}, b = {0};
    if (s->in[0].root >= 0)
        a = cpu_place_nd(&s->in[0], base);
    if (s->in[1].root >= 0)
        b = cpu_place_nd(&s->in[1], base);
    switch (s->kind) {
    case STEP_CONV: {
        struct cpu_view from = view_of(&a), to = view_of(&out), residual;
        if (s->in[1].root >= 0)
            residual = view_of(&b);
        cpu_conv_run(s->conv, &from, &to, s->in[1].root >= 0 ? &residual : NULL, pool, scratch,
                     shared);
        break;
    }
    case STEP_COPY:
        run_copy(&r, &a, &out, &s->act);
        break;
    case STEP_FILL:
        cpu_nd_fill(&r, &out, s->value);
        break;
    case STEP_UNARY:
        cpu_nd_unary(&r, (enum cpu_unary)s->what, &a, &out);
        break;
    case STEP_BINARY:
        cpu_nd_binary(&r, (enum cpu_binary)s->what, &a, &b, &out, &s->act);
        break;
    case STEP_INDEX:
        cpu_nd_index(&r, &a, &out, s->axis, s->index, s->value);
        break;
    case STEP_TAPS:
        cpu_nd_taps(&r, &a, &out, s->axis, s->taps, s->index, s->weight);
        break;
    case STEP_REDUCE:
        cpu_nd_reduce(&r, (enum cpu_reduce)s->what, &a, &out);
        break;
    case STEP_AFFINE:
    case STEP_NORM:
        run_norm(s, p, &r, &a, s->in[1].root >= 0 ? &b : NULL, &out, shared);
        break;
    case STEP_POOL: {
        struct pooling t = {&r, s, view_of(&a), view_of(&out)};
        pool_run(pool, (int)(out.dim[0] * out.dim[2]), pool_row, &t);
        break;
    }
    }
}
