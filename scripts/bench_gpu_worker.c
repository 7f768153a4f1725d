/*
 * bench_gpu_worker.c - the CUDA engine under scripts/bench_gpu
 *
 *     bench_gpu_worker [--host-twin] peak [SIDE MIB]
 *         what this device gives at most: {"tflops": …, "tflops_best": …, "gb_per_s": …}, by a
 * product of SIDE x SIDE matrices of random halfs (a 1 x 1 convolution, tuned as every other;
 * zeroes would draw less power) and by copies of MIB: medians, after a warm-up, as under load
 *     bench_gpu_worker [--host-twin] run MODEL IN.npy OUT.npy REPEAT [CACHE [steps]]
 *         compiles MODEL in half for as many images as are in IN, runs them and prints what it
 *         took: load_first_ms (open, compile, first result), tuned and kept plans, host_ms (from
 *         pinned memory to pinned memory, REPEAT times), device_ms (the recording alone),
 *         stream_per_s (images per second of a long stack, copies beside computing), and what the
 *         network's convolutions need at least, for a roofline: a list of [flop, bytes]
 *
 *     bench_gpu_worker [--host-twin] steps MODEL IN.npy [CACHE]
 *         where the time goes: [node, what runs, µs, Gflop] of every step of the program, each
 *         timed alone, in the order in which they run; Gflop as executed, so with what pads
 * channels and with the zeroes of a transposed convolution
 *
 * --host-twin runs the same on the host, to test this program without a GPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/device.h"
#include "cuda/engine_cuda.h"
#include "cuda/engine_plan.h"
#include "model/engine.h"
#include "model/npy.h"
#include "model/onnx.h"
#include "model/passes.h"
#include "node/base/err.h"

#define DATA_MAX   ((int64_t)8 << 30)
#define WARM_UP_MS 300
#define PEAK_RUNS  51
#define STEP_RUNS  10

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int open_device(bool twin, struct device **out, struct err *e)
{
#ifdef SPINENODE_CUDA
    if (!twin)
        return device_cuda_open(NULL, NULL, NULL, false, out, e);
#else
    if (!twin)
        return err_set(e, ERR_UNSUPPORTED, "built without CUDA");
#endif
    return device_host_open(&(struct host_options){.fused = CONVOLUTION_ALL}, out, e);
}

/* ---- what the device gives at most ---- */

static int product(struct device *d, void *stream, void *plan, const struct convolution_spec *spec,
                   void *const memory[4], struct err *e)
{
    const struct convolution_memory m = {
        .x = memory[0], .w = memory[1], .y = memory[2], .workspace = memory[3]};
    return d->ops->convolution_run(d, stream, plan, spec, &m, e);
}

