/*
 * quality_result.c - is a result still its source? see quality.h
 *
 * Edges are compared as normalised gradient fields (Haber and Modersitzki, Methods Inf Med 46,
 * 2007): directions count, their sign and the contrast do not, so that a T1 and a T2 of the same
 * anatomy agree.
 */
#include "model/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/prepare.h"

/* Longer side of the pictures in which edges are compared, and of their blocks. */
#define EDGE_SIDE  192
#define BLOCK_SIDE 24
/* Blocks of other figures, along each side. */
#define BLOCKS 8
/* So far a block's structures are looked for, and from there on they count as moved. */
#define REACH 4
#define MOVED 2
/* Noise that a source has at least, for the comparison of a result made small again. */
#define NOISE_LEAST 0.01
/* Pixels of the source along its border that are not compared. */
#define BORDER 4

static void worst_of(struct quality_report *r, enum quality_figure f, double value)
{
    if (!(value <= r->figure[f])) /* also where that is NAN */
        r->figure[f] = value;
}

/* ---- super-resolution ---- */

/* Standard deviation of the noise of an image in 0 ... 1: as the feature of that name. */
static int noise_of(const struct quality_pair *p, double *sigma, struct err *e)
{
    float features[QUALITY_FEATURES];
    int rc = quality_features(p->source, p->rows, p->columns, features, e);
    if (rc == 0)
        *sigma = fmax(exp(features[22]) - 1e-3, 0);
    return rc;
}

static int downsampled(struct quality_report *r, const struct quality_pair *p, struct err *e)
{
    double sigma, sum = 0, worst = 0;
    size_t n = (size_t)p->rows * (size_t)p->columns;
    float *small = malloc(n * sizeof *small);
    int rc = small != NULL ? 0 : err_set(e, ERR_NOMEM, "comparing a result: no memory");
    if (rc == 0)
        rc = prepare_resample(p->result, p->rows * p->scale, p->columns * p->scale, small, p->rows,
                              p->columns, e);
    if (rc == 0)
        rc = noise_of(p, &sigma, e);
    if (rc != 0)
        goto out;
    for (int by = 0; by < BLOCKS; by++)
        for (int bx = 0; bx < BLOCKS; bx++) {
            double here = 0;
            int count = 0;
            for (int y = by * p->rows / BLOCKS; y < (by + 1) * p->rows / BLOCKS; y++)
                for (int x = bx * p->columns / BLOCKS; x < (bx + 1) * p->columns / BLOCKS; x++) {
                    double d = small[y * p->columns + x] - p->source[y * p->columns + x];
                    here += d * d;
                    count++;
                }
            sum += here;
            worst = fmax(worst, count > 0 ? here / count : 0);
        }
    double expected = hypot(sigma, NOISE_LEAST);
    worst_of(r, QUALITY_DOWNSAMPLED, sqrt(sum / (double)n) / expected);
    worst_of(r, QUALITY_DOWNSAMPLED_BLOCK, sqrt(worst) / expected);
out:
    free(small);
    return rc;
}

/* ---- translation ---- */

/* A field of edges: direction and how sure it is, 0 ... 1. */
struct field {
    int rows, columns;
    float *right, *down;
};

static int field_of(const float *image, int rows, int columns, struct field *f, float *small,
                    struct err *e)
{
    int rc = prepare_resample(image, rows, columns, small, f->rows, f->columns, e);
    if (rc != 0)
        return rc;
    double mean = 0;
    int w = f->columns;
    for (int y = 1; y + 1 < f->rows; y++)
        for (int x = 1; x + 1 < w; x++) {
            int i = y * w + x;
            f->right[i] = small[i + 1] - small[i - 1];
            f->down[i] = small[i + w] - small[i - w];
            /* hypotf(), in line */
            mean +=
                (float)sqrt((double)f->right[i] * f->right[i] + (double)f->down[i] * f->down[i]);
        }
    mean = 1e-4 + mean / (f->rows * w);
    for (int i = 0; i < f->rows * w; i++) {
        float size =
            sqrtf(f->right[i] * f->right[i] + f->down[i] * f->down[i] + (float)(mean * mean));
        f->right[i] /= size;
        f->down[i] /= size;
    }
    return 0;
}

