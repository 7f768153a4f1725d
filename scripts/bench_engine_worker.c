/*
 * bench_engine_worker.c - one engine under scripts/bench_engine
 *
 *     bench_engine_worker MODEL IN.npy OUT.npy THREADS [isa=NAME] [low-memory] [image-each]
 *     bench_engine_worker MODEL IN.npy steps THREADS [isa=NAME] [low-memory]
 *
 * Opens, compiles and runs the model once, writes the result and prints
 *     {"load_first_ms": …, "load_first_cpu_ms": …, "settle_ms": …, "peak_mb": …,
 *      "text": "cpu avx512, 1 thread"}
 * where the peak is above what the process held before; image-each: a thread for each image of the
 * batch. Settles the plan, as the node does after its first job. Then, for each line on stdin, runs
 * once and prints "WALL_MS CPU_MS".
 *
 * steps: where the time goes, as a list of [node, what runs, µs, Gflop, MB of packed weights] for
 * each step, in the order in which they run; medians of runs of the whole network. Gflop by
 * definition of the layer, before Winograd.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/err.h"

#include "model/cpu_conv_plan.h"
#include "model/engine.h"
#include "model/engine_cpu_plan.h"
#include "model/npy.h"
#include "model/onnx.h"
#include "model/passes.h"

static double ms(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A field of /proc/self/status, in MiB. */
static double status_mb(const char *field)
{
    char line[256];
    double kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, field, strlen(field)) == 0)
            kb = strtod(line + strlen(field), NULL);
    if (f)
        fclose(f);
    return kb / 1024;
}

/* ---- where the time goes ---- */

#define STEP_RUNS      31
#define ACTIVATION_MAX ((int64_t)16 << 30)

