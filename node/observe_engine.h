/* observe_engine.h - the engines' part of /metrics: what they made, and what the GPUs are doing */
#ifndef SPINENODE_OBSERVE_ENGINE_H
#define SPINENODE_OBSERVE_ENGINE_H

struct buf;
struct metrics;
struct nvml;

/* Adds Prometheus text. gpus NULL: no NVIDIA driver here, and so no figures of GPUs. One thread at
 * a time. */
void observe_engine_write(struct buf *out, struct metrics *m, const struct nvml *gpus);

#endif
