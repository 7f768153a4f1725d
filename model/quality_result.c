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

#include "model/clones.h"
#include "model/quality_parts.h"

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

/* ---- blocks ---- */

/* The first of n pixels that is in block i. */
static int block_begin(int n, int i)
{
    return i * n / BLOCKS;
}

/* Adds a row of n values to the sums of its blocks: a value to each in turn, so that no sum waits
 * for itself. */
static void add_row(const double *row, int n, double sum[BLOCKS])
{
    const double *begin[BLOCKS];
    double here[BLOCKS];
    int least = n / BLOCKS; /* each block has so many, some one more */
    for (int k = 0; k < BLOCKS; k++) {
        begin[k] = row + block_begin(n, k);
        here[k] = sum[k];
    }
    for (int x = 0; x < least; x++)
        for (int k = 0; k < BLOCKS; k++)
            here[k] += begin[k][x];
    for (int k = 0; k < BLOCKS; k++)
        sum[k] =
            block_begin(n, k + 1) - block_begin(n, k) > least ? here[k] + begin[k][least] : here[k];
}

/* The mean of a block of values of which the sum is known, 0 if it is empty. */
static double block_mean(double sum, int rows, int row, int columns, int column)
{
    int count = (block_begin(rows, row + 1) - block_begin(rows, row)) *
                (block_begin(columns, column + 1) - block_begin(columns, column));
    return count > 0 ? sum / count : 0;
}

/* ---- super-resolution ---- */

/* Standard deviation of the noise of an image in 0 ... 1: as the feature of that name. */
static int noise_of(const struct quality_image *image, double *sigma, struct err *e)
{
    float features[QUALITY_FEATURES];
    int rc = quality_noise(image, features, e);
    if (rc == 0)
        *sigma = fmax(exp(features[QUALITY_NOISE]) - 1e-3, 0);
    return rc;
}

static int downsampled(struct quality_report *r, const struct quality_pair *p, struct err *e)
{
    int rows = p->source.rows, columns = p->source.columns;
    double sigma, sum = 0, worst = 0;
    size_t n = (size_t)rows * (size_t)columns;
    float *small = malloc((n + (size_t)columns) * sizeof *small), *spare;
    double *row = malloc((size_t)columns * sizeof *row);
    int rc =
        small != NULL && row != NULL ? 0 : err_set(e, ERR_NOMEM, "comparing a result: no memory");
    if (rc == 0)
        rc = quality_resample(&p->result, small, rows, columns, e);
    if (rc == 0)
        rc = noise_of(&p->source, &sigma, e);
    if (rc != 0)
        goto out;
    spare = small + n;
    for (int by = 0; by < BLOCKS; by++) {
        double here[BLOCKS] = {0};
        for (int y = block_begin(rows, by); y < block_begin(rows, by + 1); y++) {
            const float *source = quality_row(&p->source, y, spare), *other = small + y * columns;
            for (int x = 0; x < columns; x++) {
                double d = other[x] - source[x];
                row[x] = d * d;
            }
            add_row(row, columns, here);
        }
        for (int bx = 0; bx < BLOCKS; bx++) {
            sum += here[bx];
            worst = fmax(worst, block_mean(here[bx], rows, by, columns, bx));
        }
    }
    double expected = hypot(sigma, NOISE_LEAST);
    worst_of(r, QUALITY_DOWNSAMPLED, sqrt(sum / (double)n) / expected);
    worst_of(r, QUALITY_DOWNSAMPLED_BLOCK, sqrt(worst) / expected);
out:
    free(small);
    free(row);
    return rc;
}

/* ---- translation ---- */

/* A field of edges: direction and how sure it is, 0 ... 1. */
struct field {
    int rows, columns;
    float *right, *down;
};

/* The lengths of n edges. */
CLONES static void lengths(const float *right, const float *down, int n, float *length)
{
    for (int x = 0; x < n; x++) /* hypotf(), in line */
        length[x] = (float)sqrt((double)right[x] * right[x] + (double)down[x] * down[x]);
}

CLONES static void shorten(float *right, float *down, int n, float least)
{
    for (int i = 0; i < n; i++) {
        float size = sqrtf(right[i] * right[i] + down[i] * down[i] + least);
        right[i] /= size;
        down[i] /= size;
    }
}

