/* The CPU engine from C: nothing is allocated while running, plans are shared by threads, costs are
 * known before, memory that lacks is told or done without. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "model/constant.h"
#include "model/cpu_kernels.h"
#include "model/engine.h"
#include "model/engine_cpu_plan.h"
#include "node/base/pool.h"
#include "node/base/err.h"
#include "tests/unit/small_graph.h"

/* Counts allocations of the whole process while `watching`, and gives nothing to that of number
 * `refused`; not under sanitizers, whose own allocator stands there. */
static atomic_int watching, allocations, refused;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
static bool is_refused(void)
{
    return watching && ++allocations == refused;
}
void *malloc(size_t n)
{
    return is_refused() ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    return is_refused() ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    return is_refused() ? NULL : __libc_realloc(p, n);
}
#endif

static uint32_t seed = 5;
static float noise(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
}

static int constant(struct graph *g, int rank, const int64_t *dim)
{
    struct shape s = {.rank = rank};
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= s.dim[i] = dim[i];
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.2f * noise();
    int v = graph_add_value(g, "w", DTYPE_F32);
    assert_int_equal(graph_set_f32(g, v, &s, x), 0);
    free(x);
    return v;
}

static int add_node(struct graph *g, enum op op, int in0, int in1, int in2, struct node **out)
{
    int n_in = in2 >= 0 ? 3 : in1 >= 0 ? 2 : 1, v = graph_add_value(g, op_name(op), DTYPE_F32);
    g->value[v].shape.rank = -1;
    struct node *n = graph_add_node(g, op, op_name(op), n_in, 1);
    assert_non_null(n);
    const int in[] = {in0, in1, in2};
    for (int i = 0; i < n_in; i++)
        n->in[i] = in[i];
    n->out[0] = v;
    n->opset = 17;
    if (out)
        *out = n;
    return v;
}

static int conv(struct graph *g, bool transposed, int x, int c, int oc, int k, int s, int p)
{
    struct node *n;
    int64_t w[] = {transposed ? c : oc, transposed ? oc : c, k, k}, b[] = {oc};
    int v = add_node(g, transposed ? OP_CONV_TRANSPOSE : OP_CONV, x, constant(g, 4, w),
                     constant(g, 1, b), &n);
    for (int i = 0; i < 2; i++) {
        n->conv.kernel[i] = k;
        n->conv.stride[i] = s;
        n->conv.dilation[i] = 1;
        n->conv.pad_begin[i] = n->conv.pad_end[i] = p;
    }
    n->conv.group = 1;
    n->conv.rank = 2;
    return v;
}

static int act(struct graph *g, int x, enum act_kind kind)
{
    struct node *n;
    int v = add_node(g, OP_ACT, x, -1, -1, &n);
    n->act = (struct act){.kind = kind, .alpha = 0.2f};
    return v;
}

/* Down, norm, down, up, concat, up: with every kind of memory that the engine uses. */
static struct graph *network(void)
{
    struct graph *g = graph_new();
    assert_non_null(g);
    int x = graph_add_value(g, "image", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {2, 3, 32, 32}};
    int64_t c24[] = {24};
    int d1 = act(g, conv(g, false, x, 3, 20, 4, 2, 1), ACT_LEAKY_RELU);
    struct node *n;
    int d2 = conv(g, false, d1, 20, 24, 4, 2, 1);
    d2 = add_node(g, OP_INSTANCE_NORM, d2, constant(g, 1, c24), constant(g, 1, c24), &n);
    n->norm.epsilon = 1e-5;
    int u1 = conv(g, true, act(g, d2, ACT_RELU), 24, 12, 4, 2, 1);
    int cat = add_node(g, OP_CONCAT, d1, u1, -1, &n);
    n->axis = 1;
    int y = act(g, conv(g, true, act(g, cat, ACT_RELU), 32, 1, 4, 2, 1), ACT_TANH);
    return graph_of(g, x, y);
}

#define IN  (2 * 3 * 32 * 32)
#define OUT (2 * 32 * 32)

static struct plan *compile(const struct engine_options *o)
{
    struct graph *g = network();
    struct err e = {0};
    struct plan *p = NULL;
    if (engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, o, &p, &e) != 0)
        fail_msg("%s", e.text);
    graph_free(g); /* a plan does not need its graph */
    return p;
}

static float *random_input(void)
{
    float *x = malloc(IN * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < IN; i++)
        x[i] = noise();
    return x;
}

