/*
 * cpu_conv_run.c - runs a planned convolution; see cpu_conv.h
 *
 * A task is a block of pixels (direct), of a row (columns) or of tiles (Winograd) and a range of
 * panels. It goes through the depth in blocks of CPU_KC: brings the input into scratch memory,
 * multiplies by the panels, adds to its products, and at the end puts them where they belong. Tasks
 * that stream the same weights are neighbours.
 */
#include "model/cpu_conv_plan.h"

#include <string.h>

#include "node/base/pool.h"

struct run {
    const struct cpu_conv *c;
    const struct cpu_cut *cut;
    const struct cpu_view *in, *out, *residual;
    struct cpu_view copy; /* the padded copy, where there is one */
    float *scratch;
    size_t scratch_floats;
    float *left; /* shared by tasks, where it is */
};

/* Most rows of a block: eight calls of the widest micro-kernel, and the reach of a kernel row. */
#define ROWS_MAX   (CPU_BLOCK_MAX + CPU_REACH_MAX)
#define POINTS_MAX 36 /* of a Winograd tile */

static const struct cpu_act no_act = {CPU_NONE, 0, 0};

static const float *pixel_of(const struct cpu_view *v, int n, int y, int x)
{
    return v->data + n * v->image + y * v->row + x * v->pixel;
}

static float *pixel_at(const struct cpu_view *v, int n, int y, int x)
{
    return v->data + n * v->image + y * v->row + x * v->pixel;
}

/* One row of the padded copy of an input of few channels. */
static void copy_row(void *arg, int task, int thread)
{
    (void)thread;
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    int n = task / c->copy_h, y = task % c->copy_h, from = c->copy_y[y];
    float *to = pixel_at(&r->copy, n, y, 0);
    for (int x = 0; x < c->copy_w; x++, to += c->d.c) {
        if (from < 0 || c->copy_x[x] < 0) {
            for (int i = 0; i < c->d.c; i++)
                to[i] = 0;
        } else {
            const float *p = pixel_of(r->in, n, from, c->copy_x[x]);
            for (int i = 0; i < c->d.c; i++)
                to[i] = p[i];
        }
    }
    /* padding zeros must stay zeros: the activation goes over the inside only */
    if (from >= 0 && c->d.in_act.kind != CPU_NONE) {
        to = pixel_at(&r->copy, n, y, 0);
        for (int x = 0; x < c->copy_w; x++, to += c->d.c)
            if (c->copy_x[x] >= 0)
                c->k->copy(to, c->d.c, &c->d.in_act, to);
    }
}

/* Rows of a block: pixel i of the grid of a phase. */
struct pixels {
    int count;
    int n[ROWS_MAX], y[ROWS_MAX], x[ROWS_MAX];
};

/* Rows [k0, k0 + kc) of the depth for all pixels of a block, one tap after the other. */
static void gather_block(const struct cpu_conv *c, const struct cpu_phase *f,
                         const struct cpu_view *in, const struct cpu_act *act,
                         const struct pixels *p, int channel0, int k0, int kc, float *to)
{
    const float *from[ROWS_MAX];
    for (int k = k0, end = k0 + kc; k < end;) {
        int tap = k / c->segment, skip = k % c->segment;
        int length = c->segment - skip < end - k ? c->segment - skip : end - k;
        const int *sy = f->y.from + (size_t)(tap / f->x.taps) * (size_t)f->y.grid;
        const int *sx = f->x.from + (size_t)(tap % f->x.taps) * (size_t)f->x.grid;
        for (int i = 0; i < p->count; i++) {
            int y = sy[p->y[i]], x = sx[p->x[i]];
            from[i] = (y | x) < 0 ? NULL : pixel_of(in, p->n[i], y, x) + channel0 + skip;
        }
        c->k->gather(from, p->count, length, act, to + (k - k0), CPU_LDA);
        k += length;
    }
}

