/* bilinear.c - see bilinear.h */
#include "model/bilinear.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "model/clones.h"

/* Rows that are made narrow together, a lane each. */
#define LANES 8

typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));

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

static inline v4 load_4(const float *from)
{
    v4 x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Four rows of four become four columns. */
static inline void turn_4(v4 r[4])
{
    v4 a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    v4 b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    v4 c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    v4 d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* LANES rows of n values into n columns of LANES. */
static void turn(const float *const from[LANES], int n, float *to)
{
    int x = 0;
    for (; x + 4 <= n; x += 4)
        for (int half = 0; half < LANES; half += 4) {
            v4 r[4];
            for (int k = 0; k < 4; k++)
                r[k] = load_4(from[half + k] + x);
            turn_4(r);
            for (int k = 0; k < 4; k++)
                memcpy(to + (x + k) * LANES + half, &r[k], sizeof r[k]);
        }
    for (; x < n; x++)
        for (int k = 0; k < LANES; k++)
            to[x * LANES + k] = from[k][x];
}

/* And back: rows stride apart. */
static void turn_back(const float *from, int n, float *to, size_t stride)
{
    int x = 0;
    for (; x + 4 <= n; x += 4)
        for (int half = 0; half < LANES; half += 4) {
            v4 r[4];
            for (int k = 0; k < 4; k++)
                r[k] = load_4(from + (x + k) * LANES + half);
            turn_4(r);
            for (int k = 0; k < 4; k++)
                memcpy(to + (size_t)(half + k) * stride + x, &r[k], sizeof r[k]);
        }
    for (; x < n; x++)
        for (int k = 0; k < LANES; k++)
            to[(size_t)k * stride + (size_t)x] = from[x * LANES + k];
}

/* Columns of LANES rows each, in and out. */
CLONES static void narrow(const struct weights *w, const float *in, float *out, int out_columns)
{
    for (int x = 0; x < out_columns; x++) {
        const float *weight = w->weight + (size_t)x * (size_t)w->widest;
        const float *from = in + (size_t)w->first[x] * LANES;
        v8 sum = {0}, tap;
        for (int i = 0; i < w->count[x]; i++) {
            memcpy(&tap, from + i * LANES, sizeof tap);
            sum += weight[i] * tap;
        }
        memcpy(out + x * LANES, &sum, sizeof sum);
    }
}

CLONES static void add(float weight, const float *restrict row, float *restrict to, int n)
{
    for (int x = 0; x < n; x++)
        to[x] += weight * row[x];
}

int bilinear_resample(bilinear_row *row, const void *ctx, int rows, int columns, float *out,
                      int out_rows, int out_columns, struct err *e)
{
    struct weights across = {0}, down = {0};
    size_t in = (size_t)columns * LANES, width = (size_t)out_columns, small = width * LANES;
    float *memory = malloc((2 * in + 2 * small) * sizeof *memory);
    float *turned, *lanes, *narrowed;
    int rc = memory != NULL ? 0 : err_set(e, ERR_NOMEM, "resampling: no memory");
    if (rc == 0)
        rc = weights_init(&across, columns, out_columns, e);
    if (rc == 0)
        rc = weights_init(&down, rows, out_rows, e);
    if (rc != 0)
        goto out;
    turned = memory + in;
    lanes = turned + in;
    narrowed = lanes + small;
    memset(out, 0, (size_t)out_rows * width * sizeof *out);
    for (int top = 0, begin = 0; top < rows; top += LANES) {
        const float *from[LANES];
        int n = rows - top < LANES ? rows - top : LANES;
        for (int k = 0; k < n; k++)
            from[k] = row(ctx, top + k, memory + (size_t)k * (size_t)columns);
        for (int k = n; k < LANES; k++)
            from[k] = from[0];
        turn(from, columns, turned);
        narrow(&across, turned, lanes, out_columns);
        turn_back(lanes, out_columns, narrowed, width);
        /* Each output adds up its rows from the first to the last. */
        for (int k = 0, y = top; k < n; k++, y++) {
            while (begin < out_rows && down.first[begin] + down.count[begin] <= y)
                begin++;
            for (int o = begin; o < out_rows && down.first[o] <= y; o++)
                if (y < down.first[o] + down.count[o])
                    add(down.weight[(size_t)o * (size_t)down.widest + (size_t)(y - down.first[o])],
                        narrowed + (size_t)k * width, out + (size_t)o * width, out_columns);
        }
    }
out:
    weights_fini(&across);
    weights_fini(&down);
    free(memory);
    return rc;
}