static void engine_cpu__allocates_nothing_while_running(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2)
        for (int mode = 0; mode < 2; mode++) {
            seed = 11;
            struct engine_options o = {.threads = threads, .mode = (enum engine_mode)mode};
            struct plan *p = compile(&o);
            struct workspace *w;
            struct err e = {0};
            assert_int_equal(engine_workspace_new(p, &w, &e), 0);
            float *x = random_input(), *y = malloc(OUT * sizeof *y);
            const float *in = x;
            atomic_store(&allocations, 0);
            atomic_store(&watching, 1);
            int rc = 0;
            for (int i = 0; i < 5; i++)
                rc |= engine_run(p, w, &in, &y, &e);
            atomic_store(&watching, 0);
            assert_int_equal(rc, 0);
            assert_int_equal(atomic_load(&allocations), 0);
            engine_workspace_free(w);
            engine_plan_free(p);
            free(x);
            free(y);
        }
}

struct runner {
    const struct plan *p;
    const float *x;
    float y[OUT];
    int rc;
};

static void engine_cpu__that_gets_no_memory_while_it_compiles_says_so(void **state)
{
    const struct engine_options o = {.threads = 1};
    (void)state;
    struct graph *g = network();
    int rc = ERR_NOMEM, n = 0;
    for (; rc == ERR_NOMEM && n < 5000; n++) {
        struct plan *p = NULL;
        struct err e = {0};
        refused = n + 1;
        allocations = 0;
        watching = 1;
        rc = engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, &o, &p, &e);
        watching = 0;
        if (rc == 0 && allocations >= refused)
            fail_msg("allocation %d of %d was refused, and nobody said so", n + 1, allocations);
        engine_plan_free(p);
    }
    refused = 0;
    assert_int_equal(rc, 0);
    graph_free(g);
}

static void *run_often(void *arg)
{
    struct runner *r = arg;
    struct workspace *w;
    struct err e = {0};
    float *out = r->y;
    r->rc = engine_workspace_new(r->p, &w, &e);
    for (int i = 0; i < 20 && r->rc == 0; i++)
        r->rc = engine_run(r->p, w, &r->x, &out, &e);
    engine_workspace_free(w);
    return NULL;
}

