/* The CUDA engine's streams, memory and cache of plans, by its twin on the host: a stack of images
 * gives the bits of single runs, two streams that nothing orders are found, memory that lacks
 * shrinks the batch, a device that is lost says so, tuned plans come back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "cuda/engine_plan.h"
#include "cuda/plan_cache.h"
#include "model/engine.h"
#include "node/base/buf.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "tests/unit/small_graph.h"

#define SIDE   12
#define IMAGES 11
#define IN     (3 * SIDE * SIDE)
#define OUT    (SIDE * SIDE)

static uint32_t seed = 5;
static float noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}

static int constant(struct graph *g, int rank, const int64_t *dim)
{
    struct shape s = {.rank = rank};
    float x[4096];
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= s.dim[i] = dim[i];
    assert_true(n <= 4096);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.2f * noise();
    int v = graph_add_value(g, "w", DTYPE_F32);
    assert_int_equal(graph_set_f32(g, v, &s, x), 0);
    return v;
}

static int node(struct graph *g, enum op op, const char *name, int n_in, const int *in,
                struct node **out)
{
    int v = graph_add_value(g, name, DTYPE_F32);
    g->value[v].shape.rank = -1;
    struct node *n = graph_add_node(g, op, name, n_in, 1);
    assert_non_null(n);
    memcpy(n->in, in, sizeof *in * (size_t)n_in);
    n->out[0] = v;
    n->opset = 17;
    *out = n;
    return v;
}

static int conv(struct graph *g, bool transposed, int x, int c, int oc)
{
    struct node *n;
    int64_t w[] = {transposed ? c : oc, transposed ? oc : c, 4, 4}, b[] = {oc};
    const int in[] = {x, constant(g, 4, w), constant(g, 1, b)};
    int v =
        node(g, transposed ? OP_CONV_TRANSPOSE : OP_CONV, transposed ? "up" : "down", 3, in, &n);
    n->conv.group = 1;
    n->conv.rank = 2;
    for (int i = 0; i < 2; i++) {
        n->conv.kernel[i] = 4;
        n->conv.stride[i] = 2;
        n->conv.dilation[i] = n->conv.pad_begin[i] = n->conv.pad_end[i] = 1;
    }
    return v;
}

/* Exponential, down, instance norm, up, tanh. */
static struct graph *network(void)
{
    struct graph *g = graph_new();
    struct node *n;
    assert_non_null(g);
    seed = 5;
    int x = graph_add_value(g, "image", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {-1, 3, SIDE, SIDE}};
    int d = node(g, OP_EXP, "grow", 1, &x, &n);
    d = conv(g, false, d, 3, 10);
    int64_t c[] = {10};
    const int norm[] = {d, constant(g, 1, c), constant(g, 1, c)};
    d = node(g, OP_INSTANCE_NORM, "norm", 3, norm, &n);
    n->norm.epsilon = 1e-5;
    d = conv(g, true, d, 10, 1);
    int y = node(g, OP_ACT, "tanh", 1, &d, &n);
    n->act = (struct act){.kind = ACT_TANH};
    return graph_of(g, x, y);
}

static const struct shape one = {.rank = 4, .dim = {1, 3, SIDE, SIDE}};

/* A stack of images, what came back, and what may go wrong with it. */
struct pile {
    float in[IMAGES][IN], out[IMAGES][OUT];
    int64_t filled, taken, ahead; /* ahead: most images that were filled and not yet taken */
    int64_t fail_fill;            /* this image's fill fails, -1: none */
    int64_t bad;                  /* this image's input makes the result infinite, -1 */
    bool nan;                     /* … or is not a number itself */
    int64_t counted;              /* as in engine_stack */
    int64_t lent;                 /* images that were; two in three are offered, -1: none */
};

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    struct pile *p = ctx;
    if (image == p->fail_fill)
        return err_set(e, ERR_IO, "no such image");
    if (image == p->filled) /* a bad one is asked for again */
        p->filled++;
    memcpy(in[0], p->in[image], sizeof p->in[image]);
    if (image == p->bad)
        in[0][7] = p->nan ? NAN : 200;
    if (p->filled - p->taken > p->ahead)
        p->ahead = p->filled - p->taken;
    return 0;
}