/* Panels of a block of depth, one point of it if Winograd. */
struct panels {
    const float *at;
    int kc;
};

static const float *panel_at(const struct cpu_conv *c, const struct panels *w, int panel)
{
    return w->at + (size_t)panel * (size_t)c->nr * (size_t)w->kc;
}

/* Pixels that a task brings to the cache while it multiplies, when memory has nothing else to do:
 * the places of its results, and what it reads next. They lie in pieces of rows. */
#define PIECES_MAX 128
/* Pieces that lie no further apart are one: there are no more of them than products. */
#define GAP_BYTES 1024
struct bring {
    struct cpu_hint piece[PIECES_MAX];
    int pieces, next;
    size_t bytes;     /* of all */
    size_t each_time; /* that are asked for with one product */
};

/* What a task can bring and still have when it is needed (2 MiB): more are left where they are. */
#define BRING_BYTES ((size_t)2 << 20)

static void bring_add(struct bring *b, const float *at, ptrdiff_t floats)
{
    size_t bytes = (size_t)floats * sizeof *at;
    if (floats <= 0)
        return;
    struct cpu_hint *last = b->pieces > 0 ? &b->piece[b->pieces - 1] : NULL;
    uintptr_t begin = (uintptr_t)at, end = last ? (uintptr_t)last->at + last->bytes : 0;
    if (last && begin >= end && begin - end <= GAP_BYTES) {
        bytes += begin - end;
        last->bytes += bytes;
    } else if (b->pieces < PIECES_MAX) {
        b->piece[b->pieces++] = (struct cpu_hint){at, bytes};
    } else {
        return;
    }
    b->bytes += bytes;
}

/* products: how many there are to ask with. */
static void bring_begin(struct bring *b, int products)
{
    if (b->bytes > BRING_BYTES)
        b->pieces = 0;
    /* The last of each piece goes with a product of its own. */
    int full = products > b->pieces ? products - b->pieces : 1;
    b->each_time = (b->bytes / (size_t)full / CPU_ALIGN + 1) * CPU_ALIGN;
}

static struct cpu_hint bring_next(struct bring *b)
{
    struct cpu_hint now = {0};
    if (!b || b->next == b->pieces)
        return now;
    struct cpu_hint *left = &b->piece[b->next];
    now = *left;
    if (now.bytes > b->each_time)
        now.bytes = b->each_time;
    left->at = (const char *)left->at + now.bytes;
    left->bytes -= now.bytes;
    b->next += left->bytes == 0;
    return now;
}

/* products[rows × panels] (+)= left · panels of w. next: the panels that this thread takes after
 * them; what it does not need itself is not brought, it would only displace what others need. b may
 * be NULL. */
static void multiply(const struct cpu_conv *c, const float *left, const struct panels *w,
                     const struct panels *next, int panel0, int panel1, float *products, size_t row,
                     int rows, bool add, struct bring *b)
{
    for (int p = panel0; p < panel1; p++)
        c->k->gemm(left, panel_at(c, w, p), cpu_panel_width(c, p),
                   products + (size_t)(p - panel0) * (size_t)c->nr, row, rows, w->kc, add,
                   p + 1 < panel1 ? panel_at(c, w, p + 1) : panel_at(c, next, panel0),
                   bring_next(b));
}

/* Columns [column0, column1) of a block's products to the places of their phases. */
static void put_shuffled(const struct run *r, const struct pixels *p, int column0, int column1,
                         const float *products, size_t row)
{
    const struct cpu_conv *c = r->c;
    for (int at = column0; at < column1;) {
        int phase = at / c->oc, o = at % c->oc;
        int count = c->oc - o < column1 - at ? c->oc - o : column1 - at;
        for (int i = 0; i < p->count; i++)
            c->k->finish(
                products + (size_t)i * row + (at - column0), c->bias + at, NULL, count,
                &c->d.out_act,
                pixel_at(r->out, p->n[i], 2 * p->y[i] + (phase >> 1), 2 * p->x[i] + (phase & 1)) +
                    o);
        at += count;
    }
}

