/*
 * program_weights.h - inside program*.c: the weights of a convolution in the order in which the
 * device wants them
 */
#ifndef SPINENODE_CUDA_PROGRAM_WEIGHTS_H
#define SPINENODE_CUDA_PROGRAM_WEIGHTS_H

#include "cuda/program_build.h"

/* How a convolution's input was folded (kernels_ends.h): taps that lie beside each other as
 * channels. */
enum weight_fold { FOLD_NONE, FOLD_ROW, FOLD_ALL };

/* Weights as ONNX has them, and what became of the convolution. */
struct weight_source {
    float *w; /* M,C,kh,kw; transposed: C,M,kh,kw */
    int64_t m, c, kernel[2];
    enum weight_fold fold; /* input channels are taps, too */
    bool row;              /* output channels are the taps of a row, too: tap·m + channel */
    /* Output channels are phases, of `lanes` channels each; stride {1, 1}: one phase. */
    int64_t stride[2], lanes;
    bool transposed;
    bool crd; /* phases of a DepthToSpace in its mode CRD, else DCR */
};

/* Loads the weights of node n's input 1. Free s->w. */
int weights_load(struct build *b, const struct node *n, bool transposed, struct weight_source *s);
/* Stores them for a convolution: K,kh,kw,C, zeros where there is none. */
int weights_store(struct build *b, const struct weight_source *s,
                  const struct convolution_spec *spec, struct place *out);
/* A value of one number for each output channel of ONNX as a table for k channels: of elements, or
 * of floats. */
int weights_table(struct build *b, const struct weight_source *s, int value, int64_t k,
                  bool elements, struct place *out);

#endif