/* small: as large as the field, spare: a row. */
static int field_of(const struct quality_image *image, struct field *f, float *small, float *length,
                    struct err *e)
{
    int rc = quality_resample(image, small, f->rows, f->columns, e);
    if (rc != 0)
        return rc;
    double mean = 0;
    int w = f->columns;
    for (int y = 1; y + 1 < f->rows; y++) {
        const float *from = small + y * w;
        float *right = f->right + y * w, *down = f->down + y * w;
        for (int x = 1; x + 1 < w; x++) {
            right[x] = from[x + 1] - from[x - 1];
            down[x] = from[x + w] - from[x - w];
        }
        lengths(right + 1, down + 1, w - 2, length);
        for (int x = 0; x < w - 2; x++)
            mean += length[x];
    }
    mean = 1e-4 + mean / (f->rows * w);
    shorten(f->right, f->down, f->rows * w, (float)(mean * mean));
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

#define MOVES (2 * REACH + 1)
/* A block with what is around it as far as it is moved. */
#define AROUND (BLOCK_SIDE + 2 * REACH)
/* More than a rough agreement may be off: none of its sums is of more than 80 terms one after the
 * other, none of which is negative, so that each sum is off by at most 80 roundings of 6e-8. */
#define ROUGH 1e-4f

#define LANES 8
typedef float v8 __attribute__((vector_size(32)));

/* The fourth powers of the lengths of the edges of a block of f, moved by each way, added up. */
CLONES static void rough_powers(const struct field *f, int top, int left, float out[MOVES][MOVES])
{
    v8 power[AROUND][AROUND / LANES], right, down;
    for (int y = 0; y < AROUND; y++)
        for (int x = 0; x < AROUND / LANES; x++) {
            int i = (top - REACH + y) * f->columns + left - REACH + x * LANES;
            memcpy(&right, f->right + i, sizeof right);
            memcpy(&down, f->down + i, sizeof down);
            v8 square = right * right + down * down;
            power[y][x] = square * square;
        }
    for (int k = 0; k < MOVES; k++) {
        v8 sum[AROUND / LANES] = {{0}};
        float column[AROUND];
        for (int y = 0; y < BLOCK_SIDE; y++)
            for (int x = 0; x < AROUND / LANES; x++)
                sum[x] += power[k + y][x];
        for (int x = 0; x < AROUND; x++)
            column[x] = sum[x / LANES][x % LANES];
        for (int m = 0; m < MOVES; m++)
            out[k][m] = 1e-9f;
        for (int x = 0; x < BLOCK_SIDE; x++)
            for (int m = 0; m < MOVES; m++)
                out[k][m] += column[x + m];
    }
}

/* The squares of what edges of a block have in common with those of b moved by dy and by each of
 * -REACH ... REACH columns, added up. */
CLONES static void rough_common(const struct field *a, const struct field *b, int top, int left,
                                int dy, float out[MOVES])
{
    v8 sum[MOVES] = {{0}};
    for (int y = top; y < top + BLOCK_SIDE; y++)
        for (int x = left; x < left + BLOCK_SIDE; x += LANES) {
            int i = y * a->columns + x, k = (y + dy) * a->columns + x - REACH;
            v8 right, down, other_right, other_down;
            memcpy(&right, a->right + i, sizeof right);
            memcpy(&down, a->down + i, sizeof down);
#pragma GCC unroll 16 /* the sums in registers */
            for (int m = 0; m < MOVES; m++) {
                memcpy(&other_right, b->right + k + m, sizeof other_right);
                memcpy(&other_down, b->down + k + m, sizeof other_down);
                v8 dot = right * other_right + down * other_down;
                sum[m] += dot * dot;
            }
        }
    for (int m = 0; m < MOVES; m++) {
        out[m] = 0;
        for (int k = 0; k < LANES; k++)
            out[m] += sum[m][k];
    }
}

/* Are the structures of a block those of b some way off? The first best way says so, by
 * agreement(); but that is 81 long sums, and which way it is is clear from rough ones unless one
 * that is near and one that is far are equally good. */
static bool is_moved(const struct field *a, const struct field *b, int top, int left, double here)
{
    float power[MOVES][MOVES], own[MOVES][MOVES], rough[MOVES][MOVES];
    float near = 0, far = 0;
    rough_powers(a, top, left, own);
    rough_powers(b, top, left, power);
    for (int k = 0; k < MOVES; k++) {
        rough_common(a, b, top, left, k - REACH, rough[k]);
        for (int m = 0; m < MOVES; m++) {
            rough[k][m] /= sqrtf(own[REACH][REACH] * power[k][m]);
            if (abs(k - REACH) < MOVED && abs(m - REACH) < MOVED)
                near = fmaxf(near, rough[k][m]);
            else
                far = fmaxf(far, rough[k][m]);
        }
    }
    if (fabsf(far - near) > ROUGH)
        return far > near;
    double best = here;
    bool moved = false;
    for (int k = 0; k < MOVES; k++)
        for (int m = 0; m < MOVES; m++) {
            if (rough[k][m] < fmaxf(near, far) - ROUGH)
                continue;
            double there = agreement(a, b, top, left, top + BLOCK_SIDE, left + BLOCK_SIDE,
                                     k - REACH, m - REACH);
            if (there > best) {
                best = there;
                moved = abs(k - REACH) >= MOVED || abs(m - REACH) >= MOVED;
            }
        }
    return moved;
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

static void compare_fields(struct quality_report *r, const struct field *a, const struct field *b)
{
    int top = REACH + 1, left = REACH + 1, bottom = a->rows - top, right = a->columns - left;
    int blocks = 0, moved = 0;
    double worst = 0;
    worst_of(r, QUALITY_STRUCTURE, 1 - agreement(a, b, top, left, bottom, right, 0, 0));
    for (int y = top; y + BLOCK_SIDE <= bottom; y += BLOCK_SIDE)
        for (int x = left; x + BLOCK_SIDE <= right; x += BLOCK_SIDE) {
            if (substance(a, b, y, x, y + BLOCK_SIDE, x + BLOCK_SIDE) < 0.25)
                continue;
            double here = agreement(a, b, y, x, y + BLOCK_SIDE, x + BLOCK_SIDE, 0, 0);
            blocks++;
            moved += is_moved(a, b, y, x, here);
            worst = fmax(worst, 1 - here);
        }
    if (blocks > 0) {
        worst_of(r, QUALITY_STRUCTURE_BLOCK, worst);
        worst_of(r, QUALITY_MOVED, (double)moved / blocks);
    }
}

static int structure(struct quality_report *r, const struct quality_pair *p, struct err *e)
{
    int longer = p->source.rows > p->source.columns ? p->source.rows : p->source.columns;
    double factor = (double)EDGE_SIDE / longer;
    int rows = (int)lround(p->source.rows * factor);
    int columns = (int)lround(p->source.columns * factor);
    if (rows < 2 * REACH + 3 || columns < 2 * REACH + 3)
        return 0;
    size_t n = (size_t)rows * (size_t)columns;
    float *memory = calloc(5 * n + (size_t)columns, sizeof *memory);
    if (memory == NULL)
        return err_set(e, ERR_NOMEM, "comparing a result: no memory");
    struct field a = {rows, columns, memory, memory + n};
    struct field b = {rows, columns, memory + 2 * n, memory + 3 * n};
    float *small = memory + 4 * n, *length = small + n;
    int rc = field_of(&p->source, &a, small, length, e);
    if (rc == 0)
        rc = field_of(&p->result, &b, small, length, e);
    if (rc == 0)
        compare_fields(r, &a, &b);
    free(memory);
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

/* A row brought back: moved by step pixels; the rest repeats the edge. */
static void undo_row(enum quality_way way, const float *from, int columns, int step, float *to)
{
    int inside = columns > step ? columns - step : 0;
    for (int x = 0; x < columns - inside; x++)
        to[way & QUALITY_FLIP ? x : inside + x] = from[columns - 1];
    if (way & QUALITY_FLIP)
        for (int x = 0; x < inside; x++)
            to[columns - 1 - x] = from[x + step];
    else
        memcpy(to, from + step, (size_t)inside * sizeof *to);
}

void quality_undo(enum quality_way way, const float *in, int rows, int columns, int scale,
                  float *out)
{
    int step = way & QUALITY_SHIFT ? scale : 0;
    for (int y = 0; y < rows; y++)
        undo_row(way, in + (size_t)(y + step < rows ? y + step : rows - 1) * (size_t)columns,
                 columns, step, out + (size_t)y * (size_t)columns);
}

int quality_disagreement(struct quality_report *r, const struct quality_image *result,
                         const struct quality_image *second, enum quality_way way, int scale,
                         struct err *e)
{
    int rows = result->rows, columns = result->columns;
    int border = BORDER * scale, step = way & QUALITY_SHIFT ? scale : 0;
    int height = rows - 2 * border, width = columns - 2 * border;
    double sum = 0, worst = 0;
    if (height < BLOCKS || width < BLOCKS)
        return 0;
    float *spare = malloc(3 * (size_t)columns * sizeof *spare);
    double *row = malloc((size_t)width * sizeof *row);
    if (spare == NULL || row == NULL) {
        free(spare);
        free(row);
        return err_set(e, ERR_NOMEM, "comparing a result: no memory");
    }
    float *there = spare + columns, *back = there + columns;
    for (int by = 0; by < BLOCKS; by++) {
        double here[BLOCKS] = {0};
        for (int y = border + block_begin(height, by); y < border + block_begin(height, by + 1);
             y++) {
            const float *first = quality_row(result, y, spare) + border;
            undo_row(way, quality_row(second, y + step < rows ? y + step : rows - 1, there),
                     columns, step, back);
            for (int x = 0; x < width; x++)
                row[x] = fabs(first[x] - back[border + x]);
            add_row(row, width, here);
        }
        for (int bx = 0; bx < BLOCKS; bx++) {
            sum += here[bx];
            worst = fmax(worst, block_mean(here[bx], height, by, width, bx));
        }
    }
    worst_of(r, QUALITY_DISAGREEMENT, sum / ((double)height * width));
    worst_of(r, QUALITY_DISAGREEMENT_BLOCK, worst);
    free(spare);
    free(row);
    return 0;
}
