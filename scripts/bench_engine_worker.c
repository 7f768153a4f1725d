/*
 * bench_engine_worker.c - one engine under scripts/bench_engine
 *
 *     bench_engine_worker MODEL IN.npy OUT.npy THREADS [isa=NAME] [low-memory] [image-each]
 *
 * Opens, compiles and runs the model once, writes the result and prints
 *     {"load_first_ms": …, "load_first_cpu_ms": …, "settle_ms": …, "peak_mb": …,
 *      "text": "cpu avx512, 1 thread"}
 * where the peak is above what the process held before; image-each: a thread for each image of the
 * batch. Settles the plan, as the node does after its first job. Then, for each line on stdin, runs
 * once and prints "WALL_MS CPU_MS".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "model/npy.h"
#include "model/onnx.h"

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
    if (rc < 0)
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
