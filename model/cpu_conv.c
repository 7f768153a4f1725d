/*
 * cpu_conv.c - plans one convolution: which way, which tables, how the work is cut; see cpu_conv.h
 *
 * Everything here follows from the sizes of one image, except the number of blocks, which decides
 * who does the work and never how a number is made.
 */
#include "model/cpu_conv_plan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* Bytes that a thread streams from memory per cycle (15 GB/s at 2.7 GHz, 19 GB/s at 3.3 GHz). */
#define STREAM_BYTES_PER_CYCLE 6.0
/* Cycles of a pixel of the padded copy, of each piece that is gathered for a row of a product
 * beside those of its vectors, and of each vector of outputs. */
#define COPY_CYCLES   6.0
#define PIECE_CYCLES  12.0
#define FINISH_CYCLES 4.0
/* Cycles of four outputs of a tap that are added up. */
#define TAP_CYCLES 1.0
/* Cycles of a Winograd transform per point of a vector of channels of a tile of 4 × 4, in and out;
 * as many times so many where the vector is not full, and where the tile is larger. */
#define TRANSFORM_IN_CYCLES  5.0
#define TRANSFORM_OUT_CYCLES 4.0
#define TRANSFORM_PART       2.0
#define TRANSFORM_PART_LARGE 4.0
#define TRANSFORM_SIDE_5     1.2
#define TRANSFORM_SIDE_6     1.5
/* Products of one task, in floats, so that they stay in the second-level cache. */
#define PRODUCT_FLOATS (400 * 1024)
/* Tiles of one task: few, so that what is made of them stays in the second-level cache too; where
 * the weights are too many for the caches (16 MiB), more, for each task streams them all. */
#define TILES_MOST      42
#define TILES_MOST_DEEP 56
#define CACHED_FLOATS   (4 * 1024 * 1024)
/* Most floats of a left operand that is made for several tasks (8 MiB). */
#define LEFT_FLOATS (2 * 1024 * 1024)
/* Most floats of a padded copy of the input. */
#define COPY_FLOATS ((int64_t)1 << 28)
/* Most columns: outputs of all taps. */
#define COLUMNS_MOST 256
/* With low_memory, how much more than the plain weights a layer may store (1 MiB). */
#define LOW_MEMORY_FLOATS (256 * 1024)

static int round_up(int n, int to)
{
    return (n + to - 1) / to * to;
}

/* Source row of row v of the (enlarged) input, −1 where it is padding. */
static int source_of(const struct cpu_conv_desc *d, int axis, int64_t v)
{
    int64_t size = (int64_t)(axis == 0 ? d->h : d->w) * d->up[axis];
    if (v < 0 || v >= size) {
        if (d->border == CPU_ZERO)
            return -1;
        if (d->border == CPU_EDGE)
            v = v < 0 ? 0 : size - 1;
        /* a border may be wider than the image: reflect until inside */
        while (d->border == CPU_REFLECT && (v < 0 || v >= size) && size > 1)
            v = v < 0 ? -v : 2 * (size - 1) - v;
        if (size == 1)
            v = 0;
    }
    return (int)(v / d->up[axis]);
}