static int record(struct device *d, void *stream, void *plan, const struct convolution_spec *spec,
                  void *const memory[4], int64_t copied, void **recording, struct err *e)
{
    int rc = d->ops->record_begin(d, stream, e);
    if (rc != 0)
        return rc;
    if (plan)
        rc = product(d, stream, plan, spec, memory, e);
    else
        rc = d->ops->upload(d, stream, memory[0], memory[1], copied, e);
    int ended = d->ops->record_end(d, stream, recording, e);
    return rc != 0 ? rc : ended;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median and best of some runs of a recording after a warm-up, in ms. */
static int runs_ms(struct device *d, void *stream, void *recording, double ms[2], struct err *e)
{
    double one[PEAK_RUNS] = {0};
    double end = now_ms() + WARM_UP_MS;
    int rc = 0;
    while (rc == 0 && now_ms() < end)
        rc = d->ops->replay_timed(d, stream, recording, 1, &one[0], e);
    for (int i = 0; rc == 0 && i < PEAK_RUNS; i++)
        rc = d->ops->replay_timed(d, stream, recording, 1, &one[i], e);
    qsort(one, PEAK_RUNS, sizeof *one, compare);
    ms[0] = one[PEAK_RUNS / 2];
    ms[1] = one[0];
    return rc;
}

/* Halfs of either sign from 1/16 to 1. */
static int fill_random(struct device *d, void *stream, void *memory, int64_t n, struct err *e)
{
    uint16_t *half;
    int rc = d->ops->pinned_new(d, n * 2, (void **)&half, e);
    if (rc != 0)
        return rc;
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (int64_t i = 0; i < n; i++) { /* Knuth's MMIX generator */
        state = state * 6364136223846793005u + 1442695040888963407u;
        half[i] = (uint16_t)((state >> 48 & 0x83ff) | (11 + (state >> 40 & 3)) << 10);
    }
    rc = d->ops->upload(d, stream, memory, half, n * 2, e);
    int waited = d->ops->wait(d, stream, e);
    d->ops->pinned_free(d, half);
    return rc != 0 ? rc : waited;
}

static int product_ms(struct device *d, void *stream, int64_t side, double ms[2], struct err *e)
{
    int64_t height = 1;
    while (height * height * 4 <= side)
        height *= 2; /* side pixels in a nearly square picture */
    const struct convolution_spec spec = {.n = 1,
                                          .c = side,
                                          .h = height,
                                          .w = side / height,
                                          .k = side,
                                          .oh = height,
                                          .ow = side / height,
                                          .kernel = {1, 1},
                                          .stride = {1, 1},
                                          .dilation = {1, 1},
                                          .half = true};
    void *memory[4] = {0}, *recording = NULL;
    struct convolution_made made = {0};
    int rc = d->ops->convolution_plan(d, &spec, &made, e);
    for (int i = 0; rc == 0 && i < 4; i++)
        rc = d->ops->memory_new(d, i < 3 ? side * side * 2 : made.workspace_bytes + 16, &memory[i],
                                e);
    for (int i = 0; rc == 0 && i < 2; i++)
        rc = fill_random(d, stream, memory[i], side * side, e);
    if (rc == 0)
        rc = product(d, stream, made.plan, &spec, memory, e);
    if (rc == 0)
        rc = d->ops->wait(d, stream, e);
    if (rc == 0)
        rc = record(d, stream, made.plan, &spec, memory, 0, &recording, e);
    if (rc == 0)
        rc = runs_ms(d, stream, recording, ms, e);
    if (recording)
        d->ops->recording_free(d, recording);
    for (int i = 0; i < 4; i++)
        if (memory[i])
            d->ops->memory_free(d, memory[i]);
    if (made.plan)
        d->ops->convolution_free(d, made.plan);
    return rc;
}

static int copy_ms(struct device *d, void *stream, int64_t bytes, double ms[2], struct err *e)
{
    void *memory[4] = {0}, *recording = NULL;
    int rc = d->ops->memory_new(d, bytes, &memory[0], e);
    if (rc == 0)
        rc = d->ops->memory_new(d, bytes, &memory[1], e);
    if (rc == 0)
        rc = record(d, stream, NULL, NULL, memory, bytes, &recording, e);
    if (rc == 0)
        rc = runs_ms(d, stream, recording, ms, e);
    if (recording)
        d->ops->recording_free(d, recording);
    for (int i = 0; i < 2; i++)
        if (memory[i])
            d->ops->memory_free(d, memory[i]);
    return rc;
}

static int peak(bool twin, int64_t side, int64_t mib, struct err *e)
{
    struct device *d = NULL;
    void *stream = NULL;
    double product[2] = {1, 1}, copy[2] = {1, 1};
    double flop = 2 * (double)side * (double)side * (double)side;
    int rc = open_device(twin, &d, e);
    if (rc != 0)
        return rc;
    rc = d->ops->stream_new(d, &stream, e);
    if (rc == 0)
        rc = product_ms(d, stream, side, product, e);
    if (rc == 0)
        rc = copy_ms(d, stream, mib << 20, copy, e);
    if (rc == 0)
        printf(
            "{\"device\": \"%s\", \"tflops\": %.4g, \"tflops_best\": %.4g, \"gb_per_s\": %.4g}\n",
            d->text, flop / product[0] / 1e9, flop / product[1] / 1e9,
            2 * (double)(mib << 20) / copy[0] / 1e6);
    if (stream)
        d->ops->stream_free(d, stream);
    d->ops->close(d);
    return rc;
}

/* ---- one network ---- */

struct bench {
    const struct engine *engine;
    struct engine_options options;
    int64_t batch;
    int repeat;
    struct npy in, out;
    int64_t part_in, part_out; /* floats of one image */
    bool steps;                /* tell where the time goes, too */
    bool keep;                 /* copy images in and out; else what is in pinned memory stays */
    struct graph *lowered;
    void *impl, *work;
};

static int fill(void *ctx, int64_t image, float *const *in, struct err *e)
{
    const struct bench *b = ctx;
    (void)e;
    if (b->keep)
        memcpy(in[0], b->in.data + image % b->batch * b->part_in,
               (size_t)b->part_in * sizeof(float));
    return 0;
}

static int take(void *ctx, int64_t image, const float *const *out, struct err *e)
{
    const struct bench *b = ctx;
    (void)e;
    if (b->keep)
        memcpy(b->out.data + image % b->batch * b->part_out, out[0],
               (size_t)b->part_out * sizeof(float));
    return 0;
}

static int run_stack(struct bench *b, int64_t images, bool keep, double *ms, struct err *e)
{
    const struct engine_stack stack = {.images = images, .fill = fill, .take = take, .ctx = b};
    b->keep = keep;
    double start = now_ms();
    int64_t bad;
    int rc = b->engine->run_stack(b->impl, b->work, &stack, b->batch, &bad, e);
    *ms = now_ms() - start;
    return rc;
}

/* What each convolution must compute and move if its inputs and outputs were moved once, in half.
 */
static void print_needs(const struct graph *g)
{
    const char *between = "";
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->node[i];
        if (n->op != OP_CONV && n->op != OP_CONV_TRANSPOSE)
            continue;
        const struct shape *x = &g->value[n->in[0]].shape, *w = &g->value[n->in[1]].shape;
        const struct shape *y = &g->value[n->out[0]].shape;
        /* Weights of one channel: of y, of x when transposed. */
        int64_t macs = shape_count(n->op == OP_CONV ? y : x) * (shape_count(w) / w->dim[0]);
        printf("%s[%.0f, %.0f]", between, 2.0 * (double)macs,
               2.0 * (double)(shape_count(x) + shape_count(w) + shape_count(y)));
        between = ", ";
    }
}