/* 0 ... 1: how far the edges of a within a block are those of b, b moved by (dy, dx). */
static double agreement(const struct field *a, const struct field *b, int top, int left, int bottom,
                        int right, int dy, int dx)
{
    double both = 0, aa = 1e-9, bb = 1e-9;
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            int i = y * a->columns + x, k = (y + dy) * a->columns + x + dx;
            double dot = a->right[i] * b->right[k] + a->down[i] * b->down[k];
            double sa = a->right[i] * a->right[i] + a->down[i] * a->down[i];
            double sb = b->right[k] * b->right[k] + b->down[k] * b->down[k];
            both += dot * dot;
            aa += sa * sa;
            bb += sb * sb;
        }
    return both / sqrt(aa * bb);
}

/* Columns by which a block is moved: -REACH ... REACH, and one more that nobody asks for. */
#define MOVES 10

/* The same function for several instruction sets, the best of which is taken: all give the same
 * bits, as long as none of them multiplies and adds at once. */
#if defined(__x86_64__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

/* The fourth powers of the lengths of n edges. */
static void fourth_powers(const struct field *f, int n, double *out)
{
    for (int i = 0; i < n; i++) {
        float square = f->right[i] * f->right[i] + f->down[i] * f->down[i];
        out[i] = (double)square * square;
    }
}

/* agreement() with b moved by dy and each of -REACH ... REACH columns: the same sums, side by side.
 * power: fourth_powers() of a and of b. */
CLONES static void agreements(const struct field *a, const struct field *b,
                              const double *const power[2], int top, int left, int bottom,
                              int right, int dy, double out[2 * REACH + 1])
{
    double both[MOVES] = {0}, aa = 1e-9, bb[MOVES];
    for (int m = 0; m < MOVES; m++)
        bb[m] = 1e-9;
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            int i = y * a->columns + x, k = (y + dy) * a->columns + x - REACH;
            float ar = a->right[i], ad = a->down[i];
            const float *br = b->right + k, *bd = b->down + k;
            aa += power[0][i];
            for (int m = 0; m < MOVES; m++) {
                float dot = ar * br[m] + ad * bd[m];
                both[m] += (double)dot * dot;
                bb[m] += power[1][k + m];
            }
        }
    for (int m = 0; m < 2 * REACH + 1; m++)
        out[m] = both[m] / sqrt(aa * bb[m]);
}

/* How much of edges a block has, in both. */
static double substance(const struct field *a, const struct field *b, int top, int left, int bottom,
                        int right)
{
    double sa = 0, sb = 0;
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            int i = y * a->columns + x;
            sa += a->right[i] * a->right[i] + a->down[i] * a->down[i];
            sb += b->right[i] * b->right[i] + b->down[i] * b->down[i];
        }
    int n = (bottom - top) * (right - left);
    return fmin(sa, sb) / (n > 0 ? n : 1);
}

static void compare_fields(struct quality_report *r, const struct field *a, const struct field *b,
                           const double *const power[2])
{
    int top = REACH + 1, left = REACH + 1, bottom = a->rows - top, right = a->columns - left;
    int blocks = 0, moved = 0;
    double worst = 0;
    worst_of(r, QUALITY_STRUCTURE, 1 - agreement(a, b, top, left, bottom, right, 0, 0));
    for (int y = top; y + BLOCK_SIDE <= bottom; y += BLOCK_SIDE)
        for (int x = left; x + BLOCK_SIDE <= right; x += BLOCK_SIDE) {
            if (substance(a, b, y, x, y + BLOCK_SIDE, x + BLOCK_SIDE) < 0.25)
                continue;
            double here = agreement(a, b, y, x, y + BLOCK_SIDE, x + BLOCK_SIDE, 0, 0), best = here;
            int far = 0;
            for (int dy = -REACH; dy <= REACH; dy++) {
                double there[2 * REACH + 1];
                agreements(a, b, power, y, x, y + BLOCK_SIDE, x + BLOCK_SIDE, dy, there);
                for (int dx = -REACH; dx <= REACH; dx++)
                    if (there[dx + REACH] > best) {
                        best = there[dx + REACH];
                        far = abs(dy) > abs(dx) ? abs(dy) : abs(dx);
                    }
            }
            blocks++;
            moved += far >= MOVED;
            worst = fmax(worst, 1 - here);
        }
    if (blocks > 0) {
        worst_of(r, QUALITY_STRUCTURE_BLOCK, worst);
        worst_of(r, QUALITY_MOVED, (double)moved / blocks);
    }
}