/* Where the left operand of a block of depth of a set begins, if tasks share it. */
static float *left_of(const struct run *r, int set, int chunk)
{
    const struct cpu_conv *c = r->c;
    return r->left + ((size_t)set * (size_t)c->chunks_max + (size_t)chunk) * (size_t)cpu_points(c) *
                         (size_t)c->rows_max * CPU_LDA;
}

/* The rows of a block of a direct layer. */
struct direct {
    const struct cpu_phase *f;
    int set, group, first;
    struct pixels p;
};

static void direct_block(const struct run *r, int set, int block, struct direct *t)
{
    const struct cpu_conv *c = r->c;
    t->set = set;
    t->group = set / c->phases;
    t->f = &c->phase[set % c->phases];
    int area = t->f->y.grid * t->f->x.grid;
    int64_t rows = (int64_t)c->d.n * area, first = rows * block / r->cut->blocks;
    t->first = (int)first;
    t->p.count = (int)(rows * (block + 1) / r->cut->blocks - first);
    for (int i = 0; i < t->p.count; i++) {
        int64_t at = first + i;
        t->p.n[i] = (int)(at / area);
        t->p.y[i] = (int)(at % area) / t->f->x.grid;
        t->p.x[i] = (int)(at % area) % t->f->x.grid;
    }
}

static void direct_gather(const struct run *r, const struct direct *t, int k0, int kc, float *to)
{
    const struct cpu_conv *c = r->c;
    gather_block(c, t->f, c->copied ? &r->copy : r->in, c->copied ? &no_act : &c->d.in_act, &t->p,
                 t->group * c->c, k0, kc, to);
}

static int chunk_of(int depth, int k0)
{
    return depth - k0 < CPU_KC ? depth - k0 : CPU_KC;
}

/* The panels of the block of depth that begins at k0; weights: of the phase. */
static struct panels direct_panels(const struct cpu_conv *c, const struct cpu_phase *f,
                                   const float *weights, int k0)
{
    return (struct panels){weights + (size_t)k0 * (size_t)c->columns_pad, chunk_of(f->k, k0)};
}

/* One block of depth of a block of rows, for all tasks that need it. */
static void left_direct(void *arg, int task, int thread)
{
    (void)thread;
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    int chunk = task % c->chunks_max, block = task / c->chunks_max % r->cut->blocks;
    struct direct t;
    direct_block(r, task / c->chunks_max / r->cut->blocks, block, &t);
    int kc = chunk_of(t.f->k, chunk * CPU_KC);
    if (t.p.count > 0 && kc > 0)
        direct_gather(r, &t, chunk * CPU_KC, kc,
                      left_of(r, t.set, chunk) + (size_t)t.first * CPU_LDA);
}

