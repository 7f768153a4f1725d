/* prepare.c - see prepare.h */
#include "model/prepare.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"
#include "node/base/pool.h"

#include "model/bilinear.h"
#include "model/package.h"

/* Four at a time, written out: the compiler keeps to one where a comparison decides, for the sake
 * of traps that nobody has set. */
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef uint16_t v4s __attribute__((vector_size(8)));

static inline v4 load(const float *from)
{
    v4 x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* mask ? a : b */
static inline v4 pick(v4i mask, v4 a, v4 b)
{
    return (v4)((mask & (v4i)a) | (~mask & (v4i)b));
}

/* ---- percentiles ---- */

/* Floats as integers in the same order: negative ones reversed, below the positive ones. */
static uint32_t order_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | UINT32_C(0x80000000));
}

static float value_of(uint32_t order)
{
    uint32_t bits = order & UINT32_C(0x80000000) ? order & UINT32_C(0x7fffffff) : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define HALF (1u << 16)
/* Percentiles that are found in one go; each lies between two values. */
#define TOGETHER 2
#define RANKS    (2 * TOGETHER)
/* Fewer values than this are counted by one thread. */
#define TASK_LEAST (1 << 18)

/* Values counted by the upper half of their order and, of the few upper halves that hold a rank
 * that is looked for, by the lower one. */
struct counts {
    uint32_t upper[HALF], lower[RANKS][HALF];
};

/* In the first pass upper counts whole numbers from 0 on by themselves, as long as all are such; so
 * do some of lower, of every fourth value each: a number that comes many times in a row (air) is
 * then not added to before it has been stored. */
struct search {
    const float *values;
    size_t n;
    int tasks;
    struct counts *counts; /* [tasks], of which the first takes up the others */
    bool *whole;           /* [tasks] every value is a whole number below HALF */
    uint32_t *most;        /* [tasks] then: none is larger */
    bool *finite;          /* [tasks] */
    uint32_t of[RANKS];    /* upper half that counts.lower[i] is of */
    int halves;
};

static size_t task_begin(const struct search *s, int task)
{
    return (size_t)((uint64_t)s->n * (uint64_t)task / (uint64_t)s->tasks);
}

/* How many values are looked at together. */
#define PIECE 64

/* Pixels of most scanners are whole numbers, and then one pass is enough. */
static void count_whole(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    struct counts *c = &s->counts[task];
    uint32_t *const counts[4] = {c->upper, c->lower[0], c->lower[1], c->lower[2]};
    const v4 least = {0}, beyond = least + HALF, half = least + 0.5f;
    v4i bad = {0}, all = {0};
    float last[PIECE] = {0};
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i += PIECE) {
        size_t m = end - i < PIECE ? end - i : PIECE;
        int32_t number[PIECE];
        const float *from = s->values + i;
        if (m < PIECE)
            from = memcpy(last, from, m * sizeof *from);
        for (size_t k = 0; k < PIECE; k += 4) {
            v4 x = load(from + k);
            x = pick((x >= least) & (x < beyond), x, half); /* NaN, too, becomes half */
            v4i n = __builtin_convertvector(x, v4i);
            bad |= __builtin_convertvector(n, v4) != x;
            all |= n;
            memcpy(number + k, &n, sizeof n);
        }
        if ((bad[0] | bad[1] | bad[2] | bad[3]) != 0)
            break;
        for (size_t k = 0; k + 4 <= m; k += 4)
            for (size_t j = 0; j < 4; j++)
                counts[j][number[k + j]]++;
        for (size_t k = m / 4 * 4; k < m; k++)
            counts[0][number[k]]++;
    }
    s->whole[task] = (bad[0] | bad[1] | bad[2] | bad[3]) == 0;
    s->most[task] = (uint32_t)(all[0] | all[1] | all[2] | all[3]);
    for (uint32_t i = 0; s->whole[task] && i <= s->most[task]; i++)
        counts[0][i] += counts[1][i] + counts[2][i] + counts[3][i];
}

static void count_upper(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    uint32_t *upper = s->counts[task].upper;
    bool finite = true;
    memset(upper, 0, sizeof s->counts->upper);
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i++) {
        finite &= isfinite(s->values[i]) != 0;
        upper[order_of(s->values[i]) >> 16]++;
    }
    s->finite[task] = finite;
}

