/*
 * engine_cpu.c - the CPU engine behind engine.h: compile, workspaces, run
 *
 * A plan holds steps, packed weights and the place of every tensor in an arena; it is never written
 * after compiling. A workspace holds the threads and one or more lanes: an arena and scratch
 * memory. One lane: all threads work on each step. A lane for each thread: each carries an image
 * through all steps alone, which takes less time for all of them together, as nobody waits for
 * anybody between steps. That is done in throughput mode, where the batch can be cut into images
 * without changing its meaning, and for stacks.
 */
#include "model/engine_cpu_plan.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model/cpu_conv_plan.h"
#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/pool.h"

#define HUGE_PAGE ((size_t)2 << 20)
/* Memory to work in is read and written again and again: large pages up to this size of a lane. */
#define HUGE_MAX ((size_t)256 << 20)
/* So are weights, to this size. More of them get large pages later, by settle(): where such are new
 * to a virtual machine its host takes long to give one, and the first result would wait. */
#define HUGE_AT_ONCE ((size_t)64 << 20)
/* Lanes, and what goes into them and comes out, take no more than this. */
#define LANES_BYTES_MAX ((size_t)1 << 30)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* since Linux 6.1 */
#endif

/* Memory that the system gives as zeros when it is first written; up to a size in large pages,
 * which it then begins and ends with. */
