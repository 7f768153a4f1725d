/*
 * resample.h - which input elements make an output element of Resize, along one axis
 *
 * Every mode of the ONNX operator Resize (nearest, linear, cubic; antialias, exclude_outside;
 * all coordinate transformations) is separable: a table of taps per axis says it all, for every
 * engine alike.
 */
#ifndef SPINENODE_MODEL_RESAMPLE_H
#define SPINENODE_MODEL_RESAMPLE_H

#include <stdint.h>

#include "model/graph.h"

struct err;

struct resample {
    int64_t out;
    int taps;       /* per output element; unused ones have weight 0 and a valid index */
    int32_t *index; /* out x taps, each within the input */
    double *weight; /* out x taps; sums to 1 */
};

/* The table of an axis of a lowered OP_RESIZE; r is owned by the caller, for resample_fini(), and
 * zero after a failure. Any thread. ERR_NOMEM; ERR_LIMIT: more than 2^22 taps in all, or more for
 * an output element than eight for each of the `in` input elements. */
int resample_init(struct resample *r, const struct resize_attr *a, int axis, int64_t in,
                  int64_t out, struct err *e);
void resample_fini(struct resample *r);

#endif