static void run_direct(void *arg, int task, int thread)
{
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    int block = task % r->cut->blocks, part = task / r->cut->blocks % r->cut->split;
    struct direct t;
    direct_block(r, task / r->cut->blocks / r->cut->split, block, &t);
    const struct cpu_phase *f = t.f;
    int count = t.p.count;
    int panel0 = cpu_panel_of(c, r->cut, part), panel1 = cpu_panel_of(c, r->cut, part + 1);
    if (count == 0)
        return;
    float *own = r->scratch + (size_t)thread * r->scratch_floats;
    float *products = own + (r->cut->left_shared ? 0 : (size_t)r->cut->block * CPU_LDA);
    size_t row = cpu_product_row((size_t)r->cut->panels_max * (size_t)c->nr);
    const float *weights = c->weights + (size_t)t.group * c->group_weights + f->weights;
    for (int k0 = 0; k0 < f->k; k0 += CPU_KC) {
        int kc = chunk_of(f->k, k0);
        const float *left = own;
        if (r->cut->left_shared)
            left = left_of(r, t.set, k0 / CPU_KC) + (size_t)t.first * CPU_LDA;
        else
            direct_gather(r, &t, k0, kc, own);
        struct panels w = direct_panels(c, f, weights, k0);
        struct panels next = direct_panels(c, f, weights, k0 + kc < f->k ? k0 + kc : 0);
        multiply(c, left, &w, &next, panel0, panel1, products, row, count, k0 > 0, NULL);
    }
    if (f->k == 0) /* a phase that no tap reaches: the bias alone */
        memset(products, 0, (size_t)count * row * sizeof *products);
    int column = panel0 * c->nr, columns = panel1 * c->nr - column;
    if (columns > c->columns - column)
        columns = c->columns - column;
    if (c->d.shuffle) {
        put_shuffled(r, &t.p, column, column + columns, products, row);
        return;
    }
    int step_y = c->d.transposed ? c->d.stride[0] : 1,
        step_x = c->d.transposed ? c->d.stride[1] : 1;
    int o = t.group * c->oc + column;
    for (int i = 0; i < count; i++) {
        int y = f->y.first + t.p.y[i] * step_y, x = f->x.first + t.p.x[i] * step_x;
        c->k->finish(products + (size_t)i * row, c->bias + o,
                     r->residual ? pixel_of(r->residual, t.p.n[i], y, x) + o : NULL, columns,
                     &c->d.out_act, pixel_at(r->out, t.p.n[i], y, x) + o);
    }
}

/* A piece of a band of rows of outputs: acc[row of the band][pixel · outputs + output]. */
struct band {
    int n, y0, y1, first, count;
    float *acc;
    size_t acc_row;
};

/* Row v of the (padded) input has been multiplied: its taps to the rows of the band. */
static void add_row(const struct cpu_conv *c, const struct band *b, int v, const float *products,
                    size_t row, float *sums)
{
    const struct cpu_conv_desc *d = &c->d;
    size_t step = (size_t)d->dilation[1] * row + (size_t)d->oc;
    for (int t = 0; t < d->kernel[0]; t++) {
        int y = v - t * d->dilation[0];
        if (y < b->y0 || y >= b->y1)
            continue;
        c->k->add_taps(products + (size_t)t * (size_t)d->kernel[1] * (size_t)d->oc, row, b->count,
                       d->kernel[1], step, d->oc, sums);
        c->k->add_to(sums, b->count * d->oc, b->acc + (size_t)(y - b->y0) * b->acc_row);
    }
}

/* A row of the band to its place. */
static void finish_row(const struct run *r, const struct band *b, int y)
{
    const struct cpu_conv *c = r->c;
    int outputs = c->d.oc;
    float *sum = b->acc + (size_t)(y - b->y0) * b->acc_row;
    for (int i = 0; i < b->count && r->residual; i++) {
        const float *p = pixel_of(r->residual, b->n, y, b->first + i);
        for (int o = 0; o < outputs; o++)
            sum[i * outputs + o] += p[o];
    }
    c->k->copy(sum, b->count * outputs, &c->d.out_act, sum);
    for (int i = 0; i < b->count; i++, sum += outputs)
        for (int o = 0, phase = 0; o < outputs; o += c->oc, phase++) {
            int x = b->first + i;
            float *to = c->d.shuffle
                            ? pixel_at(r->out, b->n, 2 * y + (phase >> 1), 2 * x + (phase & 1))
                            : pixel_at(r->out, b->n, y, x);
            for (int k = 0; k < c->oc; k++)
                to[k] = sum[o + k];
        }
}