static bool lend(void *ctx, int64_t image, const float **in)
{
    struct pile *p = ctx;
    if (image % 3 == 0)
        return false;
    if (image == p->bad)
        p->in[image][7] = p->nan ? NAN : 200;
    in[0] = p->in[image];
    p->lent++;
    return true;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    struct pile *p = ctx;
    (void)e;
    assert_int_equal(image, p->taken);
    p->taken++;
    memcpy(p->out[image], out[0], sizeof p->out[image]);
    return 0;
}

static struct pile *pile_new(void)
{
    struct pile *p = calloc(1, sizeof *p);
    assert_non_null(p);
    seed = 77;
    for (int i = 0; i < IMAGES; i++)
        for (int k = 0; k < IN; k++)
            p->in[i][k] = noise();
    p->fail_fill = p->bad = p->lent = -1; /* nothing is lent */
    return p;
}

static int run_pile(const struct plan *plan, struct workspace *work, struct pile *p, int64_t images,
                    struct err *e)
{
    const struct engine_stack stack = {.images = images,
                                       .fill = fill,
                                       .take = take,
                                       .ctx = p,
                                       .counted = p->counted,
                                       .lend = p->lent < 0 ? NULL : lend};
    p->filled = p->taken = p->ahead = 0;
    memset(p->out, 0, sizeof p->out);
    return engine_run_stack(plan, work, &stack, e);
}

/* Each image by itself. */
static void expect(const struct engine *engine, const struct graph *g, const struct pile *p,
                   float (*out)[OUT])
{
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    assert_int_equal(engine_compile_batch(engine, g, &one, 1, NULL, &plan, &work, &e), 1);
    for (int i = 0; i < IMAGES; i++) {
        const float *in[] = {p->in[i]};
        float *to[] = {out[i]};
        assert_int_equal(engine_run(plan, work, in, to, &e), 0);
    }
    engine_workspace_free(work);
    engine_plan_free(plan);
}

static struct plan *compiled(const struct engine *engine, const struct graph *g, int batch,
                             const struct engine_options *o, struct workspace **work)
{
    struct plan *plan;
    struct err e = {0};
    assert_int_equal(engine_compile_batch(engine, g, &one, batch, o, &plan, work, &e), batch);
    return plan;
}

static void stack__gives_the_bits_of_single_runs_whatever_the_batch(void **state)
{
    const struct engine *const engines[] = {&engine_cuda_host, &engine_cpu, &engine_ref};
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    static float want[IMAGES][OUT];
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        expect(engines[i], g, p, want);
        for (int batch = 1; batch <= 4; batch++)
            for (int stream = 0; stream < 2; stream++) {
                const struct engine_options o = {.stream = stream, .threads = 1};
                struct workspace *work;
                struct plan *plan = compiled(engines[i], g, batch, &o, &work);
                struct err e = {0};
                for (int64_t images = 0; images <= IMAGES; images++) {
                    assert_int_equal(run_pile(plan, work, p, images, &e), 0);
                    assert_int_equal(p->taken, images);
                    assert_memory_equal(p->out, want, (size_t)images * sizeof want[0]);
                }
                /* a workspace may go and be made again */
                engine_workspace_free(work);
                assert_int_equal(engine_workspace_new(plan, &work, &e), 0);
                assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
                assert_memory_equal(p->out, want, sizeof want);
                engine_workspace_free(work);
                engine_plan_free(plan);
            }
    }
    free(p);
    graph_free(g);
}

/* Nowhere else but where one image is computed at once in the host's memory. */
static void stack__takes_an_image_from_where_it_is_lent(void **state)
{
    const struct engine *const engines[] = {&engine_cuda_host, &engine_cpu, &engine_ref};
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    static float want[IMAGES][OUT];
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        expect(engines[i], g, p, want);
        for (int batch = 1; batch <= 2; batch++) {
            struct workspace *work;
            struct plan *plan = compiled(engines[i], g, batch, NULL, &work);
            struct err e = {0};
            p->lent = 0;
            assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
            assert_memory_equal(p->out, want, sizeof want);
            assert_int_equal(p->lent, i > 0 && batch == 1 ? 7 : 0);
            if (p->lent > 0) { /* what is lent is looked at, too */
                const float before = p->in[5][7];
                p->bad = 5;
                p->nan = true;
                assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_NUMERIC);
                assert_string_equal(
                    e.text, "image 6 of 11: input 'image' holds NaN or infinity at element 7");
                assert_int_equal(p->taken, 5);
                p->in[5][7] = before;
                p->bad = -1;
                p->nan = false;
            }
            engine_workspace_free(work);
            engine_plan_free(plan);
        }
    }
    free(p);
    graph_free(g);
}

