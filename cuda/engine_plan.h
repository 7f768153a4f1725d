/*
 * engine_plan.h - inside cuda/: what the engine on the GPU and its twin on the host have in common
 *
 * The functions are those of struct engine (model/engine.h); they differ by the device alone.
 *
 * A plan owns the device, the program and the weights on the device. A workspace owns the arena, a
 * stream for computing and two for copies, and one or two slots: inputs and outputs on both sides,
 * and a recording of the whole program from this slot's inputs to its outputs. The slots share the
 * arena, which only the computing stream touches. Nothing is allocated while running.
 */
#ifndef SPINENODE_CUDA_ENGINE_PLAN_H
#define SPINENODE_CUDA_ENGINE_PLAN_H

#include <pthread.h>

#include "cuda/program.h"
#include "model/engine.h"

struct device;

#define CUDA_SLOTS 2

struct cuda_plan {
    struct device *device;
    struct program program;
    void *weights;
    enum engine_precision precision;
    int n_slots;
    pthread_mutex_t mutex; /* the device's one handle, while convolutions are queued or recorded */
};

struct cuda_slot {
    void *in[GRAPH_INPUTS_MAX], *out[GRAPH_INPUTS_MAX];               /* on the device */
    void *pinned_in[GRAPH_INPUTS_MAX], *pinned_out[GRAPH_INPUTS_MAX]; /* on the host */
    int32_t *flags, *pinned_flags;                                    /* program.batch of them */
    void *recording;
    /* Events: its last upload is done, its last computation, its last download. */
    void *uploaded, *computed, *downloaded;
};

struct cuda_work {
    struct cuda_plan *plan;
    void *arena, *scratch;
    void *stream, *upload, *download; /* upload, download: run_stack() only */
    struct cuda_slot slot[CUDA_SLOTS];
};

typedef int cuda_open_device(const struct engine_options *o, struct device **out, struct err *e);

int cuda_compile_on(cuda_open_device *open, const struct graph *g, const struct engine_options *o,
                    void **impl, struct err *e);
/* Without the workspace of cuDNN's plans, which only the device can tell. */
int cuda_estimate(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                  struct err *e);
void cuda_describe(const void *impl, char *out, size_t size);
void cuda_tuned(const void *impl, struct engine_tuned *out);
void cuda_plan_free(void *impl);
int cuda_workspace_new(const void *impl, void **work, struct err *e);
void cuda_workspace_free(void *work);
int cuda_run(const void *impl, void *work, const float *const *in, float *const *out,
             struct err *e);
int cuda_diagnose(const void *impl, void *work, const float *const *in, float *const *out,
                  struct err *e);

/* Queues the program on the computing stream, from a slot's inputs on the device to its outputs. */
int cuda_compute(struct cuda_work *w, struct cuda_slot *slot, struct err *e);

/* The device's own time for step i of the program alone, in ms: the mean of `times` in a row, so
 * that starting it is hidden behind the one before, and what it reads may be in a cache. For
 * benches; afterwards the slot's results mean nothing. */
int cuda_step_ms(struct cuda_work *w, const struct cuda_slot *slot, int i, int times, double *ms,
                 struct err *e);

/* stack.c: batches alternate between the slots; while one is computed, the next is filled and
 * copied there and the last one copied back and taken. */
int cuda_run_stack(const void *impl, void *work, const struct engine_stack *stack, int64_t batch,
                   int64_t *bad, struct err *e);

/* The members of struct engine that such engines share. */
#define CUDA_ENGINE_MEMBERS                                                                        \
    .sees_bad = true, .estimate = cuda_estimate, .describe = cuda_describe,                        \
    .plan_free = cuda_plan_free, .workspace_new = cuda_workspace_new,                              \
    .workspace_free = cuda_workspace_free, .run = cuda_run, .diagnose = cuda_diagnose,             \
    .run_stack = cuda_run_stack, .tuned = cuda_tuned

#endif
