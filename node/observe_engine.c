/* observe_engine.c - see observe_engine.h */
#include "node/observe_engine.h"

#include <inttypes.h>
#include <stdlib.h>

#include "node/base/buf.h"

#include "cuda/nvml.h"
#include "node/stage.h"

void metric_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP spinenode_%s %s\n# TYPE spinenode_%s %s\n", name, help, name, type);
}

void metric_counter(struct buf *out, const char *name, const char *help,
                    atomic_uint_fast64_t *value)
{
    metric_head(out, name, "counter", help);
    buf_printf(out, "spinenode_%s %" PRIu64 "\n", name, (uint64_t)atomic_load(value));
}

static void engines_write(struct buf *out, struct metrics *m)
{
    metric_head(out, "images_total", "counter", "Images made, by engine.");
    for (int i = 0; i < METRICS_ENGINES; i++)
        buf_printf(out, "spinenode_images_total{engine=\"%s\"} %" PRIu64 "\n",
                   metrics_engine_word(i), (uint64_t)atomic_load(&m->engine[i].images));
    metric_head(
        out, "engine_busy_seconds_total", "counter",
        "Seconds in models. Images per second: rate of spinenode_images_total by rate of this.");
    for (int i = 0; i < METRICS_ENGINES; i++)
        buf_printf(out, "spinenode_engine_busy_seconds_total{engine=\"%s\"} %.6f\n",
                   metrics_engine_word(i), (double)atomic_load(&m->engine[i].busy_us) / 1e6);
    metric_head(out, "images_per_second", "gauge", "Of the engine's last job; 0 before the first.");
    for (int i = 0; i < METRICS_ENGINES; i++) {
        double us = (double)atomic_load(&m->engine[i].last_us);
        double images = (double)atomic_load(&m->engine[i].last_images);
        buf_printf(out, "spinenode_images_per_second{engine=\"%s\"} %.6g\n", metrics_engine_word(i),
                   us > 0 ? images * 1e6 / us : 0);
    }
    metric_head(
        out, "tuned_plans_total", "counter",
        "Convolution plans for a GPU: from the cache, or tuned while a model was compiled.");
    buf_printf(out, "spinenode_tuned_plans_total{from=\"cache\"} %" PRIu64 "\n",
               (uint64_t)atomic_load(&m->tuned_kept));
    buf_printf(out, "spinenode_tuned_plans_total{from=\"tuning\"} %" PRIu64 "\n",
               (uint64_t)atomic_load(&m->tuned_made));
    metric_counter(out, "engine_fallbacks_total", "Jobs done by the CPU because the GPU could not.",
                   &m->fallbacks);
}

/* One figure of every GPU that tells it. */
static void gpu_figure(struct buf *out, const char *name, const char *help,
                       const struct nvml_figures *gpu, int n,
                       double (*read)(const struct nvml_figures *))
{
    metric_head(out, name, "gauge", help);
    for (int i = 0; i < n; i++)
        if (read(&gpu[i]) >= 0)
            buf_printf(out, "spinenode_%s{gpu=\"%s\"} %.12g\n", name, gpu[i].uuid, read(&gpu[i]));
}

static double utilisation(const struct nvml_figures *g)
{
    return g->utilisation;
}

static double memory_used(const struct nvml_figures *g)
{
    return (double)g->memory_used_bytes;
}

static double memory_total(const struct nvml_figures *g)
{
    return (double)g->memory_total_bytes;
}

static double temperature(const struct nvml_figures *g)
{
    return g->temperature_celsius;
}

static void gpus_write(struct buf *out, const struct nvml *gpus)
{
    int count = nvml_count(gpus), n = 0;
    struct nvml_figures *gpu = calloc((size_t)count + 1, sizeof *gpu);
    if (gpu == NULL)
        return;
    for (int i = 0; i < count; i++)
        n += nvml_read(gpus, i, &gpu[n], NULL) == 0;
    metric_head(out, "gpus", "gauge", "GPUs of this machine that answer.");
    buf_printf(out, "spinenode_gpus %d\n", n);
    gpu_figure(out, "gpu_utilisation", "Share of the time in which the GPU worked, 0 to 1.", gpu, n,
               utilisation);
    gpu_figure(out, "gpu_memory_used_bytes", "Memory of the GPU in use, by all programs.", gpu, n,
               memory_used);
    gpu_figure(out, "gpu_memory_total_bytes", "Memory of the GPU.", gpu, n, memory_total);
    gpu_figure(out, "gpu_temperature_celsius", "Temperature of the GPU.", gpu, n, temperature);
    free(gpu);
}

void observe_engine_write(struct buf *out, struct metrics *m, const struct nvml *gpus)
{
    engines_write(out, m);
    if (gpus != NULL)
        gpus_write(out, gpus);
}
