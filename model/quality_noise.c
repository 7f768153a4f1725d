/*
 * quality_noise.c - how noisy an image is; see quality.h
 *
 * The standard deviation of the noise by the median of a filter that answers to nothing smooth
 * (after Immerkaer, CVIU 64, 1996). The answers are not kept, which would take as much memory as
 * the image: they are made twice, first to be counted by the upper part of their bits, then to pick
 * those few that share it with the median.
 */
#include "model/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/clones.h"

/* Answers are not negative, so that their bits are in their order. Counted are the upper ones: all
 * but LOW, which are found out by two digits. */
#define LOW    18
#define DIGIT  9
#define PLACES (1 << (31 - LOW))
/* From here on they are of answers that are not finite. */
#define INFINITE (0x7f800000 >> LOW)

/* How many answers are looked at together: of most pieces none is picked. */
#define PIECE 16

struct answers {
    const struct quality_image *image;
    int width;           /* of a row of them */
    float *spare;        /* for three rows of the image */
    const float *row[3]; /* row y of the image: y % 3 */
    uint32_t *bits;      /* of a row of answers; up to a whole PIECE more what no answer is */
};

CLONES static void filter(const float *a, const float *b, const float *c, int n, uint32_t *bits)
{
    for (int x = 0; x < n; x++) {
        float answer = fabsf(a[x] - 2 * a[x + 1] + a[x + 2] - 2 * b[x] + 4 * b[x + 1] -
                             2 * b[x + 2] + c[x] - 2 * c[x + 1] + c[x + 2]);
        memcpy(bits + x, &answer, sizeof answer);
    }
}

/* Those around row y of the image, 1 ... rows - 2: from the first to the last. */
static void answer_row(struct answers *w, int y)
{
    for (int k = y == 1 ? 0 : y + 1; k <= y + 1; k++)
        w->row[k % 3] =
            quality_row(w->image, k, w->spare + (size_t)(k % 3) * (size_t)w->image->columns);
    filter(w->row[(y - 1) % 3], w->row[y % 3], w->row[(y + 1) % 3], w->width, w->bits);
}

/* How many there are at each place. By turns into two tables: many of the same one after the other
 * would each wait for the one before. */
static void count(struct answers *w, uint32_t counts[PLACES])
{
    uint32_t odd[PLACES] = {0};
    memset(counts, 0, PLACES * sizeof *counts);
    for (int y = 1; y + 1 < w->image->rows; y++) {
        answer_row(w, y);
        int x = 0;
        for (; x + 2 <= w->width; x += 2) {
            counts[w->bits[x] >> LOW]++;
            odd[w->bits[x + 1] >> LOW]++;
        }
        for (; x < w->width; x++)
            counts[w->bits[x] >> LOW]++;
    }
    for (int i = 0; i < PLACES; i++)
        counts[i] += odd[i];
}

typedef uint32_t bits_8 __attribute__((vector_size(32)));
typedef int64_t lanes_4 __attribute__((vector_size(32)));

/* The bits that are low ... low + span - 1. picked: with room for one more. */
CLONES static void pick(struct answers *w, uint32_t low, uint32_t span, uint32_t *picked)
{
    size_t n = 0;
    for (int y = 1; y + 1 < w->image->rows; y++) {
        answer_row(w, y);
        for (int x = 0; x < w->width; x += PIECE) {
            bits_8 a, b;
            memcpy(&a, w->bits + x, sizeof a);
            memcpy(&b, w->bits + x + PIECE / 2, sizeof b);
            lanes_4 any = (lanes_4)((a - low < span) | (b - low < span));
            if ((any[0] | any[1] | any[2] | any[3]) == 0)
                continue;
            for (int k = x; k < x + PIECE; k++) { /* no branch, which nobody could foretell */
                picked[n] = w->bits[k];
                n += w->bits[k] - low < span;
            }
        }
    }
}

/* The rank-th (from 0) of those of n that are at a place. */
static float ranked(const uint32_t *bits, size_t n, uint32_t place, size_t rank)
{
    float value;
    for (int shift = LOW - DIGIT; shift >= 0; shift -= DIGIT) {
        size_t counts[1 << DIGIT] = {0};
        uint32_t digit = 0;
        for (size_t i = 0; i < n; i++)
            if (bits[i] >> (shift + DIGIT) == place)
                counts[bits[i] >> shift & ((1 << DIGIT) - 1)]++;
        while (rank >= counts[digit])
            rank -= counts[digit++];
        place = place << DIGIT | digit;
    }
    memcpy(&value, &place, sizeof value);
    return value;
}

/* Linear between the two in the middle, as a percentile. */
static int median_of(struct answers *w, double *median, struct err *e)
{
    uint32_t counts[PLACES], first = 0;
    count(w, counts);
    for (int i = INFINITE; i < PLACES; i++)
        if (counts[i] != 0)
            return err_set(e, ERR_NUMERIC, "a pixel value is not a finite number");
    size_t n = (size_t)(w->image->rows - 2) * (size_t)w->width, rank = (n - 1) / 2;
    while (rank >= counts[first])
        rank -= counts[first++];
    size_t room = counts[first], other = rank + (n % 2 == 0);
    uint32_t last = first; /* the place of the other one */
    if (other >= room) {
        while (counts[++last] == 0)
            ;
        room += counts[last];
        other = 0;
    }
    uint32_t *picked = malloc((room + 1) * sizeof *picked);
    if (picked == NULL)
        return err_set(e, ERR_NOMEM, "looking at an image: no memory");
    pick(w, first << LOW, (last - first + 1) << LOW, picked);
    double a = ranked(picked, room, first, rank), b = ranked(picked, room, last, other);
    *median = a + (b - a) * 0.5;
    free(picked);
    return 0;
}

int quality_noise(const struct quality_image *image, float out[QUALITY_FEATURES], struct err *e)
{
    size_t columns = (size_t)image->columns;
    struct answers w = {.image = image, .width = image->columns - 2};
    double median;
    if (image->rows < QUALITY_SIDE_MIN || image->columns < QUALITY_SIDE_MIN)
        return err_set(e, ERR_REFUSED, "an image of %d x %d is too small to be looked at",
                       image->rows, image->columns);
    w.spare = malloc(3 * columns * sizeof *w.spare);
    w.bits = malloc((columns + PIECE) * sizeof *w.bits);
    int rc = w.spare != NULL && w.bits != NULL
                 ? 0
                 : err_set(e, ERR_NOMEM, "looking at an image: no memory");
    if (rc == 0) {
        memset(w.bits, 0xff, (columns + PIECE) * sizeof *w.bits);
        rc = median_of(&w, &median, e);
    }
    if (rc == 0)
        out[QUALITY_NOISE] = (float)log(median / 0.6745 / 6 + 1e-3);
    free(w.spare);
    free(w.bits);
    return rc;
}