static void stack__is_filled_ahead_of_what_is_taken(void **state)
{
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    const struct engine_options o = {.stream = true};
    assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 2, &o, &plan, &work, &e), 2);
    assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
    assert_int_equal(p->ahead, 6); /* two batches under way while the third is filled */
    engine_workspace_free(work);
    engine_plan_free(plan);
    free(p);
    graph_free(g);
}

static void stack__that_stopped_leaves_the_workspace_as_good_as_new(void **state)
{
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    static float want[IMAGES][OUT];
    const struct engine_options o = {.stream = true};
    expect(&engine_cuda_host, g, p, want);
    assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 2, &o, &plan, &work, &e), 2);
    for (int64_t at = 0; at < IMAGES; at++) {
        p->fail_fill = at;
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_IO);
        assert_string_equal(e.text, "no such image");
        p->fail_fill = -1;
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
        assert_memory_equal(p->out, want, sizeof want);
    }
    engine_workspace_free(work);
    engine_plan_free(plan);
    free(p);
    graph_free(g);
}

static void stack__names_the_image_and_the_layer_that_are_not_finite(void **state)
{
    const struct engine *const engines[] = {&engine_cuda_host, &engine_ref};
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    p->bad = 6;
    for (int i = 0; i < 2; i++) {
        const struct engine_options o = {.stream = true};
        struct err e = {0};
        struct plan *plan;
        struct workspace *work;
        assert_int_equal(engine_compile_batch(engines[i], g, &one, 4, &o, &plan, &work, &e), 4);
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_NUMERIC);
        assert_non_null(strstr(e.text, i == 0 ? "image 7 of 11: " : "images 5 to 8 of 11: "));
        assert_non_null(strstr(e.text, "grow"));
        assert_in_range(p->taken, 4, 6);
        p->bad = -1; /* and it is over with that image */
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
        p->bad = 6;
        engine_workspace_free(work);
        engine_plan_free(plan);
    }
    free(p);
    graph_free(g);
}

static void stack__names_the_image_whose_input_is_no_number(void **state)
{
    const struct engine *const engines[] = {&engine_cuda_host, &engine_cpu, &engine_ref};
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    p->nan = true;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 6; k++) {
            p->bad = k % 3 * 5;
            p->counted = k < 3 ? 0 : IMAGES - 1;
            struct err e = {0};
            struct plan *plan;
            struct workspace *work;
            char want[96];
            assert_int_equal(engine_compile_batch(engines[i], g, &one, 2, NULL, &plan, &work, &e),
                             2);
            assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_NUMERIC);
            if (k == 5)
                snprintf(want, sizeof want, "extra image 1");
            else
                snprintf(want, sizeof want, "image %d of %d", (int)p->bad + 1, k < 3 ? 11 : 10);
            strcat(want, ": input 'image' holds NaN or infinity at element 7");
            assert_string_equal(e.text, want);
            assert_in_range(p->taken, 0, p->bad);
            engine_workspace_free(work);
            engine_plan_free(plan);
        }
    free(p);
    graph_free(g);
}

static void memory__that_lacks_halves_the_batch_until_one_image_does_not_fit(void **state)
{
    struct engine_cost cost;
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    char device[64];
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    static float want[IMAGES][OUT];
    expect(&engine_cuda_host, g, p, want);
    assert_int_equal(engine_estimate(&engine_cuda_host, g, &one, NULL, &cost, &e), 0);
    const int64_t image = cost.workspace_bytes, base = cost.plan_bytes + 1024;
    struct engine_options o = {.device = device};
    const struct {
        int64_t bytes;
        int batch;
    } cases[] = {{base + 9 * image, 8}, {base + 5 * image, 4}, {base + 2 * image + 2048, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(device, sizeof device, "all,memory=%lld", (long long)cases[i].bytes);
        assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 8, &o, &plan, &work, &e),
                         cases[i].batch);
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), 0);
        for (int k = 0; k < IMAGES * OUT; k++)
            assert_float_equal(p->out[k / OUT][k % OUT], want[k / OUT][k % OUT], 1e-6f);
        engine_workspace_free(work);
        engine_plan_free(plan);
    }
    snprintf(device, sizeof device, "memory=%lld", (long long)(base + image / 2));
    assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 8, &o, &plan, &work, &e),
                     ERR_NOMEM);
    assert_non_null(strstr(e.text, "a single image does not fit"));
    assert_null(plan);
    assert_null(work);
    free(p);
    graph_free(g);
}