static void run_columns(void *arg, int task, int thread)
{
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    const struct cpu_conv_desc *d = &c->d;
    const struct cpu_phase *f = &c->phase[0];
    int bands = cpu_bands(d), block = task % r->cut->blocks;
    struct band b = {.n = task / r->cut->blocks / bands,
                     .y0 = task / r->cut->blocks % bands * CPU_BAND,
                     .first = (int)((int64_t)d->ow * block / r->cut->blocks),
                     .acc_row = cpu_band_row(c, r->cut)};
    b.y1 = b.y0 + CPU_BAND < d->oh ? b.y0 + CPU_BAND : d->oh;
    b.count = (int)((int64_t)d->ow * (block + 1) / r->cut->blocks) - b.first;
    if (b.count == 0)
        return;
    int reach = (d->kernel[1] - 1) * d->dilation[1], rows = b.count + reach;
    size_t row = cpu_product_row((size_t)r->cut->panels_max * (size_t)c->nr);
    float *left = r->scratch + (size_t)thread * r->scratch_floats;
    float *products = left + (size_t)(r->cut->block + reach) * CPU_LDA;
    float *sums = products + (size_t)(r->cut->block + reach) * row;
    b.acc = sums + b.acc_row;
    for (int i = 0; i < b.count; i++)
        memcpy(b.acc + i * d->oc, c->bias, (size_t)d->oc * sizeof *b.acc);
    for (int y = b.y0 + 1; y < b.y1; y++)
        memcpy(b.acc + (size_t)(y - b.y0) * b.acc_row, b.acc,
               (size_t)b.count * (size_t)d->oc * sizeof *b.acc);
    struct pixels at = {.count = rows};
    for (int i = 0; i < rows; i++) {
        at.n[i] = b.n;
        at.x[i] = b.first + i;
    }
    int x0 = d->w, x1 = -1; /* columns of the image that it reads */
    for (int i = 0; i < rows && f->k > 0; i++) {
        int x = f->x.from[b.first + i];
        x0 = x >= 0 && x < x0 ? x : x0;
        x1 = x > x1 ? x : x1;
    }
    int end = f->k > 0 ? b.y1 + (d->kernel[0] - 1) * d->dilation[0] : b.y0;
    for (int v = b.y0; v < end; v++) {
        if (f->y.from[v] < 0)
            continue;
        for (int i = 0; i < rows; i++)
            at.y[i] = v;
        struct bring next_row = {.pieces = 0};
        if (v + 1 < end && f->y.from[v + 1] >= 0)
            bring_add(&next_row, pixel_of(r->in, b.n, f->y.from[v + 1], x0),
                      (x1 + 1 - x0) * r->in->pixel);
        bring_begin(&next_row, c->chunks_max * c->panels);
        for (int k0 = 0; k0 < f->k; k0 += CPU_KC) {
            gather_block(c, f, r->in, &d->in_act, &at, 0, k0, chunk_of(f->k, k0), left);
            struct panels w = direct_panels(c, f, c->weights, k0);
            struct panels next =
                direct_panels(c, f, c->weights, k0 + CPU_KC < f->k ? k0 + CPU_KC : 0);
            multiply(c, left, &w, &next, 0, c->panels, products, row, rows, k0 > 0, &next_row);
        }
        add_row(c, &b, v, products, row, sums);
    }
    for (int y = b.y0; y < b.y1; y++)
        finish_row(r, &b, y);
}

/* Transforms n channels from channel0 of one tile of one phase. */
static void transform_in(const struct run *r, int n, int ty, int tx, int phase, int channel0,
                         int count, float *v, size_t point, float *edge)
{
    const struct cpu_conv *c = r->c;
    const struct cpu_view *in = r->in;
    int py = c->in_phases == 2 ? phase >> 1 : 0, px = c->in_phases == 2 ? phase & 1 : 0;
    const int *sy = c->ty.from[py] + ty * c->m, *sx = c->tx.from[px] + tx * c->m;
    if (c->ty.plain[py][ty] && c->tx.plain[px][tx]) {
        c->k->winograd_in(c->side, pixel_of(in, n, sy[0], sx[0]) + channel0, c->in_phases * in->row,
                          c->in_phases * in->pixel, count, &c->d.in_act, v, point);
        return;
    }
    const float *from[POINTS_MAX];
    for (int i = 0; i < cpu_points(c); i++) {
        int y = sy[i / c->side], x = sx[i % c->side];
        from[i] = (y | x) < 0 ? NULL : pixel_of(in, n, y, x) + channel0;
    }
    c->k->gather(from, cpu_points(c), count, &c->d.in_act, edge, count);
    c->k->winograd_in(c->side, edge, (ptrdiff_t)c->side * count, count, count, &no_act, v, point);
}

