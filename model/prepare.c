/* prepare.c - see prepare.h */
#include "model/prepare.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/package.h"

/* ---- percentiles ---- */

/* Floats as integers in the same order: negative ones reversed, below the positive ones. */
static uint32_t order_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & UINT32_C(0x80000000) ? ~bits : bits | UINT32_C(0x80000000);
}

static float value_of(uint32_t order)
{
    uint32_t bits = order & UINT32_C(0x80000000) ? order & UINT32_C(0x7fffffff) : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define HALF (1u << 16)

/* Values counted by the upper and, of one upper half, by the lower half of their order. */
struct counts {
    uint32_t upper[HALF], lower[HALF];
    uint32_t counted; /* the upper half that lower is of; HALF: none yet */
};

/* The rank-th smallest (from 0): find its upper half, count the lower halves there, find its own.
 */
static float select_rank(const float *values, size_t n, size_t rank, struct counts *c)
{
    uint32_t upper = 0, lower = 0;
    while (rank >= c->upper[upper])
        rank -= c->upper[upper++];
    if (c->counted != upper) {
        memset(c->lower, 0, sizeof c->lower);
        for (size_t i = 0; i < n; i++) {
            uint32_t order = order_of(values[i]);
            if (order >> 16 == upper)
                c->lower[order & (HALF - 1)]++;
        }
        c->counted = upper;
    }
    while (rank >= c->lower[lower])
        rank -= c->lower[lower++];
    return value_of(upper << 16 | lower);
}

int prepare_percentiles(const float *values, size_t n, const double *p, int count, double *out,
                        struct err *e)
{
    if (n == 0 || n > UINT32_MAX)
        return err_set(e, ERR_INVALID, "percentile of %s",
                       n == 0 ? "no values" : "too many values");
    struct counts *c = calloc(1, sizeof *c);
    if (c == NULL)
        return err_set(e, ERR_NOMEM, "percentile: no memory");
    int rc = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite &= isfinite(values[i]) != 0;
        c->upper[order_of(values[i]) >> 16]++;
    }
    c->counted = HALF;
    if (!finite)
        rc = err_set(e, ERR_NUMERIC, "a pixel value is not a finite number");
    for (int i = 0; rc == 0 && i < count; i++) {
        double at = (double)(n - 1) * p[i] / 100.0;
        size_t below = (size_t)floor(at);
        below = below > n - 1 ? n - 1 : below;
        double part = at - (double)below;
        double a = select_rank(values, n, below, c);
        double b = part > 0 && below + 1 < n ? select_rank(values, n, below + 1, c) : a;
        out[i] = a + (b - a) * part;
    }
    free(c);
    return rc;
}

/* ---- resampling ---- */

/* For each output index: which inputs, and how much of each. */
struct weights {
    int *first, *count;
    float *weight; /* widest for each output */
    int widest;
};

static void weights_fini(struct weights *w)
{
    free(w->first);
    free(w->count);
    free(w->weight);
    *w = (struct weights){0};
}

static int weights_init(struct weights *w, int in, int out, struct err *e)
{
    double scale = (double)in / out;
    double support = scale > 1 ? scale : 1;
    *w = (struct weights){.widest = (int)ceil(2 * support) + 2};
    w->first = calloc((size_t)out, sizeof *w->first);
    w->count = calloc((size_t)out, sizeof *w->count);
    w->weight = calloc((size_t)out * (size_t)w->widest, sizeof *w->weight);
    if (w->first == NULL || w->count == NULL || w->weight == NULL) {
        weights_fini(w);
        return err_set(e, ERR_NOMEM, "resampling: no memory");
    }
    for (int o = 0; o < out; o++) {
        double centre = (o + 0.5) * scale, sum = 0;
        int begin = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
        begin = begin < 0 ? 0 : begin;
        end = end > in ? in : end;
        float *to = w->weight + (size_t)o * (size_t)w->widest;
        for (int i = begin; i < end; i++) {
            double distance = fabs(i + 0.5 - centre) / support;
            double tap = distance < 1 ? 1 - distance : 0;
            to[i - begin] = (float)tap;
            sum += tap;
        }
        for (int i = begin; i < end; i++)
            to[i - begin] = (float)(to[i - begin] / sum);
        w->first[o] = begin;
        w->count[o] = end - begin;
    }
    return 0;
}

/* Resamples planes of one size to another; rows of the result need only rows of the source. */
struct resampler {
    struct weights across, down;
    int rows, columns, out_rows, out_columns;
    float *narrow; /* rows × out_columns */
};

static void resampler_fini(struct resampler *r)
{
    weights_fini(&r->across);
    weights_fini(&r->down);
    free(r->narrow);
    *r = (struct resampler){0};
}

static int resampler_init(struct resampler *r, int rows, int columns, int out_rows, int out_columns,
                          struct err *e)
{
    *r = (struct resampler){
        .rows = rows, .columns = columns, .out_rows = out_rows, .out_columns = out_columns};
    int rc = weights_init(&r->across, columns, out_columns, e);
    if (rc == 0)
        rc = weights_init(&r->down, rows, out_rows, e);
    if (rc == 0) {
        r->narrow = malloc((size_t)rows * (size_t)out_columns * sizeof *r->narrow);
        if (r->narrow == NULL)
            rc = err_set(e, ERR_NOMEM, "resampling: no memory");
    }
    if (rc != 0)
        resampler_fini(r);
    return rc;
}