static void device__that_is_lost_fails_every_call_and_can_still_be_closed(void **state)
{
    struct err e = {0};
    struct plan *plan;
    struct workspace *work, *second;
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    for (int after = 1; after <= 4; after++) {
        char device[32];
        snprintf(device, sizeof device, "replays=%d", after);
        const struct engine_options o = {.stream = true, .device = device};
        assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 2, &o, &plan, &work, &e),
                         2);
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_DEVICE);
        assert_true(p->taken <= 2 * after);
        assert_int_equal(run_pile(plan, work, p, IMAGES, &e), ERR_DEVICE);
        assert_int_equal(engine_workspace_new(plan, &second, &e), ERR_DEVICE);
        engine_workspace_free(work);
        engine_plan_free(plan);
    }
    free(p);
    graph_free(g);
}

/* The twin's calls, but that the first replays find no memory; how often streams are waited for. */
static struct device_ops counting;
static int (*twin_wait)(struct device *d, void *stream, struct err *e);
static int (*twin_replay)(struct device *d, void *stream, void *recording, struct err *e);
static int waits, replays_to_fail;

static int counted_wait(struct device *d, void *stream, struct err *e)
{
    waits++;
    return twin_wait(d, stream, e);
}

static int failing_replay(struct device *d, void *stream, void *recording, struct err *e)
{
    if (replays_to_fail-- > 0)
        return err_set(e, ERR_NOMEM, "no memory for a replay");
    return twin_replay(d, stream, recording, e);
}

static int open_counting(const struct engine_options *o, struct device **out, struct err *e)
{
    (void)o;
    int rc = device_host_open(&(struct host_options){0}, out, e);
    if (rc != 0)
        return rc;
    counting = *(*out)->ops;
    twin_wait = counting.wait;
    twin_replay = counting.replay;
    counting.wait = counted_wait;
    counting.replay = failing_replay;
    (*out)->ops = &counting;
    return 0;
}

static int compile_counting(const struct graph *g, const struct engine_options *o, void **impl,
                            struct err *e)
{
    return cuda_compile_on(open_counting, g, o, impl, e);
}

static void run__that_failed_leaves_nothing_on_its_way(void **state)
{
    static const struct engine engine = {
        .name = "counting", .compile = compile_counting, CUDA_ENGINE_MEMBERS};
    const struct engine_options o = {0};
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    (void)state;
    struct graph *g = network();
    struct pile *p = pile_new();
    static float want[IMAGES][OUT];
    expect(&engine_cuda_host, g, p, want);
    assert_int_equal(engine_compile_batch(&engine, g, &one, 1, &o, &plan, &work, &e), 1);
    const float *in[] = {p->in[0]};
    float *out[] = {p->out[0]};
    replays_to_fail = 1;
    waits = 0;
    assert_int_equal(engine_run(plan, work, in, out, &e), ERR_NOMEM);
    assert_int_equal(waits, 1);
    assert_int_equal(engine_run(plan, work, in, out, &e), 0);
    for (int k = 0; k < OUT; k++)
        assert_float_equal(p->out[0][k], want[0][k], 1e-6f);
    engine_workspace_free(work);
    engine_plan_free(plan);
    free(p);
    graph_free(g);
}

/* ---- the twin's own rules -------------------------------------------------------------------- */

struct bench {
    struct device *d;
    void *a, *b, *event, *memory, *pinned;
};

static struct bench bench_new(void)
{
    struct bench t;
    struct err e = {0};
    const struct host_options o = {0};
    assert_int_equal(device_host_open(&o, &t.d, &e), 0);
    assert_int_equal(t.d->ops->stream_new(t.d, &t.a, &e), 0);
    assert_int_equal(t.d->ops->stream_new(t.d, &t.b, &e), 0);
    assert_int_equal(t.d->ops->event_new(t.d, &t.event, &e), 0);
    assert_int_equal(t.d->ops->memory_new(t.d, 1024, &t.memory, &e), 0);
    assert_int_equal(t.d->ops->pinned_new(t.d, 1024, &t.pinned, &e), 0);
    return t;
}

static void bench_free(struct bench *t)
{
    t->d->ops->event_free(t->d, t->event);
    t->d->ops->stream_free(t->d, t->a);
    t->d->ops->stream_free(t->d, t->b);
    t->d->ops->memory_free(t->d, t->memory);
    t->d->ops->pinned_free(t->d, t->pinned);
    t->d->ops->close(t->d);
}

