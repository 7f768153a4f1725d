/*
 * opcheck.c - runs an ONNX file on an engine, for the tests of the engines
 *
 *     opcheck MODEL --engine NAME [--against NAME] [--in FILE.npy ...] [--shape AxBxC ...]
 *             [--out FILE.npy ...] [--threads N] [--isa ISA] [--throughput] [--low-memory]
 *             [--device NAME] [--precision f32|f16|tf32] [--repeat N] [--stack BATCH] [--untuned]
 *             [--explain]
 *     opcheck --package MODEL        opens it as the node does: facts and graph are checked
 *     opcheck --list                 the engines of this build
 *     opcheck --serve                answers requests: a GPU takes seconds to start, once then
 *
 * --stack: the images of the inputs go through a plan for BATCH of them (or fewer, where memory
 * lacks) as a stack.
 *
 * Inputs come from NumPy files, or are made from shapes (uniform in [-1, 1), the same every time).
 * Prints one JSON object: engine, milliseconds, costs, and with --against the largest absolute
 * difference and the relative L2 difference of all outputs together. Exit 1: an error, its text on
 * stderr.
 *
 * --serve: each line of stdin holds arguments as above, with tabs between them. The answer is what
 * they would print (stderr, too, goes to stdout) and a last line "=== STATUS", the exit status.
 * Ends with stdin. peak_mb is that of the process, of all requests so far.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "node/base/err.h"

#include "model/engine.h"
#include "model/npy.h"
#include "model/onnx.h"
#include "model/package.h"
#include "model/passes.h"

#define DATA_MAX ((int64_t)8 << 30)

struct options {
    const char *model, *engine, *against;
    const char *in[GRAPH_INPUTS_MAX], *out[GRAPH_INPUTS_MAX];
    struct shape shape[GRAPH_INPUTS_MAX];
    int n_in, n_out, n_shape, repeat, stack;
    bool explain;
    struct engine_options engine_options;
};

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Most memory that was resident. Not getrusage: that counts the parent's before exec too. */
static double peak_mb(void)
{
    char line[256];
    long long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %lld", &kb) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return (double)kb / 1024;
}

static int parse_shape(const char *text, struct shape *s)
{
    s->rank = 0;
    for (char *end; s->rank < GRAPH_RANK_MAX; text = end + 1) {
        s->dim[s->rank++] = strtoll(text, &end, 10);
        if (*end == '\0')
            return 0;
        if (*end != 'x')
            return -1;
    }
    return -1;
}

static int parse_options(int argc, char **argv, struct options *o)
{
    const char *list = NULL;
    o->repeat = 1;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(a, "--in") == 0 || strcmp(a, "--out") == 0 || strcmp(a, "--shape") == 0) {
            list = a;
        } else if (strcmp(a, "--throughput") == 0) {
            o->engine_options.mode = ENGINE_THROUGHPUT;
        } else if (strcmp(a, "--low-memory") == 0) {
            o->engine_options.low_memory = true;
        } else if (strcmp(a, "--untuned") == 0) {
            o->engine_options.untuned = true;
        } else if (strcmp(a, "--explain") == 0) {
            o->explain = true;
        } else if (strncmp(a, "--", 2) == 0 && next != NULL) {
            i++;
            list = NULL;
            if (strcmp(a, "--engine") == 0)
                o->engine = next;
            else if (strcmp(a, "--against") == 0)
                o->against = next;
            else if (strcmp(a, "--threads") == 0)
                o->engine_options.threads = atoi(next);
            else if (strcmp(a, "--isa") == 0)
                o->engine_options.isa = next;
            else if (strcmp(a, "--precision") == 0 && strcmp(next, "f32") == 0)
                o->engine_options.precision = ENGINE_F32;
            else if (strcmp(a, "--precision") == 0 && strcmp(next, "f16") == 0)
                o->engine_options.precision = ENGINE_F16;
            else if (strcmp(a, "--precision") == 0 && strcmp(next, "tf32") == 0)
                o->engine_options.precision = ENGINE_TF32;
            else if (strcmp(a, "--device") == 0)
                o->engine_options.device = next;
            else if (strcmp(a, "--repeat") == 0)
                o->repeat = atoi(next);
            else if (strcmp(a, "--stack") == 0)
                o->stack = atoi(next);
            else
                return -1;
        } else if (list == NULL && o->model == NULL) {
            o->model = a;
        } else if (list != NULL && strcmp(list, "--in") == 0 && o->n_in < GRAPH_INPUTS_MAX) {
            o->in[o->n_in++] = a;
        } else if (list != NULL && strcmp(list, "--out") == 0 && o->n_out < GRAPH_INPUTS_MAX) {
            o->out[o->n_out++] = a;
        } else if (list != NULL && strcmp(list, "--shape") == 0 && o->n_shape < GRAPH_INPUTS_MAX) {
            if (parse_shape(a, &o->shape[o->n_shape++]) != 0)
                return -1;
        } else {
            return -1;
        }
    }
    o->engine_options.stream = o->stack > 0;
    return o->model != NULL && (o->engine != NULL || o->explain) && o->repeat > 0 ? 0 : -1;
}