/* A block of depth, [k0, k0 + kc), of tiles first … first + count − 1. */
static void transform_tiles(const struct run *r, int64_t first, int count, int k0, int kc,
                            float *to, size_t point, float *edge)
{
    const struct cpu_conv *c = r->c;
    int area = c->ty.tiles * c->tx.tiles;
    for (int i = 0; i < count; i++) {
        int n = (int)((first + i) / area), t = (int)((first + i) % area);
        for (int k = 0; k < kc;) {
            int phase = (k0 + k) / c->d.c, channel = (k0 + k) % c->d.c;
            int length = c->d.c - channel < kc - k ? c->d.c - channel : kc - k;
            transform_in(r, n, t / c->tx.tiles, t % c->tx.tiles, phase, channel, length,
                         to + (size_t)i * CPU_LDA + k, point, edge);
            k += length;
        }
    }
}

/* Puts the part [column0, column1) of one tile's products into the output. */
static void transform_out(const struct run *r, int n, int ty, int tx, int column0, int column1,
                          const float *m, size_t point)
{
    const struct cpu_conv *c = r->c;
    int step = c->out_phases, grow = c->d.shuffle ? 2 : 1;
    int rows = c->d.oh * grow, columns = c->d.ow * grow;
    for (int phase = 0; phase < step * step; phase++) {
        int lo = phase * c->oc > column0 ? phase * c->oc : column0;
        int hi = (phase + 1) * c->oc < column1 ? (phase + 1) * c->oc : column1;
        if (lo >= hi)
            continue;
        int o = lo - phase * c->oc, b = c->d.shuffle ? lo : o;
        int y = c->ty.first + ty * c->m * step + (step == 2 ? phase >> 1 : 0);
        int x = c->tx.first + tx * c->m * step + (step == 2 ? phase & 1 : 0);
        struct cpu_tile_out t = {
            .at = pixel_at(r->out, n, y, x) + o,
            .row = step * r->out->row,
            .pixel = step * r->out->pixel,
            .y0 = y < 0,
            .x0 = x < 0,
            .y1 = y + (c->m - 1) * step < rows ? c->m : (rows - y + step - 1) / step,
            .x1 = x + (c->m - 1) * step < columns ? c->m : (columns - x + step - 1) / step,
        };
        if (r->residual) {
            t.residual = pixel_of(r->residual, n, y, x) + o;
            t.residual_row = step * r->residual->row;
            t.residual_pixel = step * r->residual->pixel;
        }
        c->k->winograd_out(c->side, c->r, m + (lo - column0), point, hi - lo, c->bias + b,
                           &c->d.out_act, &t);
    }
}

/* One row of tiles, one block of depth, for all tasks that need it. */
static void left_winograd(void *arg, int task, int thread)
{
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    int chunk = task % c->chunks_max, row = task / c->chunks_max;
    float *to = left_of(r, 0, chunk) + (size_t)row * (size_t)c->tx.tiles * CPU_LDA;
    float *edge = r->scratch + (size_t)thread * r->scratch_floats;
    transform_tiles(r, row * c->tx.tiles, c->tx.tiles, chunk * CPU_KC,
                    chunk_of(c->depth, chunk * CPU_KC), to, (size_t)c->rows_max * CPU_LDA, edge);
}