static int structure(struct quality_report *r, const struct quality_pair *p, struct err *e)
{
    double factor = (double)EDGE_SIDE / (p->rows > p->columns ? p->rows : p->columns);
    int rows = (int)lround(p->rows * factor), columns = (int)lround(p->columns * factor);
    if (rows < 2 * REACH + 3 || columns < 2 * REACH + 3)
        return 0;
    size_t n = (size_t)rows * (size_t)columns;
    float *memory = calloc(5 * n, sizeof *memory);
    double *power = malloc(2 * n * sizeof *power);
    if (memory == NULL || power == NULL) {
        free(memory);
        free(power);
        return err_set(e, ERR_NOMEM, "comparing a result: no memory");
    }
    struct field a = {rows, columns, memory, memory + n};
    struct field b = {rows, columns, memory + 2 * n, memory + 3 * n};
    int rc = field_of(p->source, p->rows, p->columns, &a, memory + 4 * n, e);
    if (rc == 0)
        rc = field_of(p->result, p->rows, p->columns, &b, memory + 4 * n, e);
    if (rc == 0) {
        fourth_powers(&a, (int)n, power);
        fourth_powers(&b, (int)n, power + n);
        compare_fields(r, &a, &b, (const double *const[]){power, power + n});
    }
    free(memory);
    free(power);
    return rc;
}

int quality_result(struct quality_report *r, const struct quality_pair *pair, struct err *e)
{
    return pair->scale > 1 ? downsampled(r, pair, e) : structure(r, pair, e);
}

void quality_add(struct quality_report *r, const struct quality_report *other)
{
    for (int i = QUALITY_UNLIKE + 1; i < QUALITY_FIGURE_COUNT; i++)
        if (!isnan(other->figure[i]))
            worst_of(r, (enum quality_figure)i, other->figure[i]);
}

/* ---- a second opinion ---- */

void quality_do(enum quality_way way, const float *in, int rows, int columns, float *out)
{
    int step = way & QUALITY_SHIFT ? 1 : 0;
    for (int y = 0; y < rows; y++) {
        const float *from = in + (size_t)(y > step ? y - step : 0) * (size_t)columns;
        float *to = out + (size_t)y * (size_t)columns;
        float first = way & QUALITY_FLIP ? from[columns - 1] : from[0];
        for (int x = 0; x < step && x < columns; x++)
            to[x] = first;
        if (way & QUALITY_FLIP)
            for (int x = step; x < columns; x++)
                to[x] = from[columns - 1 - (x - step)];
        else if (columns > step)
            memcpy(to + step, from, (size_t)(columns - step) * sizeof *to);
    }
}

void quality_undo(enum quality_way way, const float *in, int rows, int columns, int scale,
                  float *out)
{
    int step = way & QUALITY_SHIFT ? scale : 0;
    for (int y = 0; y < rows; y++) {
        const float *from = in + (size_t)(y + step < rows ? y + step : rows - 1) * (size_t)columns;
        float *to = out + (size_t)y * (size_t)columns;
        int inside = columns > step ? columns - step : 0; /* the rest repeats the edge */
        for (int x = 0; x < columns - inside; x++)
            to[way & QUALITY_FLIP ? x : inside + x] = from[columns - 1];
        if (way & QUALITY_FLIP)
            for (int x = 0; x < inside; x++)
                to[columns - 1 - x] = from[x + step];
        else
            memcpy(to, from + step, (size_t)inside * sizeof *to);
    }
}

void quality_disagreement(struct quality_report *r, const float *result, const float *second,
                          int rows, int columns, int scale)
{
    int border = BORDER * scale;
    int height = rows - 2 * border, width = columns - 2 * border;
    double sum = 0, worst = 0;
    if (height < BLOCKS || width < BLOCKS)
        return;
    for (int by = 0; by < BLOCKS; by++)
        for (int bx = 0; bx < BLOCKS; bx++) {
            double here = 0;
            int count = 0;
            for (int y = by * height / BLOCKS; y < (by + 1) * height / BLOCKS; y++)
                for (int x = bx * width / BLOCKS; x < (bx + 1) * width / BLOCKS; x++) {
                    size_t i = (size_t)(y + border) * (size_t)columns + (size_t)(x + border);
                    here += fabs(result[i] - second[i]);
                    count++;
                }
            sum += here;
            worst = fmax(worst, here / count);
        }
    worst_of(r, QUALITY_DISAGREEMENT, sum / ((double)height * width));
    worst_of(r, QUALITY_DISAGREEMENT_BLOCK, worst);
}
