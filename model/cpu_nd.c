/* cpu_nd.c - see cpu_nd.h */
#include "model/cpu_nd.h"

#include <math.h>

#include "node/base/pool.h"

#define OPERANDS   3
#define TASK_ITEMS 8192 /* elements below which a task is not worth a thread */

/* A loop nest over up to three operands, [0] being the output; the last axis is the row. */
struct nest {
    int operands, rank;
    int64_t dim[CPU_RANK];
    ptrdiff_t step[OPERANDS][CPU_RANK];
    float *data[OPERANDS];
    int64_t outer;  /* rows */
    int64_t pieces; /* tasks for each row, where rows are few and long */
    int64_t share;  /* rows of a task, where there are many */
    void (*row)(const struct nest *t, float *const at[], const ptrdiff_t step[], int64_t n);
    const struct cpu_kernels *k;
    const struct cpu_act *act;
    int op;
    float value;
};

static ptrdiff_t size_of(ptrdiff_t s)
{
    return s < 0 ? -s : s;
}

static void swap_axes(struct nest *t, int a, int b)
{
    int64_t d = t->dim[a];
    t->dim[a] = t->dim[b];
    t->dim[b] = d;
    for (int o = 0; o < t->operands; o++) {
        ptrdiff_t s = t->step[o][a];
        t->step[o][a] = t->step[o][b];
        t->step[o][b] = s;
    }
}

/* Drops axes of one element, orders the rest by the output's stride, merges what lies together. */
static void arrange(struct nest *t, const struct cpu_nd *const *tensor, int operands)
{
    t->operands = operands;
    t->rank = 0;
    for (int o = 0; o < operands; o++)
        t->data[o] = tensor[o]->data;
    for (int i = 0; i < tensor[0]->rank; i++) {
        if (tensor[0]->dim[i] == 1)
            continue;
        t->dim[t->rank] = tensor[0]->dim[i];
        for (int o = 0; o < operands; o++)
            t->step[o][t->rank] = tensor[o]->stride[i];
        t->rank++;
    }
    for (int i = 1; i < t->rank; i++)
        for (int j = i; j > 0 && size_of(t->step[0][j - 1]) < size_of(t->step[0][j]); j--)
            swap_axes(t, j - 1, j);
    for (int i = t->rank - 1; i > 0; i--) {
        bool together = true;
        for (int o = 0; o < operands; o++)
            together = together && t->step[o][i - 1] == t->step[o][i] * (ptrdiff_t)t->dim[i];
        if (!together)
            continue;
        t->dim[i - 1] *= t->dim[i];
        for (int o = 0; o < operands; o++)
            t->step[o][i - 1] = t->step[o][i];
        for (int j = i; j + 1 < t->rank; j++) {
            t->dim[j] = t->dim[j + 1];
            for (int o = 0; o < operands; o++)
                t->step[o][j] = t->step[o][j + 1];
        }
        t->rank--;
    }
    if (t->rank == 0) {
        t->rank = 1;
        t->dim[0] = 1;
        for (int o = 0; o < operands; o++)
            t->step[o][0] = 1;
    }
}

static void nest_task(void *arg, int task, int thread)
{
    (void)thread;
    const struct nest *t = arg;
    int last = t->rank - 1;
    int64_t n = t->dim[last], first = 0, row0 = task * t->share, row1 = row0 + t->share;
    if (t->pieces > 1) {
        row0 = task / t->pieces;
        row1 = row0 + 1;
        first = n * (task % t->pieces) / t->pieces;
        n = n * (task % t->pieces + 1) / t->pieces - first;
    }
    if (row1 > t->outer)
        row1 = t->outer;
    ptrdiff_t step[OPERANDS];
    for (int o = 0; o < t->operands; o++)
        step[o] = t->step[o][last];
    for (int64_t row = row0; row < row1; row++) {
        float *at[OPERANDS] = {0};
        for (int o = 0; o < t->operands; o++)
            at[o] = t->data[o] + first * step[o];
        int64_t rest = row;
        for (int i = last - 1; i >= 0; i--) {
            for (int o = 0; o < t->operands; o++)
                at[o] += rest % t->dim[i] * t->step[o][i];
            rest /= t->dim[i];
        }
        t->row(t, at, step, n);
    }
}