/* The panels of a point of the block of depth that begins at k0. */
static struct panels winograd_panels(const struct cpu_conv *c, int k0, int point)
{
    int kc = chunk_of(c->depth, k0);
    return (struct panels){c->weights +
                               ((size_t)cpu_points(c) * (size_t)k0 + (size_t)point * (size_t)kc) *
                                   (size_t)c->columns_pad,
                           kc};
}

/* Tiles tx0 … tx1 − 1 of a row of tiles. */
struct tile_row {
    int n, ty, tx0, tx1;
};

/* Their places in an image of the output's size. */
static void bring_places(const struct run *r, struct bring *b, const struct tile_row *t,
                         const struct cpu_view *v)
{
    const struct cpu_conv *c = r->c;
    int size = c->m * c->out_phases, grow = c->d.shuffle ? 2 : 1;
    int y0 = c->ty.first + t->ty * size, y1 = y0 + size;
    int x0 = c->tx.first + t->tx0 * size, x1 = c->tx.first + t->tx1 * size;
    y0 = y0 > 0 ? y0 : 0;
    x0 = x0 > 0 ? x0 : 0;
    y1 = y1 < c->d.oh * grow ? y1 : c->d.oh * grow;
    x1 = x1 < c->d.ow * grow ? x1 : c->d.ow * grow;
    for (int y = y0; y < y1; y++)
        bring_add(b, pixel_of(v, t->n, y, x0), (x1 - x0) * v->pixel);
}

/* The pixels that they are the first to read. */
static void bring_source(const struct run *r, struct bring *b, const struct tile_row *t)
{
    const struct cpu_conv *c = r->c;
    int over = c->side - c->m; /* that a tile shares with the one before */
    int first = t->tx0 * c->m + over, last = t->tx1 * c->m + over - 1;
    const int *x0 = c->tx.from[0], *x1 = c->tx.from[c->in_phases - 1];
    while (first < last && x0[first] < 0)
        first++;
    while (first < last && x1[last] < 0)
        last--;
    if (x0[first] < 0 || x1[last] < 0)
        return;
    for (int i = over; i < c->side; i++)
        for (int phase = 0; phase < c->in_phases; phase++) { /* row after row, so */
            const int *from = c->ty.from[phase] + t->ty * c->m;
            if (from[i] >= 0 && from[i] != from[i - 1])
                bring_add(b, pixel_of(r->in, t->n, from[i], x0[first]),
                          (x1[last] + 1 - x0[first]) * r->in->pixel);
        }
}

/* Tiles first … first + count − 1, row by row. */
static void bring_tiles(const struct run *r, struct bring *b, int64_t first, int64_t count,
                        bool results)
{
    const struct cpu_conv *c = r->c;
    int area = c->ty.tiles * c->tx.tiles;
    int64_t end = first + count, all = (int64_t)c->d.n * area;
    for (end = end < all ? end : all; first < end;) {
        int at = (int)(first % area), tx = at % c->tx.tiles, rest = c->tx.tiles - tx;
        int tiles = end - first < rest ? (int)(end - first) : rest;
        const struct tile_row t = {(int)(first / area), at / c->tx.tiles, tx, tx + tiles};
        if (results)
            bring_places(r, b, &t, r->out);
        if (results && r->residual)
            bring_places(r, b, &t, r->residual);
        if (!results)
            bring_source(r, b, &t);
        first += tiles;
    }
}