static int floor_div(int a, int b)
{
    return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

/* --- what a way costs ------------------------------------------------------------------------- */

struct cost {
    double cycles;
    double floats; /* of packed weights */
};

static double total(double compute, double weights)
{
    double stream = weights * sizeof(float) / STREAM_BYTES_PER_CYCLE;
    return compute > stream ? compute + 0.4 * stream : stream + 0.4 * compute;
}

/* Few channels: rows of taps are copied as one. */
static bool wants_copy(const struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    int64_t copy_h =
        (int64_t)(d->oh - 1) * d->stride[0] + (int64_t)(d->kernel[0] - 1) * d->dilation[0] + 1;
    int64_t copy_w = (int64_t)(d->ow - 1) * d->stride[1] + d->kernel[1];
    return !d->transposed && d->group == 1 && c->merged == 1 && d->dilation[1] == 1 &&
           d->kernel[1] > 1 && d->c < 16 && d->c * d->kernel[1] <= CPU_KC &&
           copy_h * copy_w <= COPY_FLOATS / ((int64_t)d->n * d->c);
}

static struct cost cost_direct(const struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    double taps = (double)d->kernel[0] * d->kernel[1];
    double rows = (double)d->oh * d->ow;
    if (d->transposed)
        rows /= (double)d->stride[0] * d->stride[1];
    double k = taps * c->c, n = round_up(d->oc / d->group, c->k->lanes);
    double lanes = c->k->lanes, copy = 0;
    double pieces = taps, piece = c->c; /* that are gathered for a row */
    if (wants_copy(c)) {
        copy = COPY_CYCLES * ((double)d->oh * d->stride[0]) * ((double)d->ow * d->stride[1]);
        pieces = d->kernel[0];
        piece *= d->kernel[1];
    }
    double gather = pieces * (PIECE_CYCLES + 2 * piece / lanes), finish = FINISH_CYCLES * n / lanes;
    double compute = copy + d->group * rows * (k * n / lanes / 2 + gather + finish);
    double weights = d->group * k * n;
    return (struct cost){total(compute, weights), weights};
}

static struct cost cost_columns(const struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    double taps = (double)d->kernel[0] * d->kernel[1], k = c->c, lanes = c->k->lanes;
    double n = round_up(d->oc * d->kernel[0] * d->kernel[1], c->k->lanes);
    double bands = cpu_bands(d);
    double pixels = (d->oh + bands * (d->kernel[0] - 1) * d->dilation[0]) *
                    (d->ow + (d->kernel[1] - 1) * d->dilation[1]);
    double gather = PIECE_CYCLES + 2 * k / lanes;
    double add = (double)d->oh * d->ow * taps * (TAP_CYCLES * ((d->oc + 3) / 4));
    double compute = pixels * (k * n / lanes / 2 + gather) + add;
    return (struct cost){total(compute, k * n), k * n};
}

/* Vectors that channels take, the last one counted as what it costs. */
static double vectors(const struct cpu_conv *c, int channels)
{
    double part = c->side > 4 ? TRANSFORM_PART_LARGE : TRANSFORM_PART;
    return channels / c->k->lanes + (channels % c->k->lanes ? part : 0);
}

static struct cost cost_winograd(const struct cpu_conv *c)
{
    double tiles = (double)c->ty.tiles * c->tx.tiles, lanes = c->k->lanes;
    double k = c->depth, n = c->columns_pad, points = cpu_points(c);
    double in = c->in_phases * c->in_phases * vectors(c, c->d.c);
    double out = c->out_phases * c->out_phases * vectors(c, c->oc);
    double larger = c->side == 6 ? TRANSFORM_SIDE_6 : c->side == 5 ? TRANSFORM_SIDE_5 : 1;
    double compute =
        tiles * points *
        (k * n / lanes / 2 + larger * (in * TRANSFORM_IN_CYCLES + out * TRANSFORM_OUT_CYCLES));
    return (struct cost){total(compute, points * k * n), points * k * n};
}

/* --- which ways a layer has --------------------------------------------------------------------
 */

static bool square(const int v[2], int is)
{
    return v[0] == is && v[1] == is;
}

static bool has_winograd(const struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    if (d->group != 1 || c->merged != 1 || !square(d->dilation, 1))
        return false;
    if ((square(d->kernel, 4) || square(d->kernel, 3)) && square(d->stride, 2))
        return !d->shuffle;
    return !d->transposed && square(d->stride, 1) && (square(d->kernel, 3) || square(d->kernel, 2));
}

/* A kernel of 3 that Winograd computes as one of 4: it stores seven times the weights or more. */
static bool ends_in_zeros(const struct cpu_conv *c)
{
    return square(c->d.kernel, 3) && square(c->d.stride, 2);
}

static bool has_columns(const struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    return !d->transposed && d->group == 1 && c->merged == 1 && square(d->stride, 1) &&
           d->kernel[1] >= 2 && d->c >= 4 &&
           (int64_t)d->kernel[0] * d->kernel[1] * d->oc <= COLUMNS_MOST &&
           (d->kernel[0] - 1) * d->dilation[0] <= CPU_REACH_MAX &&
           (d->kernel[1] - 1) * d->dilation[1] <= CPU_REACH_MAX;
}

static bool has_depthwise(const struct cpu_conv_desc *d)
{
    return d->group > 1 && d->c == d->group && d->oc == d->group && !d->shuffle;
}

/* How many groups are computed as one: as many as fill a vector of outputs. */
static int groups_to_merge(const struct cpu_conv_desc *d, int lanes)
{
    int merge = 1, outputs = d->oc / d->group, inputs = d->c / d->group;
    for (int m = 2; m <= d->group && m * outputs <= lanes && m * inputs <= CPU_KC; m++)
        if (d->group % m == 0)
            merge = m;
    return merge;
}

/* --- tables ------------------------------------------------------------------------------------
 */

static int axis_taps_most(const struct cpu_conv_desc *d, int axis)
{
    return d->kernel[axis];
}

/* Fills one axis of one phase; room for taps and from was made. remainder: of (o + pad) by stride
 * for a transposed layer, 0 otherwise. Returns ints used. */
static size_t fill_axis(const struct cpu_conv *c, int axis, int remainder, struct cpu_axis *a,
                        int *room)
{
    const struct cpu_conv_desc *d = &c->d;
    int size = axis == 0 ? d->oh : d->ow, stride = d->stride[axis], pad = d->pad[axis];
    int dilation = d->dilation[axis], step = 1;
    if (d->transposed) {
        step = stride;
        int first = (remainder - pad) % stride;
        a->first = first < 0 ? first + stride : first;
        a->grid = size > a->first ? (size - a->first + stride - 1) / stride : 0;
    } else {
        a->first = 0;
        a->grid = size;
        if (c->way == CPU_COLUMNS)
            a->grid = size + (d->kernel[axis] - 1) * dilation;
    }
    int taps = c->way == CPU_COLUMNS || (axis == 1 && c->copied) ? 1 : d->kernel[axis];
    a->taps = 0;
    a->tap = room;
    a->from = room + taps;
    for (int t = 0; t < taps; t++) {
        int *from = a->from + (size_t)a->taps * (size_t)a->grid;
        if (d->transposed && (t * dilation) % stride != remainder)
            continue;
        bool any = false;
        for (int i = 0; i < a->grid; i++) {
            int64_t o = a->first + (int64_t)i * step;
            if (d->transposed) {
                int64_t v = (o + pad - (int64_t)t * dilation) / stride;
                if (o + pad < (int64_t)t * dilation)
                    v = -1;
                from[i] = source_of(d, axis, v);
            } else if (c->copied) {
                from[i] = (int)(o * stride + (int64_t)t * dilation);
            } else {
                from[i] = source_of(d, axis, o * stride + (int64_t)t * dilation - pad);
            }
            any = any || from[i] >= 0;
        }
        if (any)
            a->tap[a->taps++] = t;
    }
    return (size_t)taps * (1 + (size_t)a->grid);
}

static int plan_direct(struct cpu_conv *c)
{
    struct cpu_conv_desc *d = &c->d;
    int steps[2] = {d->transposed ? d->stride[0] : 1, d->transposed ? d->stride[1] : 1};
    c->copied = c->way == CPU_DIRECT && wants_copy(c);
    c->phases = steps[0] * steps[1];
    c->phase = calloc((size_t)c->phases, sizeof *c->phase);
    size_t extra[2];
    for (int i = 0; i < 2; i++)
        extra[i] = (size_t)(d->kernel[i] - 1) * (size_t)d->dilation[i];
    size_t ints =
        (size_t)c->phases * ((size_t)axis_taps_most(d, 0) * (1 + (size_t)d->oh + extra[0]) +
                             (size_t)axis_taps_most(d, 1) * (1 + (size_t)d->ow + extra[1]));
    if (c->copied) {
        c->copy_h = (d->oh - 1) * d->stride[0] + (d->kernel[0] - 1) * d->dilation[0] + 1;
        c->copy_w = (d->ow - 1) * d->stride[1] + d->kernel[1];
        c->copy_row = cpu_round16((size_t)c->copy_w * (size_t)d->c);
        ints += (size_t)c->copy_h + (size_t)c->copy_w;
    }
    c->tables = malloc(ints * sizeof *c->tables);
    if (!c->phase || !c->tables)
        return ERR_NOMEM;
    int *room = c->tables;
    if (c->copied) {
        c->copy_y = room;
        c->copy_x = room + c->copy_h;
        room += c->copy_h + c->copy_w;
        for (int i = 0; i < c->copy_h; i++)
            c->copy_y[i] = source_of(d, 0, (int64_t)i - d->pad[0]);
        for (int i = 0; i < c->copy_w; i++)
            c->copy_x[i] = source_of(d, 1, (int64_t)i - d->pad[1]);
    }
    c->segment = c->copied ? d->c * d->kernel[1] : c->c;
    c->columns = c->way == CPU_COLUMNS ? d->oc * d->kernel[0] * d->kernel[1] : d->oc / d->group;
    c->columns_pad = round_up(c->columns, c->k->lanes);
    size_t weights = 0;
    for (int i = 0; i < c->phases; i++) {
        struct cpu_phase *f = &c->phase[i];
        room += fill_axis(c, 0, i / steps[1], &f->y, room);
        room += fill_axis(c, 1, i % steps[1], &f->x, room);
        f->k = f->y.taps * f->x.taps * (c->way == CPU_DEPTHWISE ? 1 : c->segment);
        f->weights = weights;
        weights += (size_t)f->k * (size_t)c->columns_pad;
    }
    c->group_weights = weights;
    return 0;
}

/* One axis of Winograd: tiles over the grid, their rows' sources, and which tiles are plain. */
static void fill_tiles(struct cpu_conv *c, int axis, struct cpu_tiles *t, int *room, uint8_t *flags)
{
    const struct cpu_conv_desc *d = &c->d;
    int rows = t->tiles * c->m + c->r - 1;
    int pad = d->pad[axis], first = d->transposed ? floor_div(pad, 2) : 0;
    t->first = d->transposed ? 2 * first - pad : 0;
    for (int p = 0; p < c->in_phases; p++) {
        t->from[p] = room + (size_t)p * (size_t)rows;
        t->plain[p] = flags + (size_t)p * (size_t)t->tiles;
        for (int i = 0; i < rows; i++) {
            int64_t v = d->transposed       ? (int64_t)first - 1 + i
                        : c->in_phases == 2 ? 2 * (int64_t)i + p - pad
                                            : (int64_t)i - pad;
            t->from[p][i] = source_of(d, axis, v);
        }
        for (int i = 0; i < t->tiles; i++) {
            const int *f = t->from[p] + i * c->m;
            bool plain = f[0] >= 0;
            for (int k = 1; k < c->side; k++)
                plain = plain && f[k] == f[k - 1] + c->in_phases;
            t->plain[p][i] = plain;
        }
    }
}

static void size_winograd(struct cpu_conv *c, int side)
{
    const struct cpu_conv_desc *d = &c->d;
    bool two = d->stride[0] == 2;
    c->side = side;
    c->r = d->kernel[0] == 3 && !two ? 3 : 2;
    c->m = side - c->r + 1;
    c->in_phases = two && !d->transposed ? 2 : 1;
    c->out_phases = (two && d->transposed) || d->shuffle ? 2 : 1;
    int grid[2] = {d->oh, d->ow};
    for (int i = 0; i < 2 && d->transposed; i++) /* grid rows from that of output 0 to the last */
        grid[i] = floor_div(grid[i] - 1 + d->pad[i], 2) - floor_div(d->pad[i], 2) + 1;
    c->ty.tiles = (grid[0] + c->m - 1) / c->m;
    c->tx.tiles = (grid[1] + c->m - 1) / c->m;
    c->depth = c->in_phases * c->in_phases * d->c;
    c->columns = c->out_phases * c->out_phases * c->oc;
    c->columns_pad = round_up(c->columns, c->k->lanes);
}

static int plan_winograd(struct cpu_conv *c)
{
    size_t phases = (size_t)c->in_phases;
    size_t rows_y = (size_t)(c->ty.tiles * c->m + c->r - 1);
    size_t rows_x = (size_t)(c->tx.tiles * c->m + c->r - 1);
    c->tables = malloc(phases * (rows_y + rows_x) * sizeof *c->tables);
    c->flags = malloc(phases * (size_t)(c->ty.tiles + c->tx.tiles));
    if (!c->tables || !c->flags)
        return ERR_NOMEM;
    fill_tiles(c, 0, &c->ty, c->tables, c->flags);
    fill_tiles(c, 1, &c->tx, c->tables + phases * rows_y, c->flags + phases * (size_t)c->ty.tiles);
    c->group_weights = (size_t)cpu_points(c) * (size_t)c->depth * (size_t)c->columns_pad;
    return 0;
}

/* --- how the work is cut -----------------------------------------------------------------------
 */

static size_t left_floats(const struct cpu_conv *c)
{
    size_t sets = c->side > 0 ? (size_t)cpu_points(c) : (size_t)c->phases * (size_t)c->d.group;
    return sets * (size_t)c->chunks_max * (size_t)c->rows_max * CPU_LDA;
}

/* Several tasks for each thread; and, while one task more or less makes a difference, the same
 * number for each: of nine, one of two threads would do five while the other waits. */
static bool shared_out(int64_t tasks, int threads)
{
    return threads == 1 || tasks >= 16 * (int64_t)threads ||
           (tasks >= 4 * (int64_t)threads && tasks % threads == 0);
}

/* What there is to be cut. */
static void measure(struct cpu_conv *c)
{
    const struct cpu_conv_desc *d = &c->d;
    c->nr = 2 * c->k->lanes;
    c->panels = (c->columns_pad + c->nr - 1) / c->nr;
    int64_t rows;
    int most, sets = 1, depth = c->depth;
    if (c->side > 0) {
        rows = (int64_t)d->n * c->ty.tiles * c->tx.tiles;
        most = c->group_weights > CACHED_FLOATS ? TILES_MOST_DEEP : TILES_MOST;
        most = most / c->k->mr * c->k->mr;
    } else if (c->way == CPU_COLUMNS) {
        rows = d->ow;
        most = 8 * c->k->mr - (d->kernel[1] - 1) * d->dilation[1];
        most = most > 2 * c->k->mr ? most : 2 * c->k->mr;
        sets = d->n * cpu_bands(d);
    } else if (c->way == CPU_DEPTHWISE) {
        rows = most = CPU_DEPTH_PIXELS; /* a task is a row; so much of it lies in scratch memory */
    } else {
        rows = depth = 0;
        for (int i = 0; i < c->phases; i++)
            depth = c->phase[i].k > depth ? c->phase[i].k : depth;
        for (int i = 0; i < c->phases; i++)
            if ((int64_t)d->n * c->phase[i].y.grid * c->phase[i].x.grid > rows)
                rows = (int64_t)d->n * c->phase[i].y.grid * c->phase[i].x.grid;
        most = 8 * c->k->mr;
        sets = c->phases * d->group;
    }
    if (rows < most)
        most = rows > 0 ? (int)rows : 1;
    c->rows = rows;
    c->sets = sets;
    c->rows_most = most;
    c->rows_max = c->side > 0 ? (int64_t)cpu_point_rows(rows) : rows;
    c->chunks_max = (depth + CPU_KC - 1) / CPU_KC;
}

static void cut(const struct cpu_conv *c, int threads, struct cpu_cut *to)
{
    int most = c->rows_most, blocks = c->rows > 0 ? (int)((c->rows + most - 1) / most) : 0;
    int64_t tasks = (int64_t)blocks * c->sets;
    if (tasks >= 4 * (int64_t)threads && !shared_out(tasks, threads)) {
        blocks = round_up(blocks, threads);
        most = (int)((c->rows + blocks - 1) / blocks);
    }
    int columns = PRODUCT_FLOATS / (cpu_points(c) * most);
    int split = (c->columns_pad + columns - 1) / columns;
    /* A columns task needs the whole rows' overlap; its pieces are cut when run. */
    if (c->way == CPU_COLUMNS || c->way == CPU_DEPTHWISE)
        split = 1;
    else
        while (split < c->panels && !shared_out((int64_t)blocks * split * c->sets, threads))
            split++;
    split = split < 1 ? 1 : split > c->panels ? c->panels : split;
    *to = (struct cpu_cut){.threads = threads, .block = most, .blocks = blocks, .split = split};
    for (int i = 0; i < split; i++)
        if (cpu_panel_of(c, to, i + 1) - cpu_panel_of(c, to, i) > to->panels_max)
            to->panels_max = cpu_panel_of(c, to, i + 1) - cpu_panel_of(c, to, i);
    to->left_shared = split > 1 && !c->d.low_memory && left_floats(c) <= LEFT_FLOATS;
}

/* --- public ------------------------------------------------------------------------------------
 */

/* Most ints of the tables of a layer. */
#define TABLE_INTS ((int64_t)1 << 26)

static bool sane(const struct cpu_conv_desc *d)
{
    int64_t limit = INT_MAX / 64, ints = 0;
    for (int i = 0; i < 2; i++)
        if (d->kernel[i] < 1 || d->stride[i] < 1 || d->dilation[i] < 1 || d->up[i] < 1 ||
            d->kernel[i] > 4096 || d->stride[i] > 4096 || d->dilation[i] > 65536 ||
            d->pad[i] > limit || d->pad[i] < -limit)
            return false;
    for (int i = 0; i < 2; i++) {
        int64_t out = i == 0 ? d->oh : d->ow, taps = d->kernel[i];
        int64_t reach = (taps - 1) * d->dilation[i];
        if (!d->transposed && (out - 1) * d->stride[i] + reach > limit)
            return false;
        ints += taps * (1 + out + reach) / (d->transposed ? d->stride[i] : 1);
    }
    if (d->transposed)
        ints *= (int64_t)d->stride[0] * d->stride[1];
    if (ints > TABLE_INTS)
        return false;
    return d->n > 0 && d->h > 0 && d->w > 0 && d->c > 0 && d->oh > 0 && d->ow > 0 && d->oc > 0 &&
           d->group > 0 && d->c % d->group == 0 && d->oc % d->group == 0 && d->h <= limit &&
           d->w <= limit && d->oh <= limit && d->ow <= limit && d->c <= limit && d->oc <= limit &&
           (int64_t)d->n * d->oh * d->ow <= limit * 16 &&
           (int64_t)d->c * d->kernel[0] * d->kernel[1] <= limit &&
           (int64_t)d->oc * d->kernel[1] <= limit &&
           (!d->shuffle || (d->group == 1 && !d->transposed && d->oc % 4 == 0)) &&
           (!d->transposed || d->stride[0] * d->stride[1] <= CPU_PHASES_MAX);
}

static bool is_winograd(enum cpu_way way)
{
    return way == CPU_WINOGRAD4 || way == CPU_WINOGRAD5 || way == CPU_WINOGRAD6;
}

static int side_of(enum cpu_way way)
{
    return 4 + (int)(way - CPU_WINOGRAD4);
}

/* What Winograd costs by tiles of that size. */
static struct cost cost_of_side(const struct cpu_conv *c, int side)
{
    struct cpu_conv t = *c;
    size_winograd(&t, side);
    return cost_winograd(&t);
}

static enum cpu_way fastest(const struct cpu_conv *c)
{
    enum cpu_way way = CPU_DIRECT;
    struct cost best = cost_direct(c);
    if (has_columns(c) && !wants_copy(c) && cost_columns(c).cycles < best.cycles) {
        best = cost_columns(c);
        way = CPU_COLUMNS;
    }
    if (has_winograd(c) && !ends_in_zeros(c)) {
        struct cost w = cost_of_side(c, 4);
        if (w.cycles < best.cycles &&
            (!c->d.low_memory || w.floats < best.floats + LOW_MEMORY_FLOATS))
            way = CPU_WINOGRAD4;
    }
    return way;
}

static struct cost cost_now(const struct cpu_conv *c)
{
    if (is_winograd(c->way))
        return cost_winograd(c);
    return c->way == CPU_COLUMNS ? cost_columns(c) : cost_direct(c);
}

int cpu_conv_faster(const struct cpu_conv *c, struct cpu_other_way to[CPU_OTHER_WAYS])
{
    int count = 0;
    if (c->way == CPU_DEPTHWISE || !has_winograd(c))
        return 0;
    struct cost now = cost_now(c);
    for (enum cpu_way way = CPU_WINOGRAD4; way <= CPU_WINOGRAD6; way++) {
        struct cost other = cost_of_side(c, side_of(way));
        if (way != c->way && other.cycles < now.cycles && other.floats > now.floats)
            to[count++] = (struct cpu_other_way){way, now.cycles - other.cycles,
                                                 (size_t)(other.floats - now.floats)};
    }
    return count;
}

int cpu_conv_change(struct cpu_conv **c, enum cpu_way way, struct err *e)
{
    struct cpu_conv *other;
    int rc = cpu_conv_new(&other, &(*c)->d, (*c)->k, (*c)->cut[0].threads, &way, e);
    if (rc < 0)
        return rc;
    cpu_conv_free(*c);
    *c = other;
    return 0;
}

int cpu_conv_new(struct cpu_conv **out, const struct cpu_conv_desc *d, const struct cpu_kernels *k,
                 int threads, const enum cpu_way *way, struct err *e)
{
    if (!sane(d))
        return err_set(e, ERR_UNSUPPORTED,
                       "convolution %dx%d stride %dx%d from %dx%dx%d to %dx%dx%d: a size is too "
                       "large for the cpu engine",
                       d->kernel[0], d->kernel[1], d->stride[0], d->stride[1], d->c, d->h, d->w,
                       d->oc, d->oh, d->ow);
    struct cpu_conv *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory to plan a convolution");
    c->d = *d;
    c->k = k;
    bool depthwise = has_depthwise(d) && (!way || *way == CPU_DEPTHWISE);
    c->merged = depthwise ? d->group : groups_to_merge(d, k->lanes);
    c->d.group = d->group / c->merged;
    d = &c->d;
    c->c = d->c / d->group;
    c->oc = d->oc / d->group / (d->shuffle ? 4 : 1);
    if (depthwise) {
        c->way = CPU_DEPTHWISE;
    } else if (way) {
        c->way = *way;
        if ((is_winograd(*way) && !has_winograd(c)) || (*way == CPU_COLUMNS && !has_columns(c)) ||
            *way == CPU_DEPTHWISE) {
            cpu_conv_free(c);
            return err_set(e, ERR_UNSUPPORTED, "this convolution cannot be computed that way");
        }
    } else {
        c->way = fastest(c);
    }
    if (is_winograd(c->way))
        size_winograd(c, side_of(c->way));
    int rc = is_winograd(c->way) ? plan_winograd(c) : plan_direct(c);
    if (rc < 0) {
        cpu_conv_free(c);
        return err_set(e, rc, "no memory to plan a convolution");
    }
    measure(c);
    cut(c, threads, &c->cut[0]);
    cut(c, d->alone ? 1 : threads, &c->cut[1]);
    c->packed_floats =
        cpu_round16(c->group_weights * (size_t)d->group) + cpu_round16((size_t)d->oc) + CPU_SLACK;
    *out = c;
    return 0;
}

void cpu_conv_free(struct cpu_conv *c)
{
    if (!c)
        return;
    free(c->phase);
    free(c->tables);
    free(c->flags);
    free(c);
}

enum cpu_way cpu_conv_way(const struct cpu_conv *c)
{
    return c->way;
}

size_t cpu_conv_packed_floats(const struct cpu_conv *c)
{
    return c->packed_floats;
}

size_t cpu_cut_floats(const struct cpu_conv *c, const struct cpu_cut *cut)
{
    size_t row = cpu_product_row((size_t)cut->panels_max * (size_t)c->nr);
    size_t rows = (size_t)cut->block;
    if (c->way == CPU_DEPTHWISE) /* two sets of sums */
        return cpu_round16(2 * CPU_DEPTH_PIXELS * row + CPU_SLACK);
    if (c->way == CPU_COLUMNS) {
        size_t sums = cpu_band_row(c, cut);
        rows += (size_t)(c->d.kernel[1] - 1) * (size_t)c->d.dilation[1];
        return cpu_round16(rows * (CPU_LDA + row) + (CPU_BAND + 1) * sums + CPU_SLACK);
    }
    size_t points = (size_t)cpu_points(c);
    if (c->side > 0)
        rows = cpu_point_rows(cut->block);
    size_t edge = c->side > 0 ? points * CPU_KC : 0, left = cut->left_shared ? 0 : CPU_LDA;
    return cpu_round16(points * rows * (left + row) + edge + CPU_SLACK);
}

size_t cpu_conv_thread_floats(const struct cpu_conv *c)
{
    return cpu_cut_floats(c, &c->cut[0]);
}

size_t cpu_conv_alone_floats(const struct cpu_conv *c)
{
    return cpu_cut_floats(c, &c->cut[1]);
}

size_t cpu_conv_shared_floats(const struct cpu_conv *c)
{
    bool left = c->cut[0].left_shared || c->cut[1].left_shared;
    return cpu_conv_copy_floats(c) + (left ? left_floats(c) + CPU_SLACK : 0);
}
