/*
 * percentile.h - percentiles of the pixels of a series
 */
#ifndef SPINENODE_MODEL_PERCENTILE_H
#define SPINENODE_MODEL_PERCENTILE_H

#include <stddef.h>

struct err;
struct pool;

/* out[i] becomes the p[i]-th percentile (0 ... 100) of n values, linear between order statistics as
 * numpy.percentile does by default. Linear time whatever the values; nothing is copied. pool: who
 * counts, NULL: the caller alone; the result is the same. ERR_NUMERIC: a value is not finite;
 * ERR_INVALID: n is 0 or passes UINT32_MAX. */
int percentiles(const float *values, size_t n, const double *p, int count, double *out,
                struct pool *pool, struct err *e);

#endif