static float *map_floats(size_t floats, size_t huge, size_t *bytes)
{
    *bytes = (floats * sizeof(float) + 4096 + 4095) / 4096 * 4096;
    bool large = *bytes >= 2 * HUGE_PAGE && *bytes <= huge;
    size_t before = 0, spare = large ? HUGE_PAGE : 0;
    if (large)
        *bytes = (*bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *p =
        mmap(NULL, *bytes + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (large) {
        before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
        if (before > 0)
            munmap(p, before);
        if (spare > before)
            munmap(p + before + *bytes, spare - before);
        madvise(p + before, *bytes, MADV_HUGEPAGE);
    }
    return (float *)(void *)(p + before);
}

/* Advice: where the system does not take it, nothing changes. */
static void settle(const void *impl)
{
    const struct cpu_plan *p = impl;
    uintptr_t at = (uintptr_t)p->packed, end = at + p->packed_bytes;
    at = (at + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    end = end / HUGE_PAGE * HUGE_PAGE;
    if (p->packed_bytes > HUGE_AT_ONCE)
        madvise((void *)at, end - at, MADV_COLLAPSE);
}

static void plan_free(void *impl)
{
    struct cpu_plan *p = impl;
    if (!p)
        return;
    for (int i = 0; i < p->steps; i++) {
        cpu_conv_free(p->step[i].conv);
        free(p->step[i].index);
        free(p->step[i].weight);
    }
    free(p->step);
    free(p->root);
    free(p->constants);
    free(p->input_floats);
    free(p->output_floats);
    free(p->names);
    if (p->packed)
        munmap(p->packed, p->packed_bytes);
    free(p);
}

static int default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > POOL_THREADS_MAX ? POOL_THREADS_MAX : n;
}

/* Lanes lie apart from one another by an odd number of cache lines. */
static size_t lane_floats(const struct cpu_plan *p, size_t scratch)
{
    return (p->arena_floats + p->shared_floats + scratch + 31) / 32 * 32 + 16;
}

/* The first has scratch memory for all threads, which may work there together. */
static size_t first_lane_floats(const struct cpu_plan *p)
{
    size_t together = p->thread_floats * (size_t)p->threads;
    return lane_floats(p, together > p->alone_floats ? together : p->alone_floats);
}

static size_t lane_at(const struct cpu_plan *p, int lane)
{
    size_t other = lane_floats(p, p->alone_floats);
    return lane == 0 ? 0 : first_lane_floats(p) + (size_t)(lane - 1) * other;
}

static size_t stack_floats(const struct cpu_plan *p, int lanes)
{
    return lane_at(p, lanes) + (size_t)lanes * p->ends_floats;
}

/* One for each thread, or for more than half of them, if there is room and there are images; else
 * all threads are better used together. */
static int lanes_for(const struct cpu_plan *p)
{
    int n = !p->alone ? 1 : p->by_image && p->images < p->threads ? p->images : p->threads;
    while (n > 1 && stack_floats(p, n) > LANES_BYTES_MAX / sizeof(float))
        n--;
    return 2 * n > p->threads ? n : 1;
}

static int make_plan(const struct graph *g, const struct engine_options *o, struct cpu_plan **out,
                     struct err *e)
{
    static const struct engine_options defaults;
    o = o ? o : &defaults;
    if (o->precision != ENGINE_F32)
        return err_set(e, ERR_UNSUPPORTED, "the cpu engine computes in float32 only");
    struct cpu_plan *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for a plan");
    int rc = cpu_kernels_pick(o->isa, &p->k, e);
    if (rc < 0)
        goto out;
    p->threads = o->threads > 0 ? o->threads : default_threads();
    if (p->threads > POOL_THREADS_MAX) {
        rc = err_set(e, ERR_LIMIT, "%d threads: give 1 to %d", p->threads, POOL_THREADS_MAX);
        goto out;
    }
    p->pin = o->pin_threads;
    int64_t images = 1;
    p->by_image = o->mode == ENGINE_THROUGHPUT && graph_images_apart(g, &images, NULL);
    p->images = p->by_image ? (int)images : 1;
    p->alone = p->by_image || (o->stream && !o->low_memory);
    if ((rc = cpu_plan_lower(g, p, o->low_memory, e)) < 0 ||
        (rc = cpu_plan_weights(p, o->low_memory, e)) < 0 || (rc = cpu_plan_memory(p, e)) < 0)
        goto out;
    for (int i = 0; o->stream && i < p->n_inputs; i++)
        p->ends_floats += p->input_floats[i] * (size_t)p->images;
    for (int i = 0; o->stream && i < p->n_outputs; i++)
        p->ends_floats += p->output_floats[i] * (size_t)p->images;
    p->lanes = lanes_for(p);
out:
    if (rc < 0) {
        plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

static int estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                    struct err *e)
{
    struct cpu_plan *p;
    int rc = make_plan(g, o, &p, e);
    if (rc < 0)
        return rc;
    cost->macs = p->macs;
    cost->plan_bytes = (int64_t)((p->packed_floats + p->constant_floats) * sizeof(float));
    cost->workspace_bytes = (int64_t)(stack_floats(p, p->lanes) * sizeof(float));
    cost->compile_bytes = (int64_t)p->compile_bytes;
    plan_free(p);
    return 0;
}

/* Of a value, for cpu_conv_pack(). */
static int load_weights(const void *value, int64_t first, int64_t n, float *to, struct err *e)
{
    return constant_load_f32(value, first, n, to, e);
}

/* Weights that were read already. */
static int copy_weights(const void *from, int64_t first, int64_t n, float *to, struct err *e)
{
    (void)e;
    memcpy(to, (const float *)from + first, (size_t)n * sizeof *to);
    return 0;
}

/* A layer that is packed a few channels at a time asks for few weights each time, and reading a
 * file costs by the call: they are read whole first, by all threads. */
#define STAGE_PIECE (1 << 16)

struct stage {
    const struct value *v;
    float *to;
    int64_t n;
    atomic_int rc; /* of a piece that failed */
};

static void stage_piece(void *arg, int task, int thread)
{
    (void)thread;
    struct stage *s = arg;
    int64_t first = (int64_t)task * STAGE_PIECE;
    int64_t n = s->n - first < STAGE_PIECE ? s->n - first : STAGE_PIECE;
    int rc = constant_load_f32(s->v, first, n, s->to + first, NULL);
    if (rc != 0)
        atomic_store(&s->rc, rc);
}

static int stage(const struct value *v, float *to, struct pool *pool, struct err *e)
{
    struct stage s = {.v = v, .to = to, .n = shape_count(&v->shape)};
    pool_run(pool, (int)((s.n + STAGE_PIECE - 1) / STAGE_PIECE), stage_piece, &s);
    /* by one thread it is an error again, with its text, or was one that passed */
    return s.rc == 0 ? 0 : constant_load_f32(v, 0, s.n, to, e);
}

static int pack_weights(const struct graph *g, struct cpu_plan *p, struct err *e)
{
    struct pool *pool = NULL;
    float *bias = NULL, *spare = NULL;
    size_t bytes = 0, most = 0;
    for (int i = 0; i < p->steps; i++)
        if (p->step[i].bias >= 0) {
            size_t n = (size_t)shape_count(&g->value[p->step[i].bias].shape);
            most = n > most ? n : most;
        }
    int rc = pool_new(&pool, p->threads, p->pin, e);
    if (rc < 0)
        return rc;
    spare = map_floats(p->compile_bytes / sizeof(float), HUGE_AT_ONCE, &bytes);
    bias = malloc((most + 1) * sizeof *bias);
    p->packed = map_floats(p->packed_floats, HUGE_AT_ONCE, &p->packed_bytes);
    if (!spare || !bias || !p->packed) {
        rc = err_set(e, ERR_NOMEM, "no memory for %zu MiB of packed weights",
                     (p->packed_floats * sizeof(float)) >> 20);
        goto out;
    }
    for (int i = 0; i < p->steps; i++) {
        struct step *s = &p->step[i];
        if (s->kind != STEP_CONV)
            continue;
        if (s->bias >= 0) {
            const struct value *b = &g->value[s->bias];
            if ((rc = constant_load_f32(b, 0, shape_count(&b->shape), bias, e)) < 0)
                goto out;
        }
        const struct value *w = &g->value[s->weights];
        struct cpu_weights weights = {load_weights, w};
        if (cpu_stage_floats(s->conv) > 0) {
            if ((rc = stage(w, spare, pool, e)) != 0)
                goto out;
            weights = (struct cpu_weights){copy_weights, spare};
        }
        rc = cpu_conv_pack(s->conv, &weights, s->bias >= 0 ? bias : NULL, p->packed + s->packed,
                           spare, pool, e);
        if (rc < 0)
            goto out;
    }
out:
    if (spare)
        munmap(spare, bytes);
    free(bias);
    pool_free(pool);
    return rc;
}

static int compile(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e)
{
    struct cpu_plan *p;
    int rc = make_plan(g, o, &p, e);
    if (rc < 0)
        return rc;
    if ((rc = pack_weights(g, p, e)) < 0) {
        plan_free(p);
        return rc;
    }
    *impl = p;
    return 0;
}

static void describe(const void *impl, char *out, size_t size)
{
    const struct cpu_plan *p = impl;
    snprintf(out, size, "cpu %s, %d thread%s%s", p->k->name, p->threads, p->threads == 1 ? "" : "s",
             p->lanes > 1 ? ", an image each" : "");
}

struct cpu_workspace {
    const struct cpu_plan *p;
    struct pool *pool;
    int lanes;
    float *memory;
    size_t bytes;
    float **base; /* [lanes][roots] */
    /* of the run in progress: of each batch, as run() takes them */
    const float *const *const *in;
    float *const *const *out;
    int first;                        /* image in the first lane */
    const struct engine_stack *stack; /* whose stop() is asked; NULL: none */
    atomic_bool stopped;
    bool check;
    double *step_ms; /* NULL: nobody wants to know */
    atomic_int bad;  /* first step whose result was not finite, or the number of steps */
};

static void workspace_free(void *work)
{
    struct cpu_workspace *w = work;
    if (!w)
        return;
    pool_free(w->pool);
    if (w->memory)
        munmap(w->memory, w->bytes);
    free(w->base);
    free(w);
}

/* More lanes save time, but nothing needs more than one. */
static void memory_new(struct cpu_workspace *w)
{
    const struct cpu_plan *p = w->p;
    size_t huge = first_lane_floats(p) <= HUGE_MAX / sizeof(float) ? SIZE_MAX : 0;
    w->lanes = p->lanes;
    w->memory = map_floats(lane_at(p, w->lanes), huge, &w->bytes);
    if (!w->memory && w->lanes > 1) {
        w->lanes = 1;
        w->memory = map_floats(lane_at(p, 1), huge, &w->bytes);
    }
}

static int workspace_new(const void *impl, void **out, struct err *e)
{
    const struct cpu_plan *p = impl;
    struct cpu_workspace *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, ERR_NOMEM, "no memory for a workspace");
    w->p = p;
    int rc = pool_new(&w->pool, p->threads, p->pin, e);
    if (rc < 0)
        goto out;
    w->base = calloc((size_t)p->lanes * ((size_t)p->roots + 1), sizeof *w->base);
    if (w->base)
        memory_new(w);
    if (!w->memory) {
        rc = err_set(e, ERR_NOMEM, "no memory for a workspace of %zu MiB",
                     (lane_at(p, 1) * sizeof(float)) >> 20);
        goto out;
    }
    for (int i = 0; i < w->lanes; i++)
        for (int r = 0; r < p->roots; r++)
            w->base[(size_t)i * (size_t)p->roots + (size_t)r] =
                p->root[r].kind == ROOT_CONSTANT ? p->constants
                                                 : w->memory + lane_at(p, i) + p->root[r].at;
out:
    if (rc < 0) {
        workspace_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

static struct pool *threads(void *work)
{
    return ((struct cpu_workspace *)work)->pool;
}

/* Is all that a step wrote finite? */
static bool step_finite(const struct cpu_plan *p, const struct step *s, float *const *base)
{
    struct cpu_nd t = cpu_place_nd(&s->out, base);
    int64_t rows = 1, n = t.rank > 0 ? t.dim[t.rank - 1] : 1;
    for (int i = 0; i + 1 < t.rank; i++)
        rows *= t.dim[i];
    for (int64_t row = 0; row < rows; row++) {
        const float *x = t.data;
        int64_t rest = row;
        for (int i = t.rank - 2; i >= 0; i--) {
            x += rest % t.dim[i] * t.stride[i];
            rest /= t.dim[i];
        }
        for (int64_t i = 0; i < n; i++)
            if (!p->k->finite(x + i * (t.rank > 0 ? t.stride[t.rank - 1] : 0), 1))
                return false;
    }
    return true;
}

/* One image (a batch that is not cut is one) in a lane, by the threads of pool. in, out: of the
 * first image of its batch, as run() has them; image: which of these it is. */
static void run_image(struct cpu_workspace *w, int lane, struct pool *pool, const float *const *in,
                      float *const *out, int image)
{
    const struct cpu_plan *p = w->p;
    float **base = w->base + (size_t)lane * (size_t)p->roots;
    for (int i = 0; i < p->roots; i++) {
        const struct root *r = &p->root[i];
        if (r->kind == ROOT_INPUT) /* inputs are never written */
            base[i] = (float *)(uintptr_t)in[r->index] + (size_t)image * p->input_floats[r->index];
        else if (r->kind == ROOT_OUTPUT)
            base[i] = out[r->index] + (size_t)image * p->output_floats[r->index];
    }
    float *shared = w->memory + lane_at(p, lane) + p->arena_floats;
    float *scratch = shared + p->shared_floats;
    for (int i = 0; i < p->steps; i++) {
        double start = w->step_ms ? clock_exact_ms() : 0;
        if (w->stack && w->stack->stop && w->stack->stop(w->stack->ctx)) {
            atomic_store(&w->stopped, true);
            return;
        }
        cpu_step_run(p, &p->step[i], base, pool, scratch, shared);
        if (w->step_ms)
            w->step_ms[i] = clock_exact_ms() - start;
        if (w->check && !step_finite(p, &p->step[i], base)) {
            int seen = atomic_load(&w->bad);
            while (i < seen && !atomic_compare_exchange_weak(&w->bad, &seen, i))
                ;
            return;
        }
    }
}

/* Image i of the run, of a batch that is cut or of several that are not. */
static void run_one(struct cpu_workspace *w, int i, int lane, struct pool *pool)
{
    int batch = w->p->by_image ? 0 : i;
    run_image(w, lane, pool, w->in[batch], w->out[batch], w->p->by_image ? i : 0);
}

static void run_alone(void *arg, int task, int thread)
{
    struct cpu_workspace *w = arg;
    (void)thread;
    run_one(w, w->first + task, task, NULL);
}

/* An image by each thread as long as more than half of them have one; the rest one by one. */
static void run_images(struct cpu_workspace *w, int n)
{
    int count, threads = w->p->threads;
    atomic_store(&w->bad, w->p->steps);
    for (w->first = 0; w->first < n; w->first += count) {
        count = n - w->first < w->lanes ? n - w->first : w->lanes;
        if (2 * count > threads) {
            pool_run(w->pool, count, run_alone, w);
        } else {
            count = 1;
            run_one(w, w->first, 0, w->pool);
        }
    }
}

static void run_all(struct cpu_workspace *w, const float *const *in, float *const *out, bool check)
{
    w->in = &in;
    w->out = &out;
    w->stack = NULL;
    w->check = check;
    run_images(w, w->p->by_image ? w->p->images : 1);
}

void cpu_run_timed(const void *impl, void *work, const float *const *in, float *const *out,
                   double *ms)
{
    struct cpu_workspace *w = work;
    (void)impl;
    w->step_ms = ms;
    run_all(w, in, out, false);
    w->step_ms = NULL;
}

static int run(const void *impl, void *work, const float *const *in, float *const *out,
               struct err *e)
{
    (void)impl;
    (void)e;
    run_all(work, in, out, false);
    return 0;
}

static int lanes(const void *impl, const void *work)
{
    const struct cpu_plan *p = impl;
    const struct cpu_workspace *w = work;
    return p->by_image ? 1 : w->lanes;
}

static int run_lanes(const void *impl, void *work, int n, const float *const *const *in,
                     float *const *const *out, const struct engine_stack *stack, struct err *e)
{
    const struct cpu_plan *p = impl;
    struct cpu_workspace *w = work;
    w->in = in;
    w->out = out;
    w->stack = stack;
    w->check = false;
    atomic_store(&w->stopped, false);
    run_images(w, p->by_image ? p->images : n);
    return w->stopped ? err_set(e, ERR_CANCELLED, "stopped") : 0;
}

static int diagnose(const void *impl, void *work, const float *const *in, float *const *out,
                    struct err *e)
{
    const struct cpu_plan *p = impl;
    struct cpu_workspace *w = work;
    run_all(w, in, out, true);
    int bad = atomic_load(&w->bad);
    if (bad >= p->steps)
        return err_set(e, ERR_NUMERIC, "the network's result is not finite");
    const struct step *s = &p->step[bad];
    return err_set(e, ERR_NUMERIC, "node %s (%s) is the first whose result is NaN or infinite",
                   s->name, op_name(s->op));
}

const struct engine engine_cpu = {
    .name = "cpu",
    .estimate = estimate,
    .compile = compile,
    .describe = describe,
    .plan_free = plan_free,
    .settle = settle,
    .workspace_new = workspace_new,
    .workspace_free = workspace_free,
    .threads = threads,
    .run = run,
    .lanes = lanes,
    .run_lanes = run_lanes,
    .diagnose = diagnose,
};
