/*
 * cpu_conv_depthwise.c - convolutions of one channel to one channel; see cpu_conv.h
 *
 * Weights lie as [phase][tap][channel], a task is a row of a phase. Taps that meet padding are left
 * out, so zeros of padding never pass through an activation.
 */
#include "model/cpu_conv_plan.h"

#include "node/base/pool.h"

#define TAPS_AT_ONCE 64

struct run {
    const struct cpu_conv *c;
    const struct cpu_view *in, *out, *residual;
    float *scratch;
    size_t scratch_floats;
};

void cpu_depthwise_pack(const struct cpu_conv *c, const float *weights, float *to)
{
    size_t taps = (size_t)c->d.kernel[0] * (size_t)c->d.kernel[1];
    for (int i = 0; i < c->phases; i++) {
        const struct cpu_phase *f = &c->phase[i];
        for (int t = 0; t < f->k; t++) {
            int y = f->y.tap[t / f->x.taps], x = f->x.tap[t % f->x.taps];
            const float *w = weights + (size_t)y * (size_t)c->d.kernel[1] + (size_t)x;
            float *row = to + f->weights + (size_t)t * (size_t)c->columns_pad;
            for (int o = 0; o < c->columns_pad; o++)
                row[o] = o < c->columns ? w[(size_t)o * taps] : 0;
        }
    }
}

/* Sums of `pixels` pixels from column x0 of row y of a phase, a few taps at a time. */
static void sum_pixels(const struct run *r, const struct cpu_phase *f, int n, int y, int x0,
                       int pixels, float *sums, size_t row)
{
    const struct cpu_conv *c = r->c;
    const float *from[TAPS_AT_ONCE * CPU_DEPTH_PIXELS];
    int tap[TAPS_AT_ONCE], taps = 0;
    bool begun = false;
    float *more = sums + (size_t)CPU_DEPTH_PIXELS * row;
    for (int t = 0; t <= f->k; t++) {
        if (taps == TAPS_AT_ONCE || t == f->k) {
            c->k->depthwise(from, tap, taps, pixels, c->weights + f->weights,
                            (size_t)c->columns_pad, c->columns, &c->d.in_act, begun ? more : sums,
                            row);
            for (int p = 0; p < pixels && begun; p++)
                c->k->add_to(more + (size_t)p * row, c->columns, sums + (size_t)p * row);
            begun = true;
            taps = 0;
        }
        if (t == f->k)
            break;
        int sy = f->y.from[(size_t)(t / f->x.taps) * (size_t)f->y.grid + (size_t)y];
        const int *sx = f->x.from + (size_t)(t % f->x.taps) * (size_t)f->x.grid + x0;
        if (sy < 0 || (pixels == 1 && sx[0] < 0))
            continue;
        for (int p = 0; p < pixels; p++)
            from[taps * pixels + p] =
                r->in->data + n * r->in->image + sy * r->in->row + sx[p] * r->in->pixel;
        tap[taps++] = t;
    }
}

/* Do all taps of four pixels from column x0 meet the image, as far as columns go? */
static bool all_inside(const struct cpu_phase *f, int x0)
{
    for (int t = 0; t < f->x.taps; t++)
        for (int p = 0; p < CPU_DEPTH_PIXELS; p++)
            if (f->x.from[(size_t)t * (size_t)f->x.grid + (size_t)(x0 + p)] < 0)
                return false;
    return true;
}

/* Most rows of any phase. */
static int rows_most(const struct cpu_conv *c)
{
    int rows = 0;
    for (int i = 0; i < c->phases; i++)
        rows = c->phase[i].y.grid > rows ? c->phase[i].y.grid : rows;
    return rows;
}

static void run_row(void *arg, int task, int thread)
{
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    const struct cpu_phase *f = &c->phase[task % c->phases];
    int rows = rows_most(c);
    int y = task / c->phases % rows, n = task / c->phases / rows;
    if (y >= f->y.grid)
        return;
    int step_y = c->d.transposed ? c->d.stride[0] : 1;
    int step_x = c->d.transposed ? c->d.stride[1] : 1;
    int to_y = f->y.first + y * step_y;
    float *sums = r->scratch + (size_t)thread * r->scratch_floats;
    size_t row = cpu_product_row((size_t)c->panels * (size_t)c->nr);
    for (int x = 0, pixels; x < f->x.grid; x += pixels) {
        pixels = x + CPU_DEPTH_PIXELS <= f->x.grid && all_inside(f, x) ? CPU_DEPTH_PIXELS : 1;
        sum_pixels(r, f, n, y, x, pixels, sums, row);
        for (int p = 0; p < pixels; p++) {
            int to_x = f->x.first + (x + p) * step_x;
            const float *add = NULL;
            if (r->residual)
                add = r->residual->data + n * r->residual->image + to_y * r->residual->row +
                      to_x * r->residual->pixel;
            c->k->finish(sums + (size_t)p * row, c->bias, add, c->columns, &c->d.out_act,
                         r->out->data + n * r->out->image + to_y * r->out->row +
                             to_x * r->out->pixel);
        }
    }
}

void cpu_depthwise_run(const struct cpu_conv *c, const struct cpu_view *in,
                       const struct cpu_view *out, const struct cpu_view *residual, struct pool *p,
                       float *scratch)
{
    struct run r = {c, in, out, residual, scratch, cpu_cut_floats(c, cpu_cut_for(c, p))};
    pool_run(p, c->phases * rows_most(c) * c->d.n, run_row, &r);
}
