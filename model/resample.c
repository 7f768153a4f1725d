/* resample.c - see resample.h. Source: ONNX operator Resize, opset 19, and its reference code. */
#include "model/resample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

/* Elements of a table. */
#define RESAMPLE_TAPS_MAX ((int64_t)1 << 22)
/* Taps for each input element and output: twice what the widest kernel has (cubic, antialiased, to
 * one element), so the work of a resize is bounded by the elements that it reads and makes. */
#define RESAMPLE_REACH_MAX 8

/* Where output element x lies in the input. */
static double source_of(const struct resize_attr *a, double scale, int64_t in, int64_t out,
                        int64_t x)
{
    switch (a->coord) {
    case COORD_ASYMMETRIC:
        return (double)x / scale;
    case COORD_ALIGN_CORNERS:
        return out == 1 ? 0 : (double)x * (double)(in - 1) / (double)(out - 1);
    case COORD_PYTORCH_HALF_PIXEL:
        return out == 1 ? 0 : ((double)x + 0.5) / scale - 0.5;
    case COORD_HALF_PIXEL_SYMMETRIC: {
        /* The output as its size says, centred on what the scale says. */
        double adjustment = (double)out / (scale * (double)in), centre = (double)in / 2;
        double offset = centre * (1 - adjustment);
        return offset + ((double)x + 0.5) / scale - 0.5;
    }
    case COORD_HALF_PIXEL:
        break;
    }
    return ((double)x + 0.5) / scale - 0.5;
}

static double nearest_of(const struct resize_attr *a, double at)
{
    switch (a->nearest) {
    case NEAREST_PREFER_FLOOR:
        return ceil(at - 0.5);
    case NEAREST_PREFER_CEIL:
        return floor(at + 0.5);
    case NEAREST_FLOOR:
        return floor(at);
    case NEAREST_CEIL:
        return ceil(at);
    }
    return floor(at);
}

static double triangle(double d)
{
    d = fabs(d);
    return d < 1 ? 1 - d : 0;
}

/* Keys' cubic convolution. */
static double cubic(double d, double a)
{
    d = fabs(d);
    if (d <= 1)
        return ((a + 2) * d - (a + 3)) * d * d + 1;
    if (d < 2)
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    return 0;
}

static int32_t clamp(int64_t i, int64_t n)
{
    return (int32_t)(i < 0 ? 0 : i >= n ? n - 1 : i);
}

int resample_init(struct resample *r, const struct resize_attr *a, int axis, int64_t in,
                  int64_t out, struct err *e)
{
    double scale = a->scale[axis];
    /* A kernel reaches `radius` input elements to each side; antialias widens it when shrinking. */
    double stretch = a->antialias && scale < 1 && a->mode != RESIZE_NEAREST ? scale : 1;
    double radius = (a->mode == RESIZE_CUBIC ? 2 : 1) / stretch;
    int64_t taps = 1;
    if (a->mode != RESIZE_NEAREST && radius < (double)RESAMPLE_TAPS_MAX)
        taps = 2 * (int64_t)ceil(radius) + (stretch < 1);
    memset(r, 0, sizeof *r);
    if (in < 1 || out < 1 || !(scale > 0) || !(radius < (double)RESAMPLE_TAPS_MAX) ||
        taps > RESAMPLE_REACH_MAX * (in + 1) || taps > RESAMPLE_TAPS_MAX / out)
        return err_set(e, ERR_LIMIT, "resizing %lld to %lld elements needs too large a table",
                       (long long)in, (long long)out);
    r->out = out;
    r->taps = (int)taps;
    r->index = calloc((size_t)(out * taps), sizeof *r->index);
    r->weight = calloc((size_t)(out * taps), sizeof *r->weight);
    if (r->index == NULL || r->weight == NULL) {
        resample_fini(r);
        return err_set(e, ERR_NOMEM, "no memory for a resize table");
    }
    for (int64_t x = 0; x < out; x++) {
        int32_t *index = r->index + x * taps;
        double *weight = r->weight + x * taps, sum = 0;
        double at = source_of(a, scale, in, out, x);
        if (a->mode == RESIZE_NEAREST) {
            index[0] = clamp((int64_t)nearest_of(a, at), in);
            weight[0] = 1;
            continue;
        }
        int64_t first = (int64_t)floor(at) - (int64_t)ceil(radius) + 1;
        for (int t = 0; t < taps; t++) {
            int64_t i = first + t;
            double d = (at - (double)i) * stretch;
            double w = a->mode == RESIZE_CUBIC ? cubic(d, (double)a->cubic_a) : triangle(d);
            if (a->exclude_outside && (i < 0 || i >= in))
                w = 0;
            index[t] = clamp(i, in);
            weight[t] = w;
            sum += w;
        }
        if (sum != 0)
            for (int t = 0; t < taps; t++)
                weight[t] /= sum;
    }
    return 0;
}

void resample_fini(struct resample *r)
{
    free(r->index);
    free(r->weight);
    memset(r, 0, sizeof *r);
}
