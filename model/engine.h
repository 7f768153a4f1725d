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
struct pool;

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
    const char *cache_folder; /* cuda: where tuned plans are kept; NULL: nowhere */
    const char *model_digest; /* key of that cache; NULL: nothing is kept */
    bool untuned; /* cuda: the first plan that cuDNN offers for each convolution, none is timed */
    int64_t max_activation_bytes; /* 0: 16 GiB */
    /* For engine_run_stack(). cuda: workspaces hold inputs and outputs twice, so that one batch is
     * computed while another is copied; cpu: memory for each thread to compute an image alone. */
    bool stream;
};

struct engine_cost {
    int64_t macs;            /* by definition of the network */
    int64_t plan_bytes;      /* packed weights and tables */
    int64_t workspace_bytes; /* for each workspace */
    int64_t compile_bytes;   /* most that compiling needs on top of plan_bytes */
};

/* What becomes of each image of a stack. Both are called by the thread that runs the stack, images
 * in rising order; anything but 0 stops it with that error. */
struct engine_stack {
    int64_t images;
    /* Writes the image's part of every input, in[i] of engine_plan_input_shape(i) with the first
     * dimension 1. Several images are asked for before the first result is given, and one whose
     * result is not finite is asked for again; that may be one that was lent. */
    int (*fill)(void *ctx, int64_t image, float *const *in, struct err *e);
    /* Reads its part of every output; borrowed until it returns. Each image once. */
    int (*take)(void *ctx, int64_t image, const float *const *out, struct err *e);
    void *ctx;
    /* Images that errors count ("image 3 of 15"): what comes after them is extra. 0: all. */
    int64_t counted;
    /* May be NULL. True: every input of the image lies at in[i] as fill() would write it, and stays
     * there until the image is taken; an engine that computes in the host's memory, with plans for
     * one image, then takes it from there. False: fill() is asked. */
    bool (*lend)(void *ctx, int64_t image, const float **in);
    /* May be NULL. Asked again and again while images are computed in the host's memory, by any of
     * the threads that do: true ends the stack with ERR_CANCELLED. */
    bool (*stop)(void *ctx);
};

/* Where a plan's tuned convolutions came from. */
struct engine_tuned {
    int64_t kept; /* the cache folder */
    int64_t made; /* measured while compiling */
};

/* What an engine implements. Called by the engine_* functions below only, with lowered graphs;
 * impl and work are the engine's own. */
struct engine {
    const char *name; /* "ref" | "cpu" | "cuda" */
    bool keeps_graph;
    /* run() and run_stack() return ERR_NUMERIC, the results of run() in place, the image in *bad,
     * when a number in an input or output is not finite; engine.c then finds out which. Else it
     * looks at all of them itself, on the host. */
    bool sees_bad;
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
    struct pool *(*threads)(void *work); /* NULL: a workspace has none that others may use */
    int (*run)(const void *impl, void *work, const float *const *in, float *const *out,
               struct err *e);
    /* Called after a run whose result was not finite: runs again, looking after each layer, and
     * returns ERR_NUMERIC with the first bad layer in the text. May be NULL: the reference engine's
     * opinion is not asked, the output is named. */
    int (*diagnose)(const void *impl, void *work, const float *const *in, float *const *out,
                    struct err *e);
    /* May both be NULL: no more than one batch at once. lanes(): so many are best given to
     * run_lanes() together, which does what n calls of run() would, in less time, and asks the
     * stack's stop(). */
    int (*lanes)(const void *impl, const void *work);
    int (*run_lanes)(const void *impl, void *work, int n, const float *const *const *in,
                     float *const *const *out, const struct engine_stack *stack, struct err *e);
    /* NULL: the stack is run by run() and run_lanes(), batch after batch. Images of a last batch
     * that the stack does not fill hold anything finite. */
    int (*run_stack)(const void *impl, void *work, const struct engine_stack *stack, int64_t batch,
                     int64_t *bad, struct err *e);
    void (*tuned)(const void *impl, struct engine_tuned *out); /* NULL: nothing is tuned */
    void (*settle)(const void *impl);                          /* NULL: there is nothing to do */
    /* Does this machine have what the engine runs on? Must not touch it. NULL: always. */
    bool (*present)(void);
};

