/*
 * quality_features.c - the numbers that describe one slice; see quality.h
 *
 * All but the noise are taken from a small picture, GRID pixels along its longer side, so that they
 * mean the same for every matrix. Each is bounded or a logarithm with a floor: no input, however
 * strange, gives a number that is not finite.
 */
#include "model/quality.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/quality_parts.h"

#define GRID 96
/* Fewest pixels along the shorter side of the small picture: room for cells and ridges. */
#define GRID_MIN  24
#define CELL_SIDE 6
#define LEAN_SIDE 4

/* Half widths of ridges in pixels of the small picture: a canal's, a disc's. */
#define RIDGE_CANAL 3
#define RIDGE_DISC  2

static const char *const names[QUALITY_SHAPE] = {
    "p10",         "p25",
    "p50",         "p75",
    "p90",         "mean",
    "gradient",    "across",
    "peaked",      "x",
    "y",           "xx",
    "yy",          "xy",
    "edge-xx",     "edge-xy",
    "edge-yx",     "edge-yy",
    "slope",       "fine",
    "middle",      "coarse",
    "noise",       "dark",
    "bright",      "bright-column",
    "dark-column", "bright-row",
    "dark-row",    "void-small",
    "void-middle", "void-large",
};

const char *quality_feature_name(int i)
{
    return i < 0 || i >= QUALITY_FEATURES      ? "?"
           : i < QUALITY_SHAPE                 ? names[i]
           : i < QUALITY_SHAPE + QUALITY_CELLS ? "cell"
                                               : "lean";
}

/* Pixels by which the small picture is continued to all sides, its edge repeated: as far as
 * gradients and ridges look. */
#define BORDER 3

struct picture {
    int rows, columns;
    float *grey, *down, *right; /* and its gradients */
    float *spare, *other;       /* as large */
    float *wide, *first; /* grey with a border, and in it the first pixel; wide_columns wide */
    int wide_columns;
};

static void widen(struct picture *p)
{
    int columns = p->columns, wide = p->wide_columns;
    for (int y = 0; y < p->rows; y++) {
        float *to = p->first + y * wide;
        memcpy(to, p->grey + y * columns, (size_t)columns * sizeof *to);
        for (int k = 1; k <= BORDER; k++) {
            to[-k] = to[0];
            to[columns - 1 + k] = to[columns - 1];
        }
    }
    float *last = p->first + (p->rows - 1) * wide - BORDER;
    for (int k = 0; k < BORDER; k++) {
        memcpy(p->wide + k * wide, p->first - BORDER, (size_t)wide * sizeof *last);
        memcpy(last + (k + 1) * wide, last, (size_t)wide * sizeof *last);
    }
}

static void gradients(struct picture *p)
{
    int wide = p->wide_columns;
    for (int y = 0; y < p->rows; y++) {
        const float *from = p->first + y * wide;
        float *down = p->down + y * p->columns, *right = p->right + y * p->columns;
        for (int x = 0; x < p->columns; x++) {
            down[x] = (from[x + wide] - from[x - wide]) / 2;
            right[x] = (from[x + 1] - from[x - 1]) / 2;
        }
    }
}

#define DIGIT (1 << 11)

/* Sorts n values, which are few, by their bits: three times by eleven of them, to and fro between
 * the values and spare, which has room for as many. */
static void sort(float *values, int n, float *spare)
{
    int counts[3][DIGIT] = {{0}};
    uint32_t bits;
    for (int i = 0; i < n; i++) {
        memcpy(&bits, values + i, sizeof bits);
        bits ^= (uint32_t)((int32_t)bits >> 31) | UINT32_C(0x80000000);
        memcpy(values + i, &bits, sizeof bits);
        for (int k = 0; k < 3; k++)
            counts[k][bits >> (11 * k) & (DIGIT - 1)]++;
    }
    for (int k = 0; k < 3; k++) {
        const float *from = k == 1 ? spare : values;
        float *to = k == 1 ? values : spare;
        int sum = 0;
        for (int i = 0; i < DIGIT; i++) {
            int count = counts[k][i];
            counts[k][i] = sum;
            sum += count;
        }
        for (int i = 0; i < n; i++) {
            memcpy(&bits, from + i, sizeof bits);
            memcpy(to + counts[k][bits >> (11 * k) & (DIGIT - 1)]++, &bits, sizeof bits);
        }
    }
    for (int i = 0; i < n; i++) {
        memcpy(&bits, spare + i, sizeof bits);
        bits ^= (bits & UINT32_C(0x80000000)) != 0 ? UINT32_C(0x80000000) : UINT32_C(0xffffffff);
        memcpy(values + i, &bits, sizeof bits);
    }
}