/* By pieces: most values are of no half that counts. */
static void count_lower(void *arg, int task, int thread)
{
    (void)thread;
    struct search *s = arg;
    struct counts *c = &s->counts[task];
    uint32_t of[RANKS]; /* some of them twice: a loop of known length */
    for (int i = 0; i < RANKS; i++)
        of[i] = s->of[i < s->halves ? i : 0];
    for (size_t i = task_begin(s, task), end = task_begin(s, task + 1); i < end; i += PIECE) {
        size_t m = end - i < PIECE ? end - i : PIECE;
        uint32_t order[PIECE], any = 0;
        for (size_t k = 0; k < m; k++) {
            order[k] = order_of(s->values[i + k]);
            uint32_t half = order[k] >> 16;
            any |= (half == of[0]) | (half == of[1]) | (half == of[2]) | (half == of[3]);
        }
        for (size_t k = 0; any && k < m; k++)
            for (int h = 0; h < s->halves; h++)
                if (order[k] >> 16 == of[h])
                    c->lower[h][order[k] & (HALF - 1)]++;
    }
}

static void add_up(const struct search *s, size_t first, size_t n)
{
    uint32_t *to = (uint32_t *)s->counts + first;
    for (int t = 1; t < s->tasks; t++) {
        const uint32_t *from = (const uint32_t *)(s->counts + t) + first;
        for (size_t i = 0; i < n; i++)
            to[i] += from[i];
    }
}

/* The upper half of the order that the rank-th smallest (from 0) has, its place among those. */
static int find_half(struct search *s, size_t rank, size_t *left)
{
    uint32_t upper = 0;
    while (rank >= s->counts->upper[upper])
        rank -= s->counts->upper[upper++];
    *left = rank;
    for (int i = 0; i < s->halves; i++)
        if (s->of[i] == upper)
            return i;
    s->of[s->halves] = upper;
    return s->halves++;
}

static float value_at(const struct search *s, int half, size_t left)
{
    uint32_t lower = 0;
    while (left >= s->counts->lower[half][lower])
        left -= s->counts->lower[half][lower++];
    return value_of(s->of[half] << 16 | lower);
}

/* Where the percentile lies: the rank below, and how far it is to the next. */
static size_t rank_of(const struct search *s, double p, double *part)
{
    double at = (double)(s->n - 1) * p / 100.0;
    size_t below = (size_t)floor(at);
    below = below > s->n - 1 ? s->n - 1 : below;
    *part = at - (double)below;
    return below;
}

static void find_whole(const struct search *s, const double *p, int count, double *out)
{
    for (int i = 0; i < count; i++) {
        const uint32_t *counts = s->counts->upper;
        double part;
        size_t left = rank_of(s, p[i], &part);
        uint32_t a = 0;
        while (left >= counts[a])
            left -= counts[a++];
        uint32_t b = a; /* what the next rank holds */
        if (part > 0 && left + 1 == counts[a])
            while (counts[++b] == 0)
                ;
        out[i] = a + (double)(b - a) * part;
    }
}

/* At most TOGETHER of them. */
static void find(struct search *s, struct pool *pool, const double *p, int count, double *out)
{
    double part[TOGETHER];
    int half[RANKS];
    size_t left[RANKS];
    s->halves = 0;
    for (int i = 0; i < count; i++) {
        size_t below = rank_of(s, p[i], &part[i]);
        half[2 * i] = find_half(s, below, &left[2 * i]);
        half[2 * i + 1] = find_half(s, below + 1 < s->n ? below + 1 : below, &left[2 * i + 1]);
    }
    for (int i = 0; i < s->tasks; i++)
        memset(s->counts[i].lower, 0, (size_t)s->halves * sizeof s->counts->lower[0]);
    pool_run(pool, s->tasks, count_lower, s);
    add_up(s, HALF, (size_t)s->halves * HALF);
    for (int i = 0; i < count; i++) {
        double a = value_at(s, half[2 * i], left[2 * i]);
        double b = part[i] > 0 ? value_at(s, half[2 * i + 1], left[2 * i + 1]) : a;
        out[i] = a + (b - a) * part[i];
    }
}

