/*
 * program.h - a lowered graph as a list of kernel launches and convolutions over planned memory
 *
 * program_make() decides layout (NHWC, channels padded to 8), splits transposed convolutions into
 * phases, places values that are concatenated straight into the result and residual sums straight
 * into their padded form, and gives every tensor its place in one arena, reused when its last
 * reader is done. It runs nothing and needs no GPU: what it asks of the device (which epilogue can
 * a convolution fuse?) goes through struct device.
 */
#ifndef SPINENODE_CUDA_PROGRAM_H
#define SPINENODE_CUDA_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/convolution.h"
#include "cuda/kernels.h"
#include "model/graph.h"

struct err;
struct device;

/* Where a pointer of a launch leads, before memory is there. */
enum region {
    REGION_NONE,
    REGION_ARENA,
    REGION_WEIGHTS,
    REGION_INPUT,
    REGION_OUTPUT,
    REGION_FLAGS
};
struct place {
    enum region region;
    int64_t offset; /* bytes; inputs and outputs: their number */
};

#define STEP_PLACES 6

enum step_kind { STEP_KERNEL, STEP_CONVOLUTION, STEP_CLEAR };
struct step {
    enum step_kind kind;
    int node; /* of the graph, for messages; -1: input or output conversion */
    /* STEP_KERNEL: args with the pointers at `field` left open. */
    enum kernel kernel;
    union kernel_args args;
    int64_t items;
    int n_places;
    struct {
        uint16_t field; /* offset of the pointer in args */
        struct place place;
    } places[STEP_PLACES];
    /* STEP_CONVOLUTION */
    int convolution; /* index in program.convolution */
    struct place x, w, bias, y, second;
    /* STEP_CLEAR: zeros */
    struct place clear;
    int64_t clear_bytes;
};

struct program_convolution {
    struct convolution_spec spec;
    struct convolution_made made;
};

/* A node's result, to be looked at after a step. */
struct watch {
    int after;
    struct place place;
    int64_t bytes;
    char name[96];
};

struct program {
    struct step *step;
    int n_steps, cap_steps;
    struct program_convolution *convolution; /* one for each different spec */
    int n_convolutions, cap_convolutions;
    struct watch *watch;
    int n_watches, cap_watches;
    uint8_t *weights; /* image of the weights' memory */
    int64_t weight_bytes, weight_cap;
    int64_t arena_bytes;     /* tensors and scratch */
    int64_t workspace_bytes; /* the largest of the convolutions */
    int n_inputs, n_outputs;
    int64_t input_count[GRAPH_INPUTS_MAX], output_count[GRAPH_INPUTS_MAX]; /* floats */
    /* REGION_FLAGS is an int32 for each image, not 0 after a run when one of its inputs or outputs
     * is not finite. batch: the first dimension that inputs and outputs share, else 1. */
    int64_t batch;
    struct device *device; /* borrowed: frees the convolutions' plans */
};

/* g: lowered. ERR_UNSUPPORTED names node and operator. */
int program_make(const struct graph *g, bool half, bool tf32, struct device *device,
                 struct program *out, struct err *e);
void program_fini(struct program *p);

#endif
