/*
 * cpu_conv_pack.c - weights in the order in which cpu_conv_run.c streams them
 *
 * direct:    group, phase, block of depth (CPU_KC), panel, row of the panel
 * depthwise: phase, tap, channel (cpu_conv_depthwise.c)
 * Winograd:  block of depth, point (side²), panel, row of the panel
 *
 * A panel is nr = 2 vectors wide, the last one of a layer may be one vector; columns beyond the
 * layer's are zeros.
 *
 * Most weights of a network stand in layers whose outputs fill whole panels. They are loaded, which
 * converts, scales and checks them, and packed a few channels at a time, all taps of a kernel at
 * once, so that each line of the tensor is read from memory once, by the thread that packs it, and
 * each line of a panel written once. The others are loaded first and packed element by element.
 */
#include "model/cpu_conv_plan.h"

#include <stdatomic.h>
#include <string.h>

#include "node/base/pool.h"
#include "node/base/err.h"

#define NR_MAX 32
/* Of layers that are packed whole kernels at a time: most taps of a kernel, channels of an input
 * that are turned together, channels of a task. */
#define TAPS_MAX  16
#define TOGETHER  8
#define TASK_DEEP 64

struct pack {
    const struct cpu_conv *c;
    const float *w; /* all of them; of layers that are packed whole kernels at a time: NULL */
    float *to;
    int chunks; /* blocks of depth of the deepest phase */
    const struct cpu_weights *weights;
    atomic_flag failed; /* the first to set it writes what follows */
    int rc;
    struct err e;
};

/* Distance in the ONNX tensor from one output channel, one input channel to the next. */
static void strides(const struct cpu_conv *c, size_t *output, size_t *input)
{
    size_t taps = (size_t)c->d.kernel[0] * (size_t)c->d.kernel[1];
    *output = c->d.transposed ? taps : taps * (size_t)(c->c / c->merged);
    *input = c->d.transposed ? taps * (size_t)(c->oc / c->merged) : taps;
}

/* Where row k of the phase's matrix stands in the tensor, for output channel 0 (columns: and the
 * first tap of the row). */
static size_t row_at(const struct cpu_conv *c, const struct cpu_phase *f, int k)
{
    size_t output, input;
    strides(c, &output, &input);
    int tap = k / c->segment, channel = k % c->segment, x = 0;
    int y = f->y.tap[tap / f->x.taps];
    if (c->copied) {
        x = channel / c->c;
        channel %= c->c;
    } else {
        x = f->x.tap[tap % f->x.taps];
    }
    if (!c->d.transposed)
        channel %= c->c / c->merged;
    return (size_t)channel * input + (size_t)y * (size_t)c->d.kernel[1] + (size_t)x;
}

static void pack_direct(void *arg, int task, int thread)
{
    (void)thread;
    const struct pack *p = arg;
    const struct cpu_conv *c = p->c;
    /* the taps of a panel one after the other: they share the tensor's cache lines */
    int chunk = task % p->chunks, panel = task / p->chunks % c->panels;
    int set = task / p->chunks / c->panels, group = set / c->phases;
    const struct cpu_phase *f = &c->phase[set % c->phases];
    int k0 = chunk * CPU_KC, kc = f->k - k0 < CPU_KC ? f->k - k0 : CPU_KC;
    if (kc <= 0)
        return;
    size_t output, input, at[CPU_KC], column[NR_MAX];
    /* the layer's own groups of rows and columns, where several are one of ours */
    int row_group[CPU_KC] = {0}, column_group[NR_MAX] = {0}, outputs = c->oc / c->merged;
    strides(c, &output, &input);
    for (int k = 0; k < kc; k++) {
        at[k] = row_at(c, f, k0 + k);
        if (c->merged > 1)
            row_group[k] = (k0 + k) % c->segment / (c->c / c->merged);
    }
    int wide = cpu_panel_width(c, panel) * c->k->lanes, first = panel * c->nr;
    int real = c->columns - first < wide ? c->columns - first : wide;
    for (int j = 0; j < real; j++) {
        int n = first + j;
        /* columns: n = tap · oc + output */
        column[j] = (size_t)cpu_channel_of(c, n % c->d.oc) * output;
        if (c->way == CPU_COLUMNS)
            column[j] += (size_t)(n / c->d.oc);
        if (c->merged > 1) {
            column_group[j] = n / outputs;
            column[j] = (size_t)(c->d.transposed ? n % outputs : n) * output;
        }
    }
    size_t taps = (size_t)c->d.kernel[0] * (size_t)c->d.kernel[1];
    const float *w = p->w + (size_t)group * taps * (size_t)c->c * (size_t)outputs;
    float *to = p->to + (size_t)group * c->group_weights + f->weights +
                (size_t)k0 * (size_t)c->columns_pad + (size_t)first * (size_t)kc;
    for (int k = 0; k < kc; k++, to += wide) {
        const float *row = w + at[k];
        for (int j = 0; j < real; j++)
            to[j] = row[column[j]];
        for (int j = 0; j < real && c->merged > 1; j++)
            if (row_group[k] != column_group[j])
                to[j] = 0;
        for (int j = real; j < wide; j++)
            to[j] = 0;
    }
}