static int make_input(const struct options *o, int i, struct npy *a, struct err *e)
{
    if (o->n_in > 0)
        return i < o->n_in ? npy_read(o->in[i], DATA_MAX, a, e)
                           : err_set(e, ERR_USAGE, "input %d is missing", i + 1);
    if (i >= o->n_shape)
        return err_set(e, ERR_USAGE, "the shape of input %d is missing", i + 1);
    a->shape = o->shape[i];
    int64_t n = shape_count(&a->shape);
    a->data = malloc((size_t)(n > 0 ? n : 1) * sizeof *a->data);
    if (n < 1 || a->data == NULL)
        return err_set(e, ERR_USAGE, "the shape of input %d is not one", i + 1);
    uint64_t state = 0x9e3779b97f4a7c15u + (uint64_t)i;
    for (int64_t k = 0; k < n; k++) { /* Knuth's MMIX generator */
        state = state * 6364136223846793005u + 1442695040888963407u;
        a->data[k] = (float)((double)(state >> 11) * 0x1p-52 - 1);
    }
    return 0;
}

#define TIMES_MAX 1000

struct result {
    struct npy out[GRAPH_INPUTS_MAX];
    int n_out;
    double compile_ms, first_ms, min_ms;
    double ms[TIMES_MAX]; /* of the first runs */
    int n_ms;
    int batch;
    bool same_bits; /* every repeat gave what the first did */
    char text[200];
};

static void result_fini(struct result *r)
{
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++)
        npy_fini(&r->out[i]);
}

/* FNV-1a of all outputs, word by word. */
static uint64_t bits_of(const struct result *r)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int i = 0; i < r->n_out; i++) {
        int64_t n = shape_count(&r->out[i].shape);
        for (int64_t k = 0; k < n; k++) {
            uint32_t bits;
            memcpy(&bits, &r->out[i].data[k], sizeof bits);
            h = (h ^ bits) * 0x100000001b3u;
        }
    }
    return h;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Images between whole tensors and the engine. */
struct images {
    const struct npy *in;
    struct result *r;
    int n_in;
    int64_t n;
};

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    const struct images *a = ctx;
    (void)e;
    for (int i = 0; i < a->n_in; i++) {
        int64_t part = shape_count(&a->in[i].shape) / a->n;
        memcpy(in[i], a->in[i].data + image * part, (size_t)part * sizeof(float));
    }
    return 0;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    const struct images *a = ctx;
    (void)e;
    for (int i = 0; i < a->r->n_out; i++) {
        int64_t part = shape_count(&a->r->out[i].shape) / a->n;
        memcpy(a->r->out[i].data + image * part, out[i], (size_t)part * sizeof(float));
    }
    return 0;
}