static void engine_cpu__runs_one_plan_in_several_threads_at_once(void **state)
{
    (void)state;
    seed = 12;
    struct engine_options o = {.threads = 2};
    struct plan *p = compile(&o);
    float *x = random_input();
    static struct runner r[4];
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        r[i].p = p;
        r[i].x = x;
        assert_int_equal(pthread_create(&t[i], NULL, run_often, &r[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(r[i].rc, 0);
        assert_memory_equal(r[i].y, r[0].y, sizeof r[0].y);
    }
    double sum = 0;
    for (int i = 0; i < OUT; i++)
        sum += fabs((double)r[0].y[i]);
    assert_true(sum > 1);
    engine_plan_free(p);
    free(x);
}

static void engine_cpu__agrees_with_the_reference(void **state)
{
    (void)state;
    struct err e = {0};
    float *x = NULL, *y[2];
    for (int i = 0; i < 2; i++) {
        seed = 13;
        struct graph *g = network();
        struct plan *p = NULL;
        struct workspace *w = NULL;
        assert_int_equal(engine_compile(engine_find(i ? "cpu" : "ref"), g,
                                        &g->value[g->input[0]].shape, NULL, &p, &e),
                         0);
        graph_free(g);
        assert_int_equal(engine_workspace_new(p, &w, &e), 0);
        x = x ? x : random_input();
        const float *in = x;
        y[i] = malloc(OUT * sizeof **y);
        assert_int_equal(engine_run(p, w, &in, &y[i], &e), 0);
        engine_workspace_free(w);
        engine_plan_free(p);
    }
    for (int i = 0; i < OUT; i++)
        assert_true(fabsf(y[0][i] - y[1][i]) <= 2e-6f);
    free(x);
    free(y[0]);
    free(y[1]);
}

/* Which nodes of concat(relu(skip), relu(conv)) → conv are left to that convolution. */
static void relu_of_a_skip(bool low_memory, bool read_by_others, bool want)
{
    struct graph *g = graph_new();
    assert_non_null(g);
    int x = graph_add_value(g, "image", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {1, 8, 8, 8}};
    struct node *n;
    int skip = conv(g, false, x, 8, 8, 3, 1, 1), relu = act(g, skip, ACT_RELU);
    int other = act(g, conv(g, false, skip, 8, 8, 3, 1, 1), ACT_RELU);
    int cat = add_node(g, OP_CONCAT, relu, other, -1, &n);
    n->axis = 1;
    int y = conv(g, false, cat, 16, 8, 3, 1, 1);
    g->output = graph_alloc(g, 2 * sizeof(int));
    assert_non_null(g->output);
    g->output[0] = y;
    g->output[1] = cat;
    g->n_outputs = read_by_others ? 2 : 1;
    graph_index(g);
    struct fusion f = {0};
    struct err e = {0};
    assert_int_equal(cpu_fuse(g, low_memory, &f, &e), 0);
    assert_int_equal(f.late[g->value[relu].producer], want);
    assert_int_equal(f.late[g->value[cat].producer], want);
    const struct conv_source *source = &f.source[g->value[y].producer];
    assert_int_equal(source->value, cat);
    assert_int_equal(source->act.kind, want ? CPU_RELU : CPU_NONE);
    cpu_fusion_free(&f);
    graph_free(g);
}

static void engine_cpu__leaves_the_relu_of_a_skip_to_its_readers(void **state)
{
    (void)state;
    relu_of_a_skip(false, false, true);
    relu_of_a_skip(true, false, false);
    relu_of_a_skip(false, true, false);
}

/* The plan of `layers` convolutions 3×3 of c channels at size × size, weights placed. */
static struct step *plan_of(struct cpu_plan *p, int layers, int c, int size, bool low_memory)
{
    struct err e;
    struct cpu_conv_desc d = {
        .n = 1, .h = size, .w = size, .c = c, .oh = size, .ow = size, .oc = c};
    for (int i = 0; i < 2; i++) {
        d.kernel[i] = 3;
        d.stride[i] = d.dilation[i] = d.pad[i] = d.up[i] = 1;
    }
    d.group = 1;
    d.low_memory = low_memory;
    *p = (struct cpu_plan){.steps = layers, .threads = 1};
    assert_int_equal(cpu_kernels_pick(NULL, &p->k, &e), 0);
    p->step = calloc((size_t)layers, sizeof *p->step);
    assert_non_null(p->step);
    for (int i = 0; i < layers; i++)
        assert_int_equal(cpu_conv_new(&p->step[i].conv, &d, p->k, 1, NULL, &e), 0);
    assert_int_equal(cpu_plan_weights(p, low_memory, &e), 0);
    return p->step;
}

/* Ways of the layers, one digit each, and that their weights lie one after the other. */
static void assert_ways(int layers, int c, int size, bool low_memory, const char *want)
{
    struct cpu_plan p;
    struct step *s = plan_of(&p, layers, c, size, low_memory);
    char got[32] = "";
    size_t at = 0;
    for (int i = 0; i < layers; i++) {
        enum cpu_way way = cpu_conv_way(s[i].conv);
        got[i] = (char)(way == CPU_DIRECT ? '0' : '4' + (way - CPU_WINOGRAD4));
        assert_int_equal(s[i].packed, at);
        at += (cpu_conv_packed_floats(s[i].conv) + 15) / 16 * 16;
        cpu_conv_free(s[i].conv);
    }
    assert_int_equal(p.packed_floats, at);
    assert_string_equal(got, want);
    free(s);
}

/* Twice the weights and 32 MiB: of 256 channels 2.25 MiB a layer, 4, 6.25 or 9 MiB packed. */
static void engine_cpu__spends_memory_on_the_fastest_ways_that_fit(void **state)
{
    (void)state;
    assert_ways(4, 64, 128, false, "6666");
    assert_ways(4, 64, 128, true, "4444");
    assert_ways(4, 256, 64, false, "6666");
    assert_ways(12, 256, 64, false, "666555555555");
    assert_ways(24, 256, 64, false, "555555555555555555544444");
    assert_ways(4, 256, 64, true, "0000");
}

static void engine_cpu__tells_its_cost_beforehand(void **state)
{
    (void)state;
    struct graph *g = network();
    struct engine_cost one, many, more;
    struct err e = {0};
    struct engine_options o = {.threads = 1};
    const struct shape *s = &g->value[g->input[0]].shape;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &o, &one, &e), 0);
    o.threads = 100; /* more than there are tasks: only their own scratch is still to come */
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &o, &many, &e), 0);
    o.threads = 200;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &o, &more, &e), 0);
    assert_true(one.macs > 0 && one.plan_bytes > 0);
    assert_true(many.workspace_bytes > one.workspace_bytes);
    assert_true(more.workspace_bytes > many.workspace_bytes);
    assert_int_equal(more.plan_bytes, one.plan_bytes);
    /* For a stack an arena for each thread, up to a gigabyte; not where memory is to be saved. */
    struct engine_options few = {.threads = 2}, stream = {.threads = 2, .stream = true};
    struct engine_cost two, arenas;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &few, &two, &e), 0);
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &stream, &arenas, &e), 0);
    assert_in_range(arenas.workspace_bytes, two.workspace_bytes + one.workspace_bytes * 3 / 4,
                    2 * two.workspace_bytes + 2 * (IN + OUT) * 4);
    stream.low_memory = few.low_memory = true;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &few, &two, &e), 0);
    assert_int_equal(engine_estimate(engine_find("cpu"), g, s, &stream, &arenas, &e), 0);
    /* both ends of an image come on top */
    assert_int_equal(arenas.workspace_bytes, two.workspace_bytes + (IN + OUT) * 4);
    const struct shape large = {.rank = 4, .dim = {1, 3, 2560, 2560}};
    struct shape *own = &g->value[g->input[0]].shape;
    own->dim[0] = own->dim[2] = own->dim[3] = -1;
    stream = (struct engine_options){.threads = 1, .stream = true};
    assert_int_equal(engine_estimate(engine_find("cpu"), g, &large, &stream, &one, &e), 0);
    assert_in_range(one.workspace_bytes, 342 << 20, 512 << 20); /* two or three in a gigabyte */
    stream.threads = 8;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, &large, &stream, &arenas, &e), 0);
    assert_true(arenas.workspace_bytes < 2 * one.workspace_bytes); /* room for a few of eight */
    stream.threads = 3;                                            /* for two of three */
    assert_int_equal(engine_estimate(engine_find("cpu"), g, &large, &stream, &arenas, &e), 0);
    assert_in_range(arenas.workspace_bytes, 2 * one.workspace_bytes - 1, 1 << 30);
    graph_free(g);
}