#define PART 19

static void kernel__flags_the_image_of_any_number_that_is_not_finite(void **state)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    struct err e = {0};
    (void)state;
    struct bench t = bench_new();
    const struct device_ops *ops = t.d->ops;
    void *numbers;
    assert_int_equal(ops->memory_new(t.d, 3 * PART * (int64_t)sizeof(float), &numbers, &e), 0);
    union kernel_args a = {
        .finite_ = {.in = numbers, .out = t.memory, .part = PART, .octets = (PART + 7) / 8}};
    for (int at = -1; at < 3 * PART; at++)
        for (int k = 0; k < 3; k++) {
            float *x = t.pinned;
            int32_t *flags = t.pinned;
            for (int i = 0; i < 3 * PART; i++)
                x[i] = i == at ? bad[k] : 3e38f;
            assert_int_equal(ops->upload(t.d, t.a, numbers, x, 3 * PART * sizeof(float), &e), 0);
            assert_int_equal(ops->clear(t.d, t.a, t.memory, 12, &e), 0);
            assert_int_equal(
                ops->launch(t.d, t.a, KERNEL_finite, &a, 3 * (int64_t)a.finite_.octets, &e), 0);
            assert_int_equal(ops->wait(t.d, t.a, &e), 0);
            assert_int_equal(ops->download(t.d, t.a, flags, t.memory, 12, &e), 0);
            assert_int_equal(ops->wait(t.d, t.a, &e), 0);
            for (int i = 0; i < 3; i++)
                assert_int_equal(flags[i], at >= 0 && at / PART == i);
        }
    ops->memory_free(t.d, numbers);
    bench_free(&t);
}

static void twin__finds_two_streams_that_nothing_orders(void **state)
{
    struct err e = {0};
    (void)state;
    for (int ordered = 0; ordered < 3; ordered++) {
        struct bench t = bench_new();
        const struct device_ops *ops = t.d->ops;
        assert_int_equal(ops->upload(t.d, t.a, t.memory, t.pinned, 1024, &e), 0);
        if (ordered == 1) { /* by an event */
            assert_int_equal(ops->event_record(t.d, t.a, t.event, &e), 0);
            assert_int_equal(ops->stream_after(t.d, t.b, t.event, &e), 0);
        } else if (ordered == 2) { /* by the host */
            assert_int_equal(ops->wait(t.d, t.a, &e), 0);
        }
        int rc = ops->clear(t.d, t.b, t.memory, 1024, &e);
        assert_int_equal(rc, ordered ? 0 : ERR_BUG);
        bench_free(&t);
    }
}

static void twin__lets_two_streams_read_and_finds_one_that_writes_beside_them(void **state)
{
    struct err e = {0};
    (void)state;
    struct bench t = bench_new();
    const struct device_ops *ops = t.d->ops;
    void *second;
    assert_int_equal(ops->pinned_new(t.d, 1024, &second, &e), 0);
    assert_int_equal(ops->download(t.d, t.a, t.pinned, t.memory, 1024, &e), 0);
    assert_int_equal(ops->download(t.d, t.b, second, t.memory, 1024, &e), 0);
    assert_int_equal(ops->clear(t.d, t.b, t.memory, 1024, &e), ERR_BUG);
    assert_int_equal(ops->event_record(t.d, t.a, t.event, &e), 0);
    assert_int_equal(ops->stream_after(t.d, t.b, t.event, &e), 0);
    assert_int_equal(ops->clear(t.d, t.b, t.memory, 1024, &e), 0);
    ops->pinned_free(t.d, second);
    bench_free(&t);
}