/* Of sorted values. */
static float part(const float *sorted, int n, double share)
{
    double place = share * (n - 1);
    int below = (int)place;
    float rest = (float)(place - below);
    return sorted[below] + (below + 1 < n ? (sorted[below + 1] - sorted[below]) * rest : 0);
}

static float log_of(double value, double floor)
{
    return (float)log(value + floor);
}

/* Place of a pixel, -1 ... 1 from the first to the last. */
static double place(int i, int n)
{
    return n > 1 ? 2.0 * i / (n - 1) - 1 : 0;
}

static void levels(struct picture *p, float *f)
{
    static const double shares[] = {0.1, 0.25, 0.5, 0.75, 0.9};
    int n = p->rows * p->columns;
    double sum = 0;
    int dark = 0, bright = 0;
    memcpy(p->spare, p->grey, (size_t)n * sizeof *p->spare);
    sort(p->spare, n, p->other);
    for (int i = 0; i < 5; i++)
        f[i] = part(p->spare, n, shares[i]);
    for (int i = 0; i < n; i++) {
        sum += p->grey[i];
        dark += p->grey[i] < 0.06f;
        bright += p->grey[i] > 0.85f;
    }
    f[5] = (float)(sum / n);
    f[23] = (float)((double)dark / n);
    f[24] = (float)((double)bright / n);
}

/* Where the brightness and the edges lie, and which way they run. */
static void moments(const struct picture *p, float *f)
{
    double w = 1e-6, wx = 1e-6, wy = 1e-6, size = 0, square = 1e-9, cross = 0;
    double m[5] = {0}, right[2] = {0}, down[2] = {0}, across[GRID];
    int n = p->rows * p->columns;
    for (int x = 0; x < p->columns; x++)
        across[x] = place(x, p->columns);
    for (int y = 0; y < p->rows; y++)
        for (int x = 0; x < p->columns; x++) {
            int i = y * p->columns + x;
            double u = across[x], v = place(y, p->rows), g = p->grey[i];
            double gx = p->right[i], gy = p->down[i], e = gx * gx + gy * gy;
            w += g;
            m[0] += g * u;
            m[1] += g * v;
            m[2] += g * u * u;
            m[3] += g * v * v;
            m[4] += g * u * v;
            wx += gx * gx;
            wy += gy * gy;
            right[0] += gx * gx * u;
            right[1] += gx * gx * v;
            down[0] += gy * gy * u;
            down[1] += gy * gy * v;
            size += sqrt(e);
            square += e;
            cross += gx * gy;
        }
    f[6] = (float)(size / n);
    f[7] = (float)(log(wy) - log(wx));
    f[8] = log_of((square / n) / (size / n * size / n + 1e-9), 1e-6);
    for (int k = 0; k < 5; k++)
        f[9 + k] = (float)(m[k] / w);
    f[14] = (float)(right[0] / wx);
    f[15] = (float)(right[1] / wx);
    f[16] = (float)(down[0] / wy);
    f[17] = (float)(down[1] / wy);
    f[18] = (float)(cross / square);
}

/* How much there is of fine, middle and coarse detail: what is lost from one size to the half. In
 * place of the gradients. */
static int bands(struct picture *p, float *f, struct err *e)
{
    int n = p->rows * p->columns, rows = p->rows, columns = p->columns, rc = 0;
    float *small = p->down, *before = p->right;
    memcpy(before, p->grey, (size_t)n * sizeof *before);
    for (int k = 0; rc == 0 && k < 3; k++) {
        rows = (rows + 1) / 2;
        columns = (columns + 1) / 2;
        struct quality_image large = {.rows = p->rows, .columns = p->columns, .unit = p->grey};
        struct quality_image half = {.rows = rows, .columns = columns, .unit = small};
        rc = quality_resample(&large, small, rows, columns, e);
        if (rc == 0)
            rc = quality_resample(&half, p->spare, p->rows, p->columns, e);
        double lost = 0;
        for (int i = 0; rc == 0 && i < n; i++) {
            double d = before[i] - p->spare[i];
            lost += d * d;
            before[i] = p->spare[i];
        }
        f[19 + k] = log_of(lost / n, 1e-7);
    }
    return rc;
}

/* Strongest bright and dark lines: 99th percentiles of a second difference across them, after a
 * mean along them. across, along: from one pixel to the next of the picture with its border. */
static void ridges(struct picture *p, int across, int along, float *f)
{
    int n = p->rows * p->columns;
    for (int y = 0; y < p->rows; y++) {
        const float *from = p->first + y * p->wide_columns;
        float *to = p->spare + y * p->columns;
        for (int x = 0; x < p->columns; x++) {
            float sum = 0;
            for (int k = -2; k <= 2; k++) {
                const float *at = from + x + k * along;
                sum += -at[-across];
                sum += 2 * at[0];
                sum += -at[across];
            }
            to[x] = sum / 10;
        }
    }
    sort(p->spare, n, p->other);
    f[0] = part(p->spare, n, 0.99);
    f[1] = -part(p->spare, n, 0.01);
}

