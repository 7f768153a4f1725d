/* resample.c - see resample.h. Source: ONNX operator Resize, opset 10 to 19, and its reference
 * code; onnxruntime where that leaves open how coordinates are rounded. */
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

/* Nearest pixels are found in float, each step rounded, as onnxruntime finds them: an exporter
 * means what its scale became as a float, 1.7f, by which 17 divided is 10 in float and less in
 * double. The weights of the other modes are smooth, and double. */
static double step(const struct resize_attr *a, double v)
{
    return a->mode == RESIZE_NEAREST ? (double)(float)v : v;
}

/* Where output element x lies in the input. */
static double source_of(const struct resize_attr *a, double scale, int64_t in, int64_t out,
                        int64_t x)
{
    double at = (double)x;
    switch (a->coord) {
    case COORD_ASYMMETRIC:
        return step(a, at / scale);
    case COORD_ALIGN_CORNERS:
        return out == 1 ? 0 : step(a, step(a, at * (double)(in - 1)) / (double)(out - 1));
    case COORD_PYTORCH_HALF_PIXEL:
        if (out == 1)
            return 0;
        break;
    case COORD_HALF_PIXEL_SYMMETRIC: {
        /* The output as its size says, centred on what the scale says. */
        double adjustment = step(a, (double)out / step(a, scale * (double)in));
        double offset = step(a, (double)in / 2 * step(a, 1 - adjustment));
        return step(a, offset + (at + 0.5) / scale - 0.5);
    }
    case COORD_TF_HALF_PIXEL_FOR_NN:
        return step(a, (at + 0.5) / scale);
    case COORD_HALF_PIXEL:
        break;
    }
    return step(a, step(a, (at + 0.5) / scale) - 0.5);
}

/* What is this close to the middle between two elements is the middle, as for onnxruntime. */
#define TIE 1e-6

static double nearest_of(const struct resize_attr *a, double scale, double at)
{
    switch (a->nearest) {
    case NEAREST_PREFER_FLOOR:
        return ceil(at - 0.5 - TIE);
    case NEAREST_PREFER_CEIL:
        return floor(at + 0.5 + TIE);
    case NEAREST_FLOOR:
        return floor(at);
    case NEAREST_CEIL:
        return ceil(at);
    case NEAREST_BY_SCALE:
        return scale < 1 ? ceil(at) : floor(at);
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
    double scale = step(a, a->scale[axis]);
    /* A kernel reaches `radius` input elements to each side; antialias widens it when shrinking. */
    double stretch = a->antialias && scale < 1 && a->mode != RESIZE_NEAREST ? scale : 1;
    double radius = (a->mode == RESIZE_CUBIC ? 2 : 1) / stretch;
    int64_t taps = 1;
    bool same = in == out && scale == 1; /* as if it were no axis of the operator's */
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
        double at = same ? (double)x : source_of(a, scale, in, out, x);
        if (a->mode == RESIZE_NEAREST) {
            index[0] = clamp((int64_t)nearest_of(a, scale, at), in);
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
