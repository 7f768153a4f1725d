/* prepare.c - see prepare.h */
#include "model/prepare.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "model/bilinear.h"
#include "model/clones.h"
#include "model/package.h"

/* ---- resampling ---- */

struct plane {
    const float *values;
    int columns;
};

static const float *row_of(const void *ctx, int y, float *spare)
{
    const struct plane *p = ctx;
    (void)spare;
    return p->values + (size_t)y * (size_t)p->columns;
}

int prepare_resample(const float *in, int rows, int columns, float *out, int out_rows,
                     int out_columns, struct err *e)
{
    const struct plane plane = {in, columns};
    return bilinear_resample(row_of, &plane, rows, columns, out, out_rows, out_columns, e);
}

/* ---- a model's way for one size of source ---- */

struct prepare {
    int rows, columns;         /* of the source */
    int out_rows, out_columns; /* of the result */
    struct shape input, output;
    double low, high;
    double slope, intercept;
    enum model_output_scale scale;
    bool fixed;
    float *plane; /* one resampled answer, for fixed grids */
};

/* Stored values are the source's own units where these fit, else 0 ... 4095 spans low ... high. */
static void choose_scale(struct prepare *p)
{
    p->slope = 1;
    p->intercept = 0;
    if (p->scale == MODEL_OUTPUT_SOURCE && (p->low < 0 || p->high > PREPARE_VALUE_MAX)) {
        p->slope = (p->high - p->low) / PREPARE_VALUE_MAX;
        p->intercept = p->low;
    }
}

int prepare_new(const struct package *package, int rows, int columns, double low, double high,
                struct prepare **out, struct err *e)
{
    struct shape input;
    int rc = package_input_shape(package, rows, columns, 1, &input, e);
    if (rc != 0)
        return rc;
    if (!isfinite(low) || !isfinite(high))
        return err_set(e, ERR_NUMERIC, "a percentile of the pixel values is not finite");
    if (!(high > low))
        return err_set(e, ERR_REFUSED,
                       "the images are flat: percentiles %g and %g of the pixel values are both %g",
                       package->percentile_low, package->percentile_high, low);
    struct prepare *p = calloc(1, sizeof *p);
    if (p == NULL)
        return err_set(e, ERR_NOMEM, "preparing the images: no memory");
    int scale = package->scale;
    p->rows = rows;
    p->columns = columns;
    p->out_rows = scale * rows;
    p->out_columns = scale * columns;
    p->input = input;
    p->output = (struct shape){4, {1, 1, scale * input.dim[2], scale * input.dim[3]}};
    p->low = low;
    p->high = high;
    p->scale = package->output;
    p->fixed = package->multiple == 0;
    choose_scale(p);
    p->plane =
        p->fixed ? malloc((size_t)p->out_rows * (size_t)p->out_columns * sizeof *p->plane) : NULL;
    if (p->fixed && p->plane == NULL)
        rc = err_set(e, ERR_NOMEM, "preparing the images: no memory");
    if (rc == 0)
        *out = p;
    else
        prepare_free(p);
    return rc;
}

void prepare_free(struct prepare *p)
{
    if (p == NULL)
        return;
    free(p->plane);
    free(p);
}

const struct shape *prepare_input_shape(const struct prepare *p)
{
    return &p->input;
}

const struct shape *prepare_output_shape(const struct prepare *p)
{
    return &p->output;
}

int prepare_rows(const struct prepare *p)
{
    return p->out_rows;
}

int prepare_columns(const struct prepare *p)
{
    return p->out_columns;
}

double prepare_slope(const struct prepare *p)
{
    return p->slope;
}

double prepare_intercept(const struct prepare *p)
{
    return p->intercept;
}

/* Values are normalised by tasks of so many. */
#define NORMALISED ((size_t)1 << 16)

struct normalising {
    const struct prepare *p;
    float *values;
    size_t n;
};

CLONES static void normalise(float *values, size_t n, float low, float factor)
{
    for (size_t i = 0; i < n; i++) {
        float x = (values[i] - low) * factor;
        x = x < 0 ? 0 : x;
        values[i] = (x > 1 ? 1 : x) * 2 - 1;
    }
}

static void normalise_task(void *arg, int task, int thread)
{
    (void)thread;
    const struct normalising *job = arg;
    size_t first = (size_t)task * NORMALISED, left = job->n - first;
    normalise(job->values + first, left < NORMALISED ? left : NORMALISED, (float)job->p->low,
              (float)(1.0 / (job->p->high - job->p->low)));
}

void prepare_normalise(const struct prepare *p, float *values, size_t n, struct pool *pool)
{
    struct normalising job = {p, values, n};
    pool_run(pool, (int)((n + NORMALISED - 1) / NORMALISED), normalise_task, &job);
}

/* A slice of a volume; beyond its ends the first, the last. */
static const float *plane_of(const struct prepare *p, const float *volume, int slices, int slice)
{
    int s = slice < 0 ? 0 : slice >= slices ? slices - 1 : slice;
    return volume + (size_t)s * (size_t)p->rows * (size_t)p->columns;
}

/* Rows are shared out in so many bands. */
#define BANDS 4

static int band_of(int rows, int band)
{
    return (int)((int64_t)rows * band / BANDS);
}