/* A stack of batches of zeros. */
struct zeros {
    int taken, asked, stop_at;
};

static int zeros_fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    (void)ctx, (void)image, (void)in, (void)e; /* as they were made */
    return 0;
}

static int zeros_take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    (void)image, (void)out, (void)e;
    ((struct zeros *)ctx)->taken++;
    return 0;
}

static bool zeros_stop(void *ctx)
{
    struct zeros *z = ctx;
    return __atomic_add_fetch(&z->asked, 1, __ATOMIC_SEQ_CST) >= z->stop_at;
}

static void engine_cpu__stops_in_the_middle_of_an_image(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        struct engine_options o = {.threads = threads, .stream = true};
        struct plan *p = compile(&o);
        struct workspace *w;
        struct err e = {0};
        struct zeros z = {.stop_at = INT32_MAX};
        const struct engine_stack stack = {
            .images = 8, .fill = zeros_fill, .take = zeros_take, .ctx = &z, .stop = zeros_stop};
        assert_int_equal(engine_workspace_new(p, &w, &e), 0);
        assert_int_equal(engine_run_stack(p, w, &stack, &e), 0);
        assert_int_equal(z.taken, 8);
        int steps = z.asked / 4; /* of a batch of two */
        assert_true(steps > 3);
        z = (struct zeros){.stop_at = 2};
        assert_int_equal(engine_run_stack(p, w, &stack, &e), ERR_CANCELLED);
        assert_int_equal(z.taken, 0);
        assert_true(z.asked <= 1 + threads);
        z = (struct zeros){.stop_at = threads * steps + 2};
        assert_int_equal(engine_run_stack(p, w, &stack, &e), ERR_CANCELLED);
        assert_int_equal(z.taken, 2 * threads);
        engine_workspace_free(w);
        engine_plan_free(p);
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Address space in use. */
static size_t address_space(void)
{
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%zu", &pages), 1);
    fclose(f);
    return pages * 4096;
}

static void engine_cpu__computes_a_stack_in_one_lane_where_memory_is_short(void **state)
{
    (void)state;
    struct graph *g = network();
    struct engine_options o = {.threads = 3, .stream = true}, alone = {.threads = 3};
    struct engine_cost cost;
    struct plan *p;
    struct workspace *w;
    struct err e = {0};
    const struct shape large = {.rank = 4, .dim = {1, 3, 1536, 1536}};
    struct shape *own = &g->value[g->input[0]].shape;
    own->dim[0] = own->dim[2] = own->dim[3] = -1;
    assert_int_equal(engine_estimate(engine_find("cpu"), g, &large, &alone, &cost, &e), 0);
    assert_int_equal(engine_compile(engine_find("cpu"), g, &large, &o, &p, &e), 0);
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    tight = before; /* the stacks of two threads, one lane, two ends */
    tight.rlim_cur = address_space() + (size_t)cost.workspace_bytes * 3 / 2 + (96 << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    int made = engine_workspace_new(p, &w, &e);
    struct zeros z = {.taken = 0};
    const struct engine_stack stack = {
        .images = 2, .fill = zeros_fill, .take = zeros_take, .ctx = &z};
    int ran = made == 0 ? engine_run_stack(p, w, &stack, &e) : made;
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(made, 0);
    assert_int_equal(ran, 0);
    assert_int_equal(z.taken, 2);
    engine_workspace_free(w);
    engine_plan_free(p);
    graph_free(g);
}
#endif

/* A convolution 1×1 of c to oc channels at size × size, and no more. */
static struct graph *one_conv(int c, int oc, int size)
{
    struct graph *g = graph_new();
    assert_non_null(g);
    int x = graph_add_value(g, "image", DTYPE_F32);
    g->value[x].shape = (struct shape){.rank = 4, .dim = {1, c, size, size}};
    int y = conv(g, false, x, c, oc, 1, 1, 0);
    return graph_of(g, x, y);
}

/* 72 MiB of weights: more than get large pages at once. */
static void engine_cpu__gives_the_same_bits_when_it_has_settled(void **state)
{
    (void)state;
    enum { C = 4096, D = 4608 };
    struct graph *g = one_conv(C, D, 1);
    struct plan *p = NULL;
    struct workspace *w = NULL;
    struct err e = {0};
    float *in = malloc(C * sizeof *in), *out[2];
    for (int i = 0; i < C; i++)
        in[i] = (float)(i % 7) - 3;
    assert_int_equal(
        engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, NULL, &p, &e), 0);
    graph_free(g);
    assert_int_equal(engine_workspace_new(p, &w, &e), 0);
    for (int i = 0; i < 2; i++) {
        const float *from = in;
        out[i] = malloc(D * sizeof **out);
        assert_int_equal(engine_run(p, w, &from, &out[i], &e), 0);
        engine_plan_settle(p);
    }
    assert_memory_equal(out[0], out[1], D * sizeof **out);
    engine_workspace_free(w);
    engine_plan_free(p);
    free(in);
    free(out[0]);
    free(out[1]);
}

/* How many of the process' mappings are to be in large pages, and how many of them do not begin and
 * end with one. -1: the system does not tell. */
static int large_mappings(int *crooked)
{
    enum { LARGE = 2 << 20 };
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long long from = 0, to = 0, a, b;
    int count = -1;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%llx-%llx ", &a, &b) == 2) {
            from = a;
            to = b;
        } else if (strncmp(line, "VmFlags:", 8) == 0) {
            bool large = strstr(line, " hg") != NULL;
            count = count < 0 ? large : count + large;
            *crooked += large && (from % LARGE != 0 || to % LARGE != 0);
        }
    if (f)
        fclose(f);
    return count;
}