static void print_times(const char *name, double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, compare);
    printf("\"%s_ms\": %.5f, \"%s_min_ms\": %.5f, ", name, ms[n / 2], name, ms[0]);
}

static const char *const kernel_names[] = {
#define X(name) #name,
    KERNEL_LIST(X)
#undef X
};

/* What a step runs, in words, and what it computes. */
static double step_text(const struct program *p, const struct step *s, char *out, size_t size)
{
    static const char *const fused[] = {"", " +bias", " fused"};
    if (s->kind != STEP_CONVOLUTION) {
        snprintf(out, size, "%s, %lld", s->kind == STEP_CLEAR ? "clear" : kernel_names[s->kernel],
                 (long long)(s->kind == STEP_CLEAR ? s->clear_bytes : s->items));
        return 0;
    }
    const struct program_convolution *c = &p->convolution[s->convolution];
    const struct convolution_spec *v = &c->spec;
    snprintf(out, size, "convolution %lldx%lld/%lld %lldx%lldx%lldx%lld to %lld%s",
             (long long)v->kernel[0], (long long)v->kernel[1], (long long)v->stride[0],
             (long long)v->n, (long long)v->h, (long long)v->w, (long long)v->c, (long long)v->k,
             fused[c->made.fused]);
    return 2e-9 * (double)(v->n * v->oh * v->ow * v->k) *
           (double)(v->c * v->kernel[0] * v->kernel[1]);
}

static int print_steps(const struct bench *b, struct err *e)
{
    struct cuda_work *work = b->work;
    const struct program *p = &work->plan->program;
    int rc = 0;
    printf("[");
    for (int i = 0; rc == 0 && i < p->n_steps; i++) {
        const struct step *s = &p->step[i];
        char text[128];
        double ms = 0, gflop = step_text(p, s, text, sizeof text);
        rc = cuda_step_ms(work, &work->slot[0], i, STEP_RUNS, &ms, e);
        printf("%s[\"%s\", \"%s\", %.3f, %.6g]", i ? ",\n " : "",
               s->node < 0 ? "" : b->lowered->node[s->node].name, text, ms * 1e3, gflop);
    }
    printf("]\n");
    return rc;
}

static int measure(struct bench *b, double load_first, struct err *e)
{
    struct cuda_work *work = b->work;
    struct device *d = work->plan->device;
    double *host = calloc((size_t)b->repeat, sizeof *host);
    double *device = calloc((size_t)b->repeat, sizeof *device), stream = 1;
    int rc = host && device ? 0 : err_set(e, ERR_NOMEM, "no memory");
    for (int i = 0; rc == 0 && i < b->repeat; i++)
        rc = run_stack(b, b->batch, false, &host[i], e);
    for (int i = 0; rc == 0 && i < b->repeat; i++)
        rc = d->ops->replay_timed(d, work->stream, work->slot[0].recording, 1, &device[i], e);
    int64_t many = 16 * b->batch;
    if (rc == 0)
        rc = run_stack(b, many, false, &stream, e);
    struct engine_tuned tuned;
    cuda_tuned(b->impl, &tuned);
    if (rc == 0) {
        char text[200];
        cuda_describe(b->impl, text, sizeof text);
        printf("{\"engine\": \"%s\", \"load_first_ms\": %.3f, \"tuned\": %lld, \"kept\": %lld, ",
               text, load_first, (long long)tuned.made, (long long)tuned.kept);
        print_times("host", host, b->repeat);
        print_times("device", device, b->repeat);
        printf("\"stream_per_s\": %.6g, \"needs\": [", (double)many * 1e3 / stream);
        print_needs(b->lowered);
        printf("]");
        if (b->steps) {
            printf(", \"steps\": ");
            rc = print_steps(b, e);
        }
        printf("}\n");
    }
    free(host);
    free(device);
    return rc;
}

