/*
 * nvml.h - what the GPUs of this machine are doing, for /metrics
 *
 * By NVIDIA's management library, loaded at run time: needs no CUDA to build, and none to run where
 * there is no GPU (then there are no figures). One thread at a time.
 */
#ifndef SPINENODE_CUDA_NVML_H
#define SPINENODE_CUDA_NVML_H

#include <stdint.h>

struct err;
struct nvml;

#define NVML_UUID_BYTES 96

struct nvml_figures {
    char uuid[NVML_UUID_BYTES]; /* "GPU-…" */
    double utilisation;         /* 0 … 1, of the last sample period; -1: not told */
    int64_t memory_used_bytes, memory_total_bytes; /* -1: not told */
    double temperature_celsius;                    /* -1: not told */
};

/* ERR_NOT_FOUND: no driver here. library: NULL for "libnvidia-ml.so.1". */
int nvml_open(const char *library, struct nvml **out, struct err *e);
void nvml_close(struct nvml *n); /* NULL is fine */

int nvml_count(const struct nvml *n);
/* ERR_DEVICE: device i does not answer. */
int nvml_read(const struct nvml *n, int i, struct nvml_figures *out, struct err *e);

#endif