static void run_winograd(void *arg, int task, int thread)
{
    const struct run *r = arg;
    const struct cpu_conv *c = r->c;
    int block = task % r->cut->blocks, part = task / r->cut->blocks;
    int area = c->ty.tiles * c->tx.tiles;
    int64_t tiles = (int64_t)c->d.n * area, first = tiles * block / r->cut->blocks;
    int count = (int)(tiles * (block + 1) / r->cut->blocks - first);
    int panel0 = cpu_panel_of(c, r->cut, part), panel1 = cpu_panel_of(c, r->cut, part + 1);
    size_t row = cpu_product_row((size_t)r->cut->panels_max * (size_t)c->nr);
    float *edge = r->scratch + (size_t)thread * r->scratch_floats;
    int points = cpu_points(c);
    float *products = edge + (size_t)points * CPU_KC;
    float *own = products + (size_t)points * cpu_point_rows(r->cut->block) * row;
    size_t m_point = cpu_point_rows(count) * row;
    size_t v_point = (r->cut->left_shared ? (size_t)c->rows_max : cpu_point_rows(count)) * CPU_LDA;
    struct bring b = {.pieces = 0};
    if (r->cut->split == 1) { /* who comes next reads the tiles of as many blocks later */
        bring_tiles(r, &b, first, count, true);
        bring_tiles(r, &b, first + (int64_t)r->cut->threads * count, count, false);
        bring_begin(&b, c->chunks_max * points * (panel1 - panel0));
    }
    for (int k0 = 0; k0 < c->depth; k0 += CPU_KC) {
        int kc = chunk_of(c->depth, k0);
        const float *v = own;
        if (r->cut->left_shared)
            v = left_of(r, 0, k0 / CPU_KC) + (size_t)first * CPU_LDA;
        else
            transform_tiles(r, first, count, k0, kc, own, v_point, edge);
        for (int p = 0; p < points; p++) {
            struct panels w = winograd_panels(c, k0, p);
            struct panels next = p + 1 < points
                                     ? winograd_panels(c, k0, p + 1)
                                     : winograd_panels(c, k0 + kc < c->depth ? k0 + kc : 0, 0);
            multiply(c, v + (size_t)p * v_point, &w, &next, panel0, panel1,
                     products + (size_t)p * m_point, row, count, k0 > 0, &b);
        }
    }
    int column0 = panel0 * c->nr, column1 = panel1 * c->nr;
    if (column1 > c->columns)
        column1 = c->columns;
    for (int i = 0; i < count; i++) {
        int n = (int)((first + i) / area), t = (int)((first + i) % area);
        transform_out(r, n, t / c->tx.tiles, t % c->tx.tiles, column0, column1,
                      products + (size_t)i * row, m_point);
    }
}

void cpu_conv_run(const struct cpu_conv *c, const struct cpu_view *in, const struct cpu_view *out,
                  const struct cpu_view *residual, struct pool *p, float *scratch, float *shared)
{
    if (c->way == CPU_DEPTHWISE) {
        cpu_depthwise_run(c, in, out, residual, p, scratch);
        return;
    }
    const struct cpu_cut *cut = cpu_cut_for(c, p);
    struct run r = {.c = c,
                    .cut = cut,
                    .in = in,
                    .out = out,
                    .residual = residual,
                    .scratch = scratch,
                    .scratch_floats = cpu_cut_floats(c, cut),
                    .left = shared + cpu_conv_copy_floats(c)};
    if (c->copied) {
        r.copy = (struct cpu_view){.data = shared,
                                   .n = c->d.n,
                                   .h = c->copy_h,
                                   .w = c->copy_w,
                                   .c = c->d.c,
                                   .image = (ptrdiff_t)c->copy_h * (ptrdiff_t)c->copy_row,
                                   .row = (ptrdiff_t)c->copy_row,
                                   .pixel = c->d.c};
        pool_run(p, c->d.n * c->copy_h, copy_row, &r);
    }
    if (cut->left_shared && c->side > 0)
        pool_run(p, c->d.n * c->ty.tiles * c->chunks_max, left_winograd, &r);
    else if (cut->left_shared)
        pool_run(p, c->d.group * c->phases * cut->blocks * c->chunks_max, left_direct, &r);
    if (c->side > 0)
        pool_run(p, cut->blocks * cut->split, run_winograd, &r);
    else if (c->way == CPU_COLUMNS)
        pool_run(p, c->d.n * cpu_bands(&c->d) * cut->blocks, run_columns, &r);
    else
        pool_run(p, c->d.group * c->phases * cut->split * cut->blocks, run_direct, &r);
}