/* The first of n pixels that is in part i of parts. */
static int part_begin(int n, int i, int parts)
{
    return (i * n + parts - 1) / parts;
}

static void layout(const struct picture *p, float *cells, float *leans)
{
    double sum[QUALITY_CELLS] = {0}, count[QUALITY_CELLS] = {0};
    double xx[16] = {0}, yy[16] = {0}, xy[16] = {0}, all = 1e-9;
    for (int y = 0; y < p->rows; y++) {
        const float *grey = p->grey + y * p->columns;
        const float *right = p->right + y * p->columns, *down = p->down + y * p->columns;
        int cell = y * CELL_SIDE / p->rows * CELL_SIDE, lean = y * LEAN_SIDE / p->rows * LEAN_SIDE;
        for (int k = 0; k < CELL_SIDE; k++, cell++) {
            int begin = part_begin(p->columns, k, CELL_SIDE);
            int end = part_begin(p->columns, k + 1, CELL_SIDE);
            double here = sum[cell];
            for (int x = begin; x < end; x++)
                here += grey[x];
            sum[cell] = here;
            count[cell] += end - begin;
        }
        for (int k = 0; k < LEAN_SIDE; k++, lean++) {
            int end = part_begin(p->columns, k + 1, LEAN_SIDE);
            double xx_here = xx[lean], yy_here = yy[lean], xy_here = xy[lean];
            for (int x = part_begin(p->columns, k, LEAN_SIDE); x < end; x++) {
                double gx = right[x], gy = down[x];
                xx_here += gx * gx;
                yy_here += gy * gy;
                xy_here += gx * gy;
                all += gx * gx + gy * gy;
            }
            xx[lean] = xx_here;
            yy[lean] = yy_here;
            xy[lean] = xy_here;
        }
    }
    for (int i = 0; i < QUALITY_CELLS; i++)
        cells[i] = (float)(sum[i] / count[i]);
    for (int i = 0; i < LEAN_SIDE * LEAN_SIDE; i++) {
        double here = xx[i] + yy[i] + 0.1 * all / 16;
        leans[2 * i] = (float)((xx[i] - yy[i]) / here);
        leans[2 * i + 1] = (float)(2 * xy[i] / here);
    }
}

static int small_picture(const struct quality_image *image, struct picture *p, struct err *e)
{
    double factor = (double)GRID / (image->rows > image->columns ? image->rows : image->columns);
    p->rows = (int)lround(image->rows * factor);
    p->columns = (int)lround(image->columns * factor);
    p->rows = p->rows < GRID_MIN ? GRID_MIN : p->rows;
    p->columns = p->columns < GRID_MIN ? GRID_MIN : p->columns;
    p->wide_columns = p->columns + 2 * BORDER;
    size_t n = (size_t)p->rows * (size_t)p->columns;
    size_t wide = (size_t)(p->rows + 2 * BORDER) * (size_t)p->wide_columns;
    p->grey = malloc((5 * n + wide) * sizeof *p->grey);
    if (p->grey == NULL)
        return err_set(e, ERR_NOMEM, "looking at an image: no memory");
    p->down = p->grey + n;
    p->right = p->down + n;
    p->spare = p->right + n;
    p->other = p->spare + n;
    p->wide = p->other + n;
    p->first = p->wide + BORDER * (p->wide_columns + 1);
    return quality_resample(image, p->grey, p->rows, p->columns, e);
}

int quality_picture(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e)
{
    if (image->rows < QUALITY_SIDE_MIN || image->columns < QUALITY_SIDE_MIN)
        return err_set(e, ERR_REFUSED, "an image of %d x %d is too small to be looked at",
                       image->rows, image->columns);
    struct picture p = {0};
    int rc = small_picture(image, &p, e);
    if (rc == 0) {
        widen(&p);
        gradients(&p);
        levels(&p, out);
        moments(&p, out);
        ridges(&p, RIDGE_CANAL, p.wide_columns, out + 25);
        ridges(&p, RIDGE_DISC * p.wide_columns, 1, out + 27);
        layout(&p, out + QUALITY_SHAPE, out + QUALITY_SHAPE + QUALITY_CELLS);
        rc = quality_voids(p.grey, p.rows, p.columns, out + 29, e);
    }
    if (rc == 0)
        rc = bands(&p, out, e);
    free(p.grey);
    return rc;
}

int quality_features(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e)
{
    int rc = quality_picture(image, out, e);
    return rc == 0 ? quality_noise(image, out, e) : rc;
}