static int run_engine(const struct options *o, const char *name, const struct graph *g,
                      const struct npy *in, int repeat, struct result *r, struct err *e)
{
    const struct engine *engine = engine_find(name);
    struct shape shape[GRAPH_INPUTS_MAX] = {{0}};
    const float *in_data[GRAPH_INPUTS_MAX];
    float *out_data[GRAPH_INPUTS_MAX];
    struct plan *plan = NULL;
    struct workspace *work = NULL;
    if (engine == NULL)
        return err_set(e, ERR_USAGE, "this build has no engine '%s'", name);
    for (int i = 0; i < g->n_inputs; i++) {
        shape[i] = in[i].shape;
        in_data[i] = in[i].data;
    }
    double start = now_ms();
    bool stacked = o->stack > 0 && name == o->engine;
    int rc;
    if (stacked) {
        rc = engine_compile_batch(engine, g, shape, o->stack, &o->engine_options, &plan, &work, e);
        r->batch = rc;
        rc = rc > 0 ? 0 : rc;
    } else {
        rc = engine_compile(engine, g, shape, &o->engine_options, &plan, e);
        if (rc == 0)
            rc = engine_workspace_new(plan, &work, e);
        r->batch = (int)shape[0].dim[0];
    }
    if (rc != 0)
        goto out;
    r->compile_ms = now_ms() - start;
    r->n_out = engine_plan_outputs(plan);
    snprintf(r->text, sizeof r->text, "%s", engine_plan_text(plan));
    for (int i = 0; i < r->n_out; i++) {
        r->out[i].shape = *engine_plan_output_shape(plan, i);
        if (stacked)
            r->out[i].shape.dim[0] = shape[0].dim[0];
        r->out[i].data = out_data[i] =
            malloc((size_t)shape_count(&r->out[i].shape) * sizeof(float));
        if (out_data[i] == NULL) {
            rc = err_set(e, ERR_NOMEM, "no memory for output %d", i + 1);
            goto out;
        }
    }
    uint64_t first_bits = 0;
    for (int k = 0; k < repeat && rc == 0; k++) {
        start = now_ms();
        struct images images = {in, r, g->n_inputs, shape[0].dim[0]};
        const struct engine_stack stack = {
            .images = images.n, .fill = fill, .take = take, .ctx = &images};
        rc = stacked ? engine_run_stack(plan, work, &stack, e)
                     : engine_run(plan, work, in_data, out_data, e);
        double ms = now_ms() - start;
        r->first_ms = k == 0 ? ms : r->first_ms;
        r->min_ms = k == 0 || ms < r->min_ms ? ms : r->min_ms;
        if (k < TIMES_MAX)
            r->ms[r->n_ms++] = ms;
        uint64_t bits = rc == 0 ? bits_of(r) : 0;
        r->same_bits = k == 0 || (r->same_bits && bits == first_bits);
        first_bits = k == 0 ? bits : first_bits;
    }
    qsort(r->ms, (size_t)r->n_ms, sizeof r->ms[0], by_value);
out:
    engine_workspace_free(work);
    engine_plan_free(plan);
    return rc;
}

static void print_difference(const struct result *a, const struct result *b)
{
    double largest = 0, difference = 0, norm = 0, reach = 0;
    for (int i = 0; i < a->n_out; i++) {
        int64_t n = shape_count(&a->out[i].shape);
        for (int64_t k = 0; k < n; k++) {
            double x = (double)a->out[i].data[k], y = (double)b->out[i].data[k];
            largest = fabs(x - y) > largest ? fabs(x - y) : largest;
            reach = fabs(y) > reach ? fabs(y) : reach;
            difference += (x - y) * (x - y);
            norm += y * y;
        }
    }
    printf(", \"max_abs\": %.9g, \"max_value\": %.9g, \"rel_l2\": %.9g", largest, reach,
           norm > 0 ? sqrt(difference / norm) : sqrt(difference));
}

static int explain(const struct graph *g, const struct npy *in, struct err *e)
{
    struct shape shape[GRAPH_INPUTS_MAX] = {{0}};
    struct pass_report report = {0};
    struct graph *lowered;
    for (int i = 0; i < g->n_inputs; i++)
        shape[i] = in[i].shape;
    int rc = graph_lower(g, shape, (int64_t)16 << 30, &lowered, &report, e);
    if (rc != 0)
        return rc;
    for (int i = 0; i < report.n; i++)
        printf("%-24s changes %4d  nodes %4d  MACs %13lld  activations %12lld\n",
               report.pass[i].name, report.pass[i].changes, report.pass[i].after.nodes,
               (long long)report.pass[i].after.macs,
               (long long)report.pass[i].after.activation_bytes);
    for (int i = 0; i < lowered->n_nodes; i++) {
        const struct node *n = &lowered->node[i];
        char text[128];
        printf("  %-22s %-16s act %d  %s\n", op_name(n->op),
               shape_text(&lowered->value[n->out[0]].shape, text, sizeof text), (int)n->act.kind,
               n->name);
    }
    graph_free(lowered);
    return 0;
}

