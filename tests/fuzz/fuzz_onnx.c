/*
 * fuzz_onnx.c - bytes → reader → passes → reference engine and CPU engine (libFuzzer)
 *
 * What is read must lower or be refused, what lowers must have a plan or be refused, and a plan
 * that is small must run, without a crash, a leak or undefined behaviour. Limits are small so that
 * memory and time stay bounded. The bytes also choose instruction set, threads, mode and memory of
 * the CPU engine, and whether its images must give the same bits as a stack.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "model/onnx.h"
#include "model/package.h"
#include "model/passes.h"

#define ACTIVATIONS_MAX ((int64_t)1 << 20)
#define MACS_MAX        ((int64_t)1 << 20)
#define PLAN_BYTES_MAX  ((int64_t)16 << 20)

static const struct onnx_limits limits = {
    .file_bytes = 1 << 20,
    .nodes = 200,
    .tensor_elements = 1 << 16,
    .activation_bytes = ACTIVATIONS_MAX,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error must have a code and a reason. */
static void check_reason(const struct err *e)
{
    if (e->code == 0 || e->text[0] == '\0')
        abort();
}

/* Numbers of both signs, none of them special. */
static float *numbers(const struct shape *s)
{
    int64_t n = shape_count(s);
    float *x = calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n && x != NULL; i++)
        x[i] = (float)(i * 37 % 64 - 31) / 32;
    return x;
}

/* The same images as a stack, three times. */
struct again {
    const struct plan *plan;
    float *const *in, *const *out;
};

/* 0: there are no images. */
static int64_t first_dimension(const struct plan *plan)
{
    const struct shape *s = engine_plan_inputs(plan) > 0 ? engine_plan_input_shape(plan, 0) : NULL;
    return s != NULL && s->rank > 0 ? s->dim[0] : 0;
}

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    const struct again *a = ctx;
    int64_t batch = first_dimension(a->plan);
    (void)e;
    for (int i = 0; i < engine_plan_inputs(a->plan); i++) {
        int64_t n = shape_count(engine_plan_input_shape(a->plan, i)) / batch;
        memcpy(in[i], a->in[i] + image % batch * n, (size_t)n * sizeof(float));
    }
    return 0;
}

/* They give the same bits. */
static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    const struct again *a = ctx;
    int64_t batch = first_dimension(a->plan);
    (void)e;
    for (int i = 0; i < engine_plan_outputs(a->plan); i++) {
        int64_t n = shape_count(engine_plan_output_shape(a->plan, i)) / batch;
        if (memcmp(out[i], a->out[i] + image % batch * n, (size_t)n * sizeof(float)) != 0)
            abort();
    }
    return 0;
}

static void run(const char *name, const struct graph *g, const struct shape *shape,
                const struct engine_options *options)
{
    const struct engine *engine = engine_find(name);
    struct engine_cost cost;
    struct plan *plan;
    struct workspace *work = NULL;
    struct err e = {0};
    float *in[GRAPH_INPUTS_MAX] = {0}, *out[GRAPH_INPUTS_MAX] = {0};
    if (engine_estimate(engine, g, shape, options, &cost, &e) != 0) {
        check_reason(&e);
        return;
    }
    if (cost.plan_bytes + cost.workspace_bytes + cost.compile_bytes > PLAN_BYTES_MAX)
        return;
    if (engine_compile(engine, g, shape, options, &plan, &e) != 0) {
        check_reason(&e);
        return;
    }
    if (engine_workspace_new(plan, &work, &e) == 0) {
        for (int i = 0; i < engine_plan_inputs(plan); i++)
            in[i] = numbers(engine_plan_input_shape(plan, i));
        for (int i = 0; i < engine_plan_outputs(plan); i++)
            out[i] = numbers(engine_plan_output_shape(plan, i));
        struct again again = {plan, in, out};
        const struct engine_stack stack = {
            .images = 3 * first_dimension(plan), .fill = fill, .take = take, .ctx = &again};
        if (engine_run(plan, work, (const float *const *)in, out, &e) != 0)
            check_reason(&e);
        else if (options->stream && engine_run_stack(plan, work, &stack, &e) != 0)
            check_reason(&e);
    }
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++) {
        free(in[i]);
        free(out[i]);
    }
    engine_workspace_free(work);
    engine_plan_free(plan);
}

static void run_both(const uint8_t *data, size_t size, const struct graph *g,
                     const struct shape *shape)
{
    static const char *const isa[] = {"base", "base", "avx2", "avx512"};
    unsigned choice = data[size / 2] ^ (unsigned)size;
    struct engine_options options = {
        .max_activation_bytes = ACTIVATIONS_MAX,
        .threads = 1 + (choice >> 2 & 1) + (choice >> 6 & 1),
        .mode = choice >> 3 & 1 ? ENGINE_THROUGHPUT : ENGINE_LATENCY,
        .low_memory = choice >> 4 & 1,
        .stream = choice >> 5 & 1,
    };
    run("ref", g, shape, &options);
    options.isa = isa[choice & 3];
    run("cpu", g, shape, &options);
}

/* At most, that the windows of a pooling meet. */
static int64_t window_elements(const struct graph *g, const struct node *n)
{
    const struct shape *x = &g->value[n->in[0]].shape;
    int64_t taps = shape_count(&g->value[n->out[0]].shape);
    for (int i = 0; i < 2; i++)
        taps *= n->pool.kernel[i] < x->dim[2 + i] ? n->pool.kernel[i] : x->dim[2 + i];
    return taps;
}

/* A file gives the graph that its bytes give, or is refused alike. */
static void open_as_file(const uint8_t *data, size_t size, int parsed)
{
    struct graph *g;
    struct err e = {0};
    char path[64];
    int fd = memfd_create("model", MFD_CLOEXEC);
    if (fd < 0 || size == 0 || write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int opened = onnx_open(path, &limits, &g, &e);
    if (opened != 0)
        check_reason(&e);
    /* from a file there may be external data, or not: that of memory is refused before it is found
     */
    if ((opened == 0) != (parsed == 0) && parsed != ERR_REFUSED)
        abort();
    graph_free(g);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct graph *g, *lowered;
    struct err e = {0};
    struct shape shape[GRAPH_INPUTS_MAX];
    int64_t elements = 0;
    int parsed = onnx_parse(data, (int64_t)size, &limits, &g, &e);
    open_as_file(data, size, parsed);
    if (parsed != 0) {
        check_reason(&e);
        return 0;
    }
    for (int i = 0; i < g->n_inputs; i++) {
        shape[i] = g->value[g->input[i]].shape;
        if (shape[i].rank < 0)
            shape[i] = (struct shape){.rank = 4, .dim = {1, 1, 4, 4}};
        for (int d = 0; d < shape[i].rank; d++)
            if (shape[i].dim[d] < 0)
                shape[i].dim[d] = 4;
        int64_t n = shape_count(&shape[i]);
        elements = n < 0 || n > 1 << 16 ? 1 << 20 : elements + n;
    }
    if (elements < 1 << 18 && graph_lower(g, shape, ACTIVATIONS_MAX, &lowered, NULL, &e) == 0) {
        int64_t macs = graph_macs(lowered), elements_met = 0;
        for (int i = 0; i < lowered->n_nodes; i++)
            if (lowered->node[i].op == OP_AVERAGE_POOL || lowered->node[i].op == OP_MAX_POOL)
                elements_met += window_elements(lowered, &lowered->node[i]);
        graph_free(lowered);
        if (macs >= 0 && macs < MACS_MAX && elements_met < MACS_MAX)
            run_both(data, size, g, shape);
    }
    graph_free(g);
    return 0;
}
