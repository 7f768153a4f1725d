/* observe_engine.h - the engines' part of /metrics: what they made, and what the GPUs are doing */
#ifndef SPINENODE_OBSERVE_ENGINE_H
#define SPINENODE_OBSERVE_ENGINE_H

#include <stdatomic.h>

struct buf;
struct metrics;
struct nvml;

/* Adds Prometheus text. gpus NULL: no NVIDIA driver here, and so no figures of GPUs. One thread at
 * a time. */
void observe_engine_write(struct buf *out, struct metrics *m, const struct nvml *gpus);

/* The lines before a metric's values, and a counter with its value; names without "spinenode_". */
void metric_head(struct buf *out, const char *name, const char *type, const char *help);
void metric_counter(struct buf *out, const char *name, const char *help,
                    atomic_uint_fast64_t *value);

#endif