static void run_nest(const struct cpu_run *r, struct nest *t)
{
    int64_t n = t->dim[t->rank - 1];
    t->k = r->k;
    t->outer = 1;
    for (int i = 0; i + 1 < t->rank; i++)
        t->outer *= t->dim[i];
    t->pieces = 1;
    t->share = t->outer;
    if (n * t->outer > 2 * TASK_ITEMS && pool_threads(r->pool) > 1) {
        if (n > 4 * TASK_ITEMS) {
            t->pieces = n / TASK_ITEMS;
            t->share = 1;
        } else {
            t->share = (TASK_ITEMS + n - 1) / n;
        }
    }
    /* a long tensor of many rows: keep the number of tasks an int */
    while (t->pieces == 1 && t->outer / t->share > 1 << 24)
        t->share *= 2;
    int64_t tasks = t->pieces > 1 ? t->outer * t->pieces : (t->outer + t->share - 1) / t->share;
    pool_run(r->pool, (int)tasks, nest_task, t);
}

int64_t cpu_nd_count(const struct cpu_nd *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

/* The vector kernels count in int. */
#define PART_MAX (1 << 30)

static void row_copy(const struct nest *t, float *const at[], const ptrdiff_t step[], int64_t n)
{
    if (step[0] == 1 && step[1] == 1) {
        for (int64_t i = 0; i < n; i += PART_MAX)
            t->k->copy(at[1] + i, (int)(n - i < PART_MAX ? n - i : PART_MAX), t->act, at[0] + i);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        at[0][i * step[0]] = at[1][i * step[1]];
    if (t->act->kind == CPU_NONE)
        return;
    if (step[0] == 1) {
        for (int64_t i = 0; i < n; i += PART_MAX)
            t->k->copy(at[0] + i, (int)(n - i < PART_MAX ? n - i : PART_MAX), t->act, at[0] + i);
    } else {
        for (int64_t i = 0; i < n; i++)
            t->k->copy(at[0] + i * step[0], 1, t->act, at[0] + i * step[0]);
    }
}

void cpu_nd_copy(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                 const struct cpu_act *act)
{
    struct nest t = {.row = row_copy, .act = act};
    arrange(&t, (const struct cpu_nd *const[]){out, in}, 2);
    run_nest(r, &t);
}

static void row_fill(const struct nest *t, float *const at[], const ptrdiff_t step[], int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        at[0][i * step[0]] = t->value;
}

void cpu_nd_fill(const struct cpu_run *r, const struct cpu_nd *out, float value)
{
    struct nest t = {.row = row_fill, .value = value};
    arrange(&t, (const struct cpu_nd *const[]){out}, 1);
    run_nest(r, &t);
}

static void row_unary(const struct nest *t, float *const at[], const ptrdiff_t step[], int64_t n)
{
    if (step[0] == 1 && step[1] == 1) {
        t->k->unary((enum cpu_unary)t->op, at[1], (size_t)n, at[0]);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        t->k->unary((enum cpu_unary)t->op, at[1] + i * step[1], 1, at[0] + i * step[0]);
}

void cpu_nd_unary(const struct cpu_run *r, enum cpu_unary op, const struct cpu_nd *in,
                  const struct cpu_nd *out)
{
    struct nest t = {.row = row_unary, .op = op};
    arrange(&t, (const struct cpu_nd *const[]){out, in}, 2);
    run_nest(r, &t);
}

static void row_binary(const struct nest *t, float *const at[], const ptrdiff_t step[], int64_t n)
{
    enum cpu_binary op = (enum cpu_binary)t->op;
    if (step[0] == 1 && (step[1] == 1 || step[1] == 0) && (step[2] == 1 || step[2] == 0)) {
        t->k->binary(op, at[1], (int)step[1], at[2], (int)step[2], (size_t)n, t->act, at[0]);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        t->k->binary(op, at[1] + i * step[1], 1, at[2] + i * step[2], 1, 1, t->act,
                     at[0] + i * step[0]);
}

void cpu_nd_binary(const struct cpu_run *r, enum cpu_binary op, const struct cpu_nd *a,
                   const struct cpu_nd *b, const struct cpu_nd *out, const struct cpu_act *act)
{
    struct nest t = {.row = row_binary, .op = (int)op, .act = act};
    arrange(&t, (const struct cpu_nd *const[]){out, a, b}, 3);
    run_nest(r, &t);
}

/* The tensor at position i of an axis, without that axis. */
static struct cpu_nd at_index(const struct cpu_nd *t, int axis, int64_t i)
{
    struct cpu_nd v = *t;
    v.data += i * t->stride[axis];
    v.dim[axis] = 1;
    return v;
}

/* Runs of indices that go up by one are copied as one. */
void cpu_nd_index(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                  int axis, const int *index, float value)
{
    const struct cpu_act none = {CPU_NONE, 0, 0};
    for (int64_t i = 0, n = 1; i < out->dim[axis]; i += n) {
        n = 1;
        while (i + n < out->dim[axis] &&
               (index[i] < 0 ? index[i + n] < 0 : index[i + n] == index[i] + n))
            n++;
        struct cpu_nd to = at_index(out, axis, i);
        to.dim[axis] = n;
        if (index[i] < 0) {
            cpu_nd_fill(r, &to, value);
        } else {
            struct cpu_nd from = at_index(in, axis, index[i]);
            from.dim[axis] = n;
            cpu_nd_copy(r, &from, &to, &none);
        }
    }
}

struct taps {
    struct nest nest;
    const struct cpu_nd *in, *out;
    int axis, taps;
    const int *index;
    const float *weight;
};

static void row_add_scaled(const struct nest *t, float *const at[], const ptrdiff_t step[],
                           int64_t n)
{
    if (step[0] == 1 && step[1] == 1) {
        for (int64_t i = 0; i < n; i += PART_MAX)
            t->k->axpy(at[1] + i, t->value, (int)(n - i < PART_MAX ? n - i : PART_MAX), at[0] + i);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        t->k->axpy(at[1] + i * step[1], t->value, 1, at[0] + i * step[0]);
}

static void taps_task(void *arg, int task, int thread)
{
    (void)thread;
    const struct taps *t = arg;
    const struct cpu_run alone = {t->nest.k, NULL};
    struct cpu_nd to = at_index(t->out, t->axis, task);
    cpu_nd_fill(&alone, &to, 0.0f);
    for (int i = 0; i < t->taps; i++) {
        size_t at = (size_t)task * (size_t)t->taps + (size_t)i;
        if (t->weight[at] == 0.0f)
            continue;
        struct cpu_nd from = at_index(t->in, t->axis, t->index[at]);
        struct nest n = {.row = row_add_scaled, .value = t->weight[at]};
        arrange(&n, (const struct cpu_nd *const[]){&to, &from}, 2);
        run_nest(&alone, &n);
    }
}

void cpu_nd_taps(const struct cpu_run *r, const struct cpu_nd *in, const struct cpu_nd *out,
                 int axis, int taps, const int *index, const float *weight)
{
    struct taps t = {.nest = {.k = r->k},
                     .in = in,
                     .out = out,
                     .axis = axis,
                     .taps = taps,
                     .index = index,
                     .weight = weight};
    pool_run(r->pool, (int)out->dim[axis], taps_task, &t);
}

struct reduce {
    enum cpu_reduce kind;
    const struct cpu_nd *in, *out;
    int64_t count; /* elements that one result is made of */
};

static void reduce_task(void *arg, int task, int thread)
{
    (void)thread;
    const struct reduce *t = arg;
    const struct cpu_nd *in = t->in, *out = t->out;
    const float *from = in->data;
    float *to = out->data;
    int64_t rest = task;
    for (int i = out->rank - 1; i >= 0; i--) {
        int64_t at = rest % out->dim[i];
        rest /= out->dim[i];
        to += at * out->stride[i];
        from += at * in->stride[i];
    }
    double sum = t->kind == CPU_PROD ? 1.0 : 0.0;
    int64_t at[CPU_RANK] = {0};
    for (int64_t n = 0; n < t->count; n++) {
        double x = (double)*from;
        sum = t->kind == CPU_PROD ? sum * x : sum + (t->kind == CPU_SUM_SQUARE ? x * x : x);
        for (int i = in->rank - 1; i >= 0; i--) { /* next element of the reduced axes */
            if (out->dim[i] == in->dim[i])
                continue;
            from += in->stride[i];
            if (++at[i] < in->dim[i])
                break;
            from -= in->stride[i] * (ptrdiff_t)in->dim[i];
            at[i] = 0;
        }
    }
    *to = (float)(t->kind == CPU_MEAN ? sum / (double)t->count : sum);
}

void cpu_nd_reduce(const struct cpu_run *r, enum cpu_reduce kind, const struct cpu_nd *in,
                   const struct cpu_nd *out)
{
    struct reduce t = {kind, in, out, cpu_nd_count(in) / cpu_nd_count(out)};
    pool_run(r->pool, (int)cpu_nd_count(out), reduce_task, &t);
}
