/*
 * engine_cpu_plan.h - a compiled network of the CPU engine: places in memory and steps
 *
 * engine_cpu_lower.c (nodes), engine_cpu_fuse.c (what is fused), engine_cpu_weights.c (what weights
 * may take), engine_cpu_memory.c (where tensors lie) make it; engine_cpu_steps.c carries out a
 * step; engine_cpu.c is the engine.
 */
#ifndef SPINENODE_MODEL_ENGINE_CPU_PLAN_H
#define SPINENODE_MODEL_ENGINE_CPU_PLAN_H

#include "model/cpu_conv.h"
#include "model/cpu_nd.h"
#include "model/engine.h"

struct err;

/* Memory that tensors lie in. */
enum root_kind { ROOT_ARENA, ROOT_INPUT, ROOT_OUTPUT, ROOT_CONSTANT };
struct root {
    enum root_kind kind;
    int index; /* of the graph's input or output */
    size_t floats;
    size_t at;       /* arena: where it begins, in floats */
    int first, last; /* steps that use it */
};

/* A tensor before it is known where its root lies. */
struct place {
    int root; /* −1: none */
    ptrdiff_t offset;
    int rank;
    int64_t dim[CPU_RANK];
    ptrdiff_t stride[CPU_RANK];
};

enum step_kind {
    STEP_CONV, /* in[0], in[1] residual or none */
    STEP_COPY, /* and activation */
    STEP_FILL,
    STEP_UNARY,
    STEP_BINARY,
    STEP_INDEX,
    STEP_TAPS,
    STEP_REDUCE,
    STEP_AFFINE, /* NHWC; in[1] residual or none */
    STEP_NORM,   /* likewise */
    STEP_POOL
};

struct step {
    enum step_kind kind;
    const char *name; /* of the node, for messages */
    enum op op;
    struct place in[2], out;
    struct cpu_act act;
    int what; /* enum cpu_unary, cpu_binary, cpu_reduce */
    struct cpu_conv *conv;
    size_t packed;     /* first float of its packed weights */
    int weights, bias; /* values of the graph, while compiling; −1: none */
    int axis, taps;
    int *index;    /* owned */
    float *weight; /* owned */
    float value;
    size_t scale, shift; /* places in the constants */
    double epsilon;
    struct pool_attr pool;
};

struct cpu_plan {
    const struct cpu_kernels *k;
    int threads;
    bool pin;
    bool by_image; /* the batch is cut into images */
    int images;    /* of the batch, if by_image */
    bool alone;    /* one thread may carry out all steps */
    int lanes;     /* most of a workspace: images computed at once, each by one thread */
    int64_t macs;
    struct step *step;
    int steps, cap_steps;
    struct root *root;
    int roots, cap_roots;
    float *constants; /* operands that are no weights of convolutions */
    size_t constant_floats, cap_constants;
    float *packed; /* weights of convolutions */
    size_t packed_floats, packed_bytes;
    size_t arena_floats, shared_floats;
    size_t thread_floats, alone_floats; /* of each thread of many; of one that works alone */
    size_t ends_floats; /* of a batch's inputs and outputs on their way in a stack */
    size_t compile_bytes;
    int n_inputs, n_outputs;
    size_t *input_floats, *output_floats; /* of one image, if by_image */
    char *names;                          /* owns the steps' names */
};

/* Lowers a graph to steps; weights are not packed yet. */
int cpu_plan_lower(const struct graph *g, struct cpu_plan *p, bool low_memory, struct err *e);
/* Lets convolutions go faster ways as far as memory for their weights goes, and gives each its
 * place among the packed weights. */
int cpu_plan_weights(struct cpu_plan *p, bool low_memory, struct err *e);
/* Floats of a layer's weights if they are read whole before they are packed, else 0. */
size_t cpu_stage_floats(const struct cpu_conv *c);
/* Gives every arena root its place and finds the sizes of arena and scratch. ERR_LIMIT. */
int cpu_plan_memory(struct cpu_plan *p, struct err *e);

/* Floats of shared scratch that a step needs; per thread only convolutions do. */
size_t cpu_step_shared_floats(const struct step *s, const struct cpu_plan *p);
/* Carries out a step. base[root] is where each root lies. */
void cpu_step_run(const struct cpu_plan *p, const struct step *s, float *const *base,
                  struct pool *pool, float *scratch, float *shared);
/* As the engine's run(), in a workspace of impl, and each step's milliseconds into ms[steps], for
 * benches. Not for batches that are cut. */
void cpu_run_timed(const void *impl, void *work, const float *const *in, float *const *out,
                   double *ms);
/* The tensor at a place. */
struct cpu_nd cpu_place_nd(const struct place *at, float *const *base);

/* --- what is fused (engine_cpu_fuse.c) --- */

/* Where a convolution really reads. */
struct conv_source {
    int value;
    struct cpu_act act;
    enum cpu_border border;
    int up[2];
    int pad[2]; /* of Pad nodes that were taken in */
};
struct fusion {
    struct conv_source *source; /* [nodes] of convolutions */
    int *add;   /* [nodes] convolution or norm → Add or DepthToSpace that it ends in, or −1 */
    int *host;  /* [nodes] the other way round */
    bool *live; /* [nodes] is a step */
    bool *late; /* [nodes] Concat: its readers apply a Relu; Relu: they do what it does */
};
/* Nodes are in an order in which they can run. low_memory: nothing that takes more of it. */
int cpu_fuse(const struct graph *g, bool low_memory, struct fusion *f, struct err *e);
void cpu_fusion_free(struct fusion *f);
struct cpu_act cpu_act_of(const struct act *a);
/* Source of element i of an axis under Pad; −1: the constant. */
int64_t cpu_pad_source(enum pad_mode mode, int64_t i, int64_t begin, int64_t size);

#endif