/* Tap of kernel row (column) i of a phase: of the input for a convolution, of the output for a
 * transposed one, where the window stands before the grid row, so its first tap is the later. */
static int tap_of(const struct cpu_conv *c, int phase, int i)
{
    if (c->d.transposed)
        return phase + 2 * (1 - i);
    return c->in_phases == 2 ? 2 * i + phase : i;
}

/* Weight i of a phase, as the tensor has them; −1 where it is 0, since there is no such tap. */
static int weight_of(const struct cpu_conv *c, int phase, int i)
{
    int y = tap_of(c, phase >> 1, i / c->r), x = tap_of(c, phase & 1, i % c->r);
    return y < c->d.kernel[0] && x < c->d.kernel[1] ? y * c->d.kernel[1] + x : -1;
}

static void pack_winograd(void *arg, int task, int thread)
{
    (void)thread;
    const struct pack *p = arg;
    const struct cpu_conv *c = p->c;
    /* the depth of a panel at once: its input phases share the tensor's cache lines */
    int panel = task / p->chunks, chunk = task % p->chunks, r = c->r;
    int k0 = chunk * CPU_KC, kc = c->depth - k0 < CPU_KC ? c->depth - k0 : CPU_KC;
    int wide = cpu_panel_width(c, panel) * c->k->lanes, first = panel * c->nr;
    int real = c->columns - first < wide ? c->columns - first : wide;
    size_t output, input, point = (size_t)kc * (size_t)c->columns_pad;
    strides(c, &output, &input);
    float *to = p->to + (size_t)cpu_points(c) * (size_t)k0 * (size_t)c->columns_pad +
                (size_t)first * (size_t)kc;
    float g[9][NR_MAX] = {{0}};
    const float *lines[9];
    for (int i = 0; i < r * r; i++)
        lines[i] = g[i];
    int taps[4][9], column_phase[NR_MAX];
    size_t column[NR_MAX];
    for (int phase = 0; phase < 4; phase++)
        for (int i = 0; i < r * r; i++)
            taps[phase][i] = weight_of(c, phase, i);
    for (int j = 0; j < real; j++) {
        int o = (first + j) % c->oc;
        column_phase[j] = (first + j) / c->oc;
        column[j] = (size_t)(c->d.shuffle ? cpu_channel_of(c, first + j) : o) * output;
    }
    for (int k = 0; k < kc; k++, to += wide) {
        int in_phase = (k0 + k) / c->d.c, channel = (k0 + k) % c->d.c;
        const float *from = p->w + (size_t)channel * input;
        for (int j = 0; j < real; j++) {
            const int *tap = taps[in_phase + column_phase[j]]; /* one of both is 0 */
            for (int i = 0; i < r * r; i++)
                g[i][j] = tap[i] < 0 ? 0 : from[column[j] + (size_t)tap[i]];
        }
        c->k->winograd_weights(c->side, r, lines, wide, to, point);
    }
}

/* --- whole kernels at a time --- */

static bool packs_whole(const struct cpu_conv *c)
{
    return (c->way == CPU_DIRECT || c->side > 0) && c->merged == 1 && c->d.group == 1 &&
           !c->copied && !c->d.shuffle && c->oc % c->nr == 0 &&
           c->d.kernel[0] * c->d.kernel[1] <= TAPS_MAX;
}

typedef float v4 __attribute__((vector_size(16)));
typedef float v4_any __attribute__((vector_size(16), aligned(4), may_alias));