/* What a step runs, in words, and how many Gflop that are. */
static double step_text(const struct step *s, char *out, size_t size)
{
    static const char *const way[] = {
        [CPU_DIRECT] = "direct",        [CPU_COLUMNS] = "columns",
        [CPU_WINOGRAD4] = "Winograd 4", [CPU_WINOGRAD5] = "Winograd 5",
        [CPU_WINOGRAD6] = "Winograd 6", [CPU_DEPTHWISE] = "depthwise",
    };
    if (s->kind != STEP_CONV) {
        snprintf(out, size, "%s", op_name(s->op));
        return 0;
    }
    const struct cpu_conv_desc *d = &s->conv->d;
    double pixels = (double)d->n * (d->transposed ? d->h * d->w : d->oh * d->ow);
    snprintf(out, size, "%s%dx%d/%d %dx%dx%d to %d, %s", d->transposed ? "transposed " : "",
             d->kernel[0], d->kernel[1], d->stride[0], d->h, d->w, d->c, d->oc, way[s->conv->way]);
    return 2e-9 * pixels * d->c * d->oc / d->group * d->kernel[0] * d->kernel[1];
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int time_steps(const struct cpu_plan *p, void *work, const float *in, float *out,
                      struct err *e)
{
    size_t steps = (size_t)p->steps;
    double *took = malloc(STEP_RUNS * steps * sizeof *took), one[STEP_RUNS];
    if (!took)
        return err_set(e, ERR_NOMEM, "no memory");
    for (int k = -2; k < STEP_RUNS; k++) { /* the first warm up */
        cpu_run_timed(p, work, &in, &out, took + (k < 0 ? 0 : (size_t)k) * steps);
        if (k == -2)
            engine_cpu.settle(p);
    }
    printf("[");
    for (size_t i = 0; i < steps; i++) {
        const struct step *s = &p->step[i];
        char text[128];
        double gflop = step_text(s, text, sizeof text);
        for (size_t k = 0; k < STEP_RUNS; k++)
            one[k] = took[k * steps + i];
        qsort(one, STEP_RUNS, sizeof *one, by_size);
        printf("%s[\"%s\", \"%s\", %.1f, %.6g, %.2f]", i ? ",\n " : "", s->name, text,
               one[STEP_RUNS / 2] * 1e3, gflop,
               s->kind == STEP_CONV ? (double)cpu_conv_packed_floats(s->conv) * 4e-6 : 0);
    }
    printf("]\n");
    free(took);
    return 0;
}

/* The engine without its wrapping, whose steps nobody sees. */
static int print_steps(const char *path, const struct npy *in, const struct engine_options *o,
                       struct err *e)
{
    struct graph *g = NULL, *lowered = NULL;
    void *impl = NULL, *work = NULL;
    float *out = NULL;
    int rc = onnx_open(path, NULL, &g, e);
    if (rc == 0)
        rc = graph_lower(g, &in->shape, ACTIVATION_MAX, &lowered, NULL, e);
    if (rc == 0)
        rc = engine_cpu.compile(lowered, o, &impl, e);
    if (rc == 0)
        rc = engine_cpu.workspace_new(impl, &work, e);
    if (rc == 0) {
        out = malloc((size_t)shape_count(&lowered->value[lowered->output[0]].shape) * sizeof *out);
        rc = !out ? err_set(e, ERR_NOMEM, "no memory") : time_steps(impl, work, in->data, out, e);
    }
    free(out);
    if (work)
        engine_cpu.workspace_free(work);
    if (impl)
        engine_cpu.plan_free(impl);
    graph_free(lowered);
    graph_free(g);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    struct engine_options o = {.threads = (int)strtol(argv[4], NULL, 10)};
    for (int i = 5; i < argc; i++) {
        if (strncmp(argv[i], "isa=", 4) == 0)
            o.isa = argv[i] + 4;
        else if (strcmp(argv[i], "low-memory") == 0)
            o.low_memory = true;
        else if (strcmp(argv[i], "image-each") == 0)
            o.mode = ENGINE_THROUGHPUT;
    }
    struct err e = {0};
    struct npy in = {0}, out = {0};
    struct graph *g = NULL;
    struct plan *plan = NULL;
    struct workspace *work = NULL;
    const float *from = NULL;
    float *to = NULL;
    int rc = npy_read(argv[2], (int64_t)8 << 30, &in, &e);
    if (rc == 0 && strcmp(argv[3], "steps") == 0)
        rc = print_steps(argv[1], &in, &o, &e);
    if (rc < 0 || strcmp(argv[3], "steps") == 0)
        goto out;
    double before = status_mb("VmRSS:"), start = ms(CLOCK_MONOTONIC);
    double start_cpu = ms(CLOCK_PROCESS_CPUTIME_ID);
    if ((rc = onnx_open(argv[1], NULL, &g, &e)) < 0 ||
        (rc = engine_compile(engine_find("cpu"), g, &in.shape, &o, &plan, &e)) < 0)
        goto out;
    graph_free(g);
    g = NULL;
    if ((rc = engine_workspace_new(plan, &work, &e)) < 0)
        goto out;
    out.shape = *engine_plan_output_shape(plan, 0);
    out.data = malloc((size_t)shape_count(&out.shape) * sizeof *out.data);
    from = in.data;
    to = out.data;
    if (!to || (rc = engine_run(plan, work, &from, &to, &e)) < 0)
        goto out;
    double first = ms(CLOCK_MONOTONIC) - start,
           first_cpu = ms(CLOCK_PROCESS_CPUTIME_ID) - start_cpu;
    double settle = ms(CLOCK_MONOTONIC);
    engine_plan_settle(plan);
    settle = ms(CLOCK_MONOTONIC) - settle;
    printf("{\"load_first_ms\": %.3f, \"load_first_cpu_ms\": %.3f, \"settle_ms\": %.3f, "
           "\"peak_mb\": %.1f, \"text\": \"%s\"}\n",
           first, first_cpu, settle, status_mb("VmHWM:") - before, engine_plan_text(plan));
    fflush(stdout);
    if ((rc = npy_write(argv[3], &out.shape, out.data, &e)) < 0)
        goto out;
    for (char line[64]; rc == 0 && fgets(line, sizeof line, stdin);) {
        double wall = ms(CLOCK_MONOTONIC), cpu = ms(CLOCK_PROCESS_CPUTIME_ID);
        rc = engine_run(plan, work, &from, &to, &e);
        printf("%.4f %.4f\n", ms(CLOCK_MONOTONIC) - wall, ms(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        fflush(stdout);
    }
out:
    if (rc < 0)
        fprintf(stderr, "bench_engine_worker: %s\n", e.text);
    engine_workspace_free(work);
    engine_plan_free(plan);
    graph_free(g);
    npy_fini(&in);
    npy_fini(&out);
    return rc < 0;
}