/* Slices into the top left of height × width each. */
struct padding {
    const struct prepare *p;
    const float *volume;
    int slices, slice; /* of the first channel; outside of the volume: the first, the last */
    float *to;
};

static void pad_band(void *arg, int task, int thread)
{
    (void)thread;
    const struct padding *d = arg;
    const struct prepare *p = d->p;
    int64_t height = p->input.dim[2], width = p->input.dim[3];
    int channel = task / BANDS, end = band_of(p->rows, task % BANDS + 1);
    const float *plane = plane_of(p, d->volume, d->slices, d->slice + channel);
    for (int y = band_of(p->rows, task % BANDS); y < end; y++) {
        float *out = d->to + (channel * height + y) * width;
        memcpy(out, plane + (size_t)y * (size_t)p->columns, (size_t)p->columns * sizeof *out);
        for (int64_t x = p->columns; x < width; x++)
            out[x] = out[p->columns - 1];
    }
}

/* The last row and column are repeated. */
static void pad(struct padding *d, int channels, struct pool *pool)
{
    int64_t height = d->p->input.dim[2], width = d->p->input.dim[3];
    pool_run(pool, channels * BANDS, pad_band, d);
    for (int c = 0; c < channels; c++)
        for (int64_t y = d->p->rows; y < height; y++) {
            float *out = d->to + (c * height + y) * width;
            memcpy(out, out - width, (size_t)width * sizeof *out);
        }
}

int prepare_channel(const struct prepare *p, const float *plane, int channel, float *tensor,
                    struct pool *pool, struct err *e)
{
    int height = (int)p->input.dim[2], width = (int)p->input.dim[3];
    float *to = tensor + (int64_t)channel * height * width;
    if (p->fixed)
        return prepare_resample(plane, p->rows, p->columns, to, height, width, e);
    pad(&(struct padding){p, plane, 1, 0, to}, 1, pool);
    return 0;
}

int prepare_input(const struct prepare *p, const float *volume, int slices, int slice,
                  float *tensor, struct pool *pool, struct err *e)
{
    int channels = (int)p->input.dim[1], first = slice - channels / 2, rc = 0;
    if (!p->fixed)
        pad(&(struct padding){p, volume, slices, first, tensor}, channels, pool);
    for (int c = 0; p->fixed && rc == 0 && c < channels; c++)
        rc = prepare_channel(p, plane_of(p, volume, slices, first + c), c, tensor, pool, e);
    return rc;
}

const float *prepare_lent(const struct prepare *p, const float *volume, int slices, int slice)
{
    int channels = (int)p->input.dim[1], first = slice - channels / 2;
    bool as_it_is = !p->fixed && p->input.dim[2] == p->rows && p->input.dim[3] == p->columns;
    return as_it_is && first >= 0 && first + channels <= slices ? plane_of(p, volume, slices, first)
                                                                : NULL;
}

/* As they are stored, nearest, ties to even, as lrintf() does: from 2^23 on a float's last bit is
 * worth one. NaN as 0. Returns 0 if all are finite. */
CLONES static uint32_t store(const float *from, int n, float gain, float offset, uint16_t *to)
{
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        bad |= (bits & UINT32_C(0x7f800000)) == UINT32_C(0x7f800000);
        float x = from[i] * gain + offset;
        x = x > 0 ? x : 0;
        x = (x < PREPARE_VALUE_MAX ? x : PREPARE_VALUE_MAX) + 0x1p23f - 0x1p23f;
        to[i] = (uint16_t)(int32_t)x;
    }
    return bad;
}

struct storing {
    const struct prepare *p;
    const float *from;
    size_t width; /* of a row of from */
    float gain, offset;
    uint16_t *out;
    uint32_t bad[BANDS];
};

static void store_band(void *arg, int band, int thread)
{
    (void)thread;
    struct storing *s = arg;
    int columns = s->p->out_columns, end = band_of(s->p->out_rows, band + 1);
    for (int y = band_of(s->p->out_rows, band); y < end; y++)
        s->bad[band] |= store(s->from + (size_t)y * s->width, columns, s->gain, s->offset,
                              s->out + (size_t)y * (size_t)columns);
}

int prepare_output(struct prepare *p, const float *tensor, uint16_t *out, struct pool *pool,
                   struct err *e)
{
    struct storing s = {.p = p, .from = tensor, .width = (size_t)p->output.dim[3], .out = out};
    if (p->fixed) {
        int rc = prepare_resample(tensor, (int)p->output.dim[2], (int)p->output.dim[3], p->plane,
                                  p->out_rows, p->out_columns, e);
        if (rc != 0)
            return rc;
        s.from = p->plane;
        s.width = (size_t)p->out_columns;
    }
    /* [-1, 1] -> stored = y * gain + offset */
    double span = p->scale == MODEL_OUTPUT_UNIT ? PREPARE_VALUE_MAX : (p->high - p->low) / p->slope;
    double base = p->scale == MODEL_OUTPUT_UNIT ? 0 : (p->low - p->intercept) / p->slope;
    s.gain = (float)(span / 2);
    s.offset = (float)(base + span / 2);
    pool_run(pool, BANDS, store_band, &s);
    for (int i = 0; i < BANDS; i++)
        if (s.bad[i] != 0)
            return err_set(e, ERR_NUMERIC, "the model's answer holds values that are not finite");
    return 0;
}