/* Taps 4i … 4i + 3 of outputs 4j … 4j + 3. */
static inline void turn_4x4(const float *w, size_t output, float *to)
{
    v4 a = *(const v4_any *)w, b = *(const v4_any *)(w + output);
    v4 c = *(const v4_any *)(w + 2 * output), d = *(const v4_any *)(w + 3 * output);
    v4 ac0 = __builtin_shufflevector(a, c, 0, 4, 1, 5),
       ac1 = __builtin_shufflevector(a, c, 2, 6, 3, 7);
    v4 bd0 = __builtin_shufflevector(b, d, 0, 4, 1, 5),
       bd1 = __builtin_shufflevector(b, d, 2, 6, 3, 7);
    *(v4_any *)to = __builtin_shufflevector(ac0, bd0, 0, 4, 1, 5);
    *(v4_any *)(to + NR_MAX) = __builtin_shufflevector(ac0, bd0, 2, 6, 3, 7);
    *(v4_any *)(to + 2 * NR_MAX) = __builtin_shufflevector(ac1, bd1, 0, 4, 1, 5);
    *(v4_any *)(to + 3 * NR_MAX) = __builtin_shufflevector(ac1, bd1, 2, 6, 3, 7);
}

/* One channel of the kernels of nr outputs: to[tap][output]. */
static void turn(const float *w, size_t output, int taps, int nr, float (*to)[NR_MAX])
{
    if (taps == 16) {
        for (int j = 0; j < nr; j += 4)
            for (int t = 0; t < 16; t += 4)
                turn_4x4(w + (size_t)j * output + t, output, &to[t][j]);
        return;
    }
    for (int j = 0; j < nr; j++)
        for (int t = 0; t < taps; t++)
            to[t][j] = w[(size_t)j * output + (size_t)t];
}

/* Channels from `channel` of the outputs from `first`, to every phase of a direct layer. */
static void put_direct(const struct pack *p, int first, int channel, int count,
                       float (*g)[TAPS_MAX][NR_MAX])
{
    const struct cpu_conv *c = p->c;
    for (int i = 0; i < c->phases; i++) {
        const struct cpu_phase *f = &c->phase[i];
        for (int tap = 0; tap < f->y.taps * f->x.taps; tap++) {
            int t = f->y.tap[tap / f->x.taps] * c->d.kernel[1] + f->x.tap[tap % f->x.taps];
            for (int j = 0; j < count; j++) {
                int k = tap * c->segment + channel + j, k0 = k / CPU_KC * CPU_KC;
                int kc = f->k - k0 < CPU_KC ? f->k - k0 : CPU_KC;
                memcpy(p->to + f->weights + (size_t)k0 * (size_t)c->columns_pad +
                           (size_t)first * (size_t)kc + (size_t)(k - k0) * (size_t)c->nr,
                       g[j][t], (size_t)c->nr * sizeof(float));
            }
        }
    }
}

/* The same, to the points of a Winograd layer. */
static void put_winograd(const struct pack *p, int first, int channel, int count,
                         float (*g)[TAPS_MAX][NR_MAX])
{
    static const float zeros[NR_MAX];
    const struct cpu_conv *c = p->c;
    for (int phase = 0; phase < c->in_phases * c->in_phases * c->out_phases * c->out_phases;
         phase++) {
        int in = c->in_phases == 2 ? phase : 0, out = c->in_phases == 2 ? 0 : phase, taps[9];
        for (int i = 0; i < c->r * c->r; i++)
            taps[i] = weight_of(c, phase, i);
        for (int j = 0; j < count; j++) {
            const float *lines[9];
            for (int i = 0; i < c->r * c->r; i++)
                lines[i] = taps[i] < 0 ? zeros : g[j][taps[i]];
            int k = in * c->d.c + channel + j, k0 = k / CPU_KC * CPU_KC;
            int kc = c->depth - k0 < CPU_KC ? c->depth - k0 : CPU_KC;
            c->k->winograd_weights(
                c->side, c->r, lines, c->nr,
                p->to + (size_t)cpu_points(c) * (size_t)k0 * (size_t)c->columns_pad +
                    (size_t)(out * c->oc + first) * (size_t)kc + (size_t)(k - k0) * (size_t)c->nr,
                (size_t)kc * (size_t)c->columns_pad);
        }
    }
}