struct plan;
struct workspace;

/* NULL: no such engine in this build. */
const struct engine *engine_find(const char *name);
/* Adds an engine (cuda: by main.c, before any thread starts). At most 8; ERR_LIMIT, ERR_EXISTS. */
int engine_register(const struct engine *engine, struct err *e);

/* May the engine find in this machine what it runs on (the driver of a GPU)? Touches nothing. */
bool engine_present(const struct engine *engine);

/* What a plan would cost. shape: one per graph input. g need not be lowered. */
int engine_estimate(const struct engine *engine, const struct graph *g, const struct shape *shape,
                    const struct engine_options *o, struct engine_cost *cost, struct err *e);

/* o may be NULL. *out is NULL after a failure. The errors of graph_lower(), ERR_UNSUPPORTED if the
 * engine cannot run a node (named), ERR_NUMERIC for a weight that is not finite (named),
 * ERR_DEVICE. All weights are read once before the first is packed, in pieces of 256 KiB. */
int engine_compile(const struct engine *engine, const struct graph *g, const struct shape *shape,
                   const struct engine_options *o, struct plan **out, struct err *e);
void engine_plan_free(struct plan *p);

/* What the plan takes and gives, by position from 0, in the graph's order. Borrowed from it. */
int engine_plan_inputs(const struct plan *p);
int engine_plan_outputs(const struct plan *p);
const struct shape *engine_plan_input_shape(const struct plan *p, int i);
const struct shape *engine_plan_output_shape(const struct plan *p, int i);
/* One line: engine, instruction set or device, threads. Borrowed from the plan. */
const char *engine_plan_text(const struct plan *p);

struct engine_tuned engine_plan_tuned(const struct plan *p); /* zeros: nothing is tuned */

/* For a plan that stays: when its first results are out, the system may move its weights to large
 * pages, which runs then read faster. Takes up to a second, once; others may run it meanwhile. */
void engine_plan_settle(const struct plan *p);

/* What one run needs besides the plan, which must outlive it. ERR_NOMEM, ERR_DEVICE. */
int engine_workspace_new(const struct plan *p, struct workspace **out, struct err *e);
void engine_workspace_free(struct workspace *w);

/* Its threads, for what the caller does between runs: they stay awake for a moment after one.
 * Borrowed; NULL: it has none. */
struct pool *engine_workspace_threads(const struct workspace *w);

/* in[i], out[i]: row-major (NCHW) float32 of the plan's shapes. w must be of p and in use by no
 * other thread. ERR_NUMERIC: NaN or Inf in an input (named) or a result (the first layer named);
 * out is then unspecified and must not be used. */
int engine_run(const struct plan *p, struct workspace *w, const float *const *in, float *const *out,
               struct err *e);

/* Runs any number of images through a plan whose inputs and outputs all have the same first
 * dimension, the batch. What is not a multiple of it is run in a last batch that is not full. An
 * image's result has the same bits as from engine_run(), wherever it stands. May allocate buffers,
 * once. ERR_UNSUPPORTED: no common batch; ERR_CANCELLED: stop() said so; ERR_NOMEM; the errors of
 * engine_run(), naming the image; what fill and take returned. After a failure some images may have
 * been taken. */
int engine_run_stack(const struct plan *p, struct workspace *w, const struct engine_stack *stack,
                     struct err *e);

/* Compiles with `batch` as the first dimension of every input and makes a workspace; where memory
 * or max_activation_bytes is what lacks, with half as many, down to 1. Returns the batch, or ERR_*:
 * ERR_NOMEM if a single image does not fit; the errors of engine_compile(). shape: as for
 * engine_compile(), its first dimensions are replaced. batch >= 1. *out and *work are NULL after a
 * failure. */
int engine_compile_batch(const struct engine *engine, const struct graph *g,
                         const struct shape *shape, int batch, const struct engine_options *o,
                         struct plan **out, struct workspace **work, struct err *e);

/* The built-in engines, for tests. */
extern const struct engine engine_ref;
extern const struct engine engine_cpu;

#endif
