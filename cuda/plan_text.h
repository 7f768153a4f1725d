/*
 * plan_text.h - is a plan's text the plan of this convolution?
 *
 * cuDNN writes a plan down as JSON: the operation graph with every tensor, then the engine. It
 * reads back whatever it wrote once, for tensors of any size, and a run with others would write
 * beyond them. Needs no cuDNN.
 */
#ifndef SPINENODE_CUDA_PLAN_TEXT_H
#define SPINENODE_CUDA_PLAN_TEXT_H

#include <stdbool.h>

#include "cuda/convolution.h"

/* The names of a plan's tensors; virtual ones come after. */
enum plan_tensor { PLAN_X = 1, PLAN_W, PLAN_BIAS, PLAN_Y, PLAN_SECOND, PLAN_VIRTUAL };

/* Sizes, types, strides, paddings and what is fused, as convolution.c describes them. The engine is
 * not looked at. A text in another form than that of cuDNN 9 is of nothing. */
bool plan_text_is_of(const char *json, const struct convolution_spec *s,
                     enum convolution_fused fused);

#endif
