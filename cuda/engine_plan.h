/*
 * engine_plan.h - inside cuda/: what the engine on the GPU and its twin on the host have in common
 *
 * The functions are those of struct engine (model/engine.h); they differ by the device alone.
 */
#ifndef SPINENODE_CUDA_ENGINE_PLAN_H
#define SPINENODE_CUDA_ENGINE_PLAN_H

#include "model/engine.h"

struct device;

typedef int cuda_open_device(const struct engine_options *o, struct device **out, struct err *e);

int cuda_compile_on(cuda_open_device *open, const struct graph *g, const struct engine_options *o,
                    void **impl, struct err *e);
int cuda_estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                  struct err *e);
void cuda_describe(const void *impl, char *out, size_t size);
void cuda_plan_free(void *impl);
int cuda_workspace_new(const void *impl, void **work, struct err *e);
void cuda_workspace_free(void *work);
int cuda_run(const void *impl, void *work, const float *const *in, float *const *out,
             struct err *e);
int cuda_diagnose(const void *impl, void *work, const float *const *in, float *const *out,
                  struct err *e);

#endif