/* A page that is large and only touched at its edge still has to be given by the system. */
static void engine_cpu__memory_begins_and_ends_with_a_large_page(void **state)
{
    (void)state;
    enum { C = 1024, SIDE = 64 };
    struct graph *g = one_conv(C, C, SIDE); /* weights of 4 MB, images of 16 MB */
    struct plan *p = NULL;
    struct workspace *w = NULL;
    struct err e = {0};
    int crooked = 0, before = large_mappings(&crooked);
    crooked = 0;
    assert_int_equal(
        engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, NULL, &p, &e), 0);
    graph_free(g);
    assert_int_equal(engine_workspace_new(p, &w, &e), 0);
    int after = large_mappings(&crooked);
    engine_workspace_free(w);
    engine_plan_free(p);
    if (before < 0)
        skip();
    assert_true(after > before);
    assert_int_equal(crooked, 0);
}

/* The input is looked at in parts, by all threads. */
static void engine_cpu__names_the_first_number_of_an_input_that_is_not_finite(void **state)
{
    (void)state;
    enum { SIDE = 300 };
    struct graph *g = one_conv(1, 1, SIDE);
    struct plan *p = NULL;
    struct workspace *w = NULL;
    struct err e = {0};
    struct engine_options o = {.threads = 3};
    float *in = calloc(SIDE * SIDE, sizeof *in), *out = calloc(SIDE * SIDE, sizeof *out);
    const float *from = in;
    assert_int_equal(
        engine_compile(engine_find("cpu"), g, &g->value[g->input[0]].shape, &o, &p, &e), 0);
    graph_free(g);
    assert_int_equal(engine_workspace_new(p, &w, &e), 0);
    assert_int_equal(pool_threads(engine_workspace_threads(w)), 3);
    assert_int_equal(engine_run(p, w, &from, &out, &e), 0);
    static const int bad[] = {89999, 80000, 22500, 1};
    char want[96];
    for (int i = 0; i < 4; i++) {
        in[bad[i]] = i % 2 ? INFINITY : NAN;
        assert_int_equal(engine_run(p, w, &from, &out, &e), ERR_NUMERIC);
        snprintf(want, sizeof want, "input 'image' holds NaN or infinity at element %d", bad[i]);
        assert_string_equal(e.text, want);
    }
    engine_workspace_free(w);
    engine_plan_free(p);
    free(in);
    free(out);
}