int prepare_percentiles(const float *values, size_t n, const double *p, int count, double *out,
                        struct pool *pool, struct err *e)
{
    if (n == 0 || n > UINT32_MAX)
        return err_set(e, ERR_INVALID, "percentile of %s",
                       n == 0 ? "no values" : "too many values");
    int tasks = n < TASK_LEAST ? 1 : pool_threads(pool), rc = 0;
    struct search s = {.values = values, .n = n, .tasks = tasks};
    s.counts = calloc((size_t)tasks, sizeof *s.counts);
    s.whole = calloc((size_t)tasks, sizeof *s.whole);
    s.most = calloc((size_t)tasks, sizeof *s.most);
    s.finite = calloc((size_t)tasks, sizeof *s.finite);
    if (s.counts == NULL || s.whole == NULL || s.most == NULL || s.finite == NULL) {
        rc = err_set(e, ERR_NOMEM, "percentile: no memory");
        goto out;
    }
    pool_run(pool, tasks, count_whole, &s);
    bool whole = true;
    uint32_t most = 0;
    for (int i = 0; i < tasks; i++) {
        whole &= s.whole[i];
        most = s.most[i] > most ? s.most[i] : most;
    }
    if (whole) {
        add_up(&s, 0, (size_t)most + 1);
        find_whole(&s, p, count, out);
        goto out;
    }
    pool_run(pool, tasks, count_upper, &s);
    add_up(&s, 0, HALF);
    for (int i = 0; rc == 0 && i < tasks; i++)
        if (!s.finite[i])
            rc = err_set(e, ERR_NUMERIC, "a pixel value is not a finite number");
    for (int i = 0; rc == 0 && i < count; i += TOGETHER)
        find(&s, pool, p + i, count - i < TOGETHER ? count - i : TOGETHER, out + i);
out:
    free(s.counts);
    free(s.whole);
    free(s.most);
    free(s.finite);
    return rc;
}

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

static inline v4 normalise_4(v4 x, float low, float factor)
{
    const v4 zero = {0}, one = zero + 1;
    x = (x - low) * factor;
    return pick(x < zero, zero, pick(x > one, one, x)) * 2 - 1;
}

/* Values are normalised by tasks of so many. */
#define NORMALISED ((size_t)1 << 16)

struct normalising {
    const struct prepare *p;
    float *values;
    size_t n;
};

static void normalise(void *arg, int task, int thread)
{
    (void)thread;
    const struct normalising *job = arg;
    float low = (float)job->p->low, factor = (float)(1.0 / (job->p->high - job->p->low));
    size_t i = (size_t)task * NORMALISED, end = job->n - i < NORMALISED ? job->n : i + NORMALISED;
    for (; i + 4 <= end; i += 4) {
        v4 y = normalise_4(load(job->values + i), low, factor);
        memcpy(job->values + i, &y, sizeof y);
    }
    for (; i < end; i++)
        job->values[i] = normalise_4((v4){job->values[i]}, low, factor)[0];
}

void prepare_normalise(const struct prepare *p, float *values, size_t n, struct pool *pool)
{
    struct normalising job = {p, values, n};
    pool_run(pool, (int)((n + NORMALISED - 1) / NORMALISED), normalise, &job);
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

/* As they are stored; NaN as 0. Nearest, ties to even, as lrintf() does: from 2^23 on a float's
 * last bit is worth one. */
static inline v4s store_4(v4 x, float gain, float offset)
{
    const v4 zero = {0}, most = zero + PREPARE_VALUE_MAX;
    x = x * gain + offset;
    x = pick(x > zero, x, zero);
    x = pick(x < most, x, most) + 0x1p23f - 0x1p23f;
    return __builtin_convertvector(__builtin_convertvector(x, v4i), v4s);
}

/* n of them; 0 if all are finite. */
static uint32_t store(const float *from, int n, float gain, float offset, uint16_t *to)
{
    uint32_t bad = 0;
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        v4s y = store_4(load(from + i), gain, offset);
        memcpy(to + i, &y, sizeof y);
    }
    for (; i < n; i++)
        to[i] = store_4((v4){from[i]}, gain, offset)[0];
    for (i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        bad |= (bits & UINT32_C(0x7f800000)) == UINT32_C(0x7f800000);
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
