/*
 * engine.h - the seam: compile a graph for given shapes, run it, free it
 *
 *     const struct engine *engine = engine_find("cpu");
 *     engine_compile(engine, graph, shapes, &options, &plan, e);
 *     engine_workspace_new(plan, &work, e);
 *     engine_run(plan, work, in, out, e);
 *     engine_workspace_free(work); engine_plan_free(plan);
 *
 * A plan is immutable: any number of threads may run it at once, each with a workspace of its own.
 * A plan does not need the graph after it was compiled. The same plan and input give the same bits,
 * whatever the number of threads and wherever in a batch an image stands. Nothing is allocated
 * while running. Engines neither log nor exit.
 */
#ifndef SPINENODE_MODEL_ENGINE_H
#define SPINENODE_MODEL_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/graph.h"

struct err;
struct pass_report;

enum engine_mode {
    ENGINE_LATENCY,   /* all threads on one image */
    ENGINE_THROUGHPUT /* an image of the batch per thread */
};

enum engine_precision { ENGINE_F32, ENGINE_TF32, ENGINE_F16 };

/* All zero is a good default. */
struct engine_options {
    int threads; /* 0: one for each CPU that the process may use */
    enum engine_mode mode;
    enum engine_precision precision; /* cpu and ref: ENGINE_F32 only */
    const char *isa;    /* cpu: "avx512" | "avx2" | "base"; NULL: SPINENODE_ISA, else the best */
    bool low_memory;    /* trade speed for memory */
    bool pin_threads;   /* each thread stays on one CPU */
    const char *device; /* cuda: UUID or index; NULL: the first */
    const char *cache_folder;     /* cuda: where tuned plans are kept; NULL: nowhere */
    const char *model_digest;     /* key of that cache; NULL: nothing is kept */
    int64_t max_activation_bytes; /* 0: 16 GiB */
};

struct engine_cost {
    int64_t macs;            /* by definition of the network */
    int64_t plan_bytes;      /* packed weights and tables */
    int64_t workspace_bytes; /* for each workspace */
    int64_t compile_bytes;   /* most that compiling needs on top of plan_bytes */
};

/* What an engine implements. Called by the engine_* functions below only, with lowered graphs;
 * impl and work are the engine's own. */
struct engine {
    const char *name; /* "ref" | "cpu" | "cuda" */
    bool keeps_graph;
    int (*estimate)(const struct graph *g, const struct engine_options *o, struct engine_cost *cost,
                    struct err *e);
    /* g lives as long as the plan if keeps_graph is set, else until compile returns. *impl must not
     * be NULL after success. */
    int (*compile)(const struct graph *g, const struct engine_options *o, void **impl,
                   struct err *e);
    /* One line for records: "cpu avx2, 2 threads". */
    void (*describe)(const void *impl, char *out, size_t size);
    void (*plan_free)(void *impl);
    int (*workspace_new)(const void *impl, void **work, struct err *e);
    void (*workspace_free)(void *work);
    int (*run)(const void *impl, void *work, const float *const *in, float *const *out,
               struct err *e);
    /* Called after a run whose result was not finite: runs again, looking after each layer, and
     * returns ERR_NUMERIC with the first bad layer in the text. May be NULL: the reference engine's
     * opinion is not asked, the output is named. */
    int (*diagnose)(const void *impl, void *work, const float *const *in, float *const *out,
                    struct err *e);
};

struct plan;
struct workspace;

/* NULL: no such engine in this build. */
const struct engine *engine_find(const char *name);
/* Adds an engine (cuda: by main.c, before any thread starts). At most 8; ERR_LIMIT, ERR_EXISTS. */
int engine_register(const struct engine *engine, struct err *e);

/* What a plan would cost. shape: one per graph input. g need not be lowered. */
int engine_estimate(const struct engine *engine, const struct graph *g, const struct shape *shape,
                    const struct engine_options *o, struct engine_cost *cost, struct err *e);

/* o may be NULL. *out is NULL after a failure. The errors of graph_lower(), ERR_UNSUPPORTED if the
 * engine cannot run a node (named), ERR_DEVICE. */
int engine_compile(const struct engine *engine, const struct graph *g, const struct shape *shape,
                   const struct engine_options *o, struct plan **out, struct err *e);
void engine_plan_free(struct plan *p);

int engine_plan_inputs(const struct plan *p);
int engine_plan_outputs(const struct plan *p);
const struct shape *engine_plan_input_shape(const struct plan *p, int i);
const struct shape *engine_plan_output_shape(const struct plan *p, int i);
const char *engine_plan_output_name(const struct plan *p, int i);
/* One line: engine, instruction set or device, threads. Borrowed from the plan. */
const char *engine_plan_text(const struct plan *p);

int engine_workspace_new(const struct plan *p, struct workspace **out, struct err *e);
void engine_workspace_free(struct workspace *w);

/* in[i], out[i]: row-major (NCHW) float32 of the plan's shapes. w must be of p and in use by no
 * other thread. ERR_NUMERIC: NaN or Inf in an input (named) or a result (the first layer named);
 * out is then unspecified and must not be used. */
int engine_run(const struct plan *p, struct workspace *w, const float *const *in, float *const *out,
               struct err *e);

/* The built-in engines, for tests. */
extern const struct engine engine_ref;
extern const struct engine engine_cpu;

#endif