static void engine_cpu__refuses_what_it_cannot_do(void **state)
{
    (void)state;
    struct graph *g = network();
    struct plan *p = NULL;
    struct err e = {0};
    const struct shape *s = &g->value[g->input[0]].shape;
    struct engine_options o = {.precision = ENGINE_F16};
    assert_int_equal(engine_compile(engine_find("cpu"), g, s, &o, &p, &e), ERR_UNSUPPORTED);
    o = (struct engine_options){.threads = POOL_THREADS_MAX + 1};
    assert_int_equal(engine_compile(engine_find("cpu"), g, s, &o, &p, &e), ERR_LIMIT);
    o = (struct engine_options){.isa = "sse9"};
    assert_int_equal(engine_compile(engine_find("cpu"), g, s, &o, &p, &e), ERR_CONFIG);
    assert_null(p);
    graph_free(g);
}

static void constant__is_scaled_alike_wherever_reading_begins(void **state)
{
    (void)state;
    enum { COUNT = 3, INNER = 7, ALL = 2 * COUNT * INNER };
    const int64_t dim[] = {ALL};
    const double scale[COUNT] = {2, 3, 5};
    struct graph *g = graph_new();
    assert_non_null(g);
    int v = constant(g, 1, dim);
    float plain[ALL], got[ALL];
    struct err e;
    assert_int_equal(constant_load_f32(&g->value[v], 0, ALL, plain, &e), 0);
    g->value[v].constant = constant_scaled(g, g->value[v].constant, scale, COUNT, INNER);
    assert_non_null(g->value[v].constant);
    for (int first = 0; first < ALL; first++)
        for (int n = 1; first + n <= ALL; n++) {
            assert_int_equal(constant_load_f32(&g->value[v], first, n, got, &e), 0);
            for (int i = 0; i < n; i++) {
                float want = (float)(plain[first + i] * scale[(first + i) / INNER % COUNT]);
                assert_true(got[i] == want);
            }
        }
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_cpu__allocates_nothing_while_running),
        cmocka_unit_test(engine_cpu__that_gets_no_memory_while_it_compiles_says_so),
        cmocka_unit_test(engine_cpu__runs_one_plan_in_several_threads_at_once),
        cmocka_unit_test(engine_cpu__agrees_with_the_reference),
        cmocka_unit_test(engine_cpu__leaves_the_relu_of_a_skip_to_its_readers),
        cmocka_unit_test(engine_cpu__spends_memory_on_the_fastest_ways_that_fit),
        cmocka_unit_test(engine_cpu__tells_its_cost_beforehand),
        cmocka_unit_test(engine_cpu__stops_in_the_middle_of_an_image),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(engine_cpu__computes_a_stack_in_one_lane_where_memory_is_short),
#endif
        cmocka_unit_test(engine_cpu__gives_the_same_bits_when_it_has_settled),
        cmocka_unit_test(engine_cpu__memory_begins_and_ends_with_a_large_page),
        cmocka_unit_test(engine_cpu__names_the_first_number_of_an_input_that_is_not_finite),
        cmocka_unit_test(engine_cpu__refuses_what_it_cannot_do),
        cmocka_unit_test(constant__is_scaled_alike_wherever_reading_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