static void twin__knows_every_place_that_a_kernel_writes(void **state)
{
    static const struct {
        enum kernel kernel;
        size_t at;
        bool writes;
    } places[] = {
        {KERNEL_import, offsetof(union kernel_args, import_.in), false},
        {KERNEL_import, offsetof(union kernel_args, import_.out.data), true},
        {KERNEL_import, offsetof(union kernel_args, import_.flags), true},
        {KERNEL_fold, offsetof(union kernel_args, fold_.flags), true},
        {KERNEL_export, offsetof(union kernel_args, export_.bias), false},
        {KERNEL_export, offsetof(union kernel_args, export_.flags), true},
        {KERNEL_finite, offsetof(union kernel_args, finite_.out), true},
        {KERNEL_fork, offsetof(union kernel_args, fork_.shift), false},
        {KERNEL_fork, offsetof(union kernel_args, fork_.second), true},
    };
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct bench t = bench_new();
        const struct device_ops *ops = t.d->ops;
        union kernel_args a;
        memset(&a, 0, sizeof a);
        memcpy((char *)&a + places[i].at, &t.memory, sizeof t.memory);
        assert_int_equal(ops->launch(t.d, t.a, places[i].kernel, &a, 0, &e), 0);
        int rc = ops->download(t.d, t.b, t.pinned, t.memory, 1024, &e);
        assert_int_equal(rc, places[i].writes ? ERR_BUG : 0);
        bench_free(&t);
    }
}

static void twin__works_no_sooner_than_somebody_waits(void **state)
{
    struct err e = {0};
    (void)state;
    struct bench t = bench_new();
    const struct device_ops *ops = t.d->ops;
    float *pinned = t.pinned;
    for (int i = 0; i < 256; i++)
        pinned[i] = 1;
    assert_int_equal(ops->upload(t.d, t.a, t.memory, pinned, 1024, &e), 0);
    pinned[0] = 2; /* too early: this is what goes up */
    assert_int_equal(ops->event_record(t.d, t.a, t.event, &e), 0);
    assert_int_equal(ops->event_wait(t.d, t.event, &e), 0);
    pinned[1] = 3; /* late enough */
    assert_int_equal(ops->stream_after(t.d, t.b, t.event, &e), 0);
    assert_int_equal(ops->download(t.d, t.b, pinned, t.memory, 1024, &e), 0);
    assert_true(isnan(pinned[0])); /* too early */
    assert_int_equal(ops->wait(t.d, t.b, &e), 0);
    assert_true(pinned[0] == 2 && pinned[1] == 1);
    bench_free(&t);
}

/* ---- the cache of plans ---------------------------------------------------------------------- */

static void cache__keeps_plans_between_two_starts(void **state)
{
    char folder[] = "/tmp/spinenode-plans-XXXXXX", inside[64];
    struct err e = {0};
    struct plan *plan;
    struct workspace *work;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(inside, sizeof inside, "%s/plans", folder); /* is made */
    struct graph *g = network();
    struct engine_options o = {.cache_folder = inside, .model_digest = "d1"};
    const struct {
        const char *digest;
        int kept, made;
    } starts[] = {{"d1", 0, 2}, {"d1", 2, 0}, {"d2", 0, 2}, {NULL, 0, 2}};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        o.model_digest = starts[i].digest;
        assert_int_equal(engine_compile_batch(&engine_cuda_host, g, &one, 1, &o, &plan, &work, &e),
                         1);
        struct engine_tuned t = engine_plan_tuned(plan);
        assert_int_equal(t.kept, starts[i].kept);
        assert_int_equal(t.made, starts[i].made);
        engine_workspace_free(work);
        engine_plan_free(plan);
    }
    graph_free(g);
    char path[96];
    const char *const files[] = {"plans/d1-host-0.plans", "plans/d2-host-0.plans"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(inside), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stack__gives_the_bits_of_single_runs_whatever_the_batch),
        cmocka_unit_test(stack__takes_an_image_from_where_it_is_lent),
        cmocka_unit_test(stack__is_filled_ahead_of_what_is_taken),
        cmocka_unit_test(stack__that_stopped_leaves_the_workspace_as_good_as_new),
        cmocka_unit_test(stack__names_the_image_and_the_layer_that_are_not_finite),
        cmocka_unit_test(stack__names_the_image_whose_input_is_no_number),
        cmocka_unit_test(memory__that_lacks_halves_the_batch_until_one_image_does_not_fit),
        cmocka_unit_test(device__that_is_lost_fails_every_call_and_can_still_be_closed),
        cmocka_unit_test(run__that_failed_leaves_nothing_on_its_way),
        cmocka_unit_test(kernel__flags_the_image_of_any_number_that_is_not_finite),
        cmocka_unit_test(twin__finds_two_streams_that_nothing_orders),
        cmocka_unit_test(twin__lets_two_streams_read_and_finds_one_that_writes_beside_them),
        cmocka_unit_test(twin__knows_every_place_that_a_kernel_writes),
        cmocka_unit_test(twin__works_no_sooner_than_somebody_waits),
        cmocka_unit_test(cache__keeps_plans_between_two_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