static int load(struct pack *p, size_t first, size_t n, float *to)
{
    struct err e = {0};
    int rc = p->weights->load(p->weights->ctx, (int64_t)first, (int64_t)n, to, &e);
    if (rc != 0 && !atomic_flag_test_and_set(&p->failed)) {
        p->rc = rc;
        p->e = e;
    }
    return rc;
}

/* A few channels of the outputs of a panel. */
static void pack_whole(void *arg, int task, int thread)
{
    (void)thread;
    struct pack *p = arg;
    const struct cpu_conv *c = p->c;
    int tasks = (c->c + TASK_DEEP - 1) / TASK_DEEP, first = task / tasks * c->nr;
    int begin = task % tasks * TASK_DEEP;
    int deep = begin + TASK_DEEP < c->c ? TASK_DEEP : c->c - begin;
    size_t taps = (size_t)c->d.kernel[0] * (size_t)c->d.kernel[1], output, input;
    float w[NR_MAX * TASK_DEEP * TAPS_MAX], g[TOGETHER][TAPS_MAX][NR_MAX];
    strides(c, &output, &input);
    /* What lies together in the tensor: for each output the channels or for each channel the
     * outputs. */
    int lines = c->d.transposed ? deep : c->nr;
    size_t line = taps * (size_t)(c->d.transposed ? c->nr : deep);
    size_t step = c->d.transposed ? input : output;
    size_t at = (size_t)first * output + (size_t)begin * input;
    for (int i = 0; i < lines; i++)
        if (load(p, at + (size_t)i * step, line, w + (size_t)i * line) != 0)
            return;
    output = c->d.transposed ? taps : line;
    input = c->d.transposed ? line : taps;
    for (int channel = 0; channel < deep; channel += TOGETHER) {
        int count = deep - channel < TOGETHER ? deep - channel : TOGETHER;
        for (int j = 0; j < count; j++)
            turn(w + (size_t)(channel + j) * input, output, (int)taps, c->nr, g[j]);
        if (c->side > 0)
            put_winograd(p, first, begin + channel, count, g);
        else
            put_direct(p, first, begin + channel, count, g);
    }
}

size_t cpu_conv_weights(const struct cpu_conv *c)
{
    size_t taps = (size_t)c->d.kernel[0] * (size_t)c->d.kernel[1];
    return taps * (size_t)c->d.c * (size_t)c->d.oc / ((size_t)c->d.group * (size_t)c->merged);
}

size_t cpu_conv_pack_floats(const struct cpu_conv *c)
{
    return packs_whole(c) ? 0 : cpu_conv_weights(c);
}

int cpu_conv_pack(struct cpu_conv *c, const struct cpu_weights *weights, const float *bias,
                  float *to, float *spare, struct pool *p, struct err *e)
{
    struct pack pack = {
        .c = c, .w = spare, .to = to, .weights = weights, .failed = ATOMIC_FLAG_INIT};
    if (packs_whole(c)) {
        pool_run(p, c->oc / c->nr * ((c->c + TASK_DEEP - 1) / TASK_DEEP), pack_whole, &pack);
        if (pack.rc != 0)
            return err_set(e, pack.rc, "%s", pack.e.text);
    } else {
        int rc = weights->load(weights->ctx, 0, (int64_t)cpu_conv_weights(c), spare, e);
        if (rc != 0)
            return rc;
        if (c->side > 0) {
            pack.chunks = (c->depth + CPU_KC - 1) / CPU_KC;
            pool_run(p, pack.chunks * c->panels, pack_winograd, &pack);
        } else if (c->way == CPU_DEPTHWISE) {
            cpu_depthwise_pack(c, spare, to);
        } else {
            for (int i = 0; i < c->phases; i++)
                if ((c->phase[i].k + CPU_KC - 1) / CPU_KC > pack.chunks)
                    pack.chunks = (c->phase[i].k + CPU_KC - 1) / CPU_KC;
            pool_run(p, c->d.group * c->phases * pack.chunks * c->panels, pack_direct, &pack);
        }
    }
    float *b = to + cpu_round16(c->group_weights * (size_t)c->d.group);
    memset(b, 0, (cpu_round16((size_t)c->d.oc) + CPU_SLACK) * sizeof *b);
    for (int i = 0; i < c->d.oc && bias; i++)
        b[i] = bias[cpu_channel_of(c, i)];
    c->weights = to;
    c->bias = b;
    return 0;
}