static void resample(const struct resampler *r, const float *in, float *out)
{
    size_t width = (size_t)r->out_columns;
    for (int y = 0; y < r->rows; y++) {
        const float *from = in + (size_t)y * (size_t)r->columns;
        float *to = r->narrow + (size_t)y * width;
        for (int x = 0; x < r->out_columns; x++) {
            const float *weight = r->across.weight + (size_t)x * (size_t)r->across.widest;
            const float *tap = from + r->across.first[x];
            float sum = 0;
            for (int i = 0; i < r->across.count[x]; i++)
                sum += weight[i] * tap[i];
            to[x] = sum;
        }
    }
    for (int y = 0; y < r->out_rows; y++) {
        const float *weight = r->down.weight + (size_t)y * (size_t)r->down.widest;
        float *to = out + (size_t)y * width;
        memset(to, 0, width * sizeof *to);
        for (int i = 0; i < r->down.count[y]; i++) {
            const float *from = r->narrow + (size_t)(r->down.first[y] + i) * width;
            for (size_t x = 0; x < width; x++)
                to[x] += weight[i] * from[x];
        }
    }
}

int prepare_resample(const float *in, int rows, int columns, float *out, int out_rows,
                     int out_columns, struct err *e)
{
    struct resampler r;
    int rc = resampler_init(&r, rows, columns, out_rows, out_columns, e);
    if (rc != 0)
        return rc;
    resample(&r, in, out);
    resampler_fini(&r);
    return 0;
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
    struct resampler in, back; /* fixed grids only */
    float *plane;              /* one normalised slice, or one resampled answer */
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
    size_t source = (size_t)rows * (size_t)columns;
    size_t result = (size_t)p->out_rows * (size_t)p->out_columns;
    p->plane = malloc((source > result ? source : result) * sizeof *p->plane);
    if (p->plane == NULL)
        rc = err_set(e, ERR_NOMEM, "preparing the images: no memory");
    if (rc == 0 && p->fixed)
        rc = resampler_init(&p->in, rows, columns, (int)input.dim[2], (int)input.dim[3], e);
    if (rc == 0 && p->fixed)
        rc = resampler_init(&p->back, (int)p->output.dim[2], (int)p->output.dim[3], p->out_rows,
                            p->out_columns, e);
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
    resampler_fini(&p->in);
    resampler_fini(&p->back);
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

static void normalise(const struct prepare *p, const float *from, float *to, size_t n)
{
    float low = (float)p->low, factor = (float)(1.0 / (p->high - p->low));
    for (size_t i = 0; i < n; i++) {
        float x = (from[i] - low) * factor;
        x = x < 0 ? 0 : x > 1 ? 1 : x;
        to[i] = x * 2 - 1;
    }
}

/* rows × columns into the top left of height × width, the last row and column repeated. */
static void pad(const float *from, int rows, int columns, float *to, int64_t height, int64_t width)
{
    for (int64_t y = 0; y < height; y++) {
        const float *line = from + (y < rows ? y : rows - 1) * columns;
        float *out = to + y * width;
        memcpy(out, line, (size_t)columns * sizeof *out);
        for (int64_t x = columns; x < width; x++)
            out[x] = line[columns - 1];
    }
}

void prepare_input(struct prepare *p, const float *volume, int slices, int slice, float *tensor)
{
    int channels = (int)p->input.dim[1];
    size_t plane = (size_t)p->rows * (size_t)p->columns;
    size_t step = (size_t)p->input.dim[2] * (size_t)p->input.dim[3];
    for (int c = 0; c < channels; c++) {
        int s = slice + c - channels / 2;
        s = s < 0 ? 0 : s >= slices ? slices - 1 : s;
        normalise(p, volume + (size_t)s * plane, p->plane, plane);
        float *to = tensor + (size_t)c * step;
        if (p->fixed)
            resample(&p->in, p->plane, to);
        else
            pad(p->plane, p->rows, p->columns, to, p->input.dim[2], p->input.dim[3]);
    }
}

int prepare_output(struct prepare *p, const float *tensor, uint16_t *out, struct err *e)
{
    const float *from = tensor;
    size_t width = (size_t)p->output.dim[3];
    if (p->fixed) {
        resample(&p->back, tensor, p->plane);
        from = p->plane;
        width = (size_t)p->out_columns;
    }
    /* [-1, 1] -> stored = y * gain + offset */
    double span = p->scale == MODEL_OUTPUT_UNIT ? PREPARE_VALUE_MAX : (p->high - p->low) / p->slope;
    double base = p->scale == MODEL_OUTPUT_UNIT ? 0 : (p->low - p->intercept) / p->slope;
    float gain = (float)(span / 2), offset = (float)(base + span / 2);
    bool finite = true;
    for (int y = 0; y < p->out_rows; y++) {
        const float *line = from + (size_t)y * width;
        for (int x = 0; x < p->out_columns; x++) {
            finite &= isfinite(line[x]) != 0;
            float v = line[x] * gain + offset;
            v = v > 0 ? v : 0; /* NaN becomes 0 and is reported below */
            v = v < PREPARE_VALUE_MAX ? v : PREPARE_VALUE_MAX;
            out[(size_t)y * (size_t)p->out_columns + (size_t)x] = (uint16_t)lrintf(v);
        }
    }
    if (!finite)
        return err_set(e, ERR_NUMERIC, "the model's answer holds values that are not finite");
    return 0;
}
