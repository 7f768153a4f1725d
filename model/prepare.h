/*
 * prepare.h - the pixels of a series into the tensors that a model takes, and back
 *
 * What a package's normalisation, grid, slices of context, scale and output mean, in numbers:
 *
 *   normalise   x -> clip((x - low) / (high - low), 0, 1) * 2 - 1, with the percentiles low and
 *               high of all slices together; once, in place, before anything else looks at them
 *   grid any:K  rows and columns padded at the end to a multiple of K by repeating the edge; the
 *               result cropped to scale * source
 *   grid RxC    resampled to R x C, the result to scale * source; bilinear with antialias (a
 *               triangle as wide as the larger of the two pixels, about pixel centres)
 *   context     channel i of slice s is slice s + i - channels / 2, the first and last repeated
 *   output      "unit": [-1, 1] -> 0 ... 4095; "source": [-1, 1] -> low ... high, in the source's
 *               units
 *
 * Volumes are float32, slice by slice, row by row. Nothing here knows DICOM. Any thread. What
 * pixel_mm asks for is prepare_resample()'s: it comes before the percentiles, and prepare_new() is
 * told of the resampled source only.
 */
#ifndef SPINENODE_MODEL_PREPARE_H
#define SPINENODE_MODEL_PREPARE_H

#include <stddef.h>
#include <stdint.h>

#include "model/graph.h"

struct err;
struct package;
struct pool;

/* Largest stored value of a result: 12 bits. */
#define PREPARE_VALUE_MAX 4095

struct prepare; /* a model's way for one size of source */

/* For sources of rows x columns. low, high: the values at the package's percentiles. ERR_REFUSED:
 * the model does not take this size, or high is not above low (a flat image). */
int prepare_new(const struct package *p, int rows, int columns, double low, double high,
                struct prepare **out, struct err *e);
void prepare_free(struct prepare *p); /* NULL is fine */

/* What the network takes and gives for one slice: 1 x channels x H x W, 1 x 1 x H' x W'. */
const struct shape *prepare_input_shape(const struct prepare *p);
const struct shape *prepare_output_shape(const struct prepare *p);

/* Size of the result of one slice: scale * source. */
int prepare_rows(const struct prepare *p);
int prepare_columns(const struct prepare *p);

/* Normalises n values where they lie. pool, here and below: who shares the work, where nothing has
 * to be resampled; NULL: the caller alone. */
void prepare_normalise(const struct prepare *p, float *values, size_t n, struct pool *pool);

/* Fills tensor, of prepare_input_shape(), for the slice of a normalised volume of that many slices.
 * ERR_NOMEM. */
int prepare_input(const struct prepare *p, const float *volume, int slices, int slice,
                  float *tensor, struct pool *pool, struct err *e);

/* The tensor where it lies in the volume: the slice and its context are one after the other there,
 * and the model takes them as they are. NULL: it has to be filled. */
const float *prepare_lent(const struct prepare *p, const float *volume, int slices, int slice);

/* One channel of the tensor, from a normalised plane. ERR_NOMEM. */
int prepare_channel(const struct prepare *p, const float *plane, int channel, float *tensor,
                    struct pool *pool, struct err *e);

/* The network's answer, of prepare_output_shape(), as stored values: out of prepare_rows() x
 * prepare_columns(). Meant value = stored * prepare_slope() + prepare_intercept(). ERR_NUMERIC: the
 * answer is not finite; ERR_NOMEM. Uses memory in p: one thread at a time. */
int prepare_output(struct prepare *p, const float *tensor, uint16_t *out, struct pool *pool,
                   struct err *e);
double prepare_slope(const struct prepare *p);     /* 1 for "unit", and where the source's own */
double prepare_intercept(const struct prepare *p); /* 0   values fit into 0 ... 4095 */

/* Bilinear resampling with antialias of one plane, pixel centres aligned (as PyTorch's interpolate
 * with antialias=True, align_corners=False). ERR_NOMEM. */
int prepare_resample(const float *in, int rows, int columns, float *out, int out_rows,
                     int out_columns, struct err *e);

#endif