/* The engines of this build that this machine can run. */
static void list_engines(void)
{
    static const char *const names[] = {"ref", "cpu", "cuda-host"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (engine_find(names[i]) != NULL)
            puts(names[i]);
#ifdef SPINENODE_CUDA
    struct device *gpu;
    if (device_cuda_open(NULL, NULL, NULL, true, &gpu, NULL) == 0) {
        puts("cuda");
        gpu->ops->close(gpu);
    }
#endif
}

/* Does what the arguments ask for; returns the exit status. */
static int answer(int argc, char **argv)
{
    struct options o = {0};
    struct err e = {0};
    struct graph *g = NULL;
    struct npy in[GRAPH_INPUTS_MAX] = {0};
    struct result a = {0}, b = {0};
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        list_engines();
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--package") == 0) {
        struct package *p;
        if (package_open(argv[2], NULL, &p, &e) != 0) {
            fprintf(stderr, "opcheck: %s: %s\npeak_mb %.1f\n", err_word(e.code), e.text, peak_mb());
            return 1;
        }
        printf("{\"task\": \"%s\", \"parameters\": %lld}\n", model_task_name(p->task),
               (long long)p->parameters);
        package_free(p);
        return 0;
    }
    if (parse_options(argc, argv, &o) != 0) {
        fprintf(stderr, "opcheck: wrong arguments; see the top of opcheck.c\n");
        return 2;
    }
    double start = now_ms(), open_ms;
    int rc = onnx_open(o.model, NULL, &g, &e);
    open_ms = now_ms() - start;
    for (int i = 0; rc == 0 && i < g->n_inputs; i++)
        rc = make_input(&o, i, &in[i], &e);
    if (rc == 0 && o.explain)
        rc = explain(g, in, &e);
    if (rc == 0 && o.engine != NULL)
        rc = run_engine(&o, o.engine, g, in, o.repeat, &a, &e);
    o.engine_options.precision = ENGINE_F32; /* what it is checked against */
    if (rc == 0 && o.against != NULL)
        rc = run_engine(&o, o.against, g, in, 1, &b, &e);
    for (int i = 0; i < o.n_out && i < a.n_out && rc == 0; i++) {
        struct shape s = a.out[i].shape;
        if (s.rank == 0) /* NumPy files of ours have a dimension */
            s = (struct shape){.rank = 1, .dim = {1}};
        rc = npy_write(o.out[i], &s, a.out[i].data, &e);
    }
    if (rc == 0 && o.engine != NULL) {
        printf("{\"engine\": \"%s\", \"open_ms\": %.3f, \"compile_ms\": %.3f, \"first_ms\": %.3f, "
               "\"min_ms\": %.3f, \"median_ms\": %.3f, \"same_bits\": %s, \"batch\": %d, "
               "\"peak_mb\": %.1f",
               a.text, open_ms, a.compile_ms, a.first_ms, a.min_ms, a.n_ms ? a.ms[a.n_ms / 2] : 0,
               a.same_bits ? "true" : "false", a.batch, peak_mb());
        if (o.against != NULL)
            print_difference(&a, &b);
        printf("}\n");
    }
    if (rc != 0)
        fprintf(stderr, "opcheck: %s: %s\npeak_mb %.1f\n", err_word(rc), e.text, peak_mb());
    for (int i = 0; i < GRAPH_INPUTS_MAX; i++)
        npy_fini(&in[i]);
    result_fini(&a);
    result_fini(&b);
    graph_free(g);
    return rc == 0 ? 0 : 1;
}

#define ARGUMENTS_MAX 256

static int serve(void)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    /* One stream, in the order in which it was written. */
    if (dup2(STDOUT_FILENO, STDERR_FILENO) < 0 || setvbuf(stdout, NULL, _IOLBF, 0) != 0)
        return 1;
    while ((n = getline(&line, &size, stdin)) > 0) {
        char *argv[ARGUMENTS_MAX + 1] = {"opcheck"}, *rest = line;
        int argc = 1;
        line[n - 1] = line[n - 1] == '\n' ? '\0' : line[n - 1];
        while (argc < ARGUMENTS_MAX && rest != NULL)
            argv[argc++] = strsep(&rest, "\t");
        printf("=== %d\n", answer(argc, argv));
    }
    free(line);
    return 0;
}

int main(int argc, char **argv)
{
    engine_register(&engine_cuda_host, NULL);
#ifdef SPINENODE_CUDA
    engine_register(&engine_cuda, NULL);
#endif
    return argc == 2 && strcmp(argv[1], "--serve") == 0 ? serve() : answer(argc, argv);
}