/* out NULL: tells where the time goes instead. */
static int run(struct bench *b, const char *model, const char *in, const char *out, struct err *e)
{
    struct graph *g = NULL;
    double ms = 0;
    int rc = npy_read(in, DATA_MAX, &b->in, e);
    if (rc != 0)
        return rc;
    b->batch = b->in.shape.dim[0];
    double start = now_ms();
    rc = onnx_open(model, NULL, &g, e);
    if (rc == 0)
        rc = graph_lower(g, &b->in.shape, (int64_t)64 << 30, &b->lowered, NULL, e);
    graph_free(g);
    if (rc == 0)
        rc = b->engine->compile(b->lowered, &b->options, &b->impl, e);
    if (rc == 0)
        rc = b->engine->workspace_new(b->impl, &b->work, e);
    if (rc != 0)
        return rc;
    b->out.shape = b->lowered->value[b->lowered->output[0]].shape;
    b->part_in = shape_count(&b->in.shape) / b->batch;
    b->part_out = shape_count(&b->out.shape) / b->batch;
    b->out.data = malloc((size_t)shape_count(&b->out.shape) * sizeof(float));
    if (!b->out.data)
        return err_set(e, ERR_NOMEM, "no memory for the result");
    rc = run_stack(b, b->batch, true, &ms, e);
    double load_first = now_ms() - start;
    if (rc == 0 && !out)
        return print_steps(b, e);
    if (rc == 0)
        rc = npy_write(out, &b->out.shape, b->out.data, e);
    /* Both slots hold the images now. */
    if (rc == 0)
        rc = run_stack(b, 2 * b->batch, true, &ms, e);
    return rc == 0 ? measure(b, load_first, e) : rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    bool twin = argc > 1 && strcmp(argv[1], "--host-twin") == 0;
    argc -= twin;
    argv += twin;
    int rc = ERR_USAGE;
    bool steps = (argc == 4 || argc == 5) && strcmp(argv[1], "steps") == 0;
    if ((argc == 2 || argc == 4) && strcmp(argv[1], "peak") == 0) {
        rc = peak(twin, argc == 4 ? strtoll(argv[2], NULL, 10) : 8192,
                  argc == 4 ? strtoll(argv[3], NULL, 10) : 4096, &e);
    } else if (steps || (argc >= 6 && argc <= 8 && strcmp(argv[1], "run") == 0)) {
#ifdef SPINENODE_CUDA
        const struct engine *gpu = &engine_cuda;
#else
        const struct engine *gpu = NULL;
#endif
        const char *cache = argv[steps ? 4 : 6]; /* argv ends with NULL */
        struct bench b = {.engine = twin ? &engine_cuda_host : gpu,
                          .repeat = steps ? 1 : (int)strtol(argv[5], NULL, 10),
                          .steps = argc == 8 && strcmp(argv[7], "steps") == 0,
                          .options = {.precision = ENGINE_F16,
                                      .stream = true,
                                      .cache_folder = cache,
                                      .model_digest = cache ? "bench" : NULL}};
        if (!b.engine || b.repeat < 1)
            rc = err_set(&e, ERR_UNSUPPORTED, "built without CUDA, or no repeats");
        else
            rc = run(&b, argv[2], argv[3], steps ? NULL : argv[4], &e);
        if (b.work)
            b.engine->workspace_free(b.work);
        if (b.impl)
            b.engine->plan_free(b.impl);
        graph_free(b.lowered);
        npy_fini(&b.in);
        npy_fini(&b.out);
    }
    if (rc == ERR_USAGE)
        fprintf(stderr, "bench_gpu_worker: wrong arguments; see the top of bench_gpu_worker.c\n");
    else if (rc != 0)
        fprintf(stderr, "bench_gpu_worker: %s\n", e.text);
    return rc == 0 ? 0 : rc == ERR_USAGE ? 2 : 1;
}
